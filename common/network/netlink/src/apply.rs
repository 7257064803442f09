//! Applies operations to the kernel, undoes them, and compares them with what the kernel has.

mod addresses;
mod children;
mod routes;
mod vxlan;

use std::{fs::File, os::fd::AsRawFd, path::Path};

use nix::errno::Errno;
use operation::Condition;
use rtnetlink::{
    LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoBridgePort, InfoData, InfoPortData, InfoPortKind, InfoVeth, LinkMessage},
    },
};

use crate::{
    Address, Connection, Error, Link, LinkOperation, Mac, Mark, PROTOCOL, Peer, announce, errno_of, guard,
    mark, namespace, removal, sysctl, veth_name,
};
use addresses::{add_address, all_of, lacks};
pub(crate) use routes::LOOPBACK_METRIC;
use routes::{add_loopback, add_route, has_route, route, to_loopback};
use vxlan::Vxlan;

/// The flags of a request that makes an object and fails if it exists.
const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// Whether an error says that the object to remove does not exist.
fn is_gone(error: &Error) -> bool {
    operation::is_gone(&error.errno()) || error.errno() == Errno::EADDRNOTAVAIL
}

pub(crate) fn unless_gone(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
}

/// The state of an operation's link.
enum Ours {
    Here(Connection, Link),
    Missing,
    Different,
}

/// Opens a connection to a namespace. None if it is gone.
fn within(namespace: &Path) -> Result<Option<Connection>, Error> {
    match Connection::open(Some(namespace)) {
        Err(error) if is_gone(&error) => Ok(None),
        // The file is a plain one: making the namespace was interrupted, or the namespace was
        // unmounted.
        Err(error) if error.errno() == Errno::EINVAL && namespace::is_plain_file(namespace) => Ok(None),
        connection => connection.map(Some),
    }
}

/// Looks for the link with this name and, if given, this hardware address.
fn find(namespace: Option<&Path>, name: &str, mac: impl Into<Option<Mac>>) -> Result<Ours, Error> {
    let mac = mac.into();
    let connection = match namespace.map_or_else(|| Connection::open(None).map(Some), within)? {
        Some(connection) => connection,
        None => return Ok(Ours::Missing),
    };
    Ok(match connection.link(name)? {
        None => Ours::Missing,
        Some(link) if mac.is_none_or(|mac| mac.recognises(name, link.mac)) => Ours::Here(connection, link),
        Some(_) => Ours::Different,
    })
}

/// Like [`find`], but the link must exist.
fn need(
    verb: &'static str,
    object: &str,
    namespace: Option<&Path>,
    link: &str,
    mac: impl Into<Option<Mac>>,
) -> Result<(Connection, Link), Error> {
    match find(namespace, link, mac)? {
        Ours::Here(connection, link) => Ok((connection, link)),
        Ours::Missing => {
            Err(Error::new(verb, format!("{object} on link {link:?}"), Errno::ENODEV).within(namespace))
        }
        Ours::Different => {
            Err(Error::new(verb, format!("{object} on link {link:?}"), Errno::EEXIST).within(namespace))
        }
    }
}

impl LinkOperation {
    pub(crate) fn make(&self) -> Result<(), Error> {
        match self {
            Self::BridgeAdd { .. }
            | Self::VethAdd { .. }
            | Self::VxlanAdd { .. }
            | Self::ChildAdd { .. }
            | Self::VlanAdd { .. } => self.make_link(),
            Self::Ipv6Off { namespace, link, mac } => {
                need("switch off", "IPv6", namespace.as_deref(), link, *mac)?;
                sysctl::switch_ipv6_off(namespace.as_deref(), link)
            }
            Self::Ipv6On { namespace, link, mac } => {
                need("switch on", "IPv6", namespace.as_deref(), link, *mac)?;
                sysctl::switch_ipv6_on(namespace.as_deref(), link)
            }
            Self::Hairpin { link, mac } => set_port("hairpin", link, *mac, InfoBridgePort::HairpinMode(true)),
            Self::Isolate { link, mac } => set_port("isolation", link, *mac, InfoBridgePort::Isolated(true)),
            Self::GuardLoopback { link, mac, bridge } => {
                let (connection, link) = need("guard", "127.0.0.0/8", None, link, *mac)?;
                match guard::set(&connection, link.index)? {
                    true => Ok(()),
                    false => sysctl::close_localnet(bridge),
                }
            }
            Self::LoopbackIpv6 { link, mac } => {
                let (connection, link) = need("add route", "::1", None, link, *mac)?;
                add_loopback(&connection, &link)
            }
            Self::NdpProxy { link, address } => {
                let (connection, link) = need("answer for", &address.to_string(), None, link, None)?;
                connection.add_proxy(link.index, *address)
            }
            Self::LinkUp { namespace, link, mac } => {
                let (connection, link) = need("set", "up", namespace.as_deref(), link, *mac)?;
                set_up(&connection, &link)
            }
            Self::AddressAdd { namespace, link, mac, address, protocol } => {
                let (connection, link) =
                    need("add address", &address.to_string(), namespace.as_deref(), link, *mac)?;
                add_address(&connection, &link, *address, *protocol, mac.is_some())
            }
            Self::Announce { namespace, link, mac, address, port } => {
                let (_, link) =
                    need("announce", &address.to_string(), Some(namespace.as_path()), link, *mac)?;
                announce::announce(namespace, &link, *mac, *address, port.as_deref())
            }
            Self::RouteAdd { namespace, destination, gateway, link, mac, metric, protocol } => {
                let (connection, link) =
                    need("add route", &destination.to_string(), namespace.as_deref(), link, *mac)?;
                add_route(&connection, link.index, (destination, gateway), *metric, *protocol)
            }
            Self::RouteRefuse { namespace, destination, kind, metric } => {
                let connection = Connection::open(Some(namespace))?;
                routes::refuse(&connection, destination, *kind, *metric)
            }
        }
    }

