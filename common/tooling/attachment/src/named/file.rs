//! Reads and writes a network in podman's format.

use std::collections::BTreeMap;

use document::members::Vxlan;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::{Child, Rejection};
use operation::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Kind, Named, Unusable, bridge_of, range};
use crate::{Further, Gateway, Route, Wanted, WantedParent, parse_mtu};

/// The drivers that are carried out.
const DRIVERS: [&str; 3] = ["bridge", "macvlan", "ipvlan"];

/// Addresses are given out here, or not at all.
const LOCAL: &str = "host-local";
const NONE: &str = "none";

/// The subnet, the range to lease from, and the gateway.
type Parts<'a, N> = (&'a mut Option<N>, &'a mut Option<N>, &'a mut Gateway);

/// A network's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Name of the network.
    pub name: String,
    /// Id of the network: 64 hexadecimal digits.
    #[serde(default)]
    pub id: String,
    /// The driver: `bridge`, `macvlan` or `ipvlan`.
    pub driver: String,
    /// Name of the bridge or the parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interface: Option<String>,
    /// The creation time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The subnets. Containers have an address of each.
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
    /// Options: `mtu`, `isolate`, `metric`, `no_default_route`, `mode`. Our own are `icc`, `gateway_mode`, `ndp_proxy`, and for a network
    /// across hosts `vxlan`, `vxlan_local` and `vxlan_port`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// IPAM options: `driver` is `host-local`, or `none` for a macvlan or ipvlan without addresses.
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
    /// The bridge's address, or the router on the wire. None for a network without a gateway.
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
    /// The destination.
    pub destination: IpNet,
    /// The next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<std::net::IpAddr>,
    /// `unicast`, or what happens to the packets instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_type: Option<String>,
    /// The metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

impl FileRoute {
    /// The route.
    ///
    /// # Errors
    /// When a route of its type needs a gateway, or must not have one, or there is no such type.
    pub fn route(&self) -> Result<Route, String> {
        let Self { destination, gateway, metric, .. } = *self;
        let kind = self.route_type.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("unicast");
        let rejection = Rejection::of(kind);
        match (kind, rejection, gateway) {
            ("unicast", _, Some(_)) | (_, Some(_), None) => {
                Ok(Route { destination: destination.trunc(), gateway, rejection, metric })
            }
            ("unicast", ..) => Err(format!("the route to {destination} has no gateway")),
            (_, Some(_), Some(_)) => {
                Err(format!("the route to {destination} has a gateway, and its type is {kind:?}"))
            }
            _ => Err(format!("the route to {destination} is not supported: its type is {kind:?}")),
        }
    }
}

