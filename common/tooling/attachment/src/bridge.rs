//! Chooses a bridge and its subnet, and plans the operations for them.

use std::net::IpAddr;

use document::members::{self, GatewayMode};
use firewall::{Firewall, FirewallOperation};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nat::{Mode, NatOperation, Used, User};
use netlink::{Connection, IPV6_CLAIMS, Link, LinkOperation, Mac, PROTOCOL, Sysctl, Variable};
use operation::{Claim, Error, Shared};
use repair::NetworkOperation;

use crate::{
    Container, Further, Gateway, Gateways,
    chosen::{Chosen, refuse_needless_proxy, refuse_ranges},
    further,
    overlay::{self, Overlay},
    own::Own,
    prefix, subnet,
    unfit::Unfit,
};

/// The wanted properties of a network and its bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The bridge's name.
    pub bridge: String,
    /// Whether it has IPv4. Without it, it has IPv6.
    pub ipv4: bool,
    /// The IPv4 subnet. None means the existing bridge's, or the first free one.
    pub subnet: Option<Ipv4Net>,
    /// The part of the IPv4 subnet to lease addresses from.
    pub range: Option<Ipv4Net>,
    /// The bridge's IPv4 address, which is the containers' gateway.
    pub gateway: Gateway,
    /// Whether it has IPv6 as well. An existing bridge with IPv6 keeps it anyway.
    pub ipv6: bool,
    /// The IPv6 subnet. None means the existing bridge's, or a random one.
    pub subnet6: Option<Ipv6Net>,
    /// The part of the IPv6 subnet to lease addresses from.
    pub range6: Option<Ipv6Net>,
    /// The bridge's IPv6 address, chosen like the IPv4 address.
    pub gateway6: Gateway,
    /// The subnets after the first of each IP version. A bridge of ours keeps those that it has.
    pub further: Vec<Further>,
    /// How its containers can be reached from outside.
    pub gateway_mode: GatewayMode,
    /// Whether only this host and the containers reach each other.
    pub internal: bool,
    /// Whether its containers cannot reach each other, except by published ports.
    pub isolated: bool,
    /// The VXLAN that connects the network to other hosts.
    pub vxlan: Option<members::Vxlan>,
    /// The host's link on which the host answers for the containers' IPv6 addresses.
    pub ndp_proxy: Option<String>,
    /// Whether the host has nothing to do with the network: another program's bridge, whose gateways
    /// are routers on its wire.
    pub unmanaged: bool,
}

/// A planned network.
#[derive(Debug)]
pub struct Planned {
    /// The bridge in the document.
    pub bridge: members::Bridge,
    /// The bridge's hardware address. None if it is another program's bridge and the kernel did not
    /// report one.
    pub mac: Option<Mac>,
    /// The routers on the wire of a bridge whose gateway is not this host.
    pub routers: Vec<IpAddr>,
    /// The operations that make the network.
    pub operations: Vec<NetworkOperation>,
}

impl Wanted {
    /// A network on this bridge, with defaults for everything else.
    pub fn new(bridge: String) -> Self {
        Self {
            bridge,
            ipv4: true,
            subnet: None,
            range: None,
            gateway: Gateway::Usual,
            ipv6: false,
            subnet6: None,
            range6: None,
            gateway6: Gateway::Usual,
            further: Vec::new(),
            gateway_mode: GatewayMode::Nat,
            internal: false,
            isolated: false,
            vxlan: None,
            ndp_proxy: None,
            unmanaged: false,
        }
    }

    /// The gateways for which the bridge has addresses.
    pub(crate) fn own_gateways(&self) -> Gateways {
        match self.unmanaged {
            true => Gateways { v4: Gateway::None, v6: Gateway::None },
            false => Gateways { v4: self.gateway, v6: self.gateway6 },
        }
    }

    /// The routers of an unmanaged network.
    fn routers(&self, chosen: &Chosen) -> Result<Vec<IpAddr>, Error> {
        if !self.unmanaged || self.internal {
            return Ok(Vec::new());
        }
        let router = |(subnet, _): (IpNet, _)| {
            let wanted = if subnet.addr().is_ipv4() { self.gateway } else { self.gateway6 };
            gateway(&self.bridge, subnet, wanted, None)
        };
        chosen.v4.into_iter().chain(chosen.v6).filter_map(|one| router(one).transpose()).collect()
    }