    /// Makes the link, if the operation is one that does.
    fn make_link(&self) -> Result<(), Error> {
        match self {
            Self::BridgeAdd { name, mac, .. } => add_bridge(name, *mac),
            Self::VethAdd { name, mac, master, mtu, peer, mark } => {
                match add_veth(name, *mac, master, *mtu, peer) {
                    Err(error) if error.errno() == Errno::EEXIST => {
                        match attach_again(name, *mac, master, mark.as_ref())? {
                            true => Ok(()),
                            false => Err(error),
                        }
                    }
                    made => made.and_then(|()| mark_veth(name, *mac, peer, mark.as_ref())),
                }
            }
            Self::VxlanAdd { name, mac, id, port, local, by, master, mtu } => vxlan::add(&Vxlan {
                name,
                mac: *mac,
                id: *id,
                port: *port,
                local: *local,
                by: by.as_deref(),
                master,
                mtu: *mtu,
            }),
            Self::ChildAdd { parent, child, mtu, peer, mark } => {
                children::add(parent, *child, *mtu, peer, mark)
            }
            Self::VlanAdd { name, parent, id } => children::add_vlan(name, parent, *id),
            _ => Ok(()),
        }
    }

    pub(crate) fn take_back(&self) -> Result<(), Error> {
        match self {
            Self::BridgeAdd { name, mac, mark } => remove_bridge(name, *mac, mark.as_ref()),
            Self::VethAdd { name, mac, peer, mark, .. } => remove_veth(name, *mac, peer, mark.as_ref()),
            Self::VxlanAdd { name, mac, .. } => vxlan::remove(name, *mac),
            Self::ChildAdd { peer, mark, .. } => children::remove(peer, mark),
            Self::VlanAdd { name, .. } => children::remove_vlan(name),
            Self::Ipv6Off { .. }
            | Self::Ipv6On { .. }
            | Self::Hairpin { .. }
            | Self::Isolate { .. }
            | Self::GuardLoopback { .. }
            | Self::Announce { .. }
            | Self::LinkUp { .. } => Ok(()),
            // An object without our mark is removed with its link, or is not ours.
            Self::AddressAdd { protocol, .. } | Self::RouteAdd { protocol, .. }
                if *protocol != Some(PROTOCOL) =>
            {
                Ok(())
            }
            Self::LoopbackIpv6 { link, mac } => {
                let Ours::Here(connection, link) = find(None, link, *mac)? else { return Ok(()) };
                // The kernel removes only a route with our protocol.
                let message = RouteNetlinkMessage::DelRoute(to_loopback(link.index));
                unless_gone(connection.change("remove route", "::1".to_owned(), &message, 0))
            }
            Self::NdpProxy { link, address } => match find(None, link, None)? {
                Ours::Here(connection, link) => unless_gone(connection.remove_proxy(link.index, *address)),
                _ => Ok(()),
            },
            Self::AddressAdd { namespace, link, mac, address, protocol } => {
                let Ours::Here(connection, link) = find(namespace.as_deref(), link, *mac)? else {
                    return Ok(());
                };
                let wanted = Address { link: link.index, address: *address, protocol: *protocol };
                if !all_of(&connection, *address, link.index)?.contains(&wanted) {
                    return Ok(());
                }
                let message = RouteNetlinkMessage::DelAddress(wanted.message());
                unless_gone(connection.change("remove address", address.to_string(), &message, 0))
            }
            Self::RouteAdd { namespace, destination, gateway, link, mac, metric, .. } => {
                let Ours::Here(connection, link) = find(namespace.as_deref(), link, *mac)? else {
                    return Ok(());
                };
                let Ok(mut route) = route(destination, gateway, link.index, *metric) else { return Ok(()) };
                // The kernel removes only a route with this protocol.
                route.header.protocol = PROTOCOL.into();
                let message = RouteNetlinkMessage::DelRoute(route);
                unless_gone(connection.change("remove route", destination.to_string(), &message, 0))
            }
            Self::RouteRefuse { namespace, destination, kind, metric } => match within(namespace)? {
                Some(connection) => routes::unrefuse(&connection, destination, *kind, *metric),
                None => Ok(()),
            },
        }
    }

