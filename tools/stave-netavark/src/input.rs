//! podman's input (containers/netavark, src/network/types.rs): the container, its networks and its ports.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read},
    net::IpAddr,
    path::Path,
};

use anyhow::{Context, Result, bail};
use attachment::named::FileRoute;
use ipnet::IpNet;
use plugin::{foreign, is_set};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// The largest input, in bytes.
const MAX: u64 = 16 << 20;

/// A container, and the networks to attach it to.
#[derive(Debug, Deserialize)]
pub(crate) struct Options {
    pub(crate) container_id: String,
    #[serde(default)]
    pub(crate) container_name: String,
    /// The container's interfaces, each with the network's name. Since netavark 2 it may be a list, before it was an object.
    #[serde(deserialize_with = "list_or_object")]
    pub(crate) networks: Vec<Named>,
    /// The networks, by name.
    pub(crate) network_info: BTreeMap<String, Network>,
    #[serde(default)]
    pub(crate) port_mappings: Option<Vec<Port>>,
    /// The container's own name servers.
    #[serde(default)]
    pub(crate) dns_servers: Option<Vec<IpAddr>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// The container's interface on a network.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    /// The network.
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) interface: Interface,
}

/// Reads a list of interfaces with their names, or an object with the names as keys.
fn list_or_object<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Named>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = Vec<Named>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of networks, or an object of networks")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = list.next_element()? {
                all.push(one);
            }
            Ok(all)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some((name, interface)) = object.next_entry()? {
                all.push(Named { name, interface });
            }
            // An object has no order.
            all.sort_by(|one, other| one.interface.interface_name.cmp(&other.interface.interface_name));
            Ok(all)
        }
    }
    input.deserialize_any(Either)
}

