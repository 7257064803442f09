//! Routes: those that a container is given, and that to ::1 on a bridge.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{RouteMessage, RouteType},
};

use crate::{Connection, Error, PROTOCOL, Route};

pub(super) fn route(
    destination: &IpNet,
    gateway: &IpAddr,
    link: u32,
    metric: Option<u32>,
) -> Result<RouteMessage, Errno> {
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination.network(), destination.prefix_len())
        .and_then(|builder| builder.gateway(*gateway))
        .map(|builder| builder.output_interface(link))
        .map_err(|_| Errno::EINVAL)?;
    Ok(match metric {
        Some(metric) => builder.priority(metric).build(),
        None => builder.build(),
    })
}

/// The metric of the route to ::1 on a bridge. That on `lo` comes first, with 0.
pub(crate) const LOOPBACK_METRIC: u32 = 2048;

/// The route to ::1 on a link, beside that on `lo`.
pub(super) fn to_loopback(link: u32) -> RouteMessage {
    const TABLE_LOCAL: u8 = 255;
    let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(Ipv6Addr::LOCALHOST, 128)
        .output_interface(link)
        .priority(LOOPBACK_METRIC)
        .build();
    route.header.kind = RouteType::Local;
    route.header.table = TABLE_LOCAL;
    route.header.protocol = PROTOCOL.into();
    route
}

pub(super) fn has_route(
    connection: &Connection,
    destination: &IpNet,
    gateway: &IpAddr,
    link: u32,
    metric: Option<u32>,
) -> Result<bool, Error> {
    let is_it = |route: &Route| {
        route.link == Some(link)
            && metric.is_none_or(|metric| route.metric == metric)
            && route.destination == *destination
            && route.gateway == Some(*gateway)
    };
    let routes = match gateway {
        IpAddr::V4(_) => connection.routes(Some(link))?,
        IpAddr::V6(_) => connection.routes6(Some(link))?,
    };
    Ok(routes.iter().any(is_it))
}
