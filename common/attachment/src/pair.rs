//! The link between a container's namespace and a bridge: what makes it, and what is told of it.

use std::{net::IpAddr, path::Path};

use document::members::{self, Attachment};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nat::NatOperation;
use netlink::{Connection, Link, LinkOperation, Mac, PROTOCOL, Peer};
use operation::Error;
use repair::NetworkOperation;

use crate::{Container, Route, address::Source, unfit::Unfit};

/// What the kernel gives a new bridge, in bytes.
const MTU: u32 = 1500;

/// What is asked of the container's side.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The network's name; that of the bridge if there is none.
    pub name: Option<String>,
    /// The MTU of the interface in bytes; by default that of the way out, on a bridge of others that of the bridge.
    pub mtu: Option<u32>,
    /// Its address; none for the next free one.
    pub address: Option<IpAddr>,
    /// Its address of IPv6, on a network that has it; none for a free one.
    pub address6: Option<IpAddr>,
    /// Its hardware address; by default it follows from the address.
    pub mac: Option<Mac>,
    /// How far its default route goes before those of other attachments, and its place among those of this priority. None for a
    /// route that comes before all of them.
    pub priority: Option<(i32, usize)>,
    /// Further routes.
    pub routes: Vec<Route>,
    /// Whether the bridge may be missing: it is made by the same step.
    pub makes_bridge: bool,
}

/// Plans the pair of links between the container's `namespace` and the bridge `on`, with a lease of its address.
///
/// # Errors
/// When there is no bridge, no free address, or a route that leads nowhere.
pub fn pair(
    container: &Container<'_>,
    namespace: &Path,
    on: &members::Bridge,
    asked: &Asked,
) -> Result<(Attachment, Vec<NetworkOperation>), Error> {
    let connection = Connection::open(None)?;
    let bridge = match connection.link(&on.name)? {
        Some(bridge) => bridge,
        None if container.planned || asked.makes_bridge => planned_bridge(&on.name),
        None => return Err(Unfit::BridgeGone(on.name.clone()).into()),
    };
    let source = |subnet, range, gateway| Source {
        container,
        on,
        subnet,
        range,
        gateway,
        connection: &connection,
        bridge: &bridge,
    };
    let lease = source(on.subnet, on.ip_range, on.gateway).lease(asked.address)?;
    let IpAddr::V4(leased) = lease.address else {
        return Err(Unfit::AddressOutside { address: lease.address, subnet: on.subnet }.into());
    };
    let mut leases = vec![(lease, on.subnet, on.gateway)];
    match (&on.ipv6, asked.address6) {
        (Some(v6), wanted) => {
            let lease = source(v6.subnet, v6.ip_range, v6.gateway).lease(wanted)?;
            leases.push((lease, v6.subnet, v6.gateway));
        }
        (None, Some(_)) => return Err(Unfit::NoIpv6(on.name.clone()).into()),
        (None, None) => {}
    }
    let guards = bridge.is_our_bridge();
    let pair = Pair {
        container,
        namespace,
        on,
        here: (container.link(), Mac::derive(container.id, "host")),
        inside: asked.mac.unwrap_or_else(|| Mac::from(leased)),
        mtu: match asked.mtu {
            Some(mtu) => mtu,
            // A bridge of ours takes the lowest of its ports'.
            None if guards => {
                let from = (bridge.index != 0).then_some((bridge.index, leased));
                connection.mtu_of_the_way_out(from)?.unwrap_or(bridge.mtu)
            }
            None => bridge.mtu,
        },
        addresses: leases
            .iter()
            .map(|(lease, subnet, gateway)| (IpNet::new_assert(lease.address, subnet.prefix_len()), *gateway))
            .collect(),
        routes: routes(on, asked)?,
        guards,
    };
    let mut operations: Vec<NetworkOperation> = Vec::new();
    for (lease, ..) in leases {
        let (address, instead_of) = (lease.address, lease.instead_of.clone());
        let claimed = NatOperation::Address { address, holder: container.id.to_owned(), instead_of };
        operations.extend([lease.into(), claimed.into()]);
    }
    operations.extend(pair.operations().map(NetworkOperation::from));
    let attachment = Attachment {
        name: asked.name.clone().unwrap_or_else(|| on.name.clone()),
        interface: container.interface.clone(),
        bridge: on.clone(),
        cni: pair.result(&bridge),
        other: Default::default(),
    };
    Ok((attachment, operations))
}

