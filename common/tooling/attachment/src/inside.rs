//! The container's side of an attachment: its addresses and routes, and its members in the document.

use std::{net::IpAddr, path::Path};

use document::members::{CniInterface, CniIp, CniResult, CniRoute, On, Subnet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lease::Lease;
use netlink::{Connection, Link, LinkOperation, Mac, PROTOCOL};
use operation::{Error, is_gone};

use crate::{Container, address::Source, pair::Asked, unfit::Unfit};

/// A leased address, with its subnet and gateway.
pub(crate) struct Leased {
    pub(crate) lease: Lease,
    subnet: IpNet,
    gateway: Option<IpAddr>,
}

/// Plans the leases of the container's addresses, one of each subnet, and of further ones that are asked for. `link` is
/// the bridge or the parent. If strangers may have addresses on it, it is `probed`.
pub(crate) fn lease(
    container: &Container<'_>,
    on: &On,
    (connection, link, probed): (&Connection, &Link, bool),
    asked: &Asked,
) -> Result<Vec<Leased>, Error> {
    let lease = |of: &Subnet, wanted| -> Result<Leased, Error> {
        let Subnet { subnet, ip_range: range, gateway } = *of;
        let source = Source { container, on, subnet, range, gateway, connection, link, probed };
        Ok(Leased { lease: source.lease(wanted)?, subnet, gateway })
    };
    let subnets = asked.subnets(on);
    let mut wanted: Vec<IpAddr> = asked.addresses().collect();
    for (at, address) in wanted.iter().enumerate() {
        let mut of_version = subnets.iter().filter(|one| one.subnet.addr().is_ipv4() == address.is_ipv4());
        match of_version.clone().find(|one| one.subnet.contains(address)).or(of_version.next()) {
            _ if wanted[..at].contains(address) => return Err(Unfit::TwiceWanted(*address).into()),
            None => return Err(lacks(on, address.is_ipv4()).into()),
            Some(Subnet { subnet, .. }) if !subnet.contains(address) => {
                return Err(Unfit::AddressOutside { address: *address, subnet: *subnet }.into());
            }
            Some(_) => {}
        }
    }
    let mut leased = Vec::new();
    for one in &subnets {
        let own = wanted.iter().position(|address| one.subnet.contains(address)).map(|at| wanted.remove(at));
        leased.push(lease(one, own)?);
    }
    for address in wanted {
        let of = subnets.iter().find(|one| one.subnet.contains(&address));
        leased.extend(of.map(|of| lease(of, Some(address))).transpose()?);
    }
    Ok(leased)
}

/// The least MTU of a link with IPv6 (RFC 8200, 5). On a smaller one, the kernel has no IPv6.
const LEAST_MTU: u32 = 1280;

/// Refuses an MTU with which an interface could not have its IPv6 address.
pub(crate) fn refuse_small(mtu: u32, leased: &[Leased]) -> Result<(), Error> {
    let has_ipv6 = leased.iter().any(|leased| leased.lease.address.is_ipv6());
    match has_ipv6 && mtu < LEAST_MTU {
        true => Err(Unfit::SmallMtu(mtu).into()),
        false => Ok(()),
    }
}

/// The hardware address that belongs to the addresses. It follows from them, so that no neighbour
/// remembers an earlier one for them. Without addresses, it is random.
pub(crate) fn mac(container: &Container<'_>, leased: &[Leased]) -> Result<Mac, Error> {
    if leased.is_empty() {
        return Ok(Mac::draw(container.id, operation::draw()?));
    }
    let mut addresses = leased.iter().map(|leased| leased.lease.address);
    let v4 = addresses.clone().find_map(|address| match address {
        IpAddr::V4(address) => Some(Mac::from(address)),
        IpAddr::V6(_) => None,
    });
    Ok(v4.unwrap_or_else(|| {
        let first = addresses.next().map(|address| address.to_string());
        Mac::derive(&first.unwrap_or_default(), "address")
    }))
}

/// The error for what needs IPv4, or IPv6, on a network that lacks it.
fn lacks(on: &On, ipv4: bool) -> Unfit {
    match on {
        _ if on.subnet().is_none() => Unfit::NoAddresses,
        _ if ipv4 => Unfit::NoIpv4,
        On::Bridge(bridge) => Unfit::NoIpv6(bridge.name.clone()),
        On::Parent(_) => Unfit::NoSubnet6,
    }
}

/// The routes of the interface, and those whose next hop is on another interface in the namespace. Without a
/// gateway, or on an internal network, there is no default route.
pub(crate) fn routes(
    on: &On,
    asked: &Asked,
    namespace: &Path,
) -> Result<(Vec<CniRoute>, Vec<LinkOperation>), Error> {
    let (gateway, gateway6) = asked.gateways(on);
    let subnets = asked.subnets(on);
    let has_way_out = !on.is_internal() && (gateway.is_some() || gateway6.is_some());
    let (mut routes, mut others) = (Vec::new(), Vec::new());
    match asked.priority {
        Some((priority, _)) if on.is_internal() && priority != 0 => {
            return Err(Unfit::InternalPriority.into());
        }
        Some((priority, _)) if !has_way_out && priority > 0 => return Err(Unfit::NoWayOut.into()),
        _ if on.is_internal() => {}
        priority => {
            let metric = asked.metric.or(priority.map(crate::pair::metric));
            let to = |dst: IpNet, gateway: Option<IpAddr>| {
                let gateway = gateway.filter(|_| !asked.no_default_route.leaves_out(dst));
                gateway.map(|gw| CniRoute { dst, gw: Some(gw), priority: metric })
            };
            let all = match on.subnet() {
                Some(IpNet::V6(_)) => IpNet::from(Ipv6Net::default()),
                Some(IpNet::V4(_)) | None => Ipv4Net::default().into(),
            };
            routes.extend(to(all, gateway));
            routes.extend(to(Ipv6Net::default().into(), gateway6));
        }
    }
    for route in asked.routes.iter().filter(|route| route.rejection.is_none()) {
        let destination = route.destination;
        let is_v4 = destination.addr().is_ipv4();
        let mut of_version = subnets.iter().filter(|one| one.subnet.addr().is_ipv4() == is_v4);
        let subnet = match of_version.clone().next() {
            None => return Err(lacks(on, is_v4).into()),
            Some(first) => first,
        };
        let gateway = route.gateway.or(subnet.gateway).ok_or(Unfit::NoNextHop(destination))?;
        if of_version.any(|one| one.subnet.contains(&gateway)) {
            routes.push(CniRoute { dst: destination, gw: Some(gateway), priority: route.metric });
            continue;
        }
        let other = by_another(namespace, (destination, gateway), route.metric)?;
        others.push(other.ok_or(Unfit::FarGateway { gateway, destination, subnet: subnet.subnet })?);
    }
    Ok((routes, others))
}

/// The operation for a route by the interface in the namespace that has the next hop in its subnet. None if there is
/// no such one.
fn by_another(
    namespace: &Path,
    (destination, gateway): (IpNet, IpAddr),
    metric: Option<u32>,
) -> Result<Option<LinkOperation>, Error> {
    let inside = match Connection::open(Some(namespace)) {
        // A planned namespace does not exist yet.
        Err(error) if is_gone(&error.errno()) => return Ok(None),
        inside => inside?,
    };
    let addresses = if gateway.is_ipv4() { inside.addresses(None)? } else { inside.addresses6(None)? };
    let Some(near) = addresses.iter().find(|one| one.address.contains(&gateway)) else { return Ok(None) };
    let link = inside.link_at(near.link)?;
    Ok(link.and_then(|link| {
        Some(LinkOperation::RouteAdd {
            namespace: Some(namespace.to_owned()),
            destination,
            gateway,
            mac: link.mac?,
            link: link.name,
            metric,
            protocol: Some(PROTOCOL),
        })
    }))
}

/// The operations for the routes that reject packets.
pub(crate) fn refusals<'a>(
    asked: &'a Asked,
    namespace: &'a Path,
) -> impl Iterator<Item = LinkOperation> + use<'a> {
    asked.routes.iter().filter_map(move |route| {
        Some(LinkOperation::RouteRefuse {
            namespace: namespace.to_owned(),
            destination: route.destination,
            kind: route.rejection?,
            metric: route.metric,
        })
    })
}

