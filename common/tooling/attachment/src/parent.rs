//! Interfaces that are made of a link of the host, their parent: macvlans and ipvlans. The containers
//! share the parent's wire.

use std::{net::IpAddr, path::Path};

use document::members::{Attachment, On, Parent, Subnet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::{Child, Connection, Link, LinkOperation, Mac, Peer};
use operation::{Claim, Error, Shared};
use repair::NetworkOperation;

use crate::{
    Container, Further, Gateway,
    bridge::refuse_gateway,
    free::refuse_special,
    inside::{self, Inside, Leased},
    own::Own,
    pair::Asked,
    unfit::Unfit,
};

/// The wanted properties of a network on a link of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedParent {
    /// The kind and mode of the containers' interfaces.
    pub child: Child,
    /// The link's name. `eth0.100` is the VLAN 100 on `eth0`; if it does not exist, it is made. None
    /// means the link of the default route.
    pub parent: Option<String>,
    /// Whether the containers have addresses. Those without one get it by themselves, if they need one.
    pub addresses: bool,
    /// Whether it has IPv4. Without it, it has an IPv6 subnet.
    pub ipv4: bool,
    /// The IPv4 subnet. None means the one of the parent's address.
    pub subnet: Option<Ipv4Net>,
    /// The part of the IPv4 subnet to lease addresses from.
    pub range: Option<Ipv4Net>,
    /// The router on the wire. The usual one is that of the parent's default route, or the subnet's
    /// first address if the parent does not have that one itself.
    pub gateway: Gateway,
    /// The IPv6 subnet. None means that there is no IPv6.
    pub subnet6: Option<Ipv6Net>,
    /// The part of the IPv6 subnet to lease addresses from.
    pub range6: Option<Ipv6Net>,
    /// The router for IPv6, chosen like that for IPv4.
    pub gateway6: Gateway,
    /// The subnets after the first of each IP version.
    pub further: Vec<Further>,
    /// Whether the containers have no default route.
    pub internal: bool,
}

impl WantedParent {
    /// A network of this kind, with defaults for everything else.
    pub fn new(child: Child) -> Self {
        Self {
            child,
            parent: None,
            addresses: true,
            ipv4: true,
            subnet: None,
            range: None,
            gateway: Gateway::Usual,
            subnet6: None,
            range6: None,
            gateway6: Gateway::Usual,
            further: Vec::new(),
            internal: false,
        }
    }

    /// The name of the parent.
    ///
    /// # Errors
    /// When none is given, and there is no default route.
    pub fn parent(&self) -> Result<String, Error> {
        match &self.parent {
            Some(name) => Ok(name.clone()),
            None => Ok(Connection::open(None)?.way_out(None)?.ok_or(Unfit::NoParent)?.name),
        }
    }

    /// The network as it is on this host: the subnet and the gateways are chosen.
    ///
    /// # Errors
    /// When the parent cannot be one, or its subnet is not known.
    pub fn resolve(&self) -> Result<Parent, Error> {
        let connection = Connection::open(None)?;
        let lower = Lower::find(&connection, &self.parent()?)?;
        self.member(&connection, &lower)
    }

    /// The network on this parent.
    fn member(&self, connection: &Connection, lower: &Lower) -> Result<Parent, Error> {
        let index = Some(lower.link.index).filter(|index| *index != 0);
        let mut parent = Parent {
            name: lower.link.name.clone(),
            driver: self.child.kind().to_owned(),
            mode: self.child.mode().to_owned(),
            subnet: None,
            gateway: None,
            ip_range: None,
            ipv6: None,
            further: Vec::new(),
            internal: self.internal,
            other: Default::default(),
        };
        if !self.addresses {
            return Ok(parent);
        }
        let own = Own::of(connection, index)?;
        let v6 = self.ipv6(&own)?;
        let v4 = match self.ipv4 {
            true => Some(self.v4(connection, lower, index, &own)?),
            false => None,
        };
        let (first, second) = match v4 {
            Some(v4) => (v4, v6),
            None => (v6.ok_or(Unfit::NoSubnet6)?, None),
        };
        parent.further = self.further(&own, &first, second.as_ref())?;
        (parent.subnet, parent.gateway, parent.ip_range) =
            (Some(first.subnet), first.gateway, first.ip_range);
        parent.ipv6 = second;
        Ok(parent)
    }