    /// The mode of the bridge's rules. Without a gateway no packet is forwarded, as on an internal
    /// network. But by another program's bridge (`of_others`) the host may forward packets that are not
    /// ours: it may be the host's own way out.
    fn mode(&self, of_others: bool) -> Mode {
        let unguarded = of_others && !self.has_gateway() && (self.unmanaged || !self.internal);
        let routed = self.gateway_mode == GatewayMode::Routed && !unguarded;
        let internal = !unguarded && (self.internal || !self.has_gateway());
        Mode { routed, internal, isolated: self.isolated, unguarded }
    }

    /// Whether the bridge has an address that is the containers' gateway.
    pub(crate) fn has_gateway(&self) -> bool {
        let (has_ipv4, has_ipv6) = (self.ipv4, self.has_ipv6());
        let Gateways { v4, v6 } = self.own_gateways();
        (has_ipv4 && v4 != Gateway::None) || (has_ipv6 && v6 != Gateway::None)
    }

    /// Whether it has IPv6, whatever an existing bridge has.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.ipv6 || self.subnet6.is_some() || !self.ipv4
    }
}

/// Plans the bridge for this container, with everything that it needs on the host. `firewall` is
/// the host's firewall that has to accept its packets. `recorded` lists the firewall operations in
/// the records of all containers.
///
/// The operations on shared objects follow the claims on them, below the run directory and in the
/// nf_tables table. `ip_forward` comes late, so it is undone before the bridge: the kernel is busy
/// for a while after a bridge was removed, and no other request should have to wait for that.
///
/// # Errors
/// When something of another program is in the way, or the existing bridge differs from the wanted
/// one; the errors of `recorded`.
pub fn network<E: From<Error>>(
    container: &Container<'_>,
    wanted: &Wanted,
    firewall: Firewall,
    recorded: impl FnOnce() -> Result<Vec<FirewallOperation>, E>,
) -> Result<Planned, E> {
    let (name, scope) = (&wanted.bridge, container.scope);
    let chosen = choose(container, wanted)?;
    refuse_other_mode(name, wanted, &chosen)?;
    refuse_ranges(wanted, &chosen)?;
    let sharing = Sharing { bridge: name, claim: claim(container, name), user: user(container, name) };
    let plan = |variable| Sysctl::plan(scope, variable).map_err(Error::from);
    let route_localnet = plan(Variable::RouteLocalnet { link: name.clone() })?;
    let forward = plan(Variable::IpForward { bridge: name.clone() })?;
    let forward6 = chosen.v6.map(|_| plan(Variable::Ipv6Forward { bridge: name.clone() })).transpose()?;
    let has_gateway = wanted.has_gateway();
    let forwards4 = has_gateway && wanted.ipv4;
    // Without a gateway, the host's forwarding is not switched on.
    let closed = forwards4 && forward.previous == "0";
    let closed6 = has_gateway && forward6.as_ref().is_some_and(|forward| forward.previous == "0");
    refuse_needless_proxy(wanted, &chosen)?;
    // The rules that protect 127.0.0.0/8 before route_localnet, which opens it.
    let mut operations: Vec<NetworkOperation> = vec![sharing.claim.clone().into()];
    operations.extend(sharing.rules(wanted, &chosen, (closed, closed6)));
    operations.extend(sharing.links(container, &chosen));
    operations.extend(chosen.overlay.iter().flat_map(|overlay| sharing.overlay(overlay)));
    if forwards4 {
        operations.push(sharing.of_bridge(route_localnet));
    }
    // Where the host does not forward yet, ip_forward switches it on for all interfaces.
    let own = plan(Variable::Forwarding { link: name.clone() })?;
    if forwards4 && forward.previous != "0" && (!netlink::forwards(name) || own.kept.exists()) {
        operations.push(sharing.of_bridge(own));
    }
    if wanted.isolated && wanted.ipv4 {
        operations.extend(sharing.proxies(plan)?);
    }
    // Shared by all bridges. The last container of all takes it back, also one that does not need it.
    let forward = Used::new(&sharing.user, None, forward);
    let forward = if forwards4 { forward } else { forward.only_undone() };
    operations.push(Shared::new(&sharing.claim, forward).into());
    operations.extend(
        forward6.into_iter().flat_map(|forward| for_ipv6(container, &sharing.user, forward, has_gateway)),
    );
    if has_gateway {
        // Undone before ip_forward, which stays set while there are rules for forwarded packets.
        // Planned for `none` too: the last container removes rules that an earlier one needed.
        let through = FirewallOperation::plan(name, chosen.v6.is_some(), firewall, recorded)?;
        operations.push(sharing.of_bridge(through));
    }
    let bridge = chosen.member(wanted);
    Ok(Planned { bridge, mac: chosen.mac, routers: wanted.routers(&chosen)?, operations })
}

