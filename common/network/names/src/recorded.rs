//! The parts of a record (docs/document.md) that contain a container's names.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::Deserialize;

use crate::{Container, containers::Network};

#[derive(Deserialize)]
struct Record {
    id: String,
    name: Option<String>,
    #[serde(default)]
    networks: Vec<Attachment>,
    network: Option<First>,
    names: Option<Names>,
    /// What podman calls the container. A network namespace has one resolver, so only one of the container's
    /// records has `names`. The aliases for the record's network are here.
    netavark: Option<Podmans>,
    hosts: Option<Hosts>,
    process: Option<Process>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Process {
    finished: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    restarting: bool,
}

#[derive(Deserialize)]
struct Attachment {
    name: String,
    bridge: Option<Bridge>,
    /// Of a network without a bridge, the link of the host that its containers share.
    parent: Option<Bridge>,
    cni: Cni,
    /// Names that count on this network only.
    #[serde(default)]
    aliases: Vec<String>,
}

/// The namespace, and the format before version 0.2.
#[derive(Deserialize)]
struct First {
    namespace: Option<PathBuf>,
    bridge: Option<Bridge>,
    cni: Option<Cni>,
}

#[derive(Deserialize)]
struct Bridge {
    name: String,
    subnet: Option<IpNet>,
    gateway: Option<IpAddr>,
    ipv6: Option<Second>,
    #[serde(default)]
    internal: bool,
}

/// The IPv6 network of a bridge with both versions.
#[derive(Deserialize)]
struct Second {
    gateway: Option<IpAddr>,
}

impl Bridge {
    /// Whether only containers and this host have addresses in the network. On a bridge of which this host is not
    /// the gateway, other machines may have some.
    fn is_ours(&self) -> bool {
        let second = self.ipv6.as_ref().and_then(|ipv6| ipv6.gateway);
        self.gateway.or(second).is_some() || self.internal
    }
}

#[derive(Deserialize)]
struct Cni {
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Ip {
    address: IpNet,
}

#[derive(Deserialize)]
struct Podmans {
    names: Option<Names>,
}

#[derive(Default, Deserialize)]
struct Names {
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    servers: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct Hosts {
    #[serde(default)]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    names: Vec<String>,
}

/// The container of a record. None if it is not a record, or the container is being undone.
pub(crate) fn parse(text: &[u8]) -> Option<Container> {
    let record: Record = serde_json::from_slice(text).ok()?;
    if record.error.is_some() {
        return None;
    }
    // Nobody is sent to a container that does not run. One without a process may have one of another maker.
    let runs = record.process.is_none_or(|process| process.finished.is_none() || process.restarting);
    let lower = |name: String| name.to_ascii_lowercase();
    let is_served = record.names.is_some();
    let Names { aliases, servers } = record.names.unwrap_or_default();
    let is_podmans = record.netavark.is_some();
    let podmans = record.netavark.and_then(|podmans| podmans.names).unwrap_or_default();
    let everywhere: Vec<_> = aliases.into_iter().chain(podmans.aliases).collect();
    let names = |own: Vec<String>| {
        let mut all: Vec<_> = everywhere.iter().cloned().chain(own).map(lower).collect();
        all.sort();
        all.dedup();
        all
    };
    let network = |name: String, (bridge, is_ours): (Bridge, bool), cni: Cni, own: Vec<String>| {
        let subnets = cni.ips.iter().map(|ip| ip.address).chain(bridge.subnet).filter(|_| is_ours);
        Network {
            name,
            aliases: names(own),
            internal: bridge.internal,
            bridge: bridge.name,
            subnets: subnets.map(|net| net.trunc()).collect(),
            addresses: cni.ips.into_iter().filter(|_| runs).map(|ip| ip.address.addr()).collect(),
        }
    };
    let attached = |one: Attachment| {
        let bridge = one.bridge.map(|bridge| (bridge.is_ours(), bridge));
        let (is_ours, on) = bridge.or(one.parent.map(|parent| (false, parent)))?;
        Some(network(one.name, (on, is_ours), one.cni, one.aliases))
    };
    let mut networks: Vec<_> = record.networks.into_iter().filter_map(attached).collect();
    let namespace = record.network.as_ref().and_then(|network| network.namespace.clone());
    let first = record.network.and_then(|first| first.bridge.zip(first.cni));
    if let (Some((bridge, cni)), true) = (first, networks.is_empty()) {
        networks.push(network(bridge.name.clone(), (bridge, true), cni, Vec::new()));
    }
    let entries = record.hosts.into_iter().flat_map(|hosts| hosts.entries);
    // The other container's own name comes last.
    let links = entries.flat_map(|entry| {
        let id = entry.names.last().cloned().unwrap_or_default();
        entry.names.into_iter().map(move |name| (lower(name), id.clone()))
    });
    let links = links.collect();
    let (id, name) = (record.id, record.name.map(lower));
    Some(Container { id, name, is_served, is_podmans, namespace, networks, links, servers })
}
