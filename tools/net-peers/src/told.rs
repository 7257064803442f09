//! What hosts publish in etcd, as keys and values, and what is derived from it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use netlink::{
    Mac,
    wireguard::{self, Key},
};
use peers::{Host, Peers, Station};
use serde::{Deserialize, Serialize};

use super::shape::Shape;

/// The keys of a network.
#[derive(Debug, Clone)]
pub(crate) struct Keys(String);

impl Keys {
    pub(crate) fn new(prefix: &str, network: &str) -> Self {
        Self(format!("{}/{network}/", prefix.trim_end_matches('/')))
    }

    /// The prefix of all keys.
    pub(crate) fn all(&self) -> &str {
        &self.0
    }

    /// The key of the network's shape.
    pub(crate) fn shape(&self) -> String {
        format!("{}network", self.0)
    }

    /// The prefix of the keys of all parts.
    pub(crate) fn parts(&self) -> String {
        format!("{}parts/", self.0)
    }

    /// The key of the part with this number. Its value is the host that has the part.
    pub(crate) fn part(&self, number: u32) -> String {
        format!("{}{number}", self.parts())
    }

    pub(crate) fn host(&self, host: &str) -> String {
        format!("{}hosts/{host}", self.0)
    }

    pub(crate) fn containers(&self, host: &str) -> String {
        format!("{}containers/{host}/", self.0)
    }
}

/// What a host publishes about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldHost {
    /// The address of its VXLAN.
    pub(crate) address: IpAddr,
    /// The number of its part.
    pub(crate) part: u32,
    /// The hardware address of its bridge, if there is one, and the bridge's addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<Mac>,
    #[serde(default)]
    pub(crate) addresses: Vec<IpAddr>,
    /// Its WireGuard endpoint, if the hosts use WireGuard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wireguard: Option<End>,
}

/// A host's WireGuard endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// The public key in Base64.
    pub(crate) key: String,
    /// The address and UDP port.
    pub(crate) endpoint: SocketAddr,
}

impl ToldHost {
    /// Parses the public key and the endpoint. The tunnel address is derived from the key, so no host can
    /// use another's.
    fn end(&self) -> Result<(Key, SocketAddr), String> {
        let end = self.wireguard.as_ref().ok_or("it publishes no WireGuard key")?;
        let key = super::key::parse(&end.key)?;
        match IpAddr::from(wireguard::address_of(&key)) == self.address {
            true => Ok((key, end.endpoint)),
            false => Err(format!("{} does not follow from its key", self.address)),
        }
    }
}

/// The WireGuard peers of these hosts.
pub(crate) fn ends(
    values: &BTreeMap<String, String>,
    keys: &Keys,
    peers: &Peers,
) -> BTreeMap<Key, SocketAddr> {
    let told = peers.hosts.iter().filter_map(|host| values.get(&keys.host(&host.name)));
    let told = told.filter_map(|text| serde_json::from_str::<ToldHost>(text).ok());
    told.filter_map(|host| host.end().ok()).collect()
}

/// The other hosts, from what all hosts have published, and what was left out, and why. A host's addresses
/// outside of its own part are left out, so no host can take another's. A hardware address counts for this host if it has it, otherwise
/// for the first host that has published it.
pub(crate) fn peers(
    values: &BTreeMap<String, String>,
    keys: &Keys,
    own: &str,
    network: &str,
    shape: &Shape,
) -> (Peers, Vec<String>) {
    let mut left = Vec::new();
    let mut hosts: Vec<Host> = Vec::new();
    let mut taken = own_macs(values, keys, own);
    let prefix = keys.host("");
    for (key, value) in below(values, &prefix) {
        let name = key.trim_start_matches(prefix.as_str());
        if name == own {
            continue;
        }
        let host = match host(values, keys, name, value, shape, &mut left) {
            Ok(mut host) => {
                host.stations.retain(|station| {
                    let holder = taken.entry(station.mac).or_insert_with(|| name.to_owned());
                    if holder != name {
                        let mac = station.mac;
                        left.push(format!(
                            "host {name:?}: host {holder:?} has {mac}, which it publishes too"
                        ));
                    }
                    holder == name
                });
                host
            }
            Err(reason) => {
                left.push(format!("host {name:?}: {reason}"));
                continue;
            }
        };
        hosts.push(host);
    }
    (Peers { network: network.to_owned(), hosts }, left)
}