    /// The link of the operation: its namespace, its name, and its hardware address if that is
    /// known. None if the operation has no link.
    fn target(&self) -> Option<(Option<&Path>, &str, Option<Mac>)> {
        Some(match self {
            Self::RouteRefuse { .. } => return None,
            Self::BridgeAdd { name, mac, .. }
            | Self::VethAdd { name, mac, .. }
            | Self::VxlanAdd { name, mac, .. } => (None, name, Some(*mac)),
            Self::ChildAdd { peer, .. } => (Some(&peer.namespace), &peer.name, Some(peer.mac)),
            Self::VlanAdd { name, .. } => (None, name, None),
            Self::Hairpin { link, mac }
            | Self::Isolate { link, mac }
            | Self::GuardLoopback { link, mac, .. } => (None, link, Some(*mac)),
            Self::LoopbackIpv6 { link, mac } => (None, link, *mac),
            Self::NdpProxy { link, .. } => (None, link, None),
            Self::Announce { namespace, link, mac, .. } => (Some(namespace), link, Some(*mac)),
            Self::AddressAdd { namespace, link, mac, .. } => (namespace.as_deref(), link, *mac),
            Self::LinkUp { namespace, link, mac }
            | Self::Ipv6On { namespace, link, mac }
            | Self::Ipv6Off { namespace, link, mac }
            | Self::RouteAdd { namespace, link, mac, .. } => (namespace.as_deref(), link, Some(*mac)),
        })
    }

    pub(crate) fn compare(&self) -> Result<Condition, Error> {
        if let Self::RouteRefuse { namespace, destination, kind, metric } = self {
            let refuses = |connection| routes::refuses(&connection, destination, *kind, *metric);
            let stands = within(namespace)?.map_or(Ok(false), refuses)?;
            let route = || format!("route {} {destination} in {}", kind.name(), namespace.display());
            return Ok(if stands { Condition::Present } else { Condition::Missing(route()) });
        }
        let Some((namespace, name, mac)) = self.target() else { return Ok(Condition::Present) };
        let place = namespace.map(|path| format!(" in {}", path.display())).unwrap_or_default();
        match find(namespace, name, mac)? {
            Ours::Here(connection, link) => self.compare_with(&connection, &link, (namespace, name), &place),
            Ours::Missing => Ok(Condition::Missing(format!("link {name:?}{place}"))),
            Ours::Different => {
                Ok(Condition::Different(format!("link {name:?}{place} has another hardware address")))
            }
        }
    }

