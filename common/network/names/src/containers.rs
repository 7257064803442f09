//! Reads containers and their names from the records. A record is read again when it has changed.
//! Nothing else is cached.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use peers::{Peers, Station};

use crate::{joined::joined, recorded::parse};

/// The names and addresses of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    pub(crate) id: String,
    /// What it is called, if that is not its id, in lower case.
    pub(crate) name: Option<String>,
    /// Whether the container may look up the names of others.
    pub(crate) is_served: bool,
    /// Whether podman made it. Then nobody knows it by its id.
    pub(crate) is_podmans: bool,
    /// Its network namespace.
    pub(crate) namespace: Option<PathBuf>,
    pub(crate) networks: Vec<Network>,
    /// Names that only this container has for other containers: the name and the other container's
    /// id.
    pub(crate) links: Vec<(String, String)>,
    /// The name servers for all other names. The host's if empty.
    pub(crate) servers: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) bridge: String,
    /// The subnets of the network, if only containers have addresses of them.
    pub(crate) subnets: Vec<IpNet>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether the network is internal.
    pub(crate) internal: bool,
    /// Further names of the container on this network, in lower case.
    pub(crate) aliases: Vec<String>,
}

/// The containers of a run directory.
#[derive(Debug)]
pub struct Containers {
    run_dir: PathBuf,
    /// The state of the directory when it was read.
    read: Option<Stamp>,
    /// The records, each with the state of its file when it was read.
    known: HashMap<PathBuf, (Stamp, Option<Container>)>,
    /// The containers of these records, with all of their networks.
    whole: Vec<Container>,
    /// The containers on other hosts, with the state of their directory when it was read.
    peers: (Option<Stamp>, Vec<Container>),
    /// Counts lookups of names that several containers have.
    turn: usize,
}

/// The domain that podman's containers search (netavark, PODMAN_DEFAULT_SEARCH_DOMAIN). It has their names, and no
/// others.
pub const PODMANS: &str = "dns.podman";

/// Changes whenever the file changes, or a file in the directory is replaced.
type Stamp = (u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.mtime(), file.mtime_nsec()))
}

/// The containers on other hosts in the network of this bridge.
fn elsewhere(bridge: &str, peers: Peers) -> Vec<Container> {
    let name = peers.network;
    let stations = peers.hosts.into_iter().flat_map(|host| host.stations);
    let container = |Station { addresses, names, .. }: Station| {
        let mut names = names.into_iter().map(|name| name.to_ascii_lowercase());
        let id = names.next()?;
        let (name, bridge, aliases) = (name.clone(), bridge.to_owned(), names.collect());
        let network = Network { name, bridge, subnets: Vec::new(), addresses, internal: false, aliases };
        Some(Container { id, networks: vec![network], ..Container::default() })
    };
    stations.filter_map(container).collect()
}

impl Container {
    /// Whether the container may look up the names of others.
    pub fn is_served(&self) -> bool {
        self.is_served
    }

    /// Whether one of its networks is not internal.
    pub(crate) fn has_a_way_out(&self) -> bool {
        self.networks.iter().any(|network| !network.internal)
    }
}

/// The result of looking up a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The addresses of the name.
    Addresses(Vec<IpAddr>),
    /// The name is in podman's domain, but no container has it.
    Nobody,
    /// The name is not a container's.
    Elsewhere,
}

