//! Free subnets, and those that collide with others.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use netlink::{Connection, WAY_OUT};
use operation::Error;

use crate::unfit::Unfit;

/// The subnets to choose from, as in Docker (default-address-pools): 172.17.0.0/16 to
/// 172.31.0.0/16, then 192.168.0.0/16 in subnets with twelve host bits.
pub(crate) fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let larger = (17..32).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 0), 16));
    let smaller = (0..16).map(|third| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third * 16, 0), 20));
    larger.chain(smaller)
}

/// Whether two subnets have an address in common.
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The IPv4 addresses of all interfaces, each with the interface's index.
fn addresses(connection: &Connection) -> Result<Vec<(u32, Ipv4Net)>, Error> {
    let nets = connection.addresses(None)?.into_iter().filter_map(|found| match found.address {
        IpNet::V4(net) => Some((found.link, net)),
        IpNet::V6(_) => None,
    });
    Ok(nets.collect())
}

/// The first subnet that is not `taken`, in which no interface has an address, and to which no
/// route leads. Otherwise a VPN, or the network behind a router, could become unreachable.
pub(crate) fn first_free(connection: &Connection, taken: &[Ipv4Net]) -> Result<Ipv4Net, Error> {
    let addresses = addresses(connection)?.into_iter().map(|(_, net)| net.trunc());
    let routes = connection.routes(None)?.into_iter().map(|route| route.destination);
    let routes = routes.chain(connection.dead_ends()?).filter_map(|destination| match destination {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    });
    let used: Vec<_> = addresses.chain(routes.filter(|route| route.prefix_len() >= WAY_OUT)).collect();
    let is_free = |subnet: &Ipv4Net| {
        !used.iter().chain(taken).any(|net| overlap(&IpNet::from(*subnet), &IpNet::from(*net)))
    };
    let free = candidates().find(is_free);
    free.ok_or_else(|| Unfit::NoSubnet.into())
}

/// Networks whose addresses do not belong to a single host beyond one link: this host, loopback, IPv4-mapped,
/// link-local and multicast (RFC 6890; RFC 4291, 2.4).
const SPECIAL: [&str; 7] =
    ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8"];

/// Refuses a subnet whose addresses cannot belong to hosts.
pub(crate) fn refuse_special(subnet: IpNet) -> Result<(), Error> {
    match SPECIAL.iter().filter_map(|special| special.parse().ok()).find(|special| overlap(special, &subnet))
    {
        Some(special) => Err(Unfit::Special { subnet, special }.into()),
        None => Ok(()),
    }
}

/// Refuses a subnet that overlaps another interface's, or to which a route leads. If another
/// interface has an address inside or around the subnet, or there is a route to it or a part of it,
/// one of the two would be unreachable. A wider route is allowed: it still leads to the rest of its
/// destination.
pub(crate) fn refuse_collision(connection: &Connection, subnet: Ipv4Net) -> Result<(), Error> {
    refuse_special(subnet.into())?;
    let collides = |what: String, link: Option<u32>| -> Result<(), Error> {
        let interface = link.map(|link| connection.name(link)).transpose()?;
        let on = interface.map(|name| format!(" on interface {name:?}")).unwrap_or_default();
        Err(Unfit::Collision { subnet: subnet.into(), what: format!("{what}{on}") }.into())
    };
    let wanted = IpNet::from(subnet);
    for (link, net) in addresses(connection)? {
        if overlap(&wanted, &net.trunc().into()) {
            return collides(net.to_string(), Some(link));
        }
    }
    if let Some(route) =
        connection.routes(None)?.into_iter().find(|route| wanted.contains(&route.destination))
    {
        return collides(format!("the route to {}", route.destination), route.link);
    }
    match connection.dead_ends()?.into_iter().find(|destination| wanted.contains(destination)) {
        Some(destination) => collides(format!("the route to {destination}, which leads nowhere"), None),
        None => Ok(()),
    }
}
