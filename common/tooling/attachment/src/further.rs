//! Further subnets of a network: those after the first of each IP version. A container has an address of each.

use std::{net::IpAddr, str::FromStr};

use document::members::Subnet;
use ipnet::IpNet;
use netlink::{Connection, Link, PROTOCOL};
use operation::Error;

use crate::{
    Gateway, Wanted,
    argument::{parse_any_range, parse_any_subnet},
    bridge,
    chosen::refuse_range,
    free::{self, overlap},
    own::Own,
    prefix,
    subnet::Chosen,
    unfit::Unfit,
};

/// A further subnet of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Further {
    /// The subnet.
    pub subnet: IpNet,
    /// The gateway, which leads to no other network by itself: the default route is by the first subnet.
    pub gateway: Gateway,
    /// The part of the subnet to lease addresses from.
    pub range: Option<IpNet>,
}

impl FromStr for Further {
    type Err = String;

    /// Parses `10.2.0.0/24`, with `gateway ADDRESS` (or `gateway none`) and `range CIDR` after it, if they are given.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a further subnet is written like \"10.2.0.0/24 gateway 10.2.0.1\"".to_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let (subnet, pairs) = words.split_first().ok_or_else(wrong)?;
        let mut further = Self { subnet: parse_any_subnet(subnet)?, gateway: Gateway::Usual, range: None };
        for pair in pairs.chunks(2) {
            match *pair {
                ["gateway", address] => further.gateway = address.parse()?,
                ["range", range] => further.range = Some(parse_any_range(range)?),
                _ => return Err(wrong()),
            }
        }
        Ok(further)
    }
}

impl Further {
    /// Takes the subnets after the first of each IP version, each with the gateway and the range that lie in it.
    pub fn take(subnets: &mut Vec<IpNet>, gateways: &mut Vec<Gateway>, ranges: &mut Vec<IpNet>) -> Vec<Self> {
        let (mut first, mut further) = (Vec::<IpNet>::new(), Vec::new());
        // It is for the whole network. A gateway beside it is refused with those of the first subnets.
        let has_none = gateways.contains(&Gateway::None);
        for subnet in subnets.drain(..) {
            let is_second = first.iter().any(|one| one.addr().is_ipv4() == subnet.addr().is_ipv4());
            if !is_second {
                first.push(subnet);
                continue;
            }
            let is_in =
                |gateway: &Gateway| gateway.address().is_some_and(|address| subnet.contains(&address));
            let gateway = match gateways.iter().position(is_in) {
                _ if has_none => Gateway::None,
                Some(at) => gateways.remove(at),
                None => Gateway::Usual,
            };
            let range = ranges.iter().position(|range| subnet.contains(range)).map(|at| ranges.remove(at));
            further.push(Self { subnet, gateway, range });
        }
        *subnets = first;
        further
    }

    /// Refuses a subnet of an IP version of which there is no `first` one; `missing` is the error for IPv6.
    pub(crate) fn refuse_alone(&self, first: &[IpNet], missing: impl FnOnce() -> Unfit) -> Result<(), Error> {
        let is_ipv4 = self.subnet.addr().is_ipv4();
        match first.iter().any(|one| one.addr().is_ipv4() == is_ipv4) {
            true => Ok(()),
            false if is_ipv4 => Err(Unfit::NoIpv4.into()),
            false => Err(missing().into()),
        }
    }

    /// Refuses a subnet that overlaps one of these.
    ///
    /// # Errors
    /// The first overlap.
    pub fn refuse_overlap(&self, others: impl IntoIterator<Item = IpNet>) -> Result<(), Error> {
        match others.into_iter().find(|other| overlap(other, &self.subnet)) {
            Some(other) => {
                Err(Unfit::Collision { subnet: self.subnet, what: format!("{other} of the same network") }
                    .into())
            }
            None => Ok(()),
        }
    }

    /// Refuses a subnet that collides with what the host has.
    ///
    /// # Errors
    /// The first collision.
    pub(crate) fn refuse_collision(&self, connection: &Connection) -> Result<(), Error> {
        match self.subnet {
            IpNet::V4(subnet) => free::refuse_collision(connection, subnet),
            IpNet::V6(subnet) => prefix::refuse_collision(connection, subnet, None),
        }
    }

    /// The subnet in the document.
    pub(crate) fn member(&self, gateway: Option<IpAddr>) -> Result<Subnet, Error> {
        if let Some(range) = self.range {
            refuse_range(range, self.subnet, gateway)?;
        }
        Ok(Subnet { subnet: self.subnet, gateway, ip_range: self.range })
    }
}