impl Containers {
    /// The containers whose records are in this directory.
    pub fn new(run_dir: &Path) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            read: None,
            known: HashMap::new(),
            whole: Vec::new(),
            peers: (None, Vec::new()),
            turn: 0,
        }
    }

    /// Reads records that have changed.
    fn refresh(&mut self) {
        self.refresh_peers();
        let now = stamp(&self.run_dir);
        if now.is_some() && now == self.read {
            return;
        }
        // A record that changes from here on changes the directory again.
        self.read = now;
        let entries = fs::read_dir(&self.run_dir).into_iter().flatten().flatten();
        // A link is only another name of a container.
        let records: Vec<PathBuf> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        self.known.retain(|path, _| records.contains(path));
        for path in records {
            let Some(stamp) = stamp(&path) else { continue };
            if self.known.get(&path).is_none_or(|(known, _)| *known != stamp) {
                let container = fs::read(&path).ok().and_then(|text| parse(&text));
                self.known.insert(path, (stamp, container));
            }
        }
        self.whole = joined(self.known.values().filter_map(|(_, container)| container.clone()).collect());
    }

    /// Like `refresh`, for containers on other hosts.
    fn refresh_peers(&mut self) {
        let directory = peers::directory(&self.run_dir);
        let now = stamp(&directory);
        if now == self.peers.0 {
            return;
        }
        let lists = fs::read_dir(&directory).into_iter().flatten().flatten();
        let bridges =
            lists.filter_map(|list| list.file_name().to_str()?.strip_suffix(".json").map(str::to_owned));
        let containers = bridges.flat_map(|bridge| match Peers::read(&self.run_dir, &bridge) {
            Ok(Some(peers)) => elsewhere(&bridge, peers),
            _ => Vec::new(),
        });
        self.peers = (now, containers.collect());
    }

    /// The containers of this host.
    fn own(&self) -> impl Iterator<Item = &Container> {
        self.whole.iter()
    }

    /// The containers of this host and of other hosts.
    fn all(&self) -> impl Iterator<Item = &Container> {
        self.own().chain(&self.peers.1)
    }

    /// The container with this id.
    pub fn container(&mut self, id: &str) -> Option<Container> {
        self.refresh();
        self.own().find(|container| container.id == id).cloned()
    }

    /// Looks up a name for `asker`.
    pub fn find(&mut self, asker: &Container, labels: &[Vec<u8>]) -> Found {
        self.refresh();
        let text = |label: &Vec<u8>| String::from_utf8(label.clone()).unwrap_or_default();
        let labels: Vec<String> = labels.iter().map(text).collect();
        let whole = labels.join(".");
        let bare = whole.strip_suffix(PODMANS).and_then(|rest| rest.strip_suffix('.'));
        let bare = bare.filter(|_| asker.is_podmans);
        let (whole, is_ours) = (bare.unwrap_or(&whole), bare.is_some());
        let mut found = self.named(asker, whole, None);
        // `web.front`: a container, with the network that both containers are on. If nobody has that name, it may
        // be one in DNS: networks are called `dev` or `lan`, too.
        if let (true, Some((name, network))) = (found.is_empty(), whole.rsplit_once('.')) {
            let is_its = asker.networks.iter().any(|one| one.name.eq_ignore_ascii_case(network));
            found = if is_its { self.named(asker, name, Some(network)) } else { found };
        }
        if found.is_empty() {
            return if is_ours { Found::Nobody } else { Found::Elsewhere };
        }
        found.sort();
        found.dedup();
        // Rotate the addresses, so that each comes first in turn.
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % found.len();
        found.rotate_left(first);
        Found::Addresses(found)
    }

    /// The addresses of all containers with this name, on one network, or on all networks that they
    /// share with `asker`.
    fn named(&self, asker: &Container, name: &str, network: Option<&str>) -> Vec<IpAddr> {
        let linked: Vec<&str> =
            asker.links.iter().filter(|(link, _)| link == name).map(|(_, id)| id.as_str()).collect();
        let by = |one: &&Network| network.is_none_or(|name| one.name.eq_ignore_ascii_case(name));
        self.all()
            .flat_map(|other| {
                let is_called = other.id.eq_ignore_ascii_case(name)
                    || other.name.as_deref() == Some(name)
                    || linked.contains(&other.id.as_str());
                // An alias counts only on its own network.
                let called = move |one: &&Network| is_called || one.aliases.iter().any(|alias| alias == name);
                shared(asker, other).filter(by).filter(called).flat_map(|one| one.addresses.clone())
            })
            .collect()
    }

    /// The names of the container with this address. None if no container has it that `asker` may know, and it
    /// may be the address of another machine.
    pub(crate) fn names(&mut self, asker: &Container, address: IpAddr) -> Option<Vec<String>> {
        self.refresh();
        let names = |other: &Container| {
            let mut on = shared(asker, other).filter(|network| network.addresses.contains(&address));
            let network = on.next()?;
            let own = (!other.is_podmans).then(|| other.name.as_ref().unwrap_or(&other.id).clone());
            Some(own.into_iter().chain(network.aliases.clone()))
        };
        let mut found: Vec<String> = Vec::new();
        // Each of podman's records has all networks of the container.
        for name in self.all().filter_map(names).flatten() {
            if !found.contains(&name) {
                found.push(name);
            }
        }
        let mut subnets = asker.networks.iter().flat_map(|network| &network.subnets);
        (!found.is_empty() || subnets.any(|subnet| subnet.contains(&address))).then_some(found)
    }
}

/// The networks that `other` shares with `asker`.
fn shared<'a>(asker: &'a Container, other: &'a Container) -> impl Iterator<Item = &'a Network> {
    other.networks.iter().filter(|one| asker.networks.iter().any(|own| own.bridge == one.bridge))
}

