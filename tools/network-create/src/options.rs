//! The options of a driver, `-o KEY=VALUE`, and the gateways.

use attachment::Gateways;
use toolkit::prelude::*;

use super::NetworkCreate;

impl NetworkCreate {
    /// The value of an option: the last one, as for all flags.
    pub(crate) fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find(|(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// The gateways. Without IPv4, no flag is about it.
    pub(crate) fn gateways(&self) -> Result<Gateways> {
        let found = attachment::gateways(&self.gateways, self.ipv4, self.subnet, self.ip_range);
        found.map_err(|wrong| anyhow!(wrong))
    }

    /// The MTU from either flag.
    pub(crate) fn mtu(&self) -> Result<Option<String>> {
        let given = self.option("mtu").map(str::to_owned);
        match &given {
            Some(value) if !value.parse().is_ok_and(|mtu: u32| (68..=65535).contains(&mtu)) => {
                bail!("-o mtu={value} is not 68 to 65535 bytes")
            }
            _ => Ok(self.mtu.map(|mtu| mtu.to_string()).or(given)),
        }
    }
}
