//! The members about a container's networks: `network` is its namespace, and `networks` are the namespace's
//! attachments.

use std::{net::IpAddr, path::PathBuf, str::FromStr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Contribution, Document, Error,
    members::{Member, member},
};

/// `network`: the container's network namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// `none` for a namespace without attachments, `bridge` for one with attachments. `ns-exec --network` has
    /// other modes; they need no network tool in the pipe.
    pub mode: String,
    /// Absolute path of the network namespace, as in `ip netns`: `/run/netns/<id>`.
    pub namespace: PathBuf,
    /// After netns-bridge: the bridge that veth-pair will attach the namespace to. Afterwards: the bridge of
    /// the first attachment, for versions before 0.2, which look for it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
    /// `cni` of the first attachment, for versions before 0.2, which look for it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni: Option<CniResult>,
    /// Members of other tools.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}
member!(Network, "network");

/// `networks`: the attachments of the namespace, in the order of the steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Networks(pub Vec<Attachment>);
member!(Networks, "networks");

/// An element of `networks`: an interface in the container's namespace, and the bridge that it is attached
/// to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The network's name, as `network-create` knows it; otherwise the bridge's name.
    pub name: String,
    /// The interface's name in the namespace, `eth0`.
    pub interface: String,
    /// The bridge.
    pub bridge: Bridge,
    /// A CNI 1.1.0 result: interfaces, ips, routes, dns.
    pub cni: CniResult,
    /// Members of other tools.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What netns-add adds to a [`Network`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Namespace {
    /// `mode` of `network`.
    pub mode: &'static str,
    /// `namespace` of `network`.
    pub namespace: PathBuf,
}

impl Contribution for Namespace {
    const MEMBERS: &'static [&'static str] = &[Network::NAME];

    fn parts(&self) -> serde_json::Result<Map<String, Value>> {
        Ok(Map::from_iter([(Network::NAME.to_owned(), serde_json::to_value(self)?)]))
    }
}

/// What an attachment adds: an element of [`Networks`]. The first attachment also adds to [`Network`] what
/// versions before 0.2 look for there.
#[derive(Debug, Clone, PartialEq)]
pub struct Attached {
    /// The element.
    pub attachment: Attachment,
    /// For the first attachment: what it adds to `network`.
    pub first: Option<First>,
}

/// What the first attachment adds to [`Network`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct First {
    /// The mode `bridge` and the bridge. `None` if netns-bridge has written them already.
    #[serde(flatten)]
    on: Option<OnBridge>,
    cni: CniResult,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct OnBridge {
    mode: &'static str,
    bridge: Bridge,
}

impl Attached {
    /// What `attachment` adds to a document with this `network`.
    pub fn new(network: &Network, attachment: Attachment) -> Self {
        let on = || OnBridge { mode: "bridge", bridge: attachment.bridge.clone() };
        let first = match &network.bridge {
            None => Some(Some(on())),
            Some(bridge) if network.cni.is_none() && bridge.name == attachment.bridge.name => Some(None),
            Some(_) => None,
        };
        let first = first.map(|on| First { on, cni: attachment.cni.clone() });
        Self { attachment, first }
    }
}

impl Contribution for Attached {
    const MEMBERS: &'static [&'static str] = &[Network::NAME, Networks::NAME];

    fn parts(&self) -> serde_json::Result<Map<String, Value>> {
        let first = self.first.as_ref().map(serde_json::to_value).transpose()?;
        let first = first.map(|first| (Network::NAME.to_owned(), first));
        let list = serde_json::to_value([&self.attachment])?;
        Ok(first.into_iter().chain([(Networks::NAME.to_owned(), list)]).collect())
    }
}

impl Network {
    /// The attachment that a version before 0.2 stored in `network`.
    fn attachment(self) -> Option<Attachment> {
        let (bridge, cni) = self.bridge.zip(self.cni)?;
        let inside = cni.interfaces.iter().rev().find(|interface| interface.sandbox.is_some());
        let interface = inside.map_or_else(|| "eth0".to_owned(), |inside| inside.name.clone());
        Some(Attachment { name: bridge.name.clone(), interface, bridge, cni, other: Map::new() })
    }
}