    /// The further subnets.
    fn further(&self, own: &Own, first: &Subnet, second: Option<&Subnet>) -> Result<Vec<Subnet>, Error> {
        let mut others: Vec<IpNet> = [first].into_iter().chain(second).map(|one| one.subnet).collect();
        let mut chosen = Vec::new();
        let all = others.clone();
        for one in &self.further {
            one.refuse_alone(&all, || Unfit::NoSubnet6)?;
            one.refuse_overlap(others.iter().copied())?;
            others.push(one.subnet);
            chosen.push(on_wire(one, None, own)?);
        }
        Ok(chosen)
    }

    /// The IPv4 subnet.
    fn v4(
        &self,
        connection: &Connection,
        lower: &Lower,
        index: Option<u32>,
        own: &Own,
    ) -> Result<Subnet, Error> {
        let subnet = match self.subnet {
            Some(subnet) => subnet,
            None => own
                .v4
                .iter()
                .find_map(|found| match found.address {
                    IpNet::V4(net) => Some(net.trunc()).filter(|net| net.prefix_len() <= 30),
                    IpNet::V6(_) => None,
                })
                .ok_or_else(|| Unfit::NoSubnetOfParent(lower.link.name.clone()))?,
        };
        let subnet = IpNet::from(subnet);
        let routes = index.map(|index| connection.routes(Some(index))).transpose()?.unwrap_or_default();
        let router = routes.iter().filter(|route| route.destination.prefix_len() == 0);
        let router = router.filter_map(|route| route.gateway).find(|router| subnet.contains(router));
        on_wire(&Further { subnet, gateway: self.gateway, range: self.range.map(Into::into) }, router, own)
    }

    fn ipv6(&self, own: &Own) -> Result<Option<Subnet>, Error> {
        let Some(subnet) = self.subnet6.map(IpNet::from) else { return Ok(None) };
        let (gateway, range) = (self.gateway6, self.range6.map(Into::into));
        on_wire(&Further { subnet, gateway, range }, None, own).map(Some)
    }
}

/// A subnet on the wire of a parent with the addresses `own`. The gateway is the wanted one, `router`, or the first address.
fn on_wire(wanted: &Further, router: Option<IpAddr>, own: &Own) -> Result<Subnet, Error> {
    let subnet = wanted.subnet;
    let gateway = match wanted.gateway {
        Gateway::None => None,
        Gateway::At(gateway) => refuse_gateway(subnet, gateway).map(|()| Some(gateway))?,
        // A container does not reach its host over the parent.
        Gateway::Usual => router.or(Some(lease::gateway(subnet)).filter(|first| !own.has(*first))),
    };
    refuse_special(subnet)?;
    wanted.member(gateway)
}

/// The parent on this host.
struct Lower {
    /// The link. A VLAN that does not exist yet has index 0.
    link: Link,
    /// If it is a VLAN of ours: the link that carries it, and its identifier.
    vlan: Option<(String, u16)>,
}

impl Lower {
    /// Looks for the link, or for the one that carries it.
    fn find(connection: &Connection, name: &str) -> Result<Self, Error> {
        let standing = connection.link(name)?;
        let carried = match split(name) {
            Some((base, id)) => connection.link(base)?.map(|base| (base, id)),
            None => None,
        };
        match (standing, carried) {
            (Some(link), Some((base, id))) if link.kind == "vlan" && link.is_marked() => {
                if link.under != Some(base.index) {
                    return Err(Unfit::OtherVlan { name: link.name, id, parent: base.name }.into());
                }
                refuse_unusable(connection, &base)?;
                Ok(Self { link, vlan: Some((base.name, id)) })
            }
            (Some(link), _) => {
                refuse_unusable(connection, &link)?;
                Ok(Self { link, vlan: None })
            }
            (None, Some((base, id))) => {
                refuse_unusable(connection, &base)?;
                if !base.up {
                    return Err(Unfit::CarrierDown(base.name, id).into());
                }
                let vlan = Some((base.name.clone(), id));
                Ok(Self { link: Link { index: 0, name: name.to_owned(), master: None, ..base }, vlan })
            }
            (None, None) => Err(Unfit::NoLink(name.to_owned()).into()),
        }
    }

