//! The IPv6 subnet of a bridge.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};
use netlink::{Connection, Link};
use operation::Error;

use crate::{Gateway, Wanted, bridge, free::refuse_special, own::Own, subnet::Chosen, unfit::Unfit};

/// Chooses the subnet: the bridge's existing one, otherwise the wanted one or a new one. None for a
/// bridge without IPv6.
pub(crate) fn choose(
    connection: &Connection,
    standing: Option<&Link>,
    own: &Own,
    wanted: &Wanted,
) -> Result<Option<Chosen>, Error> {
    // A link-local address cannot be used beyond its link.
    let mut lasting = own.v6.iter().filter(|one| !is_of_link(one.address)).peekable();
    let first = lasting.peek().map(|address| address.address);
    let is_it = |net: IpNet| wanted.subnet6.is_none_or(|subnet| net.trunc() == IpNet::from(subnet));
    let is_ours = standing.is_some_and(Link::is_our_bridge);
    let name = || wanted.bridge.clone();
    let own_gateway = wanted.own_gateways().v6;
    let wants_none = own_gateway == Gateway::None;
    if !wanted.ipv4 && !own.v4.is_empty() {
        let (standing, flag) = ("has IPv4", "without --ipv4=false");
        return Err(Unfit::OtherKind { bridge: name(), standing, flag }.into());
    }
    if let Some(found) = lasting.find(|found| is_it(found.address)) {
        if wants_none && is_ours {
            return Err(Unfit::HasGateway { bridge: name(), address: found.address }.into());
        }
        let (subnet, standing) = (found.address.trunc(), Some(found.address.addr()));
        let gateway = bridge::gateway(&wanted.bridge, subnet, own_gateway, standing)?;
        // Another program's bridge may have IPv6 for its own use.
        let is_used = is_ours || wanted.has_ipv6();
        let present = gateway.map(|_| found.protocol);
        let has_address = present.is_some();
        return Ok(is_used.then_some(Chosen { subnet, gateway, present, has_address }));
    }
    if !wanted.has_ipv6() {
        return Ok(None);
    }
    if wants_none && !wanted.ipv4 && wanted.subnet6.is_none() && standing.is_some() {
        return Err(Unfit::UnknownSubnet(name()).into());
    }
    if let (Some(address), Some(subnet), false) = (first, wanted.subnet6, wants_none) {
        return Err(Unfit::OtherAddress { bridge: name(), address, subnet: subnet.into() }.into());
    }
    if is_ours && !wants_none {
        let (standing, flag) = ("has no IPv6", "without --ipv6");
        return Err(Unfit::OtherKind { bridge: name(), standing, flag }.into());
    }
    let subnet = match wanted.subnet6 {
        Some(subnet) => {
            refuse_collision(connection, subnet, wanted.ndp_proxy.as_deref())?;
            subnet
        }
        None => random()?,
    };
    let gateway = bridge::gateway(&wanted.bridge, subnet.into(), own_gateway, None)?;
    Ok(Some(Chosen { subnet: subnet.into(), gateway, present: None, has_address: false }))
}

/// Whether the link has an IPv6 address that counts beyond its link.
pub(crate) fn has_ipv6(own: &Own) -> bool {
    own.v6.iter().any(|one| !is_of_link(one.address))
}

/// Whether the address is link-local (fe80::/10).
fn is_of_link(address: IpNet) -> bool {
    matches!(address, IpNet::V6(net) if net.addr().segments()[0] & 0xffc0 == 0xfe80)
}

/// Refuses a subnet that overlaps another interface's, or to a part of which a route leads: one of
/// the two would be unreachable. If the host answers for it on a link, it may be a part of that
/// link's subnet.
pub(crate) fn refuse_collision(
    connection: &Connection,
    subnet: Ipv6Net,
    on: Option<&str>,
) -> Result<(), Error> {
    let on = match on {
        Some(name) => Some(connection.link(name)?.ok_or_else(|| Unfit::NoLink(name.to_owned()))?.index),
        None => None,
    };
    let wanted = IpNet::from(subnet);
    refuse_special(wanted)?;
    let overlaps = |net: IpNet| wanted.contains(&net) || net.contains(&wanted);
    let is_part = |one: &netlink::Address| {
        on == Some(one.link) && one.address.trunc().contains(&wanted) && !wanted.contains(&one.address.addr())
    };
    let others = connection.addresses6(None)?.into_iter().filter(|one| !is_part(one));
    let address = others.map(|one| one.address.trunc());
    let routes = connection.routes6(None)?.into_iter().map(|route| route.destination);
    let route = routes.filter(|to| wanted.contains(to)).map(|to| format!("the route to {to}"));
    let collision = address.filter(|net| overlaps(*net)).map(|net| net.to_string()).chain(route).next();
    match collision {
        Some(what) => Err(Unfit::Collision { subnet: wanted, what }.into()),
        None => Ok(()),
    }
}

/// A random unique local prefix, which hardly any other network has (RFC 4193, 3.2).
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn random() -> Result<Ipv6Net, Error> {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..6].copy_from_slice(&operation::draw::<5>()?);
    Ok(Ipv6Net::new_assert(Ipv6Addr::from(bytes), 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_local_and_random() {
        let (one, other) = (random().unwrap(), random().unwrap());
        assert_ne!(one, other);
        assert_eq!((one.addr().octets()[0], one.prefix_len(), one.trunc()), (0xfd, 64, one));
        assert!(is_of_link("fe80::1/64".parse().unwrap()) && !is_of_link(one.into()));
    }
}