    /// Compares the operation with its link, which has this name in this namespace. `place` names the latter.
    fn compare_with(
        &self,
        connection: &Connection,
        link: &Link,
        (namespace, name): (Option<&Path>, &str),
        place: &str,
    ) -> Result<Condition, Error> {
        let missing = |what: &str| Condition::Missing(format!("{what}{place}"));
        Ok(match self {
            Self::LinkUp { .. } if !link.up => missing(&format!("link {name:?} set up")),
            Self::Ipv6Off { .. } if !sysctl::is_ipv6_off(namespace, name)? => {
                missing(&format!("IPv6 switched off on link {name:?}"))
            }
            Self::Ipv6On { .. } if sysctl::is_ipv6_off(namespace, name)? => {
                missing(&format!("IPv6 switched on on link {name:?}"))
            }
            Self::Hairpin { .. } if !link.hairpin => missing(&format!("hairpin of link {name:?}")),
            Self::Isolate { .. } if !link.isolated => missing(&format!("isolation of link {name:?}")),
            Self::VethAdd { master, peer, .. } => compare_veth(connection, link, master, peer)?,
            Self::VxlanAdd { master, .. } => compare_port(connection, link, master)?,
            Self::ChildAdd { child, mark, .. } => children::compare(link, *child, mark, place),
            Self::VlanAdd { parent, .. } => children::compare_vlan(connection, link, parent)?,
            Self::AddressAdd { address, .. } => match lacks(connection, link, *address)? {
                Some(what) => missing(&what),
                None => Condition::Present,
            },
            Self::RouteAdd { destination, gateway, metric, .. } => {
                match has_route(connection, destination, gateway, link.index, *metric)? {
                    true => Condition::Present,
                    false => missing(&format!("route {destination} by {gateway}")),
                }
            }
            Self::NdpProxy { address, .. } if !connection.proxies(link.index)?.contains_key(address) => {
                missing(&format!("the proxy for {address} on link {name:?}"))
            }
            Self::LoopbackIpv6 { .. } if !connection.takes_loopback6(link.index)? => {
                missing(&format!("route ::1 of link {name:?}"))
            }
            Self::GuardLoopback { .. } if !guard::stands(connection, link.index)? => {
                missing(&format!("the classifier of link {name:?} that guards 127.0.0.0/8"))
            }
            Self::BridgeAdd { .. }
            | Self::LinkUp { .. }
            | Self::Ipv6Off { .. }
            | Self::Ipv6On { .. }
            | Self::Hairpin { .. }
            | Self::Isolate { .. }
            | Self::LoopbackIpv6 { .. }
            | Self::NdpProxy { .. }
            | Self::Announce { .. }
            | Self::RouteRefuse { .. }
            | Self::GuardLoopback { .. } => Condition::Present,
        })
    }
}

fn remove_bridge(name: &str, mac: Mac, mark: Option<&Mark>) -> Result<(), Error> {
    if !mac.is_of_host(name) {
        return Ok(());
    }
    let Ours::Here(connection, link) = find(None, name, mac)? else { return Ok(()) };
    if link.alias.is_some() && !link.is_marked() {
        return Ok(());
    }
    // Somebody else attached the other ports to the bridge and still needs it. A port of the same
    // container does not count: nobody else claims it, and if it could not be removed now, it is
    // removed later.
    let own = mark.map(Mark::alias);
    let is_others = |port: &Link| own.is_none() || port.alias != own;
    match connection.ports(link.index)?.iter().any(is_others) {
        true => Ok(()),
        false => delete(&connection, &link),
    }
}

fn remove_veth(name: &str, mac: Mac, peer: &Peer, mark: Option<&Mark>) -> Result<(), Error> {
    if !is_derived(name, mac, peer, mark) {
        return Ok(());
    }
    let Ours::Here(connection, link) = find(None, name, mac)? else { return Ok(()) };
    let is_own = match (&link.alias, mark) {
        (Some(alias), Some(mark)) => *alias == mark.alias(),
        (Some(_), None) => false,
        (None, _) => true,
    };
    if is_own { delete(&connection, &link) } else { Ok(()) }
}

fn add_bridge(name: &str, mac: Mac) -> Result<(), Error> {
    if let Ours::Here(..) = find(None, name, mac)? {
        return Ok(());
    }
    let connection = Connection::open(None)?;
    // `LinkBridge::new` would set the bridge up at once.
    let bridge = LinkMessageBuilder::<LinkBridge>::new(name).address(mac.0.to_vec()).build();
    connection.change("create link", format!("{name:?}"), &RouteNetlinkMessage::NewLink(bridge), CREATE)?;
    set_alias(name, mac, mark::shared())
}

/// Sets the alias of one of our links.
fn set_alias(name: &str, mac: Mac, alias: &str) -> Result<(), Error> {
    let (connection, link) = need("set", "alias", None, name, mac)?;
    let named = LinkMessageBuilder::<LinkUnspec>::new().index(link.index).alias(alias).build();
    connection.change("set alias on", format!("link {name:?}"), &RouteNetlinkMessage::SetLink(named), 0)
}

/// Whether a link has the name and the hardware address that we derive for a container. Another
/// program's link never has a derived address.
fn is_derived(name: &str, mac: Mac, peer: &Peer, mark: Option<&Mark>) -> bool {
    let of_namespace = || peer.namespace.file_name().and_then(|id| id.to_str());
    let id = mark.map(Mark::id).or_else(of_namespace).unwrap_or_default();
    name == veth_name(id, &peer.name) && mac == Mac::derive(id, "host")
}

fn set_up(connection: &Connection, link: &Link) -> Result<(), Error> {
    if link.up {
        return Ok(());
    }
    let up = LinkMessageBuilder::<LinkUnspec>::new().index(link.index).up().build();
    connection.change("set up", format!("link {:?}", link.name), &RouteNetlinkMessage::SetLink(up), 0)
}

