//! The veth pair between a container's namespace and a bridge: its operations, and its members in
//! the document.

use std::{net::IpAddr, path::Path};

use document::members::{self, Attachment, On, Subnet};
use ipnet::IpNet;
use nat::{NatOperation, Used};
use netlink::{Connection, Link, LinkOperation, Mac, Peer, Sysctl, Variable};
use operation::{Claim, Error, Shared};
use repair::NetworkOperation;

use crate::{
    Closed, Container, Route, bridge,
    inside::{self, Inside, Leased},
    overlay,
    unfit::Unfit,
};

/// The kernel's default MTU of a new bridge, in bytes.
const MTU: u32 = 1500;

/// The wanted properties of the container's side.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The network's name. None means the bridge's name.
    pub name: Option<String>,
    /// The MTU of the interface in bytes. None means that of the default route's interface, or on
    /// another program's bridge, that of the bridge.
    pub mtu: Option<u32>,
    /// The IPv4 address. None means the next free one.
    pub address: Option<IpAddr>,
    /// The IPv6 address on a network with IPv6. None means a free one.
    pub address6: Option<IpAddr>,
    /// Further addresses, of either IP version.
    pub further: Vec<IpAddr>,
    /// The hardware address. None means that it is derived from the address.
    pub mac: Option<Mac>,
    /// The priority of its default route among those of the attachments, and the number of
    /// attachments before it with the same priority. None means that it comes before all of them.
    pub priority: Option<(i32, usize)>,
    /// The metric of its default route, instead of the one that follows from the priority.
    pub metric: Option<u32>,
    /// The IP versions by which it has no default route, although the network has a gateway.
    pub no_default_route: Closed,
    /// The routers on the bridge's wire that have the way out instead of the host, at most one of each IP
    /// version.
    pub routers: Vec<IpAddr>,
    /// Further routes.
    pub routes: Vec<Route>,
    /// Further names of the container on the network.
    pub aliases: Vec<String>,
    /// The hardware address of a bridge that may not exist yet, because the same step makes it.
    pub makes_bridge: Option<Mac>,
}

impl Asked {
    /// The gateway of the network's first subnet, and that of IPv6 beside it.
    pub(crate) fn gateways(&self, on: &On) -> (Option<IpAddr>, Option<IpAddr>) {
        let router = |subnet: IpNet| self.routers.iter().find(|router| subnet.contains(*router)).copied();
        let second = on.ipv6().and_then(|v6| v6.gateway.or_else(|| router(v6.subnet)));
        (on.gateway().or_else(|| on.subnet().and_then(router)), second)
    }

    /// The network's subnets, with their gateways: the first one, that of IPv6 beside it, and the further ones.
    pub(crate) fn subnets(&self, on: &On) -> Vec<Subnet> {
        let (gateway, gateway6) = self.gateways(on);
        let first = on.subnet().map(|subnet| Subnet { subnet, gateway, ip_range: on.ip_range() });
        let second = on.ipv6().map(|v6| Subnet { gateway: gateway6, ..v6.clone() });
        first.into_iter().chain(second).chain(on.further().iter().cloned()).collect()
    }

    /// The addresses that are asked for.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.address.into_iter().chain(self.address6).chain(self.further.iter().copied())
    }

    /// The attachment's further members.
    pub(crate) fn attachment(
        &self,
        container: &Container<'_>,
        on: On,
        cni: members::CniResult,
    ) -> Attachment {
        Attachment {
            name: self.name.clone().unwrap_or_else(|| on.link().to_owned()),
            interface: container.interface.clone(),
            aliases: self.aliases.clone(),
            on,
            cni,
            other: Default::default(),
        }
    }
}

