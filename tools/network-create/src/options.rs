//! The options of a driver, `-o KEY=VALUE`, and what there is one of for each IP version.

use attachment::{Further, Gateway, Gateways};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toolkit::prelude::*;

use super::NetworkCreate;

/// Docker's name of the option `mtu`.
const MTU: &str = "com.docker.network.driver.mtu";

/// podman's options about the containers' default route.
const OF_ROUTES: [&str; 2] = ["metric", "no_default_route"];

/// The subnets and their ranges, by IP version.
#[derive(Debug, Default)]
pub(crate) struct Nets {
    pub(crate) subnet: Option<Ipv4Net>,
    pub(crate) range: Option<Ipv4Net>,
    pub(crate) subnet6: Option<Ipv6Net>,
    pub(crate) range6: Option<Ipv6Net>,
    /// The subnets after the first of each IP version.
    pub(crate) further: Vec<Further>,
    /// The gateways of the others.
    gateways: Vec<Gateway>,
}

/// The networks of a flag, one of each IP version. `other` is that of the flag for IPv6 alone.
fn by_version(
    flag: &str,
    given: &[IpNet],
    other: Option<Ipv6Net>,
) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>)> {
    let (mut v4, mut v6) = (None, None);
    for net in given.iter().copied().chain(other.map(IpNet::V6)) {
        let before = match net {
            IpNet::V4(net) => v4.replace(net).map(IpNet::V4),
            IpNet::V6(net) => v6.replace(net).map(IpNet::V6),
        };
        if let Some(before) = before {
            bail!("{flag} {before} and {net}: a network has one for each IP version");
        }
    }
    Ok((v4, v6))
}

impl NetworkCreate {
    /// The subnets and ranges that were asked for.
    pub(crate) fn nets(&self) -> Result<Nets> {
        let (mut subnets, mut ranges, mut gateways) =
            (self.subnets.clone(), self.ranges.clone(), self.gateways.clone());
        let further = Further::take(&mut subnets, &mut gateways, &mut ranges);
        let (subnet, subnet6) = by_version("--subnet", &subnets, self.subnet6)?;
        let (range, range6) = by_version("--ip-range", &ranges, self.ip6_range)?;
        Ok(Nets { subnet, range, subnet6, range6, further, gateways })
    }

    /// Whether the containers get no address.
    pub(crate) fn has_no_addresses(&self) -> bool {
        ["none", "null"].contains(&self.ipam_driver.as_str())
    }

    /// The value of an option: the last one, as for all flags.
    pub(crate) fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find(|(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// The gateways. Without IPv4, no flag is about it.
    pub(crate) fn gateways(&self, nets: &Nets) -> Result<Gateways> {
        let found = attachment::gateways(&nets.gateways, self.ipv4, nets.subnet, nets.range);
        found.map_err(|wrong| anyhow!(wrong))
    }

    /// Refuses options that no network has, and that are none of `own`.
    pub(crate) fn refuse_options(&self, own: &[&str]) -> Result<()> {
        let is_known =
            |key: &str| ["mtu", MTU].iter().chain(&OF_ROUTES).chain(own).any(|known| *known == key);
        match self.options.iter().find(|(key, _)| !is_known(key)) {
            Some((key, _)) => bail!("-o {key} is not for the driver {}", self.driver),
            None => Ok(()),
        }
    }

    /// The options about the containers' default route, for the network's file.
    pub(crate) fn of_routes(&self) -> impl Iterator<Item = (&'static str, String)> {
        OF_ROUTES.into_iter().filter_map(|key| Some((key, self.option(key)?.to_owned())))
    }

    /// The MTU from either flag.
    pub(crate) fn mtu(&self) -> Result<Option<String>> {
        let given = self.option("mtu").or(self.option(MTU)).map(str::to_owned);
        match &given {
            Some(value) if attachment::parse_mtu(value).is_none() => {
                bail!("-o mtu={value} is not 68 to 65535 bytes")
            }
            _ => Ok(self.mtu.map(|mtu| mtu.to_string()).or(given)),
        }
    }
}
