//! Networks on a link of the host.

use attachment::{
    Gateways, WantedParent,
    named::{self, File, Kind, Named, Subnet},
};
use document::members::GatewayMode;
use netlink::Child;
use toolkit::prelude::*;

use super::NetworkCreate;

impl NetworkCreate {
    /// The network on a parent, with the subnet and the gateway that it has on this host.
    pub(crate) fn on_parent(&self, others: &[Named]) -> Result<File> {
        self.refuse_flags_of_bridges()?;
        let usual = if self.driver == "macvlan" { Child::MACVLAN[0] } else { Child::IPVLAN[0] };
        let dockers = format!("{}_mode", self.driver);
        let mode = self.option("mode").or(self.option(&dockers)).unwrap_or(usual);
        let child = Child::of(&self.driver, mode);
        let child = child.ok_or_else(|| anyhow!("a {} has no mode {mode:?}", self.driver))?;
        let parent = self.option("parent").map(attachment::parse_name).transpose();
        let parent = parent.map_err(|wrong| anyhow!("-o parent: {wrong}"))?;
        if self.has_no_addresses() {
            self.refuse_addresses()?;
        }
        let nets = self.nets()?;
        let Gateways { v4, v6 } = self.gateways(&nets)?;
        let wanted = WantedParent {
            parent,
            addresses: !self.has_no_addresses(),
            ipv4: self.ipv4,
            subnet: nets.subnet,
            range: nets.range,
            gateway: v4,
            subnet6: nets.subnet6,
            range6: nets.range6,
            gateway6: v6,
            further: nets.further,
            internal: self.internal,
            ..WantedParent::new(child)
        };
        let found = wanted.resolve()?;
        // Several networks may share one wire, each with a range of its own.
        let is_other = |other: &&Named| match &other.network {
            Kind::Bridge(_) => true,
            Kind::Parent(_) => other.link() != found.name,
        };
        let elsewhere: Vec<Named> = others.iter().filter(is_other).cloned().collect();
        let subnet6 = found.ipv6.as_ref().map(|ipv6| ipv6.subnet);
        let further = found.further.iter().map(|further| Some(further.subnet));
        named::refuse_taken(
            &[found.subnet, subnet6].into_iter().chain(further).collect::<Vec<_>>(),
            &elsewhere,
        )?;
        let mut file = File::new(&self.name, &self.driver, &found.name);
        match found.subnet {
            Some(subnet) => file.subnets.push(Subnet::new(subnet, found.gateway, found.ip_range)),
            None => file = file.without_addresses(),
        }
        file.subnets.extend(found.ipv6.map(|ipv6| Subnet::new(ipv6.subnet, ipv6.gateway, ipv6.ip_range)));
        let further = found.further.into_iter();
        file.subnets.extend(further.map(|one| Subnet::new(one.subnet, one.gateway, one.ip_range)));
        file.ipv6_enabled = subnet6.is_some();
        file.internal = self.internal;
        let options = [Some(("mode", mode.to_owned())), self.mtu()?.map(|mtu| ("mtu", mtu))];
        let options = options.into_iter().flatten().chain(self.of_routes());
        file.options = options.map(|(key, value)| (key.to_owned(), value)).collect();
        Ok(file)
    }

    /// Refuses the flags about addresses.
    fn refuse_addresses(&self) -> Result<()> {
        let flags = [
            self.subnets.first().map(|_| "--subnet"),
            self.ranges.first().map(|_| "--ip-range"),
            self.gateways.first().map(|_| "--gateway"),
            self.subnet6.map(|_| "--subnet6"),
            self.ip6_range.map(|_| "--ip6-range"),
            (!self.ipv4).then_some("--ipv4"),
        ];
        match flags.into_iter().flatten().next() {
            Some(flag) => bail!("{flag} is not for a network without addresses"),
            None => Ok(()),
        }
    }

    /// Refuses the flags and options that only a network on a bridge has.
    fn refuse_flags_of_bridges(&self) -> Result<()> {
        let flags = [
            self.bridge.as_ref().map(|_| "--bridge"),
            self.ipv6.then_some("--ipv6"),
            (self.gateway_mode != GatewayMode::Nat).then_some("--gateway-mode"),
            self.ndp_proxy.as_ref().map(|_| "--ndp-proxy"),
            (!self.icc).then_some("--icc"),
            self.vxlan.map(|_| "--vxlan"),
        ];
        match flags.into_iter().flatten().next() {
            Some(flag) => bail!("{flag} is not for the driver {}", self.driver),
            None => self.refuse_options(&["parent", "mode", &format!("{}_mode", self.driver)]),
        }
    }
}