impl Subnet {
    /// A subnet with its gateway, and the range to lease from, by default the whole subnet.
    pub fn new(subnet: IpNet, gateway: Option<std::net::IpAddr>, range: Option<IpNet>) -> Self {
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
    /// A network on a bridge, or with another driver on a parent.
    pub fn new(name: &str, driver: &str, link: &str) -> Self {
        let is_local = ("driver".to_owned(), LOCAL.to_owned());
        Self {
            name: name.to_owned(),
            id: String::new(),
            driver: driver.to_owned(),
            network_interface: Some(link.to_owned()),
            created: None,
            subnets: Vec::new(),
            routes: Vec::new(),
            ipv6_enabled: false,
            internal: false,
            dns_enabled: driver == "bridge",
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            ipam_options: BTreeMap::from([is_local]),
            other: Map::new(),
        }
    }

    /// Who gives out the addresses.
    fn ipam(&self) -> &str {
        self.ipam_options.get("driver").map_or(LOCAL, String::as_str)
    }

    /// Makes it a network whose containers get no address.
    pub fn without_addresses(mut self) -> Self {
        self.ipam_options.insert("driver".to_owned(), NONE.to_owned());
        self
    }

    /// The kind of the network, without its subnets and most options.
    fn kind(&self, name: &str) -> Result<Kind, Unusable> {
        let link = self.network_interface.clone().filter(|link| !link.is_empty());
        if let Some(link) = &link {
            crate::parse_name(link)
                .map_err(|reason| Unusable::Wrong(format!("network_interface: {reason}")))?;
        }
        if self.driver == "bridge" {
            let bridge = link.unwrap_or_else(|| bridge_of(name));
            let bridge = Wanted { ipv6: self.ipv6_enabled, internal: self.internal, ..Wanted::new(bridge) };
            return Ok(Kind::Bridge(bridge));
        }
        let usual = if self.driver == "macvlan" { Child::MACVLAN[0] } else { Child::IPVLAN[0] };
        let mode = self.options.get("mode").map_or(usual, String::as_str);
        let child = Child::of(&self.driver, mode)
            .ok_or_else(|| Unusable::Wrong(format!("options.mode cannot be {mode:?}")))?;
        let addresses = self.ipam() != NONE;
        let wanted = WantedParent::new(child);
        Ok(Kind::Parent(WantedParent { parent: link, addresses, internal: self.internal, ..wanted }))
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

    /// Refuses a network that could not be read from its file.
    ///
    /// # Errors
    /// Why.
    pub fn refuse_unusable(&self) -> Result<(), Error> {
        let text = serde_json::to_vec(self).map_err(Error::caused_by)?;
        read(&self.name, &text).map(drop).map_err(Error::caused_by)
    }

    fn refuse_unknown(&self) -> Result<(), Unusable> {
        let not = |what: String| Err(Unusable::NotCarriedOut(what));
        if !DRIVERS.contains(&self.driver.as_str()) {
            return not(format!("driver {:?}", self.driver));
        }
        match self.ipam() {
            NONE if self.driver == "bridge" => {
                return not("ipam_options.driver \"none\" of a bridge".to_owned());
            }
            NONE if !self.subnets.is_empty() => {
                return Err(Unusable::Wrong("ipam_options.driver \"none\" has no subnets".to_owned()));
            }
            NONE | LOCAL => {}
            driver => return not(format!("ipam_options.driver {driver:?}")),
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
    let mut named = Named::new(name, file.kind(name)?);
    for subnet in &file.subnets {
        named.add(subnet)?;
    }
    named.set_versions();
    for (key, value) in &file.options {
        named.option(key, value)?;
    }
    if let Kind::Bridge(network) = &mut named.network {
        network.vxlan = file.vxlan()?;
        if let (Some(_), Some(further)) = (&network.vxlan, network.further.first()) {
            let what = format!(
                "subnet {}, the second one of its version of IP, beside options.vxlan",
                further.subnet
            );
            return Err(Unusable::NotCarriedOut(what));
        }
    }
    for route in &file.routes {
        named.routes.push(route.route().map_err(Unusable::Wrong)?);
    }
    Ok(named)
}

impl Named {
    /// Takes over a subnet.
    pub(super) fn add(&mut self, subnet: &Subnet) -> Result<(), Unusable> {
        let is_bridge = matches!(self.network, Kind::Bridge(_));
        let wanted = match subnet.gateway {
            Some(gateway) if !subnet.subnet.contains(&gateway) => {
                let what = format!("gateway {gateway} is not in subnet {}", subnet.subnet);
                return Err(Unusable::Wrong(what));
            }
            // Nearly every file has this gateway. An existing bridge may have another.
            Some(gateway) if is_bridge && gateway == lease::gateway(subnet.subnet.trunc()) => Gateway::Usual,
            Some(gateway) => Gateway::At(gateway),
            None => Gateway::None,
        };
        let range = subnet.range()?;
        let (v4, v6) = self.parts();
        match (subnet.subnet, range) {
            (net, range) if (if net.addr().is_ipv4() { v4.0.is_some() } else { v6.0.is_some() }) => {
                let further = Further { subnet: net.trunc(), gateway: wanted, range };
                match &mut self.network {
                    Kind::Bridge(network) => network.further.push(further),
                    Kind::Parent(network) => network.further.push(further),
                }
            }
            (IpNet::V4(net), range) => {
                let range = range.and_then(|range| match range {
                    IpNet::V4(range) => Some(range),
                    IpNet::V6(_) => None,
                });
                (*v4.0, *v4.1, *v4.2) = (Some(net.trunc()), range, wanted);
            }
            (IpNet::V6(net), range) => {
                let range = range.and_then(|range| match range {
                    IpNet::V6(range) => Some(range),
                    IpNet::V4(_) => None,
                });
                (*v6.0, *v6.1, *v6.2) = (Some(net.trunc()), range, wanted);
                if let Kind::Bridge(network) = &mut self.network {
                    network.ipv6 = true;
                }
            }
        }
        Ok(())
    }

    /// Without a subnet of IPv4, but with one of IPv6, the network has no IPv4.
    pub(super) fn set_versions(&mut self) {
        let (v4, v6) = self.parts();
        let ipv4 = v4.0.is_some() || v6.0.is_none();
        match &mut self.network {
            Kind::Bridge(network) => network.ipv4 = ipv4,
            Kind::Parent(network) => network.ipv4 = ipv4,
        }
    }

    /// The subnet, the range and the gateway of each IP version.
    fn parts(&mut self) -> (Parts<'_, Ipv4Net>, Parts<'_, Ipv6Net>) {
        match &mut self.network {
            Kind::Bridge(network) => (
                (&mut network.subnet, &mut network.range, &mut network.gateway),
                (&mut network.subnet6, &mut network.range6, &mut network.gateway6),
            ),
            Kind::Parent(network) => (
                (&mut network.subnet, &mut network.range, &mut network.gateway),
                (&mut network.subnet6, &mut network.range6, &mut network.gateway6),
            ),
        }
    }

    fn option(&mut self, key: &str, value: &str) -> Result<(), Unusable> {
        let wrong = || Unusable::Wrong(format!("options.{key} cannot be {value:?}"));
        match (key, value, &mut self.network) {
            // As in netavark, 0 is the usual one. The second name is Docker's.
            ("mtu" | "com.docker.network.driver.mtu", "0", _) => {}
            ("mtu" | "com.docker.network.driver.mtu", value, _) => {
                self.mtu = Some(parse_mtu(value).ok_or_else(wrong)?);
            }
            ("metric", value, _) => self.metric = Some(value.parse().map_err(|_| wrong())?),
            ("no_default_route", value, _) => self.no_default_route = value.parse().map_err(|_| wrong())?,
            ("mode", value, Kind::Bridge(network)) => {
                network.unmanaged = match value {
                    "" | "managed" => false,
                    "unmanaged" => true,
                    _ => return Err(wrong()),
                };
            }
            // It is read with the driver.
            ("mode", _, Kind::Parent(_)) => {}
            // Different networks are isolated from each other in any case.
            ("isolate", "true" | "1" | "strict", Kind::Bridge(_)) => {}
            ("icc", value, Kind::Bridge(network)) => {
                network.isolated = !value.parse::<bool>().map_err(|_| wrong())?;
            }
            // These are read together, in `vxlan`.
            ("vxlan" | "vxlan_local" | "vxlan_port" | "vxlan_link", _, Kind::Bridge(_)) => {}
            ("ndp_proxy", value, Kind::Bridge(network)) => {
                network.ndp_proxy = Some(crate::parse_name(value).map_err(|_| wrong())?);
            }
            ("gateway_mode", value, Kind::Bridge(network)) => {
                network.gateway_mode = value.parse().map_err(|_| wrong())?;
            }
            _ => return Err(Unusable::NotCarriedOut(format!("options.{key} {value:?}"))),
        }
        Ok(())
    }
}