/// Whose operations are those on a bridge: its containers share it.
struct Sharing<'a> {
    bridge: &'a str,
    claim: Claim,
    user: User,
}

impl Sharing<'_> {
    /// An operation on something of the bridge.
    fn of_bridge<O>(&self, operation: O) -> NetworkOperation
    where
        NetworkOperation: From<Shared<Used<O>>>,
    {
        Shared::new(&self.claim, Used::new(&self.user, Some(self.bridge), operation)).into()
    }

    /// The operations that make the rules: one for the first subnets, and one for each further one. `closed` says
    /// for IPv4 and IPv6 whether the host did not forward before.
    fn rules(
        &self,
        wanted: &Wanted,
        chosen: &Chosen,
        (closed, closed6): (bool, bool),
    ) -> Vec<NetworkOperation> {
        let rules = |subnet, subnet6| NatOperation::Bridge {
            bridge: self.bridge.to_owned(),
            subnet,
            subnet6,
            user: Some(self.user.clone()),
            closed,
            closed6,
            mode: wanted.mode(chosen.of_others),
        };
        let first = rules(chosen.first().0, chosen.subnet6().filter(|_| wanted.ipv4));
        let further = chosen.further.iter().map(|one| rules(one.subnet, None));
        [first].into_iter().chain(further).map(NetworkOperation::from).collect()
    }

    /// The operations that make the bridge and its addresses.
    fn links(&self, container: &Container<'_>, chosen: &Chosen) -> Vec<NetworkOperation> {
        // Another program's bridge has containers without IPv6 too. Its IPv6 objects are removed with
        // the last container that has IPv6.
        let apart = chosen.subnet6().filter(|_| chosen.of_others);
        let claim6 = Claim::new(container.scope, &format!("bridge6-{}", self.bridge), container.id);
        let one = |link: LinkOperation| match apart {
            Some(subnet6) if is_of_ipv6(&link) => {
                let used = Used::new(&self.user, Some(self.bridge), link);
                Shared::new(&claim6, used.by_subnet(subnet6)).into()
            }
            _ => self.of_bridge(link),
        };
        let links = chosen.operations.iter().cloned().map(one);
        apart.map(|_| claim6.clone().into()).into_iter().chain(links).collect()
    }

    /// The operations by which the host answers for isolated containers.
    fn proxies(
        &self,
        plan: impl Fn(Variable) -> Result<Sysctl, Error>,
    ) -> Result<[NetworkOperation; 2], Error> {
        let link = || self.bridge.to_owned();
        let delay = plan(Variable::ProxyDelay { link: link() })?;
        let answer = plan(Variable::ProxyArp { link: link() })?;
        Ok([self.of_bridge(delay), self.of_bridge(answer)])
    }

    /// The operations that connect the bridge to other hosts.
    fn overlay(&self, overlay: &Overlay) -> Vec<NetworkOperation> {
        let Overlay { filter, links, entries } = overlay.clone();
        let links = links.into_iter().map(|link| self.of_bridge(link));
        [self.of_bridge(filter)].into_iter().chain(links).chain([entries.into()]).collect()
    }
}

/// The container's claim on a bridge.
fn claim(container: &Container<'_>, bridge: &str) -> Claim {
    Claim::new(container.scope, &format!("bridge-{bridge}"), container.id)
}

/// The container as a user of a bridge.
pub(crate) fn user(container: &Container<'_>, bridge: &str) -> User {
    let claims = claim(container, bridge).directory;
    let (holder, mark) = (container.id.to_owned(), Some(container.mark()));
    User { holder, mark, link: container.link(), claims }
}