/// The planned interface in the container's namespace.
pub(crate) struct Inside<'a> {
    pub(crate) container: &'a Container<'a>,
    pub(crate) namespace: &'a Path,
    /// Its hardware address.
    pub(crate) mac: Mac,
    /// Its MTU, in bytes.
    pub(crate) mtu: u32,
    /// Its addresses, each with the gateway of its subnet.
    pub(crate) addresses: Vec<(IpNet, Option<IpAddr>)>,
    pub(crate) routes: Vec<CniRoute>,
}

impl<'a> Inside<'a> {
    pub(crate) fn new(
        container: &'a Container<'a>,
        namespace: &'a Path,
        (mac, mtu): (Mac, u32),
        leased: &[Leased],
        routes: Vec<CniRoute>,
    ) -> Self {
        let address = |leased: &Leased| {
            (IpNet::new_assert(leased.lease.address, leased.subnet.prefix_len()), leased.gateway)
        };
        let addresses = leased.iter().map(address).collect();
        Self { container, namespace, mac, mtu, addresses, routes }
    }

    /// The operations that set the interface up, once it exists.
    pub(crate) fn operations(&self) -> impl Iterator<Item = LinkOperation> {
        let (link, mac) = (self.container.interface.as_str(), self.mac);
        let namespace = || Some(self.namespace.to_owned());
        let up = LinkOperation::LinkUp { namespace: namespace(), link: link.to_owned(), mac };
        let has_ipv6 = self.addresses.iter().any(|(address, _)| address.addr().is_ipv6());
        // In a namespace of another runtime, a link would take its neighbours' router advertisements.
        let off = !has_ipv6 && netlink::new_links_have_ipv6(self.namespace);
        let off = off.then(|| LinkOperation::Ipv6Off { namespace: namespace(), link: link.to_owned(), mac });
        let ipv6 =
            has_ipv6.then(|| LinkOperation::Ipv6On { namespace: namespace(), link: link.to_owned(), mac });
        let addresses = self.addresses.iter().map(move |(address, _)| LinkOperation::AddressAdd {
            namespace: namespace(),
            link: link.to_owned(),
            mac: Some(mac),
            address: *address,
            protocol: Some(PROTOCOL),
        });
        let routes = self.routes.iter().filter_map(move |route| {
            Some(LinkOperation::RouteAdd {
                namespace: Some(self.namespace.to_owned()),
                destination: route.dst,
                gateway: route.gw?,
                link: link.to_owned(),
                mac,
                metric: route.priority,
                protocol: Some(PROTOCOL),
            })
        });
        off.into_iter().chain([up]).chain(ipv6).chain(addresses).chain(routes)
    }