/// Plans the veth pair between the container's `namespace` and the bridge `on`, with a lease of its
/// address.
///
/// # Errors
/// When there is no bridge or no free address, or a route's gateway is not reachable.
pub fn pair(
    container: &Container<'_>,
    namespace: &Path,
    on: &members::Bridge,
    asked: &Asked,
) -> Result<(Attachment, Vec<NetworkOperation>), Error> {
    container.refuse_own(namespace)?;
    let connection = Connection::open(None)?;
    let bridge = match connection.link(&on.name)? {
        Some(bridge) => bridge,
        None if container.planned || asked.makes_bridge.is_some() => {
            planned_bridge(&on.name, asked.makes_bridge)
        }
        None => return Err(Unfit::BridgeGone(on.name.clone()).into()),
    };
    let guards = bridge.index == 0 || bridge.is_our_bridge();
    let network = On::Bridge(on.clone());
    let leased = inside::lease(container, &network, (&connection, &bridge, !guards), asked)?;
    let leased4 = leased.iter().find_map(|leased| match leased.lease.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let mtu = match (asked.mtu, &on.vxlan) {
        (Some(mtu), _) => mtu,
        (None, Some(vxlan)) => overlay::mtu(&connection, vxlan.local)?,
        // A bridge of ours has the lowest MTU of its ports.
        (None, None) if guards => {
            let from = leased4.filter(|_| bridge.index != 0).map(|address| (bridge.index, address));
            connection.way_out(from)?.map_or(bridge.mtu, |out| out.mtu)
        }
        (None, None) => bridge.mtu,
    };
    inside::refuse_small(mtu, &leased)?;
    let mac = asked.mac.map_or_else(|| inside::mac(container, &leased), Ok)?;
    let (routes, others) = inside::routes(&network, asked, namespace)?;
    let pair = Pair {
        inside: Inside::new(container, namespace, (mac, mtu), &leased, routes),
        on,
        here: (container.link(), Mac::derive(container.id, "host")),
        guards,
    };
    let mut operations: Vec<NetworkOperation> = Vec::new();
    for Leased { lease, .. } in leased {
        let (address, instead_of) = (lease.address, lease.instead_of.clone());
        let claimed = NatOperation::Address { address, holder: container.id.to_owned(), instead_of };
        operations.extend([lease.into(), claimed.into()]);
    }
    operations.extend(pair.operations().map(NetworkOperation::from));
    operations.extend(others.into_iter().map(NetworkOperation::from));
    operations.extend(inside::refusals(asked, namespace).map(NetworkOperation::from));
    operations
        .extend(pair.inside.announcements(Some(pair.here.0.clone()), !guards).map(NetworkOperation::from));
    operations.extend(proxies(container, on, &pair.inside.addresses)?);
    Ok((asked.attachment(container, network, pair.result(&bridge)), operations))
}

/// The metric of default routes with priority 0. Each priority has a hundred metrics, in the order
/// of attachment.
const METRIC: i64 = 100_000;

/// The priority of the next attachment, with its position after these.
///
/// # Errors
/// When it would have to come before a default route that comes before all.
pub fn priority(number: i32, attachments: &[Attachment]) -> Result<(i32, usize), Error> {
    let is_first = |route: &members::CniRoute| route.dst.prefix_len() == 0 && route.priority.is_none();
    match attachments.iter().find(|one| one.cni.routes.iter().any(is_first)) {
        Some(first) if number > 0 => Err(Unfit::NoPriority(first.interface.clone()).into()),
        _ => {
            // It goes behind all of the same priority, because one in between may have been
            // removed.
            let taken: Vec<u64> = attachments.iter().map(Attachment::metric).collect();
            let last = (0..=99).rev().find(|at| taken.contains(&metric((number, *at)).into()));
            Ok((number, last.map_or(0, |at| at + 1)))
        }
    }
}

/// The metric of the default route of an attachment with this priority, behind so many others that have the same. Each
/// priority has a hundred metrics.
pub fn metric((priority, before): (i32, usize)) -> u32 {
    let priority = i64::from(priority).clamp(-900, 900);
    let before = i64::try_from(before).unwrap_or(99).min(99);
    u32::try_from(METRIC - priority * 100 + before).unwrap_or_default()
}

/// The operations that make the host answer for the IPv6 addresses on links: on that of `--ndp-proxy`, and on
/// a bridge that isolates its containers, so that they send their packets for each other to the host, which
/// decides (as [`Variable::ProxyArp`] does for IPv4).
fn proxies(
    container: &Container<'_>,
    on: &members::Bridge,
    addresses: &[(IpNet, Option<IpAddr>)],
) -> Result<Vec<NetworkOperation>, Error> {
    let addresses = addresses.iter().filter_map(|(address, _)| match address {
        IpNet::V6(net) => Some(net.addr()),
        IpNet::V4(_) => None,
    });
    let addresses: Vec<_> = addresses.collect();
    let own = Some(&on.name).filter(|_| on.isolated && !addresses.is_empty());
    let user = bridge::user(container, &on.name);
    let mut operations: Vec<NetworkOperation> = Vec::new();
    for link in on.ndp_proxy.iter().chain(own) {
        let claim = Claim::new(container.scope, &format!("ndp-{link}"), &container.holder());
        operations.push(claim.clone().into());
        let delay = Variable::NdpDelay { link: link.clone() };
        let answers = Variable::ProxyNdp { link: link.clone() };
        let delay = own.filter(|own| *own == link).map(|_| delay);
        for variable in [Some(answers), delay].into_iter().flatten() {
            let variable = Sysctl::plan(container.scope, variable)?;
            operations.push(Shared::new(&claim, Used::new(&user, Some(&on.name), variable)).into());
        }
        let proxy = |address: &_| LinkOperation::NdpProxy { link: link.clone(), address: *address }.into();
        operations.extend(addresses.iter().map(proxy));
    }
    Ok(operations)
}

/// The bridge as it will be made.
fn planned_bridge(name: &str, mac: Option<Mac>) -> Link {
    Link {
        index: 0,
        name: name.to_owned(),
        mac,
        mtu: MTU,
        up: true,
        master: None,
        hairpin: false,
        isolated: false,
        forwards: false,
        bridge: true,
        kind: "bridge".to_owned(),
        under: None,
        alias: None,
    }
}

/// The planned pair.
struct Pair<'a> {
    inside: Inside<'a>,
    on: &'a members::Bridge,
    /// The name and the hardware address of the host's side.
    here: (String, Mac),
    /// Whether the bridge is ours. Then its ports protect the host's loopback.
    guards: bool,
}