impl Attachment {
    /// The addresses of the interface.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.cni.ips.iter().map(|ip| ip.address.addr())
    }

    /// The metric of the default route. The attachment with the lowest metric has the way out. An attachment
    /// without a default route has the highest metric.
    pub fn metric(&self) -> u64 {
        let metrics = self.cni.routes.iter().filter(|route| route.dst.prefix_len() == 0);
        metrics.map(|route| route.priority.unwrap_or_default().into()).min().unwrap_or(u64::MAX)
    }
}

impl Document {
    /// The container's attachments, in the order of the steps: those in `networks`, and the one that a
    /// version before 0.2 stored in `network` only.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `network` or `networks` does not have its form.
    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        let mut all = self.get::<Networks>()?.map_or_else(Vec::new, |networks| networks.0);
        let first = self.get::<Network>()?.and_then(Network::attachment);
        if let Some(first) = first.filter(|first| all.iter().all(|one| one.interface != first.interface)) {
            all.insert(0, first);
        }
        Ok(all)
    }

    /// The address at which the other container reaches this one: the address on a bridge that both are
    /// attached to, otherwise the first address. `None` if this container has no attachment.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `network` or `networks` of one of them does not have its form.
    pub fn address_for(&self, other: &Self) -> Result<Option<IpAddr>, Error> {
        let (own, theirs) = (self.attachments()?, other.attachments()?);
        let is_shared = |one: &&Attachment| theirs.iter().any(|other| other.bridge.name == one.bridge.name);
        let found = own.iter().find(is_shared).or(own.first());
        Ok(found.and_then(|attachment| attachment.addresses().next()))
    }
}

/// The bridge of an [`Attachment`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bridge {
    /// The interface's name, `stave0`.
    pub name: String,
    /// The bridge's network, `172.17.0.0/16`.
    #[schemars(with = "String")]
    pub subnet: IpNet,
    /// The bridge's own address, `172.17.0.1`. It is the containers' gateway.
    pub gateway: IpAddr,
    /// How the containers are reached from outside. `None` means `nat`; earlier versions did not set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mode: Option<GatewayMode>,
    /// The part of the subnet that addresses are leased from. `None` for the whole subnet.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
    /// The IPv6 network of the bridge, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6>,
    /// Whether the network is internal: its containers reach each other and the host, and nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Whether the containers cannot reach each other, except by published ports and links.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// How it leads to the same network on other hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<Vxlan>,
    /// The link of the host on which it answers for the containers' addresses of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ndp_proxy: Option<String>,
    /// Members of other tools.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How a [`Bridge`] leads to the same network on other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vxlan {
    /// The network's number (VNI), the same on all hosts.
    pub id: u32,
    /// The UDP port at which hosts hear it.
    pub port: u16,
    /// This host's address for the others.
    pub local: IpAddr,
    /// The link by which the others are reached, where the address is one of this link alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// The IPv6 part of a [`Bridge`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ipv6 {
    /// The bridge's network, `fd01:2345:6789::/64`.
    #[schemars(with = "String")]
    pub subnet: IpNet,
    /// The bridge's own address. It is the containers' gateway.
    pub gateway: IpAddr,
    /// The part of the subnet that addresses are leased from. `None` for the whole subnet.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
}

/// How the containers on a bridge are reached from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GatewayMode {
    /// By published ports on the host's addresses. The containers' traffic gets the host's address
    /// (masquerading).
    Nat,
    /// By the containers' own addresses, which others need a route to. The containers' traffic keeps its
    /// address.
    Routed,
}

impl GatewayMode {
    /// The names of the modes, as [`FromStr`] reads them.
    pub const NAMES: [&str; 2] = ["nat", "routed"];
}

impl FromStr for GatewayMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "nat" => Ok(Self::Nat),
            "routed" => Ok(Self::Routed),
            _ => Err(format!("{name:?} is no gateway mode")),
        }
    }
}