/// The operations that forward IPv6, for all networks that have it. Each attachment has a claim, and
/// containers of other run directories count by their IPv6 addresses.
fn for_ipv6(
    container: &Container<'_>,
    user: &User,
    forward: Sysctl,
    has_gateway: bool,
) -> [NetworkOperation; 2] {
    let claim = Claim::new(container.scope, IPV6_CLAIMS, &container.holder());
    let forward = Used::new(user, None, forward).by_subnet(Ipv6Net::default());
    let shared = Shared::new(&claim, if has_gateway { forward } else { forward.only_undone() });
    [claim.into(), shared.into()]
}

/// Refuses a mode that differs from the bridge's current one. All containers on a bridge share its
/// mode.
fn refuse_other_mode(bridge: &str, wanted: &Wanted, chosen: &Chosen) -> Result<(), Error> {
    let (Some(standing), mode) = (nat::mode(bridge)?, wanted.mode(chosen.of_others)) else { return Ok(()) };
    let bridge = bridge.to_owned();
    if wanted.has_gateway() && standing.internal && !chosen.has_address {
        return Err(Unfit::NoGateway(bridge).into());
    }
    if wanted.has_gateway() && standing.unguarded {
        let (standing, flag) = ("has containers without a gateway", "with --gateway none");
        return Err(Unfit::OtherKind { bridge, standing, flag }.into());
    }
    if !wanted.has_gateway() && !standing.internal && !standing.unguarded {
        let (standing, flag) = ("has a gateway", "without --gateway none");
        return Err(Unfit::OtherKind { bridge, standing, flag }.into());
    }
    let name = |routed| if routed { "routed" } else { "nat" };
    if standing.routed != mode.routed {
        let (standing, wanted) = (name(standing.routed), name(mode.routed));
        return Err(Unfit::OtherMode { bridge, standing, wanted }.into());
    }
    let other = match standing {
        Mode { internal, .. } if internal != mode.internal => match internal {
            true => Some(("is internal", "with --internal")),
            false => Some(("is not internal", "without --internal")),
        },
        Mode { isolated, .. } if isolated != mode.isolated => match isolated {
            true => Some(("keeps its containers from each other", "with --icc=false")),
            false => Some(("lets its containers reach each other", "without --icc=false")),
        },
        _ => None,
    };
    match other {
        Some((standing, flag)) => Err(Unfit::OtherKind { bridge, standing, flag }.into()),
        None => Ok(()),
    }
}

/// Reads the system's state and chooses.
fn choose(container: &Container<'_>, wanted: &Wanted) -> Result<Chosen, Error> {
    let name = wanted.bridge.as_str();
    let connection = Connection::open(None)?;
    let standing = connection.link(name)?;
    let is_ours = standing.as_ref().is_some_and(Link::is_our_bridge);
    match &standing {
        None if wanted.unmanaged => return Err(Unfit::NoLink(name.to_owned()).into()),
        Some(_) if wanted.unmanaged && is_ours => return Err(Unfit::Managed(name.to_owned()).into()),
        _ => {}
    }
    let own = Own::of(&connection, standing.as_ref().map(|link| link.index))?;
    let v4 = match wanted.ipv4 {
        true => Some(subnet::choose(&connection, standing.as_ref(), &own, wanted)?),
        false => None,
    };
    let v6 = prefix::choose(&connection, standing.as_ref(), &own, wanted)?;
    let has_address = v4.or(v6).is_some_and(|first| first.has_address);
    let first: Vec<_> = v4.iter().chain(&v6).map(|chosen| chosen.subnet).collect();
    let further = further::choose(&connection, standing.as_ref(), &own, wanted, &first)?;
    let (further, members): (Vec<_>, Vec<_>) = further.into_iter().unzip();
    let chosen = v4.into_iter().chain(v6).chain(further);
    let addresses = chosen.filter_map(|chosen| Some((chosen.address()?, chosen.present)));
    let mac = match standing.as_ref() {
        Some(link) => link.mac,
        None => Some(Mac::draw(name, operation::draw()?)),
    };
    let operations = make(container, name, mac, standing.as_ref(), addresses.collect())?;
    if let Some(link) = &standing {
        overlay::refuse_other(&connection, link, wanted.vxlan.as_ref())?;
    }
    let overlay = wanted.vxlan.as_ref();
    let kind = (wanted.isolated, v6.is_some());
    let overlay =
        overlay.map(|vxlan| overlay::make(&connection, container.scope, name, vxlan, kind)).transpose()?;
    let v4 = v4.map(|v4| (v4.subnet, v4.gateway));
    let v6 = v6.map(|v6| (v6.subnet, v6.gateway));
    let of_others = standing.is_some() && !is_ours;
    Ok(Chosen { v4, v6, further: members, has_address, of_others, mac, operations, overlay })
}

