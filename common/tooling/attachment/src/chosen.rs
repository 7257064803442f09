//! What was chosen for a network, and what it rules out.

use std::net::IpAddr;

use document::members::{self, GatewayMode};
use ipnet::{IpNet, Ipv6Net};
use netlink::{LinkOperation, Mac};
use operation::Error;

use crate::{Wanted, overlay::Overlay, unfit::Unfit};

/// The chosen subnet and addresses.
pub(crate) struct Chosen {
    /// The IPv4 subnet and gateway.
    pub(crate) v4: Option<(IpNet, Option<IpAddr>)>,
    /// The IPv6 subnet and gateway.
    pub(crate) v6: Option<(IpNet, Option<IpAddr>)>,
    /// The subnets after the first of each IP version.
    pub(crate) further: Vec<members::Subnet>,
    /// Whether the bridge has an address of its first subnet already.
    pub(crate) has_address: bool,
    /// Whether it is another program's bridge.
    pub(crate) of_others: bool,
    /// The bridge's hardware address.
    pub(crate) mac: Option<Mac>,
    pub(crate) operations: Vec<LinkOperation>,
    /// The operations for the VXLAN.
    pub(crate) overlay: Option<Overlay>,
}

impl Chosen {
    /// The first subnet and its gateway: those of IPv4, if the network has it.
    pub(crate) fn first(&self) -> (IpNet, Option<IpAddr>) {
        self.v4.or(self.v6).unwrap_or_default()
    }

    pub(crate) fn subnet6(&self) -> Option<Ipv6Net> {
        match self.v6?.0 {
            IpNet::V6(subnet) => Some(subnet),
            IpNet::V4(_) => None,
        }
    }

    /// The bridge for the document.
    pub(crate) fn member(&self, wanted: &Wanted) -> members::Bridge {
        let ipv6 =
            |(subnet, gateway)| members::Subnet { subnet, gateway, ip_range: wanted.range6.map(Into::into) };
        let (subnet, gateway) = self.first();
        let range6 = wanted.range6.map(IpNet::from).filter(|_| !wanted.ipv4);
        members::Bridge {
            name: wanted.bridge.clone(),
            subnet,
            gateway,
            gateway_mode: Some(wanted.gateway_mode),
            ip_range: wanted.range.map(Into::into).or(range6),
            ipv6: self.v6.filter(|_| wanted.ipv4).map(ipv6),
            further: self.further.clone(),
            internal: wanted.internal,
            isolated: wanted.isolated,
            vxlan: wanted.vxlan.clone(),
            ndp_proxy: wanted.ndp_proxy.clone(),
            other: Default::default(),
        }
    }
}

/// Refuses to answer for addresses that nobody outside can reach.
pub(crate) fn refuse_needless_proxy(wanted: &Wanted, chosen: &Chosen) -> Result<(), Error> {
    match wanted.ndp_proxy.is_some() && (chosen.v6.is_none() || wanted.gateway_mode != GatewayMode::Routed) {
        true => Err(Unfit::NothingToProxy.into()),
        false => Ok(()),
    }
}

/// Refuses ranges to lease addresses from that are of no use.
pub(crate) fn refuse_ranges(wanted: &Wanted, chosen: &Chosen) -> Result<(), Error> {
    if let (Some(range), Some((subnet, gateway))) = (wanted.range, chosen.v4) {
        refuse_range(range.into(), subnet, gateway)?;
    }
    if let (Some(range), Some((subnet, gateway))) = (wanted.range6, chosen.v6) {
        refuse_range(range.into(), subnet, gateway)?;
    }
    Ok(())
}

/// Refuses a range without an address to lease.
pub(crate) fn refuse_range(range: IpNet, subnet: IpNet, gateway: Option<IpAddr>) -> Result<(), Error> {
    if !subnet.contains(&range) {
        return Err(Unfit::RangeOutside { range, subnet }.into());
    }
    match lease::has_room(subnet, range, gateway.unwrap_or(subnet.network())) {
        true => Ok(()),
        false => Err(Unfit::NoRoom { range, subnet }.into()),
    }
}