/// The hardware addresses on this host. If another host could publish one of them, this host would send its own frames there.
fn own_macs(values: &BTreeMap<String, String>, keys: &Keys, own: &str) -> BTreeMap<Mac, String> {
    let bridge = values.get(&keys.host(own)).and_then(|text| serde_json::from_str::<ToldHost>(text).ok());
    let prefix = keys.containers(own);
    let stations = below(values, &prefix).filter_map(|(_, text)| serde_json::from_str::<Station>(text).ok());
    let macs = stations.map(|station| station.mac).chain(bridge.and_then(|host| host.mac));
    macs.map(|mac| (mac, own.to_owned())).collect()
}

/// The keys with this prefix, and their values.
pub(crate) fn below<'a>(
    values: &'a BTreeMap<String, String>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a String, &'a String)> {
    values.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
}

fn host(
    values: &BTreeMap<String, String>,
    keys: &Keys,
    name: &str,
    value: &str,
    shape: &Shape,
    left: &mut Vec<String>,
) -> Result<Host, String> {
    let told: ToldHost = serde_json::from_str(value).map_err(|error| error.to_string())?;
    if told.part >= shape.parts() || values.get(&keys.part(told.part)).map(String::as_str) != Some(name) {
        return Err(format!("it does not have part {}", told.part));
    }
    if told.address.is_unspecified() || told.address.is_loopback() || told.address.is_multicast() {
        return Err(format!("{} cannot be the address of a host", told.address));
    }
    if shape.wireguard {
        told.end()?;
    }
    let part = shape.part(told.part);
    let checked = |station: Station| {
        let Mac(bytes) = station.mac;
        let outside = station.addresses.iter().find(|address| !part.iter().any(|net| net.contains(*address)));
        match outside {
            Some(address) => Err(format!("{address} is not in its part")),
            None if bytes[0] & 1 != 0 || bytes == [0; 6] => {
                Err(format!("{} is no address of one interface", station.mac))
            }
            None => Ok(station),
        }
    };
    let mut stations = Vec::new();
    let bridge = told.mac.map(|mac| Station { mac, addresses: told.addresses, names: Vec::new() });
    stations.extend(bridge.map(checked).transpose()?);
    let prefix = keys.containers(name);
    for (key, value) in below(values, &prefix) {
        let station =
            serde_json::from_str::<Station>(value).map_err(|error| error.to_string()).and_then(checked);
        match station {
            Ok(mut station) => {
                station.names.retain(|name| names::is_name(name));
                stations.push(station);
            }
            Err(reason) => {
                left.push(format!(
                    "container {:?} of {name:?}: {reason}",
                    key.trim_start_matches(prefix.as_str())
                ));
            }
        }
    }
    Ok(Host { name: name.to_owned(), address: told.address, stations })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A network of 256 parts.
    fn shape() -> Shape {
        Shape {
            subnet: "10.7.0.0/16".parse().unwrap(),
            subnet6: None,
            bits: 8,
            vxlan: 7,
            port: 4789,
            wireguard: false,
        }
    }

    #[test]
    fn a_host_speaks_for_its_own_part_alone() {
        let shape = shape();
        let keys = Keys::new("/stave/", "front");
        let told = [
            ("parts/1", "a"),
            ("parts/2", "b"),
            ("hosts/a", r#"{"address":"192.0.2.1","part":1}"#),
            (
                "hosts/b",
                r#"{"address":"192.0.2.2","part":2,"mac":"02:00:00:00:00:0b","addresses":["10.7.2.1"]}"#,
            ),
            ("hosts/c", r#"{"address":"192.0.2.3","part":2}"#),
            ("hosts/d", r#"{"address":"192.0.2.4","part":256}"#),
            ("hosts/e", "nonsense"),
            (
                "containers/b/web",
                r#"{"mac":"02:42:0a:07:02:05","addresses":["10.7.2.5"],"names":["web","a b"]}"#,
            ),
            ("containers/b/thief", r#"{"mac":"02:42:0a:07:01:05","addresses":["10.7.1.5"]}"#),
            ("containers/b/all", r#"{"mac":"ff:ff:ff:ff:ff:ff","addresses":["10.7.2.6"]}"#),
        ];
        let values =
            told.map(|(key, value)| (format!("/stave/front/{key}"), value.to_owned())).into_iter().collect();
        let (peers, left) = peers(&values, &keys, "a", "front", &shape);
        let [host] = peers.hosts.as_slice() else { panic!("{peers:?}") };
        assert_eq!((host.name.as_str(), host.address), ("b", IpAddr::from([192, 0, 2, 2])));
        let stations: Vec<_> =
            host.stations.iter().map(|one| (one.addresses.clone(), one.names.join(","))).collect();
        let address = |last| vec![IpAddr::from([10, 7, 2, last])];
        assert_eq!(stations, [(address(1), String::new()), (address(5), "web".to_owned())]);
        assert_eq!(
            left.iter().map(|line| line.split_once(": ").unwrap().0).collect::<Vec<_>>(),
            [
                "container \"all\" of \"b\"",
                "container \"thief\" of \"b\"",
                "host \"c\"",
                "host \"d\"",
                "host \"e\""
            ]
        );
    }

    /// Otherwise a host could get the frames for another host's containers.
    #[test]
    fn a_hardware_address_is_that_of_one_host() {
        let shape = shape();
        let keys = Keys::new("/stave/", "front");
        let of = |mac: &str, address: &str| format!(r#"{{"mac":"{mac}","addresses":["{address}"]}}"#);
        let host = |part: u8, mac: &str| {
            format!(
                r#"{{"address":"192.0.2.{part}","part":{part},"mac":"{mac}","addresses":["10.7.{part}.1"]}}"#
            )
        };
        let told = [
            ("parts/1", "a".to_owned()),
            ("parts/2", "b".to_owned()),
            ("parts/3", "c".to_owned()),
            ("hosts/a", host(1, "02:00:00:00:00:0a")),
            ("hosts/b", host(2, "02:00:00:00:00:0b")),
            ("hosts/c", host(3, "02:00:00:00:00:0b")),
            ("containers/a/own", of("02:42:0a:07:01:05", "10.7.1.5")),
            ("containers/b/thief", of("02:42:0a:07:01:05", "10.7.2.5")),
            ("containers/b/bridge", of("02:00:00:00:00:0a", "10.7.2.6")),
            ("containers/b/web", of("02:42:0a:07:02:07", "10.7.2.7")),
            ("containers/b/twice", of("02:42:0a:07:02:07", "10.7.2.8")),
            ("containers/c/web", of("02:42:0a:07:02:07", "10.7.3.7")),
            ("containers/c/db", of("02:42:0a:07:03:08", "10.7.3.8")),
        ];
        let values = told.into_iter().map(|(key, value)| (format!("/stave/front/{key}"), value)).collect();
        let (peers, left) = peers(&values, &keys, "a", "front", &shape);
        let stations: Vec<Vec<String>> = peers
            .hosts
            .iter()
            .map(|host| host.stations.iter().map(|one| one.addresses[0].to_string()).collect())
            .collect();
        assert_eq!(stations, [vec!["10.7.2.1", "10.7.2.8", "10.7.2.7"], vec!["10.7.3.8"]]);
        assert_eq!(
            left,
            [
                "host \"b\": host \"a\" has 02:00:00:00:00:0a, which it publishes too",
                "host \"b\": host \"a\" has 02:42:0a:07:01:05, which it publishes too",
                "host \"c\": host \"b\" has 02:00:00:00:00:0b, which it publishes too",
                "host \"c\": host \"b\" has 02:42:0a:07:02:07, which it publishes too",
            ]
        );
    }
}