/// The container's side of a network.
#[derive(Debug, Deserialize)]
pub(crate) struct Interface {
    pub(crate) interface_name: String,
    /// Further names of the container on this network.
    #[serde(default)]
    pub(crate) aliases: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) static_ips: Option<Vec<IpAddr>>,
    #[serde(default)]
    pub(crate) static_mac: Option<String>,
    /// Options of the interface alone.
    #[serde(default)]
    pub(crate) options: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Network {
    pub(crate) driver: String,
    #[serde(default)]
    pub(crate) network_interface: Option<String>,
    #[serde(default)]
    pub(crate) subnets: Option<Vec<Subnet>>,
    #[serde(default)]
    pub(crate) routes: Option<Vec<FileRoute>>,
    #[serde(default)]
    pub(crate) internal: bool,
    #[serde(default)]
    pub(crate) dns_enabled: bool,
    /// The network's name servers.
    #[serde(default)]
    pub(crate) network_dns_servers: Option<Vec<IpAddr>>,
    #[serde(default)]
    pub(crate) options: Option<BTreeMap<String, String>>,
    /// Who leases the addresses: `driver`.
    #[serde(default)]
    pub(crate) ipam_options: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Subnet {
    pub(crate) subnet: IpNet,
    #[serde(default)]
    pub(crate) gateway: Option<IpAddr>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// A published port, or a range of ports.
#[derive(Debug, Deserialize)]
pub(crate) struct Port {
    pub(crate) container_port: u16,
    #[serde(default)]
    pub(crate) host_ip: String,
    pub(crate) host_port: u16,
    /// Protocols, separated by commas. Empty means TCP.
    #[serde(default)]
    pub(crate) protocol: String,
    #[serde(default)]
    pub(crate) range: u16,
}

/// Members of the container, of its interface, of a network and of a subnet that have no effect on what is made.
const OF_CONTAINER: [&str; 1] = ["container_hostname"];
const OF_NETWORK: [&str; 5] = ["created", "id", "ipv6_enabled", "labels", "name"];
/// podman leases the addresses itself.
const OF_SUBNET: [&str; 1] = ["lease_range"];

/// Refuses the first member that is set and not `known`.
fn refuse_unknown(other: &Map<String, Value>, known: &[&str], of: &str) -> Result<()> {
    match other.iter().find(|(key, value)| !known.contains(&key.as_str()) && is_set(value)) {
        Some((key, _)) => bail!("member {key:?} of {of} is not supported"),
        None => Ok(()),
    }
}

/// The metric of default routes in netavark: those by a wire of the host come first.
const METRIC: u32 = 100;
const METRIC_ON_A_WIRE: u32 = 99;

impl Network {
    /// The value of an option.
    fn option(&self, key: &str) -> Option<&str> {
        self.options.as_ref().and_then(|options| options.get(key)).map(String::as_str)
    }

    /// The metric of the containers' default routes.
    pub(crate) fn metric(&self) -> u32 {
        let usual = if self.driver == "bridge" { METRIC } else { METRIC_ON_A_WIRE };
        self.option("metric").and_then(|metric| metric.parse().ok()).unwrap_or(usual)
    }

    /// Whether the network has a gateway out of it.
    fn has_gateway(&self) -> bool {
        let subnets = self.subnets.as_deref().unwrap_or_default();
        let ipam = self.ipam_options.as_ref().and_then(|options| options.get("driver"));
        let has_addresses = ipam.is_none_or(|driver| driver != super::work::NO_ADDRESSES);
        !self.internal
            && has_addresses
            && (subnets.is_empty() || subnets.iter().any(|one| one.gateway.is_some()))
    }

    /// Whether the containers of the network have a default route by it.
    pub(crate) fn leads_out(&self) -> bool {
        self.has_gateway() && self.option("no_default_route") != Some("true")
    }

    /// Whether the network has IPv4, or IPv6. Without subnets, it has IPv4.
    pub(crate) fn has(&self, ipv4: bool) -> bool {
        let subnets = self.subnets.as_deref().unwrap_or_default();
        subnets.iter().any(|one| one.subnet.addr().is_ipv4() == ipv4) || (ipv4 && subnets.is_empty())
    }

    /// Whether this host is the network's gateway, so that it can publish ports.
    pub(crate) fn publishes(&self) -> bool {
        self.has_gateway() && self.driver == "bridge" && self.option("mode") != Some("unmanaged")
    }
}

/// Reads the input from a file, or from standard input.
pub(crate) fn read<T: DeserializeOwned>(file: Option<&Path>) -> Result<T> {
    let mut text = Vec::new();
    let count = match file {
        Some(path) => File::open(path).and_then(|file| file.take(MAX + 1).read_to_end(&mut text)),
        None => io::stdin().lock().take(MAX + 1).read_to_end(&mut text),
    };
    if count.context("read the networks")? as u64 > MAX {
        bail!("read the networks: there are more than {} MiB", MAX >> 20);
    }
    serde_json::from_slice(&text).context("read the networks")
}

impl Options {
    /// Refuses what is set and would have no effect.
    pub(crate) fn refuse_unknown(&self) -> Result<()> {
        refuse_unknown(&self.other, &OF_CONTAINER, "the container")?;
        for (name, interface, network) in self.attachments()? {
            refuse_unknown(&interface.other, &[], &format!("the interface on network {name:?}"))?;
            refuse_unknown(&network.other, &OF_NETWORK, &format!("network {name:?}"))?;
            for subnet in network.subnets.iter().flatten() {
                refuse_unknown(&subnet.other, &OF_SUBNET, &format!("subnet {}", subnet.subnet))?;
            }
            if let Some((key, value)) = interface.options.iter().flatten().next() {
                bail!(
                    "option {key:?} with value {value:?} of the interface on network {name:?} is not supported"
                );
            }
        }
        Ok(())
    }

    /// Each network with the container's interface, in the order of the list, or of the interfaces' names.
    pub(crate) fn attachments(&self) -> Result<Vec<(&str, &Interface, &Network)>> {
        let mut all = Vec::new();
        for Named { name, interface } in &self.networks {
            let Some(network) = self.network_info.get(name) else {
                bail!("network {name:?} is not in network_info");
            };
            all.push((name.as_str(), interface, network));
        }
        Ok(all)
    }
}

impl Port {
    /// The host's address, if it is a single one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host_ip.parse().ok().filter(|address: &IpAddr| *address != IpAddr::from([0; 4]))
    }

    /// The port in the form of `portmap -p`, for each protocol.
    pub(crate) fn specs(&self) -> Vec<String> {
        self.specs_at(&self.host_ip)
    }

    /// The same at another address of the host.
    pub(crate) fn specs_at(&self, host_ip: &str) -> Vec<String> {
        let last = |first: u16| u32::from(first) + u32::from(self.range.max(1)) - 1;
        let run = |first: u16| match self.range {
            0 | 1 => first.to_string(),
            _ => format!("{first}-{}", last(first)),
        };
        let protocols = if self.protocol.is_empty() { "tcp" } else { &self.protocol };
        let (host, container) = (run(self.host_port), run(self.container_port));
        let spec = |protocol: &str| foreign::port(host_ip, &host, &container, protocol.trim());
        protocols.split(',').map(spec).collect()
    }
}