/// The bridge's address in the subnet: the existing one, otherwise the wanted one or the first.
pub(crate) fn gateway(
    bridge: &str,
    subnet: IpNet,
    wanted: Gateway,
    standing: Option<IpAddr>,
) -> Result<Option<IpAddr>, Error> {
    match (wanted, standing) {
        (Gateway::None, _) => Ok(None),
        (Gateway::At(wanted), Some(standing)) if wanted != standing => {
            Err(Unfit::OtherGateway { bridge: bridge.to_owned(), standing, wanted }.into())
        }
        (Gateway::At(wanted), _) => {
            refuse_gateway(subnet, wanted)?;
            Ok(Some(wanted))
        }
        (Gateway::Usual, standing) => Ok(Some(standing.unwrap_or_else(|| lease::gateway(subnet)))),
    }
}

/// Refuses an address that cannot be a host of the subnet.
pub(crate) fn refuse_gateway(subnet: IpNet, gateway: IpAddr) -> Result<(), Error> {
    if !subnet.contains(&gateway) {
        return Err(Unfit::AddressOutside { address: gateway, subnet }.into());
    }
    match lease::has_room(subnet, gateway.into(), subnet.network()) {
        true => Ok(()),
        false => Err(Unfit::NotOfAHost { address: gateway, subnet }.into()),
    }
}

/// The operations that make the bridge and its addresses. For an existing address, `present` has
/// its origin.
fn make(
    container: &Container<'_>,
    name: &str,
    mac: Option<Mac>,
    standing: Option<&Link>,
    addresses: Vec<(IpNet, Option<Option<u8>>)>,
) -> Result<Vec<LinkOperation>, Error> {
    let add = |mac, address| LinkOperation::AddressAdd {
        namespace: None,
        link: name.to_owned(),
        mac,
        address,
        protocol: Some(PROTOCOL),
    };
    let link = || name.to_owned();
    let has_ipv6 = addresses.iter().any(|(address, _)| address.addr().is_ipv6());
    let loopback = |mac| has_ipv6.then(|| LinkOperation::LoopbackIpv6 { link: name.to_owned(), mac });
    if let Some(others) = standing.filter(|link| !link.is_our_bridge()) {
        refuse_unusable(others)?;
        // We must not remove an address that the bridge had before.
        let is_ours = |present: &Option<Option<u8>>| present.is_none_or(|by| by == Some(PROTOCOL));
        let ours = addresses.into_iter().filter(|(_, present)| is_ours(present));
        return Ok(ours.map(|(address, _)| add(None, address)).chain(loopback(None)).collect());
    }
    let mac = mac.ok_or_else(|| Unfit::NoBridge(name.to_owned()))?;
    let ipv6 = match has_ipv6 {
        true => LinkOperation::Ipv6On { namespace: None, link: link(), mac },
        false => LinkOperation::Ipv6Off { namespace: None, link: link(), mac },
    };
    let made = [
        LinkOperation::BridgeAdd { name: link(), mac, mark: Some(container.mark()) },
        ipv6,
        LinkOperation::LinkUp { namespace: None, link: link(), mac },
    ];
    let addresses = addresses.into_iter().map(|(address, _)| add(Some(mac), address));
    Ok(made.into_iter().chain(addresses).chain(loopback(Some(mac))).collect())
}

/// Whether the operation is needed for IPv6 only.
fn is_of_ipv6(operation: &LinkOperation) -> bool {
    match operation {
        LinkOperation::AddressAdd { address, .. } => address.addr().is_ipv6(),
        LinkOperation::LoopbackIpv6 { .. } => true,
        _ => false,
    }
}

fn refuse_unusable(link: &Link) -> Result<(), Error> {
    let name = link.name.clone();
    if !link.bridge {
        return Err(Unfit::NoBridge(name).into());
    }
    if !link.up {
        return Err(Unfit::Down(name).into());
    }
    Ok(())
}