    /// The operations that tell the neighbours the hardware address of the addresses, where they may
    /// remember an earlier one: other programs may have had the addresses (`all`), the hardware address does
    /// not follow from the IPv4 address, or it does not follow from the IPv6 address. `port` is the
    /// host's side of the link.
    pub(crate) fn announcements(
        &self,
        port: Option<String>,
        all: bool,
    ) -> impl Iterator<Item = LinkOperation> {
        let is_new = move |address: &IpAddr| match address {
            IpAddr::V4(address) => all || self.mac != Mac::from(*address),
            IpAddr::V6(_) => true,
        };
        let addresses = self.addresses.iter().map(|(address, _)| address.addr()).filter(is_new);
        addresses.map(move |address| LinkOperation::Announce {
            namespace: self.namespace.to_owned(),
            link: self.container.interface.clone(),
            mac: self.mac,
            address,
            port: port.clone(),
        })
    }

    /// The interface in a CNI result.
    pub(crate) fn interface(&self, name: &str, mac: Option<Mac>, sandbox: Option<String>) -> CniInterface {
        CniInterface {
            name: name.to_owned(),
            mac: mac.map(|mac| mac.to_string()),
            mtu: Some(self.mtu),
            sandbox,
        }
    }

    /// The CNI result (CNI SPEC.md, "ADD Success"), with these interfaces of the host before the
    /// container's.
    pub(crate) fn result(&self, mut interfaces: Vec<CniInterface>) -> CniResult {
        let at = interfaces.len();
        let sandbox = Some(self.namespace.to_string_lossy().into_owned());
        interfaces.push(self.interface(&self.container.interface, Some(self.mac), sandbox));
        let ip = |(address, gateway): &(IpNet, Option<IpAddr>)| CniIp {
            address: *address,
            gateway: *gateway,
            interface: Some(at),
        };
        CniResult {
            cni_version: "1.1.0".into(),
            interfaces,
            ips: self.addresses.iter().map(ip).collect(),
            routes: self.routes.clone(),
            dns: serde_json::json!({}),
            other: serde_json::Map::new(),
        }
    }
}
