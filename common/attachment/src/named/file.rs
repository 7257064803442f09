//! Reads and writes a network in podman's format.

use std::collections::BTreeMap;

use document::members::Vxlan;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Named, Unusable, bridge_of, range};
use crate::{Route, Wanted};

/// A network's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Name of the network.
    pub name: String,
    /// Id of the network: 64 hexadecimal digits.
    #[serde(default)]
    pub id: String,
    /// The driver: `bridge`.
    pub driver: String,
    /// Name of the bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interface: Option<String>,
    /// The creation time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The subnets, at most one for each IP version.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// Further routes for its containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<FileRoute>,
    /// Whether it has IPv6.
    #[serde(default)]
    pub ipv6_enabled: bool,
    /// Whether the network is internal.
    #[serde(default)]
    pub internal: bool,
    /// Whether its containers can look up each other's names.
    #[serde(default)]
    pub dns_enabled: bool,
    /// Labels for people and scripts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Options: `mtu`, `isolate`. Our own are `icc`, `gateway_mode`, `ndp_proxy`, and for a network
    /// across hosts `vxlan`, `vxlan_local` and `vxlan_port`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// IPAM options: `driver` is `host-local`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipam_options: BTreeMap<String, String>,
    /// Unknown members.
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet.
    pub subnet: IpNet,
    /// The bridge's address. None means the first of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<std::net::IpAddr>,
    /// The addresses to lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_range: Option<LeaseRange>,
}

/// A range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_ip: Option<String>,
}

/// A route of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRoute {
    destination: IpNet,
    gateway: std::net::IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric: Option<u32>,
}

impl Subnet {
    /// A subnet with the bridge's address, by default the first one, and the range to lease from,
    /// by default the whole subnet.
    pub fn new(subnet: IpNet, gateway: Option<std::net::IpAddr>, range: Option<IpNet>) -> Self {
        let gateway = gateway.or(Some(lease::gateway(subnet)));
        let bounds = range.map(|range| LeaseRange {
            start_ip: Some(range.network().to_string()),
            end_ip: Some(range.broadcast().to_string()),
        });
        Self { subnet, gateway, lease_range: bounds }
    }

    fn range(&self) -> Result<Option<IpNet>, Unusable> {
        let Some(LeaseRange { start_ip, end_ip }) = &self.lease_range else { return Ok(None) };
        range(self.subnet, start_ip.as_deref(), end_ip.as_deref())
    }
}

impl File {
    /// A network on a bridge.
    pub fn new(name: &str, bridge: &str) -> Self {
        let is_local = ("driver".to_owned(), "host-local".to_owned());
        Self {
            name: name.to_owned(),
            id: String::new(),
            driver: "bridge".to_owned(),
            network_interface: Some(bridge.to_owned()),
            created: None,
            subnets: Vec::new(),
            routes: Vec::new(),
            ipv6_enabled: false,
            internal: false,
            dns_enabled: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            ipam_options: BTreeMap::from([is_local]),
            other: Map::new(),
        }
    }

    /// The VXLAN of the options, if there is one.
    fn vxlan(&self) -> Result<Option<Vxlan>, Unusable> {
        let wrong = |key: &str, value: &str| Unusable::Wrong(format!("options.{key} cannot be {value:?}"));
        let option = |key: &str| self.options.get(key).map(String::as_str);
        let (Some(id), Some(local)) = (option("vxlan"), option("vxlan_local")) else {
            let alone = ["vxlan", "vxlan_local", "vxlan_port", "vxlan_link"]
                .into_iter()
                .find(|key| option(key).is_some());
            let needs = |key| Unusable::Wrong(format!("options.{key} needs vxlan and vxlan_local"));
            return alone.map_or(Ok(None), |key| Err(needs(key)));
        };
        let port = option("vxlan_port").unwrap_or("4789");
        Ok(Some(Vxlan {
            // VXLAN identifiers have 24 bits (RFC 7348, 5).
            id: id.parse().ok().filter(|id| *id < 1 << 24).ok_or_else(|| wrong("vxlan", id))?,
            port: port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("vxlan_port", port))?,
            local: local.parse().map_err(|_| wrong("vxlan_local", local))?,
            link: option("vxlan_link").map(str::to_owned),
        }))
    }

    fn refuse_unknown(&self) -> Result<(), Unusable> {
        let not = |what: String| Err(Unusable::NotCarriedOut(what));
        if self.driver != "bridge" {
            return not(format!("driver {:?}", self.driver));
        }
        if let Some(driver) = self.ipam_options.get("driver").filter(|driver| *driver != "host-local") {
            return not(format!("ipam_options.driver {driver:?}"));
        }
        // podman lists containers there. An empty value has no effect.
        let asks = |value: &Value| {
            !matches!(value, Value::Null | Value::Bool(false)) && *value != Value::from(Vec::<Value>::new())
        };
        let unknown = self.other.iter().find(|(key, value)| *key != "containers" && asks(value));
        match unknown {
            Some((key, _)) => not(key.clone()),
            None => Ok(()),
        }
    }
}