/// The address in a reverse lookup: `4.3.2.1.in-addr.arpa` (RFC 1035, 3.5), or a name below
/// `ip6.arpa` (RFC 3596).
pub(crate) fn reversed(labels: &[Vec<u8>]) -> Option<IpAddr> {
    let text: Vec<&str> =
        labels.iter().map(|label| std::str::from_utf8(label).ok()).collect::<Option<_>>()?;
    match text.as_slice() {
        [parts @ .., "in-addr", "arpa"] if parts.len() == 4 => {
            let mut octets = parts.iter().rev().map(|part| part.parse::<u8>());
            let mut next = || octets.next().and_then(Result::ok);
            Some(IpAddr::from([next()?, next()?, next()?, next()?]))
        }
        [parts @ .., "ip6", "arpa"] if parts.len() == 32 => {
            let digits: String = parts.iter().rev().copied().collect();
            let plain = parts.iter().all(|part| part.len() == 1);
            u128::from_str_radix(&digits, 16)
                .ok()
                .filter(|_| plain)
                .map(|bits| IpAddr::from(bits.to_be_bytes()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, networks: &[(&str, &str)], more: &str) -> String {
        let network = |(name, address): &(&str, &str)| {
            format!(
                r#"{{"name":"{name}","interface":"eth0","bridge":{{"name":"br-{name}","subnet":"10.0.0.0/8","gateway":"10.0.0.1"}},"cni":{{"ips":[{{"address":"{address}/8"}}]}}}}"#
            )
        };
        let networks: Vec<_> = networks.iter().map(network).collect();
        format!(r#"{{"stave":1,"id":"{id}","networks":[{}]{more}}}"#, networks.join(","))
    }

    fn labels(name: &str) -> Vec<Vec<u8>> {
        name.split('.').map(|label| label.as_bytes().to_vec()).collect()
    }

    fn write(directory: &Path, id: &str, text: String) {
        let path = directory.join("new");
        fs::write(&path, text).unwrap();
        fs::rename(path, directory.join(format!("{id}.json"))).unwrap();
    }

    /// The record of a container on two networks, which calls another one by two names.
    fn web() -> String {
        record(
            "web",
            &[("front", "10.1.0.2"), ("back", "10.2.0.2")],
            r#","hosts":{"entries":[{"names":["store","db"]}]}"#,
        )
    }

    /// The records of containers on two networks, and some that do not count.
    fn write_records(directory: &Path) {
        let write = |id: &str, text: String| write(directory, id, text);
        write("web", web());
        write(
            "db",
            record("db", &[("back", "10.2.0.3")], r#","names":{"aliases":["Data"],"servers":["192.0.2.9"]}"#),
        );
        write("db2", record("db2", &[("back", "10.2.0.4")], r#","names":{"aliases":["data"]}"#));
        write(
            "kept",
            record("kept", &[("back", "10.2.0.6")], "").replace("0.1\"},", "0.1\",\"internal\":true},"),
        );
        write(
            "two",
            record("two", &[("front", "10.1.0.7"), ("back", "10.2.0.7")], "")
                .replace("\"interface\"", "\"aliases\":[\"Only\"],\"interface\"")
                .replacen("Only", "Elsewhere", 1),
        );
        let shop = record("box", &[("back", "10.2.0.8")], "");
        write("box", shop.replace("\"id\":\"box\"", "\"id\":\"box\",\"name\":\"Shop\""));
        std::os::unix::fs::symlink("box.json", directory.join("Shop.json")).unwrap();
        write("gone", record("gone", &[("back", "10.2.0.5")], r#","error":{"tool":"x"}"#));
        write("old", r#"{"id":"old","network":{"bridge":{"name":"br-front"},"cni":{"ips":[{"address":"10.1.0.9/8"}]}}}"#.into());
        fs::write(directory.join("bad.json"), "nonsense").unwrap();
    }

    #[test]
    fn names_are_seen_by_those_who_share_a_network() {
        let directory = tempfile::tempdir().unwrap();
        write_records(directory.path());
        let mut containers = Containers::new(directory.path());
        let (web, db) = (containers.container("web").unwrap(), containers.container("db").unwrap());
        assert_eq!(db.servers, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert!(web.has_a_way_out() && !containers.container("kept").unwrap().has_a_way_out());
        let mut find = |asker: &Container, name: &str| match containers.find(asker, &labels(name)) {
            Found::Addresses(addresses) => {
                addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        };
        for (asker, name, found) in [
            (&web, "db", "10.2.0.3"),
            (&web, "store", "10.2.0.3"),
            (&web, "db.back", "10.2.0.3"),
            (&web, "db.front", "Elsewhere"),
            // It may be a name in DNS.
            (&web, "nobody.front", "Elsewhere"),
            (&web, "nobody", "Elsewhere"),
            (&web, "gone", "Elsewhere"),
            // Each network has aliases of its own.
            (&web, "only", "10.2.0.7"),
            (&web, "elsewhere", "10.1.0.7"),
            (&db, "only", "10.2.0.7"),
            (&db, "elsewhere", "Elsewhere"),
            (&web, "shop", "10.2.0.8"),
            (&web, "box", "10.2.0.8"),
            (&web, "old", "10.1.0.9"),
            (&db, "old", "Elsewhere"),
            (&db, "store", "Elsewhere"),
            (&db, "web", "10.2.0.2"),
            (&db, "db.example", "Elsewhere"),
        ] {
            assert_eq!(find(asker, name), found, "{} asks for {name}", asker.id);
        }
        let mut turns = [find(&web, "data"), find(&web, "data")];
        turns.sort();
        assert_eq!(turns, ["10.2.0.3 10.2.0.4", "10.2.0.4 10.2.0.3"]);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(containers.names(&web, address("10.2.0.3")).unwrap(), ["db", "data"]);
        assert_eq!(containers.names(&web, address("10.2.0.8")).unwrap(), ["shop"]);
        assert_eq!(containers.names(&db, address("10.1.0.2")).unwrap(), [""; 0]);
        assert_eq!(containers.names(&web, address("192.0.2.1")), None);
        // On the wire of the host, other machines have names, too.
        let on_the_wire = record("wired", &[("wire", "10.3.0.2")], "").replace("\"bridge\"", "\"parent\"");
        write(directory.path(), "wired", on_the_wire);
        let wired = containers.container("wired").unwrap();
        assert_eq!(containers.names(&wired, address("10.3.0.2")).unwrap(), ["wired"]);
        assert_eq!(containers.names(&wired, address("10.3.0.9")), None);
        // A replaced record takes effect at once.
        write(directory.path(), "db", record("db", &[("back", "10.2.0.7")], ""));
        assert_eq!(containers.find(&web, &labels("db")), Found::Addresses(vec![address("10.2.0.7")]));
    }

    #[test]
    fn a_container_on_another_host_is_known_as_long_as_it_is_listed() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "web", web());
        let mut containers = Containers::new(directory.path());
        let web = containers.container("web").unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let station = Station {
            mac: netlink::Mac([2, 0x42, 10, 2, 1, 2]),
            addresses: vec![address("10.2.1.2")],
            names: vec!["Far".to_owned(), "data".to_owned()],
        };
        let far =
            peers::Host { name: "b".to_owned(), address: address("192.0.2.2"), stations: vec![station] };
        let list = Peers { network: "back".to_owned(), hosts: vec![far] };
        list.write(directory.path(), "br-back").unwrap();
        for name in ["far", "far.back"] {
            assert_eq!(
                containers.find(&web, &labels(name)),
                Found::Addresses(vec![address("10.2.1.2")]),
                "{name}"
            );
        }
        assert_eq!(containers.names(&web, address("10.2.1.2")).unwrap(), ["far", "data"]);
        assert!(containers.container("far").is_none());
        Peers::remove(directory.path(), "br-back").unwrap();
        assert_eq!(containers.find(&web, &labels("far")), Found::Elsewhere);
    }

    #[test]
    fn one_that_does_not_run_has_no_address() {
        let directory = tempfile::tempdir().unwrap();
        for (id, address, process) in [
            ("one", "10.1.0.2", r#""pid":1,"finished":"2026-01-01T00:00:00Z""#),
            ("two", "10.1.0.3", r#""pid":2"#),
            ("three", "10.1.0.4", r#""pid":3,"finished":"2026-01-01T00:00:00Z","restarting":true"#),
        ] {
            let more = format!(r#","names":{{"aliases":["web"]}},"process":{{{process}}}"#);
            let record = record(id, &[("front", address)], &more);
            fs::write(directory.path().join(format!("{id}.json")), record).unwrap();
        }
        let mut containers = Containers::new(directory.path());
        let asker = containers.container("two").unwrap();
        let Found::Addresses(mut found) = containers.find(&asker, &labels("web")) else { panic!("nobody") };
        found.sort();
        assert_eq!(found, ["10.1.0.3", "10.1.0.4"].map(|address| address.parse::<IpAddr>().unwrap()));
        assert_eq!(containers.find(&asker, &labels("one")), Found::Elsewhere);
    }

    #[test]
    fn addresses_of_pointers() {
        for (name, address) in [
            ("4.3.2.1.in-addr.arpa", "1.2.3.4"),
            ("3.2.1.in-addr.arpa", ""),
            ("256.3.2.1.in-addr.arpa", ""),
            (
                "b.a.9.8.7.6.5.4.3.2.1.0.f.e.d.c.b.a.9.8.7.6.5.4.3.2.1.0.8.b.d.0.ip6.arpa",
                "db8:123:4567:89ab:cdef:123:4567:89ab",
            ),
            ("example.org", ""),
        ] {
            let found = reversed(&labels(name)).map(|address| address.to_string());
            assert_eq!(found.unwrap_or_default(), address, "{name}");
        }
    }
}