    /// The operations that make the VLAN. Its last user removes it.
    fn operations(&self, container: &Container<'_>, mac: Mac) -> Vec<NetworkOperation> {
        let Some((parent, id)) = &self.vlan else { return Vec::new() };
        let name = || self.link.name.clone();
        let claim = Claim::new(container.scope, &format!("vlan-{}", name()), &container.holder());
        let made = LinkOperation::VlanAdd { name: name(), parent: parent.clone(), id: *id };
        let links = [
            made,
            LinkOperation::Ipv6Off { namespace: None, link: name(), mac },
            LinkOperation::LinkUp { namespace: None, link: name(), mac },
        ];
        let shared = links.map(|link| NetworkOperation::from(Shared::new(&claim, link)));
        [NetworkOperation::from(claim.clone())].into_iter().chain(shared).collect()
    }
}

/// The link that carries a VLAN with this name, and the VLAN's identifier.
fn split(name: &str) -> Option<(&str, u16)> {
    let (base, id) = name.rsplit_once('.')?;
    let number = id.parse().ok().filter(|number: &u16| (1..=4094).contains(number))?;
    // One VLAN has one name.
    (!base.is_empty() && id == number.to_string()).then_some((base, number))
}

fn refuse_unusable(connection: &Connection, link: &Link) -> Result<(), Error> {
    let name = link.name.clone();
    if link.mac.is_none_or(|mac| mac == Mac([0; 6])) {
        return Err(Unfit::NoWire(name).into());
    }
    if let Some(master) = link.master {
        return Err(Unfit::Port { link: name, master: connection.name(master)? }.into());
    }
    Ok(())
}

/// Plans an interface in the container's `namespace` that is made of a link of the host, with a lease of
/// its address.
///
/// # Errors
/// When the link cannot be a parent, there is no free address, or a route's gateway is not reachable.
pub fn child(
    container: &Container<'_>,
    namespace: &Path,
    wanted: &WantedParent,
    asked: &Asked,
) -> Result<(Attachment, Vec<NetworkOperation>), Error> {
    container.refuse_own(namespace)?;
    let connection = Connection::open(None)?;
    let lower = Lower::find(&connection, &wanted.parent()?)?;
    let parent = wanted.member(&connection, &lower)?;
    let lowers = lower.link.mac.ok_or_else(|| Unfit::NoWire(parent.name.clone()))?;
    let most = lower.link.mtu;
    let mtu = asked.mtu.unwrap_or(most);
    if mtu > most {
        return Err(Unfit::LargeMtu { mtu, parent: parent.name, most }.into());
    }
    let has_own_mac = wanted.child.has_own_mac();
    if asked.mac.is_some() && !has_own_mac {
        return Err(Unfit::ParentsMac(wanted.child.to_string()).into());
    }
    let network = On::Parent(parent);
    // Nobody answers by a link that is down.
    let probed = wanted.child.is_on_the_wire() && lower.link.up;
    let leased = inside::lease(container, &network, (&connection, &lower.link, probed), asked)?;
    inside::refuse_small(mtu, &leased)?;
    let own = asked.mac.map_or_else(|| inside::mac(container, &leased), Ok)?;
    let mac = if has_own_mac { own } else { lowers };
    let (routes, others) = inside::routes(&network, asked, namespace)?;
    let inside = Inside::new(container, namespace, (mac, mtu), &leased, routes);
    let mut operations: Vec<NetworkOperation> =
        leased.into_iter().map(|Leased { lease, .. }| lease.into()).collect();
    operations.extend(lower.operations(container, lowers));
    let made = LinkOperation::ChildAdd {
        parent: network.link().to_owned(),
        child: wanted.child,
        mtu,
        peer: Peer { name: container.interface.clone(), mac, namespace: namespace.to_owned() },
        mark: container.mark(),
    };
    operations.push(made.into());
    operations.extend(inside.operations().map(NetworkOperation::from));
    operations.extend(others.into_iter().map(NetworkOperation::from));
    operations.extend(inside::refusals(asked, namespace).map(NetworkOperation::from));
    operations.extend(inside.announcements(None, probed).map(NetworkOperation::from));
    Ok((asked.attachment(container, network, inside.result(Vec::new())), operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vlans() {
        for (name, parts) in [
            ("eth0.100", Some(("eth0", 100))),
            ("a.b.4094", Some(("a.b", 4094))),
            ("eth0", None),
            ("eth0.", None),
            ("eth0.0", None),
            ("eth0.4095", None),
            ("eth0.007", None),
            ("eth0.+7", None),
            (".7", None),
        ] {
            assert_eq!(split(name), parts, "{name}");
        }
    }
}