impl Pair<'_> {
    /// The operations that make the pair.
    fn operations(&self) -> impl Iterator<Item = LinkOperation> {
        let (name, mac) = self.here.clone();
        let Inside { container, namespace, mac: there, mtu, .. } = self.inside;
        let bridge = self.on.name.clone();
        let isolated = self.on.isolated.then(|| LinkOperation::Isolate { link: name.clone(), mac });
        let guard = self.guards.then(|| LinkOperation::GuardLoopback { link: name.clone(), mac, bridge });
        let outside = [
            LinkOperation::VethAdd {
                name: name.clone(),
                mac,
                master: self.on.name.clone(),
                mtu,
                peer: Peer { name: container.interface.clone(), mac: there, namespace: namespace.to_owned() },
                mark: Some(container.mark()),
            },
            LinkOperation::Ipv6Off { namespace: None, link: name.clone(), mac },
            LinkOperation::Hairpin { link: name.clone(), mac },
        ];
        let up = LinkOperation::LinkUp { namespace: None, link: name, mac };
        outside.into_iter().chain(isolated).chain(guard).chain([up]).chain(self.inside.operations())
    }

    /// The CNI result.
    fn result(&self, bridge: &Link) -> members::CniResult {
        let outside = |name: &str, mac| self.inside.interface(name, mac, None);
        self.inside.result(vec![outside(&bridge.name, bridge.mac), outside(&self.here.0, Some(self.here.1))])
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