pub(super) fn read(name: &str, text: &[u8]) -> Result<Named, Unusable> {
    let file: File = serde_json::from_slice(text)?;
    if file.name != name {
        return Err(Unusable::OtherName(file.name));
    }
    file.refuse_unknown()?;
    let bridge = file.network_interface.clone().unwrap_or_else(|| bridge_of(name));
    crate::parse_name(&bridge).map_err(|reason| Unusable::Wrong(format!("network_interface: {reason}")))?;
    let wanted = Wanted { ipv6: file.ipv6_enabled, internal: file.internal, ..Wanted::new(bridge) };
    let mut named = Named::new(name, wanted);
    for subnet in &file.subnets {
        named.add(subnet)?;
    }
    for (key, value) in &file.options {
        named.option(key, value)?;
    }
    named.network.vxlan = file.vxlan()?;
    for route in &file.routes {
        if route.metric.is_some() {
            return Err(Unusable::NotCarriedOut("routes.metric".to_owned()));
        }
        named.routes.push(Route { destination: route.destination, gateway: Some(route.gateway) });
    }
    Ok(named)
}

impl Named {
    /// Takes over a subnet, at most one for each IP version.
    pub(super) fn add(&mut self, subnet: &Subnet) -> Result<(), Unusable> {
        let twice = || Unusable::NotCarriedOut("a second subnet of one version of IP".to_owned());
        let network = &mut self.network;
        match subnet.gateway {
            Some(gateway) if !subnet.subnet.contains(&gateway) => {
                let what = format!("gateway {gateway} is not in subnet {}", subnet.subnet);
                return Err(Unusable::Wrong(what));
            }
            // Every file has a gateway, by default this one. An existing bridge may have another.
            Some(gateway) if gateway == lease::gateway(subnet.subnet.trunc()) => {}
            Some(std::net::IpAddr::V4(gateway)) => network.gateway = Some(gateway),
            Some(std::net::IpAddr::V6(gateway)) => network.gateway6 = Some(gateway),
            None => {}
        }
        match (subnet.subnet, subnet.range()?) {
            (IpNet::V4(_), _) if network.subnet.is_some() => return Err(twice()),
            (IpNet::V6(_), _) if network.subnet6.is_some() => return Err(twice()),
            (IpNet::V4(net), range) => {
                network.subnet = Some(net.trunc());
                network.range = range.and_then(|range| match range {
                    IpNet::V4(range) => Some(range),
                    IpNet::V6(_) => None,
                });
            }
            (IpNet::V6(net), range) => {
                network.ipv6 = true;
                network.subnet6 = Some(net.trunc());
                network.range6 = range.and_then(|range| match range {
                    IpNet::V6(range) => Some(range),
                    IpNet::V4(_) => None,
                });
            }
        }
        Ok(())
    }

    fn option(&mut self, key: &str, value: &str) -> Result<(), Unusable> {
        let wrong = || Unusable::Wrong(format!("options.{key} cannot be {value:?}"));
        match (key, value) {
            ("mtu", value) => {
                let mtu = value.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
                self.mtu = Some(mtu.ok_or_else(wrong)?);
            }
            // Different networks are isolated from each other in any case.
            ("isolate", "true" | "1" | "strict") => {}
            ("icc", value) => self.network.isolated = !value.parse::<bool>().map_err(|_| wrong())?,
            // These are read together, in `vxlan`.
            ("vxlan" | "vxlan_local" | "vxlan_port" | "vxlan_link", _) => {}
            ("ndp_proxy", value) => {
                self.network.ndp_proxy = Some(crate::parse_name(value).map_err(|_| wrong())?);
            }
            ("gateway_mode", value) => self.network.gateway_mode = value.parse().map_err(|_| wrong())?,
            _ => return Err(Unusable::NotCarriedOut(format!("options.{key} {value:?}"))),
        }
        Ok(())
    }
}
