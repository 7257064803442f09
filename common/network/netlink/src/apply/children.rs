//! Links that are made of another link: macvlans and ipvlans in containers' namespaces, and VLANs
//! on the host.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::Path,
};

use ipnet::IpNet;
use nix::errno::Errno;
use operation::Condition;
use rtnetlink::{
    LinkIpVlan, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVlan,
    packet_route::{RouteNetlinkMessage, link::LinkMessage},
};

use super::{CREATE, Ours, delete, find, unless_gone};
use crate::{Address, Child, Connection, Error, Link, Mark, Peer, child_name, errno_of, mark};

/// The directory of the containers' namespaces, and of those of `ip netns`.
const NAMESPACES: &str = "/run/netns";

/// Makes the child in its namespace: first with its first name, then with its own.
pub(super) fn add(parent: &str, child: Child, mtu: u32, peer: &Peer, mark: &Mark) -> Result<(), Error> {
    let there = Connection::open(Some(&peer.namespace))?;
    let name = peer.name.as_str();
    if there.link(name)?.is_some() {
        return Err(there.error("create link", format!("{name:?}"), Errno::EEXIST));
    }
    let first = child_name(mark.id(), name);
    if there.link(&first)?.is_none() {
        let here = Connection::open(None)?;
        let what = format!("{name:?} on link {parent:?}");
        let lower = here.link(parent)?.ok_or_else(|| here.error("create link", &what, Errno::ENODEV))?;
        let namespace = File::open(&peer.namespace).map_err(|source| {
            Error::new("enter", "network namespace", errno_of(&source)).within(Some(&peer.namespace))
        })?;
        let message = message(&first, lower.index, child, mtu, peer, &namespace);
        here.change("create link", what, &RouteNetlinkMessage::NewLink(message), CREATE)?;
    }
    let named = give_name(&there, &first, name, &mark.alias());
    if named.is_err() {
        let _ = remove(peer, mark);
    }
    named
}

fn message(first: &str, lower: u32, child: Child, mtu: u32, peer: &Peer, namespace: &File) -> LinkMessage {
    let namespace = namespace.as_raw_fd();
    match child {
        Child::Macvlan(mode) => {
            let link = LinkMacVlan::new(first, lower, mode.into()).mtu(mtu).setns_by_fd(namespace);
            if child.has_own_mac() { link.address(peer.mac.0.to_vec()).build() } else { link.build() }
        }
        Child::Ipvlan(mode) => {
            LinkIpVlan::new(first, lower, mode.into()).mtu(mtu).setns_by_fd(namespace).build()
        }
    }
}

/// Gives a link its final name, and its alias in the same request.
fn give_name(connection: &Connection, first: &str, name: &str, alias: &str) -> Result<(), Error> {
    let made = connection.link(first)?;
    let made = made.ok_or_else(|| connection.error("name", format!("link {name:?}"), Errno::ENODEV))?;
    let named = LinkMessageBuilder::<LinkUnspec>::new().index(made.index).name(name).alias(alias).build();
    connection.change("create link", format!("{name:?}"), &RouteNetlinkMessage::SetLink(named), 0)
}

/// Removes the child, under either name.
pub(super) fn remove(peer: &Peer, mark: &Mark) -> Result<(), Error> {
    for name in [child_name(mark.id(), &peer.name), peer.name.clone()] {
        let Ours::Here(there, link) = find(Some(&peer.namespace), &name, None)? else { continue };
        let is_own = name != peer.name || link.alias == Some(mark.alias());
        if is_own && is_child(&link) {
            let mut message = LinkMessage::default();
            message.header.index = link.index;
            let message = RouteNetlinkMessage::DelLink(message);
            unless_gone(there.change("remove link", format!("{name:?}"), &message, 0))?;
        }
    }
    Ok(())
}

fn is_child(link: &Link) -> bool {
    ["macvlan", "ipvlan"].contains(&link.kind.as_str())
}

pub(super) fn compare(link: &Link, child: Child, mark: &Mark, place: &str) -> Condition {
    let name = &link.name;
    match link.kind == child.kind() && link.alias == Some(mark.alias()) {
        true => Condition::Present,
        false => Condition::Different(format!(
            "link {name:?}{place} is not the {} of this container",
            child.kind()
        )),
    }
}

/// Makes sure of the VLAN. One with our mark is shared by all containers that use it.
pub(super) fn add_vlan(name: &str, parent: &str, id: u16) -> Result<(), Error> {
    let connection = Connection::open(None)?;
    match connection.link(name)? {
        Some(link) if is_our_vlan(&link) => return Ok(()),
        Some(_) => return Err(connection.error("create link", format!("{name:?}"), Errno::EEXIST)),
        None => {}
    }
    let first = child_name("", name);
    if connection.link(&first)?.is_none() {
        let what = format!("{name:?} on link {parent:?}");
        let lower = connection.link(parent)?;
        let lower = lower.ok_or_else(|| connection.error("create link", &what, Errno::ENODEV))?;
        let link = LinkVlan::new(&first, lower.index, id).build();
        connection.change("create link", what, &RouteNetlinkMessage::NewLink(link), CREATE)?;
    }
    let named = give_name(&connection, &first, name, mark::shared());
    if named.is_err() {
        let _ = remove_vlan(name);
    }
    named
}

fn is_our_vlan(link: &Link) -> bool {
    link.kind == "vlan" && link.is_marked()
}

/// Removes the VLAN, unless somebody uses it.
pub(super) fn remove_vlan(name: &str) -> Result<(), Error> {
    let connection = Connection::open(None)?;
    if let Some(half) = connection.link(&child_name("", name))?.filter(|link| link.kind == "vlan") {
        delete(&connection, &half)?;
    }
    match connection.link(name)?.filter(is_our_vlan) {
        Some(link) if !is_used(&connection, &link)? => delete(&connection, &link),
        _ => Ok(()),
    }
}

/// Whether something else uses the VLAN: it is a port, it has an IPv4 address, or another link is made
/// of it. Containers of other run directories have their links in namespaces of their own, where an
/// index may also mean another link. Then the VLAN stays.
fn is_used(connection: &Connection, vlan: &Link) -> Result<bool, Error> {
    let has_child = |connection: &Connection| -> Result<bool, Error> {
        Ok(connection.all()?.iter().any(|link| link.is_child_of(vlan.index)))
    };
    let has_address = |connection: &Connection| -> Result<bool, Error> {
        let v6 = connection.addresses6(Some(vlan.index))?;
        // The kernel gives the link-local one.
        let is_given =
            |found: &Address| !matches!(found.address, IpNet::V6(net) if net.addr().is_unicast_link_local());
        Ok(v6.iter().any(is_given) || !connection.addresses(Some(vlan.index))?.is_empty())
    };
    if vlan.master.is_some() || has_address(connection)? || has_child(connection)? {
        return Ok(true);
    }
    let namespaces = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    for namespace in namespaces {
        let path = Path::new(NAMESPACES).join(namespace.file_name());
        match Connection::open(Some(&path)) {
            Ok(there) if has_child(&there)? => return Ok(true),
            // It is no namespace, or is gone.
            _ => {}
        }
    }
    Ok(false)
}

pub(super) fn compare_vlan(connection: &Connection, link: &Link, parent: &str) -> Result<Condition, Error> {
    let under = connection.link(parent)?.map(|parent| parent.index);
    Ok(match is_our_vlan(link) && link.under == under {
        true => Condition::Present,
        false => Condition::Different(format!("link {:?} is not a VLAN of ours on {parent:?}", link.name)),
    })
}
