//! A network in podman's form.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Named, Unusable, bridge_of, range};
use crate::{Route, Wanted};

/// A network's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Its name.
    pub name: String,
    /// 64 hexadecimal digits.
    #[serde(default)]
    pub id: String,
    /// `bridge`.
    pub driver: String,
    /// The bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interface: Option<String>,
    /// When it was made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// One for each version of IP.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// Further routes of its containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<FileRoute>,
    /// Whether it has IPv6.
    #[serde(default)]
    pub ipv6_enabled: bool,
    /// Whether no way leads out of it.
    #[serde(default)]
    pub internal: bool,
    /// Whether its containers have names there.
    #[serde(default)]
    pub dns_enabled: bool,
    /// For people and scripts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `mtu`, `isolate`; ours are `icc` and `gateway_mode`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// `driver`: `host-local`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipam_options: BTreeMap<String, String>,
    /// What nobody here knows.
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet.
    pub subnet: IpNet,
    /// The bridge's address; the first if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<std::net::IpAddr>,
    /// The part of it whose addresses are leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_range: Option<LeaseRange>,
}

/// From one address to another.
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
    /// The subnet with the bridge's address, by default the first, and the addresses that are leased; all of them without a range.
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

    fn refuse_unknown(&self) -> Result<(), Unusable> {
        let not = |what: String| Err(Unusable::NotCarriedOut(what));
        if self.driver != "bridge" {
            return not(format!("driver {:?}", self.driver));
        }
        if let Some(driver) = self.ipam_options.get("driver").filter(|driver| *driver != "host-local") {
            return not(format!("ipam_options.driver {driver:?}"));
        }
        // podman lists containers there; an empty value asks for nothing.
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
    for route in &file.routes {
        if route.metric.is_some() {
            return Err(Unusable::NotCarriedOut("routes.metric".to_owned()));
        }
        named.routes.push(Route { destination: route.destination, gateway: Some(route.gateway) });
    }
    Ok(named)
}

impl Named {
    /// Takes a subnet, one of each version of IP.
    pub(super) fn add(&mut self, subnet: &Subnet) -> Result<(), Unusable> {
        let twice = || Unusable::NotCarriedOut("a second subnet of one version of IP".to_owned());
        let network = &mut self.network;
        match subnet.gateway {
            Some(gateway) if !subnet.subnet.contains(&gateway) => {
                let what = format!("gateway {gateway} is not in subnet {}", subnet.subnet);
                return Err(Unusable::Wrong(what));
            }
            // It is in every file. A bridge that is there may have another.
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
            // Networks are strangers to each other in any case.
            ("isolate", "true" | "1" | "strict") => {}
            ("icc", value) => self.network.isolated = !value.parse::<bool>().map_err(|_| wrong())?,
            ("gateway_mode", value) => self.network.gateway_mode = value.parse().map_err(|_| wrong())?,
            _ => return Err(Unusable::NotCarriedOut(format!("options.{key} {value:?}"))),
        }
        Ok(())
    }
}