/// Default routes with priority 0 have this metric; a hundred numbers lie between two priorities, in which the first attachment
/// comes first.
const METRIC: i64 = 100_000;

/// The priority of the attachment that comes after these.
///
/// # Errors
/// When it is to come before a default route that comes before all.
pub fn priority(number: i32, attachments: &[Attachment]) -> Result<(i32, usize), Error> {
    let is_first = |route: &members::CniRoute| route.dst.prefix_len() == 0 && route.priority.is_none();
    match attachments.iter().find(|one| one.cni.routes.iter().any(is_first)) {
        Some(first) if number > 0 => Err(Unfit::NoPriority(first.interface.clone()).into()),
        _ => {
            // Behind all of its priority: one between them may have been taken back.
            let taken: Vec<u64> = attachments.iter().map(Attachment::metric).collect();
            let last = (0..=99).rev().find(|at| taken.contains(&metric((number, *at)).into()));
            Ok((number, last.map_or(0, |at| at + 1)))
        }
    }
}

/// The metric of the default route.
fn metric((priority, before): (i32, usize)) -> u32 {
    let priority = i64::from(priority).clamp(-900, 900);
    let before = i64::try_from(before).unwrap_or(99).min(99);
    u32::try_from(METRIC - priority * 100 + before).unwrap_or_default()
}

/// The routes of the interface. No way leads out of an internal network.
fn routes(on: &members::Bridge, asked: &Asked) -> Result<Vec<members::CniRoute>, Error> {
    let mut routes = Vec::new();
    match asked.priority {
        Some((priority, _)) if on.internal && priority != 0 => return Err(Unfit::InternalPriority.into()),
        _ if on.internal => {}
        priority => {
            let to = |dst: IpNet, gw| members::CniRoute { dst, gw: Some(gw), priority: priority.map(metric) };
            routes.push(to(Ipv4Net::default().into(), on.gateway));
            routes.extend(on.ipv6.iter().map(|v6| to(Ipv6Net::default().into(), v6.gateway)));
        }
    }
    for route in &asked.routes {
        let (subnet, own) = match (route.destination, &on.ipv6) {
            (IpNet::V4(_), _) => (on.subnet, on.gateway),
            (IpNet::V6(_), Some(v6)) => (v6.subnet, v6.gateway),
            (IpNet::V6(_), None) => return Err(Unfit::NoIpv6(on.name.clone()).into()),
        };
        let gateway = route.gateway.unwrap_or(own);
        if !subnet.contains(&gateway) {
            let destination = route.destination;
            return Err(Unfit::FarGateway { gateway, destination, subnet }.into());
        }
        routes.push(members::CniRoute { dst: route.destination, gw: Some(gateway), priority: None });
    }
    Ok(routes)
}

/// The bridge as it is going to be made.
fn planned_bridge(name: &str) -> Link {
    Link {
        index: 0,
        name: name.to_owned(),
        mac: Some(Mac::derive("", name)),
        mtu: MTU,
        up: true,
        master: None,
        hairpin: false,
        isolated: false,
        bridge: true,
        alias: None,
    }
}

/// The pair that is to be made.
struct Pair<'a> {
    container: &'a Container<'a>,
    namespace: &'a Path,
    on: &'a members::Bridge,
    /// The name and the hardware address of the side that stays here.
    here: (String, Mac),
    /// The hardware address of the other side.
    inside: Mac,
    mtu: u32,
    /// Each with its gateway.
    addresses: Vec<(IpNet, IpAddr)>,
    routes: Vec<members::CniRoute>,
    /// Whether the bridge is ours: then its ports guard the host's loopback.
    guards: bool,
}

