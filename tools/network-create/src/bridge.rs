//! Networks on a bridge.

use attachment::named::{self, File, Named};
use document::members::GatewayMode;
use ipnet::IpNet;
use toolkit::prelude::*;

use super::NetworkCreate;

/// Docker's options of a bridge (docs.docker.com, "Bridge network driver").
const NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";

impl NetworkCreate {
    /// The bridge's name.
    pub(crate) fn bridge(&self) -> Result<String> {
        let of_docker = || self.option(NAME).map(attachment::parse_name).transpose();
        let given = match &self.bridge {
            Some(name) => Some(name.clone()),
            None => of_docker().map_err(|wrong| anyhow!("-o {NAME}: {wrong}"))?,
        };
        Ok(given.unwrap_or_else(|| named::bridge_of(&self.name)))
    }

    /// The gateway mode, from the flag or from Docker's options. Each of these counts for its own version of IP.
    fn mode(&self, has_ipv6: bool) -> Result<GatewayMode> {
        let of =
            |option: &str| -> Result<GatewayMode> { Ok(self.docker(option)?.unwrap_or(self.gateway_mode)) };
        let (four, six) = (of(MODE4)?, of(MODE6)?);
        match (self.ipv4, has_ipv6) {
            (true, true) if four != six => {
                bail!("-o {MODE4} and -o {MODE6} differ: a network has one gateway mode")
            }
            (true, _) => Ok(four),
            _ => Ok(six),
        }
    }

    /// The value of one of Docker's options.
    fn docker<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        let parse = |value: &str| value.parse().map_err(|_| anyhow!("-o {key} cannot be {value:?}"));
        self.option(key).map(parse).transpose()
    }

    /// The network on a bridge with this name.
    pub(crate) fn on_bridge(&self, bridge: &str, others: &[Named]) -> Result<File> {
        self.refuse_options(&[NAME, ICC, MODE4, MODE6, "isolate"])?;
        if self.has_no_addresses() {
            bail!("--ipam-driver {} is not for the driver bridge", self.ipam_driver);
        }
        let nets = self.nets()?;
        let gateways = self.gateways(&nets)?;
        let (subnet, subnet6) = named::subnets(
            self.ipv4,
            nets.subnet,
            self.ipv6,
            nets.subnet6,
            self.ndp_proxy.as_deref(),
            others,
        )?;
        let mut file = File::new(&self.name, "bridge", bridge);
        let range = nets.range.map(Into::into);
        let v4 = subnet.map(|subnet| named::subnet(subnet.into(), gateways.v4, range)).transpose()?;
        file.subnets.extend(v4);
        let (gateway, range) = (gateways.v6, nets.range6.map(Into::into));
        match subnet6 {
            Some(subnet6) => file.subnets.push(named::subnet(subnet6.into(), gateway, range)?),
            None if range.is_some() => bail!("--ip6-range needs --ipv6 or --subnet6"),
            None if gateway.address().is_some() => bail!("a --gateway of IPv6 needs --ipv6 or --subnet6"),
            None => {}
        }
        let first = [subnet.map(IpNet::V4), subnet6.map(IpNet::V6)];
        file.subnets.extend(named::further(&nets.further, &first, others)?);
        file.ipv6_enabled = subnet6.is_some();
        file.internal = self.internal;
        let (icc, mode) = (self.icc && self.docker(ICC)?.unwrap_or(true), self.mode(subnet6.is_some())?);
        let options = [
            self.option("isolate").map(|value| ("isolate", value.to_owned())),
            self.mtu()?.map(|mtu| ("mtu", mtu)),
            (!icc).then(|| ("icc", "false".to_owned())),
            (mode == GatewayMode::Routed).then(|| ("gateway_mode", "routed".to_owned())),
            self.ndp_proxy.clone().map(|link| ("ndp_proxy", link)),
            self.vxlan.map(|id| ("vxlan", id.to_string())),
            self.vxlan_local.map(|local| ("vxlan_local", local.to_string())),
            self.vxlan_port.map(|port| ("vxlan_port", port.to_string())),
        ];
        let options = options.into_iter().flatten().chain(self.of_routes());
        file.options = options.map(|(key, value)| (key.to_owned(), value)).collect();
        Ok(file)
    }
}