/// The further subnets of a bridge: the wanted ones, and those of which a bridge of ours has an address already. Each
/// comes with the member for the document. `first` are the subnets that are chosen already.
pub(crate) fn choose(
    connection: &Connection,
    standing: Option<&Link>,
    own: &Own,
    wanted: &Wanted,
    first: &[IpNet],
) -> Result<Vec<(Chosen, Subnet)>, Error> {
    let is_ours = standing.is_some_and(Link::is_our_bridge);
    let mut all = wanted.further.clone();
    let is_known = |all: &[Further], net: &IpNet| {
        first.iter().chain(all.iter().map(|one| &one.subnet)).any(|known| *known == net.trunc())
    };
    for one in own.all().filter(|one| is_ours && one.protocol == Some(PROTOCOL)) {
        if !is_known(&all, &one.address) {
            all.push(Further { subnet: one.address.trunc(), gateway: Gateway::Usual, range: None });
        }
    }
    let mut chosen: Vec<(Chosen, Subnet)> = Vec::new();
    for one in &all {
        one.refuse_alone(first, || Unfit::NoIpv6(wanted.bridge.clone()))?;
        one.refuse_overlap(first.iter().copied().chain(chosen.iter().map(|(one, _)| one.subnet)))?;
        let present = own.all().filter(|_| is_ours).find(|own| own.address.trunc() == one.subnet);
        let gateway = if wanted.has_gateway() { one.gateway } else { Gateway::None };
        let gateway =
            bridge::gateway(&wanted.bridge, one.subnet, gateway, present.map(|own| own.address.addr()))?;
        match (standing, present) {
            (_, Some(_)) => {}
            (Some(link), None) if gateway.is_some() || !is_ours => {
                let (bridge, subnet) = (link.name.clone(), one.subnet);
                // The containers that are on it do not know of the subnet.
                return Err(Unfit::FurtherSubnet { bridge, subnet }.into());
            }
            (Some(_), None) => {}
            (None, None) => one.refuse_collision(connection)?,
        }
        let present = present.filter(|_| gateway.is_some()).map(|own| own.protocol);
        let has_address = present.is_some();
        chosen.push((Chosen { subnet: one.subnet, gateway, present, has_address }, one.member(gateway)?));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_subnet_is_written_with_its_gateway_and_range() {
        for (text, told) in [
            ("10.2.0.0/24", "10.2.0.0/24 Usual None"),
            ("10.2.0.0/24 gateway none", "10.2.0.0/24 None None"),
            (
                "10.2.0.0/24 gateway 10.2.0.9 range 10.2.0.128/25",
                "10.2.0.0/24 At(10.2.0.9) Some(10.2.0.128/25)",
            ),
            ("fd02::/64 range fd02::100/120", "fd02::/64 Usual Some(fd02::100/120)"),
            ("10.2.0.0/24 gateway", "a further subnet is written like \"10.2.0.0/24 gateway 10.2.0.1\""),
            ("10.2.0.5/24", "10.2.0.5 is an address in 10.2.0.0/24"),
            ("", "a further subnet is written like \"10.2.0.0/24 gateway 10.2.0.1\""),
        ] {
            let shown = match text.parse::<Further>() {
                Ok(Further { subnet, gateway, range }) => format!("{subnet} {gateway:?} {range:?}"),
                Err(error) => error,
            };
            assert_eq!(shown, told, "{text}");
        }
    }

    #[test]
    fn what_lies_in_a_further_subnet_is_its_own() {
        let nets = |all: &[&str]| all.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
        let mut subnets = nets(&["10.1.0.0/24", "fd01::/64", "10.2.0.0/24", "10.3.0.0/24"]);
        let mut gateways = vec!["10.2.0.7".parse().unwrap(), "10.1.0.7".parse().unwrap()];
        let mut ranges = nets(&["10.1.0.0/25", "10.3.0.0/25"]);
        let further = Further::take(&mut subnets, &mut gateways, &mut ranges);
        assert_eq!(subnets, nets(&["10.1.0.0/24", "fd01::/64"]));
        assert_eq!((gateways, ranges), (vec!["10.1.0.7".parse().unwrap()], nets(&["10.1.0.0/25"])));
        let wanted = ["10.2.0.0/24 gateway 10.2.0.7", "10.3.0.0/24 range 10.3.0.0/25"];
        assert_eq!(further, wanted.map(|text| text.parse().unwrap()));
    }
}