impl Pair<'_> {
    /// What makes it.
    fn operations(&self) -> impl Iterator<Item = LinkOperation> {
        let (name, mac) = self.here.clone();
        let there = self.inside;
        let (link, namespace) = (self.container.interface.clone(), self.namespace.to_owned());
        let bridge = self.on.name.clone();
        let isolated = self.on.isolated.then(|| LinkOperation::Isolate { link: name.clone(), mac });
        let guard = self.guards.then(|| LinkOperation::GuardLoopback { link: name.clone(), mac, bridge });
        let outside = [
            LinkOperation::VethAdd {
                name: name.clone(),
                mac,
                master: self.on.name.clone(),
                mtu: self.mtu,
                peer: Peer { name: link.clone(), mac: there, namespace: namespace.clone() },
                mark: Some(self.container.mark()),
            },
            LinkOperation::Ipv6Off { link: name.clone(), mac },
            LinkOperation::Hairpin { link: name.clone(), mac },
        ];
        let inside = [
            LinkOperation::LinkUp { namespace: None, link: name, mac },
            LinkOperation::LinkUp { namespace: Some(namespace.clone()), link: link.clone(), mac: there },
        ];
        let has_ipv6 = self.on.ipv6.is_some();
        let ipv6 = has_ipv6.then(|| LinkOperation::Ipv6On {
            namespace: Some(namespace.clone()),
            link: link.clone(),
            mac: there,
        });
        let address = |(address, _): &(IpNet, IpAddr)| LinkOperation::AddressAdd {
            namespace: Some(namespace.clone()),
            link: link.clone(),
            mac: Some(there),
            address: *address,
            protocol: Some(PROTOCOL),
        };
        let addresses: Vec<_> = self.addresses.iter().map(address).collect();
        let gateway = self.on.gateway;
        let route = move |route: &members::CniRoute| LinkOperation::RouteAdd {
            namespace: Some(namespace.clone()),
            destination: route.dst,
            gateway: route.gw.unwrap_or(gateway),
            link: link.clone(),
            mac: there,
            metric: route.priority,
            protocol: Some(PROTOCOL),
        };
        let routes: Vec<_> = self.routes.iter().map(route).collect();
        outside
            .into_iter()
            .chain(isolated)
            .chain(guard)
            .chain(inside)
            .chain(ipv6)
            .chain(addresses)
            .chain(routes)
    }

    /// The CNI result (CNI SPEC.md, "ADD Success").
    fn result(&self, bridge: &Link) -> members::CniResult {
        let interface = |name: &str, mac: Option<Mac>, sandbox| members::CniInterface {
            name: name.to_owned(),
            mac: mac.map(|mac| mac.to_string()),
            mtu: Some(self.mtu),
            sandbox,
        };
        let ip = |(address, gateway): &(IpNet, IpAddr)| members::CniIp {
            address: *address,
            gateway: Some(*gateway),
            interface: Some(2),
        };
        let sandbox = Some(self.namespace.to_string_lossy().into_owned());
        members::CniResult {
            cni_version: "1.1.0".into(),
            interfaces: vec![
                interface(&bridge.name, bridge.mac, None),
                interface(&self.here.0, Some(self.here.1), None),
                interface(&self.container.interface, Some(self.inside), sandbox),
            ],
            ips: self.addresses.iter().map(ip).collect(),
            routes: self.routes.clone(),
            dns: serde_json::json!({}),
            other: serde_json::Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_priority_comes_first_and_then_the_first_attachment() {
        let order = [(900, 0), (7, 1), (0, 0), (0, 1), (0, 98), (-1, 0), (-900, 5)];
        let metrics: Vec<u32> = order.into_iter().map(metric).collect();
        assert!(metrics.is_sorted_by(|one, next| one < next), "{metrics:?}");
    }
}
