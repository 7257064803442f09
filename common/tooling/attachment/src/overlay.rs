//! The VXLAN port of a bridge, which connects the network to other hosts.

use std::net::IpAddr;

use document::members;
use netlink::{Connection, Link, LinkOperation, Mac, vxlan_name};
use operation::{Error, Scope};
use peers::{PeersOperation, Tunnel};

use crate::unfit::Unfit;

/// The overhead of VXLAN in each packet, in bytes, without the outer IP header (RFC 7348, 5): inner
/// Ethernet, VXLAN, and UDP.
const OVERHEAD: u32 = 14 + 8 + 8;

/// The VXLAN of a network: its identifier (VNI), its UDP port, and this host's address.
pub(crate) type Vxlan = members::Vxlan;

/// The largest packet of a container, in bytes, that is sent to other hosts without fragmentation.
/// `local` is an address of this host.
pub(crate) fn mtu(connection: &Connection, local: IpAddr) -> Result<u32, Error> {
    let (addresses, outer) = match local {
        IpAddr::V4(_) => (connection.addresses(None)?, 20),
        IpAddr::V6(_) => (connection.addresses6(None)?, 40),
    };
    let own = addresses.iter().find(|address| address.address.addr() == local);
    let own = own.ok_or(Unfit::NotOfThisHost(local))?;
    let link = connection.link_at(own.link)?.ok_or(Unfit::NotOfThisHost(local))?;
    Ok(link.mtu - (OVERHEAD + outer).min(link.mtu))
}

/// Refuses an existing bridge with another VXLAN.
pub(crate) fn refuse_other(
    connection: &Connection,
    bridge: &Link,
    wanted: Option<&Vxlan>,
) -> Result<(), Error> {
    let name = bridge.name.clone();
    let standing = connection.link(&vxlan_name(&name))?.filter(|link| link.master == Some(bridge.index));
    match (standing, wanted) {
        (None, Some(_)) => Err(Unfit::NoVxlan(name).into()),
        (Some(link), None) if link.is_of_host() => Err(Unfit::HasVxlan(name).into()),
        _ => Ok(()),
    }
}

/// The operations for a bridge's VXLAN.
#[derive(Debug, Clone)]
pub(crate) struct Overlay {
    /// Accepts packets from the network's hosts only. It comes before the VXLAN.
    pub(crate) filter: PeersOperation,
    /// Make the VXLAN.
    pub(crate) links: Vec<LinkOperation>,
    /// Sets its entries.
    pub(crate) entries: PeersOperation,
}

/// The operations that make the VXLAN, and set its entries if they are known.
pub(crate) fn make(
    connection: &Connection,
    scope: &Scope,
    bridge: &str,
    wanted: &Vxlan,
    (isolated, ipv6): (bool, bool),
) -> Result<Overlay, Error> {
    let name = vxlan_name(bridge);
    let standing = connection.link(&name)?.filter(Link::is_of_host).and_then(|link| link.mac);
    let mac = match standing {
        Some(mac) => mac,
        None => Mac::draw(&name, operation::draw()?),
    };
    let link = || name.clone();
    let made = LinkOperation::VxlanAdd {
        name: link(),
        mac,
        id: wanted.id,
        port: wanted.port,
        local: wanted.local,
        by: wanted.link.clone(),
        master: bridge.to_owned(),
        mtu: mtu(connection, wanted.local)?,
    };
    let isolated = isolated.then(|| LinkOperation::Isolate { link: link(), mac });
    // It gets IPv6 neighbours only with IPv6. The host's own packets leave by the bridge in any
    // case.
    let ipv6 = match ipv6 {
        true => LinkOperation::Ipv6On { namespace: None, link: link(), mac },
        false => LinkOperation::Ipv6Off { namespace: None, link: link(), mac },
    };
    let closed = [ipv6, LinkOperation::GuardLoopback { link: link(), mac, bridge: bridge.to_owned() }];
    let up = LinkOperation::LinkUp { namespace: None, link: link(), mac };
    let links = [made].into_iter().chain(isolated).chain(closed).chain([up]).collect();
    let list = peers::path(&scope.run_dir, bridge);
    let tunnel = Tunnel { link: link(), id: wanted.id, port: wanted.port, local: wanted.local };
    let filter = PeersOperation::Filter { bridge: bridge.to_owned(), list: list.clone(), tunnel };
    let entries = PeersOperation::Entries { bridge: bridge.to_owned(), list, link: name };
    Ok(Overlay { filter, links, entries })
}
