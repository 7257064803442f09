//! The link by which this host reaches an address.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use crate::{Connection, Error, Link, connection::NO_ROUTE};

impl Connection {
    /// The link by which this host sends packets to another host's address. None if there is no
    /// route, or the address is this host's own, or a broadcast or multicast address.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn link_towards(&self, address: IpAddr) -> Result<Option<Link>, Error> {
        let mut message = RouteMessage::default();
        let (family, destination, length) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, RouteAddress::Inet(address), 32),
            IpAddr::V6(address) => (AddressFamily::Inet6, RouteAddress::Inet6(address), 128),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.attributes.push(RouteAttribute::Destination(destination));
        let answer = match self.ask(&RouteNetlinkMessage::GetRoute(message), 0) {
            Ok(answer) => answer,
            Err(refusal) if NO_ROUTE.contains(&refusal.errno) => return Ok(None),
            Err(refusal) => return Err(self.error("look for", format!("route to {address}"), refusal)),
        };
        let route = answer.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Unicast => Some(route),
            _ => None,
        });
        let link = route.and_then(|route| {
            route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })
        });
        link.map_or(Ok(None), |index| self.link_at(index))
    }
}