/// A CNI result of version 1.1.0 (CNI SPEC.md, "ADD Success"). Other members are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CniResult {
    /// `1.1.0`.
    pub cni_version: String,
    /// The interfaces that were made: on the host, and in the network namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<CniInterface>,
    /// The addresses that were assigned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<CniIp>,
    /// The routes that were made in the network namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<CniRoute>,
    /// Name servers and search domains. An empty object if there are none.
    #[serde(default)]
    pub dns: Value,
    /// The other members of the result.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An interface in a [`CniResult`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CniInterface {
    /// The interface's name.
    pub name: String,
    /// The hardware address, `02:42:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The MTU, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The path of the network namespace. `None` for an interface of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// An address in a [`CniResult`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CniIp {
    /// The address with its prefix length, `172.17.0.2/16`.
    #[schemars(with = "String")]
    pub address: IpNet,
    /// The default gateway for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The index of the interface in `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route in a [`CniResult`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CniRoute {
    /// The destination, `0.0.0.0/0`.
    #[schemars(with = "String")]
    pub dst: IpNet,
    /// The next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The metric. Of several routes to one destination, the kernel uses the one with the lowest metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(members: Value) -> Document {
        Document::parse(members.to_string().as_bytes()).unwrap()
    }

    fn bridge(name: &str) -> Value {
        json!({"name": name, "subnet": "10.0.0.0/24", "gateway": "10.0.0.1"})
    }

    fn cni(interface: &str, address: &str) -> Value {
        let inside = json!({"name": interface, "sandbox": "/run/netns/web"});
        json!({"cniVersion": "1.1.0", "interfaces": [{"name": "v1"}, inside], "ips": [{"address": address}], "dns": {}})
    }

    fn attachment(name: &str, interface: &str, address: &str) -> Value {
        json!({"name": name, "interface": interface, "bridge": bridge(name), "cni": cni(interface, address)})
    }

    fn shown(document: &Document) -> Vec<String> {
        let shown = |one: &Attachment| format!("{} {} {:?}", one.name, one.interface, one.addresses().next());
        document.attachments().unwrap().iter().map(shown).collect()
    }

    #[test]
    fn the_form_before_0_2_is_read() {
        let network = |more: Value| {
            let mut network = json!({"mode": "bridge", "namespace": "/run/netns/web"});
            network.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            network
        };
        let old = network(json!({"bridge": bridge("a"), "cni": cni("eth0", "10.0.0.2/24")}));
        let one = "a eth0 Some(10.0.0.2)";
        assert_eq!(shown(&document(json!({"stave": 1, "network": old}))), [one]);
        let list = json!([attachment("b", "eth1", "10.0.0.3/24")]);
        let both = document(json!({"stave": 1, "network": old, "networks": list}));
        assert_eq!(shown(&both), [one, "b eth1 Some(10.0.0.3)"]);
        // The first attachment is in both members.
        let list = json!([attachment("a", "eth0", "10.0.0.2/24"), attachment("b", "eth1", "10.0.0.3/24")]);
        let both = document(json!({"stave": 1, "network": old, "networks": list}));
        assert_eq!(shown(&both), [one, "b eth1 Some(10.0.0.3)"]);
        for less in [json!({}), json!({"bridge": bridge("a")})] {
            assert!(shown(&document(json!({"stave": 1, "network": network(less)}))).is_empty());
        }
        let other = document(json!({"stave": 1, "networks": [attachment("b", "eth0", "10.0.0.9/24")]}));
        assert_eq!(both.address_for(&other).unwrap(), Some([10, 0, 0, 3].into()));
        assert_eq!(both.address_for(&document(json!({"stave": 1}))).unwrap(), Some([10, 0, 0, 2].into()));
        assert_eq!(document(json!({"stave": 1})).address_for(&both).unwrap(), None);
    }

    #[test]
    fn the_first_attachment_stands_in_network_as_well() {
        let attachment: Attachment = serde_json::from_value(attachment("a", "eth0", "10.0.0.2/24")).unwrap();
        let network = |bridge: Option<&str>, cni: bool| Network {
            mode: "bridge".into(),
            namespace: "/run/netns/web".into(),
            bridge: bridge.map(|name| serde_json::from_value(self::bridge(name)).unwrap()),
            cni: cni.then(|| attachment.cni.clone()),
            other: Map::new(),
        };
        for (network, keys) in [
            (network(None, false), "mode bridge cni"),
            (network(Some("a"), false), "cni"),
            (network(Some("a"), true), ""),
            (network(Some("b"), false), ""),
        ] {
            let parts = Attached::new(&network, attachment.clone()).parts().unwrap();
            let first = parts.get("network").and_then(Value::as_object).cloned().unwrap_or_default();
            assert_eq!(first.keys().map(String::as_str).collect::<Vec<_>>().join(" "), keys);
            assert_eq!(parts["networks"][0]["interface"], "eth0");
        }
    }
}
