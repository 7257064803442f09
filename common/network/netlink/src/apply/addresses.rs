//! Addresses of links, and the routes to their subnets that the kernel adds with them.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        RouteNetlinkMessage,
        route::{RouteProtocol, RouteScope},
    },
};

use super::CREATE;
use crate::{Address, Connection, Error, Link};

pub(super) fn add_address(
    connection: &Connection,
    link: &Link,
    address: IpNet,
    protocol: Option<u8>,
    on_own: bool,
) -> Result<(), Error> {
    let what = format!("{address} on link {:?}", link.name);
    let wanted = Address { link: link.index, address, protocol };
    let message = RouteNetlinkMessage::NewAddress(wanted.message());
    match connection.change("add address", what, &message, CREATE) {
        // The address is ours already: a bridge's address is shared by all its containers. An
        // earlier version, or an old kernel, set no protocol on it.
        Err(error)
            if error.errno() == Errno::EEXIST
                && all_of(connection, address, link.index)?
                    .iter()
                    .any(|found| found.address == address && (on_own || found.protocol == protocol)) =>
        {
            // The kernel added the route to the subnet with the address, but the route may have
            // been removed since.
            match connection.namespace.is_none() && link.up && !has_way(connection, address, link.index)? {
                true => add_way(connection, link, address),
                false => Ok(()),
            }
        }
        result => result,
    }
}

/// The addresses of a link with the same IP version as `address`.
pub(super) fn all_of(connection: &Connection, address: IpNet, link: u32) -> Result<Vec<Address>, Error> {
    match address {
        IpNet::V4(_) => connection.addresses(Some(link)),
        IpNet::V6(_) => connection.addresses6(Some(link)),
    }
}

/// What is missing of an address on a link: the address, or, in this namespace, the route to its
/// subnet.
pub(super) fn lacks(connection: &Connection, link: &Link, address: IpNet) -> Result<Option<String>, Error> {
    let name = &link.name;
    if !all_of(connection, address, link.index)?.iter().any(|found| found.address == address) {
        return Ok(Some(format!("address {address} of link {name:?}")));
    }
    let is_here = connection.namespace.is_none() && link.up;
    let has_no_way = is_here && !has_way(connection, address, link.index)?;
    Ok(has_no_way.then(|| format!("route {} of link {name:?}", address.trunc())))
}

/// Whether packets to the subnet of an address leave by its link. One route lookup answers this if
/// no policy routing interferes, whatever the number of routes.
fn has_way(connection: &Connection, address: IpNet, link: u32) -> Result<bool, Error> {
    let IpNet::V4(net) = address else {
        let routes = connection.routes6(Some(link))?;
        return Ok(routes.iter().any(|route| route.destination == address.trunc()));
    };
    let last = Ipv4Addr::from(u32::from(net.broadcast()).saturating_sub(1));
    match connection.route_to(last)? {
        Some(route) if route.link == Some(link) && route.destination == address.trunc() => return Ok(true),
        _ => {}
    }
    Ok(connection.routes(Some(link))?.iter().any(|route| route.destination == address.trunc()))
}

/// Adds the route to the address's subnet exactly as the kernel would, so it is removed with the
/// address.
fn add_way(connection: &Connection, link: &Link, address: IpNet) -> Result<(), Error> {
    let route = match address {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(link.index)
            .pref_source(net.addr())
            .protocol(RouteProtocol::Kernel)
            .scope(RouteScope::Link)
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(link.index)
            .protocol(RouteProtocol::Kernel)
            // The metric of the kernel's own routes to a subnet (IP6_RT_PRIO_ADDRCONF).
            .priority(256)
            .build(),
    };
    let what = format!("{} on link {:?}", address.trunc(), link.name);
    match connection.change("add route", what, &RouteNetlinkMessage::NewRoute(route), CREATE) {
        Err(error) if error.errno() == Errno::EEXIST => Ok(()),
        made => made,
    }
}