fn add_veth(name: &str, mac: Mac, master: &str, mtu: u32, peer: &Peer) -> Result<(), Error> {
    let connection = Connection::open(None)?;
    let what = format!("{name:?} on bridge {master:?}");
    let bridge =
        connection.link(master)?.ok_or_else(|| connection.error("create link", &what, Errno::ENODEV))?;
    let namespace = File::open(&peer.namespace).map_err(|source| {
        Error::new("enter", "network namespace", errno_of(&source)).within(Some(&peer.namespace))
    })?;
    let there: LinkMessage = LinkMessageBuilder::<LinkUnspec>::new()
        .name(peer.name.as_str())
        .address(peer.mac.0.to_vec())
        .mtu(mtu)
        .setns_by_fd(namespace.as_raw_fd())
        .build();
    let here = LinkMessageBuilder::<LinkVeth>::new(name, &peer.name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(there)))
        .address(mac.0.to_vec())
        .mtu(mtu)
        .controller(bridge.index)
        .build();
    connection.change("create link", format!("{name:?}"), &RouteNetlinkMessage::NewLink(here), CREATE)
}

/// Marks the link with its owner in the alias. The kernel takes no alias in the request that makes
/// a link, so the hardware address is the mark until the alias is set.
fn mark_veth(name: &str, mac: Mac, peer: &Peer, mark: Option<&Mark>) -> Result<(), Error> {
    let Some(mark) = mark else { return Ok(()) };
    let marked = set_alias(name, mac, &mark.alias());
    if marked.is_err() {
        let _ = remove_veth(name, mac, peer, Some(mark));
    }
    marked
}

/// Attaches the container's link to its bridge again after the bridge was removed and made anew.
/// Returns whether there is such a link.
fn attach_again(name: &str, mac: Mac, bridge: &str, mark: Option<&Mark>) -> Result<bool, Error> {
    let Ours::Here(connection, link) = find(None, name, mac)? else { return Ok(false) };
    if link.master.is_some() || link.alias.is_none() || link.alias != mark.map(Mark::alias) {
        return Ok(false);
    }
    attach(&connection, &link, bridge)?;
    Ok(true)
}

/// Attaches a link to a bridge.
fn attach(connection: &Connection, link: &Link, bridge: &str) -> Result<(), Error> {
    let what = format!("link {:?} to bridge {bridge:?}", link.name);
    let master = connection.link(bridge)?.ok_or_else(|| connection.error("attach", &what, Errno::ENODEV))?;
    let port = LinkMessageBuilder::<LinkUnspec>::new().index(link.index).controller(master.index).build();
    connection.change("attach", what, &RouteNetlinkMessage::SetLink(port), 0)
}

fn delete(connection: &Connection, link: &Link) -> Result<(), Error> {
    unless_gone(removal::remove(connection, link))
}

/// Enables a setting of a bridge port.
fn set_port(what: &'static str, link: &str, mac: Mac, set: InfoBridgePort) -> Result<(), Error> {
    let (connection, link) = need("set", what, None, link, mac)?;
    let port = LinkMessageBuilder::<LinkUnspec>::new()
        .index(link.index)
        .set_port_kind(InfoPortKind::Bridge)
        .set_port_data(InfoPortData::BridgePort(vec![set]));
    // Only RTM_NEWLINK carries the settings of a port. Without NLM_F_CREATE it changes an existing
    // link.
    let message = RouteNetlinkMessage::NewLink(port.build());
    connection.change("set", format!("{what} on link {:?}", link.name), &message, 0)
}

/// Compares the bridge that a link is attached to with the wanted one.
fn compare_port(connection: &Connection, link: &Link, master: &str) -> Result<Condition, Error> {
    let bridge = connection.link(master)?.map(|bridge| bridge.index);
    let port = format!("link {:?} as a port of {master:?}", link.name);
    Ok(match link.master {
        None => Condition::Missing(port),
        other if other != bridge => Condition::Different(port),
        _ => Condition::Present,
    })
}

fn compare_veth(connection: &Connection, link: &Link, master: &str, peer: &Peer) -> Result<Condition, Error> {
    match compare_port(connection, link, master)? {
        Condition::Present => {}
        other => return Ok(other),
    }
    let there = format!("link {:?} in {}", peer.name, peer.namespace.display());
    Ok(match find(Some(&peer.namespace), &peer.name, peer.mac)? {
        Ours::Here(..) => Condition::Present,
        Ours::Missing => Condition::Missing(there),
        Ours::Different => Condition::Different(format!("{there} has another hardware address")),
    })
}
