//! Routes: those that a container gets, and the route to ::1 on a bridge.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    RouteMessageBuilder,
    packet_core::NLM_F_CREATE,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteMessage, RouteType},
    },
};

use super::{CREATE, unless_gone};
use crate::{Connection, Error, Link, PROTOCOL, Rejection, Route};

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

/// Adds a route to a destination through a gateway.
pub(super) fn add_route(
    connection: &Connection,
    link: u32,
    (destination, gateway): (&IpNet, &IpAddr),
    metric: Option<u32>,
    protocol: Option<u8>,
) -> Result<(), Error> {
    let what = format!("{destination} by {gateway}");
    let mut route = route(destination, gateway, link, metric)
        .map_err(|source| connection.error("add route", &what, source))?;
    if let Some(by) = protocol {
        route.header.protocol = by.into();
    }
    connection.change("add route", what, &RouteNetlinkMessage::NewRoute(route), CREATE)
}

/// A route that rejects packets. It has no link.
fn rejection(destination: &IpNet, kind: Rejection, metric: Option<u32>) -> Result<RouteMessage, Errno> {
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination.network(), destination.prefix_len())
        .map_err(|_| Errno::EINVAL)?
        .kind(of(kind));
    let mut route = match metric {
        Some(metric) => builder.priority(metric).build(),
        None => builder.build(),
    };
    route.header.protocol = PROTOCOL.into();
    Ok(route)
}

fn of(kind: Rejection) -> RouteType {
    match kind {
        Rejection::Blackhole => RouteType::BlackHole,
        Rejection::Unreachable => RouteType::Unreachable,
        Rejection::Prohibit => RouteType::Prohibit,
    }
}

/// Adds a route that rejects packets.
pub(super) fn refuse(
    connection: &Connection,
    destination: &IpNet,
    kind: Rejection,
    metric: Option<u32>,
) -> Result<(), Error> {
    let what = format!("{} {destination}", kind.name());
    let route = rejection(destination, kind, metric)
        .map_err(|source| connection.error("add route", &what, source))?;
    connection.change("add route", what, &RouteNetlinkMessage::NewRoute(route), CREATE)
}

/// Removes a route that rejects packets, if it has our protocol. In IPv6 the kernel compares neither the kind
/// nor, without one in the request, the metric: it would remove any other route of ours to the destination.
pub(super) fn unrefuse(
    connection: &Connection,
    destination: &IpNet,
    kind: Rejection,
    metric: Option<u32>,
) -> Result<(), Error> {
    if !refuses(connection, destination, kind, metric)? {
        return Ok(());
    }
    let exact = Some(metric_of(destination, metric.unwrap_or_default()));
    let Ok(route) = rejection(destination, kind, exact) else { return Ok(()) };
    let message = RouteNetlinkMessage::DelRoute(route);
    unless_gone(connection.change("remove route", destination.to_string(), &message, 0))
}

/// Whether there is a route that rejects packets. One that was made without a metric has the kernel's.
pub(super) fn refuses(
    connection: &Connection,
    destination: &IpNet,
    kind: Rejection,
    metric: Option<u32>,
) -> Result<bool, Error> {
    let routes = connection.routes_of_kinds(family(destination), None, &[of(kind)])?;
    let metric = metric_of(destination, metric.unwrap_or_default());
    let is_it = |route: &Route| route.destination == destination.trunc() && route.metric == metric;
    Ok(routes.iter().any(is_it))
}

/// Whether the route has the metric that it was made with.
fn has_metric(route: &Route, metric: Option<u32>) -> bool {
    metric.is_none_or(|metric| route.metric == metric_of(&route.destination, metric))
}

/// The metric of a route that is made with this one. The kernel takes 0 for 1024 in IPv6 (IP6_RT_PRIO_USER).
fn metric_of(destination: &IpNet, metric: u32) -> u32 {
    if metric == 0 && destination.addr().is_ipv6() { 1024 } else { metric }
}

fn family(net: &IpNet) -> AddressFamily {
    match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    }
}

/// Makes sure of the route to ::1 on a link.
pub(super) fn add_loopback(connection: &Connection, link: &Link) -> Result<(), Error> {
    let message = RouteNetlinkMessage::NewRoute(to_loopback(link.index));
    // With NLM_F_EXCL, that of another link with the same metric would count as this one.
    match connection.change("add route", format!("::1 on link {:?}", link.name), &message, NLM_F_CREATE) {
        Err(error) if error.errno() == Errno::EEXIST => Ok(()),
        made => made,
    }
}

/// The metric of the route to ::1 on a bridge. The route on `lo` has metric 0 and is preferred.
pub(crate) const LOOPBACK_METRIC: u32 = 2048;

/// The route to ::1 on a link, in addition to the one on `lo`.
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
            && has_metric(route, metric)
            && route.destination == *destination
            && route.gateway == Some(*gateway)
    };
    let routes = match gateway {
        IpAddr::V4(_) => connection.routes(Some(link))?,
        IpAddr::V6(_) => connection.routes6(Some(link))?,
    };
    Ok(routes.iter().any(is_it))
}
