//! Addresses and routes, converted from and to rtnetlink messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::{
    AddressMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface's index.
    pub link: u32,
    /// The address with its prefix length.
    pub address: IpNet,
    /// Its origin (IFA_PROTO), if it has one.
    pub protocol: Option<u8>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination network.
    pub destination: IpNet,
    /// The next hop, if it has one.
    pub gateway: Option<IpAddr>,
    /// The index of the interface. None for a route over several interfaces, or over none.
    pub link: Option<u32>,
    /// The metric. The route with the lowest one is used.
    pub metric: u32,
}

impl Route {
    pub(crate) fn read(message: &RouteMessage) -> Option<Self> {
        let anywhere = match message.header.address_family {
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        };
        let (mut to, mut gateway, mut link, mut metric) = (anywhere, None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => to = (*address).into(),
                RouteAttribute::Destination(RouteAddress::Inet6(address)) => to = (*address).into(),
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some((*address).into()),
                RouteAttribute::Gateway(RouteAddress::Inet6(address)) => gateway = Some((*address).into()),
                RouteAttribute::Oif(index) => link = Some(*index),
                RouteAttribute::Priority(priority) => metric = *priority,
                _ => {}
            }
        }
        let destination = IpNet::new(to, message.header.destination_prefix_length).ok()?;
        Some(Self { destination, gateway, link, metric })
    }
}

impl Address {
    pub(crate) fn read(message: &AddressMessage) -> Option<Self> {
        let mut address = None;
        let mut local = None;
        let mut protocol = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Protocol(by) => protocol = Some(u8::from(*by)),
                _ => {}
            }
        }
        let ip = local.or(address)?;
        let address = IpNet::new(ip, message.header.prefix_len).ok()?;
        Some(Self { link: message.header.index, address, protocol })
    }

    /// The request that adds this address.
    pub(crate) fn message(&self) -> AddressMessage {
        let length = self.address.prefix_len();
        let mut message = match self.address.addr() {
            IpAddr::V4(ip) => {
                AddressMessageBuilder::<Ipv4Addr>::new().index(self.link).address(ip, length).build()
            }
            IpAddr::V6(ip) => {
                let builder = AddressMessageBuilder::<Ipv6Addr>::new();
                let mut message = builder.index(self.link).address(ip, length).build();
                // The lease guarantees that nobody else has this address, so duplicate address
                // detection (RFC 4862, 5.4) is skipped.
                message.header.flags |= AddressHeaderFlags::Nodad;
                message
            }
        };
        if let Some(by) = self.protocol {
            message.attributes.push(AddressAttribute::Protocol(by.into()));
        }
        message
    }
}
