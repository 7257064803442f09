//! The members about a container's networks: `network` is its namespace, and `networks` are the namespace's
//! attachments.

use std::{net::IpAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Contribution, Document, Error,
    members::{CniResult, Member, member},
    on::{Bridge, On},
};

/// `network`: the container's network namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// `none` for a namespace without attachments, `bridge`, `macvlan` or `ipvlan` for one with attachments.
    /// `ns-exec --network` has other modes; they need no network tool in the pipe.
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

/// An element of `networks`: an interface in the container's namespace, and the link of the host that it is
/// attached to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The network's name, as `network-create` knows it; otherwise the name of the bridge or the parent.
    pub name: String,
    /// The interface's name in the namespace, `eth0`.
    pub interface: String,
    /// The bridge or the parent.
    #[serde(flatten)]
    pub on: On,
    /// Further names of the container, which only the containers on this network know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
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

/// What an attachment adds: an element of [`Networks`]. The first attachment on a bridge also adds to
/// [`Network`] what versions before 0.2 look for there.
#[derive(Debug, Clone, PartialEq)]
pub struct Attached {
    /// The element.
    pub attachment: Attachment,
    /// What it adds to `network`.
    pub first: Option<First>,
}

/// What an attachment adds to [`Network`]: the first one all of it, one on a parent only the mode.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct First {
    /// None if netns-bridge has written it already.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<Bridge>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cni: Option<CniResult>,
}

impl Attached {
    /// What `attachment` adds to a document with this `network`.
    pub fn new(network: &Network, attachment: Attachment) -> Self {
        let cni = || Some(attachment.cni.clone());
        let first = match (&attachment.on, &network.bridge) {
            (On::Bridge(bridge), None) => {
                Some(First { mode: Some("bridge".to_owned()), bridge: Some(bridge.clone()), cni: cni() })
            }
            (On::Bridge(bridge), Some(known)) if network.cni.is_none() && known.name == bridge.name => {
                Some(First { mode: None, bridge: None, cni: cni() })
            }
            // Versions before 0.2 know nothing of it.
            (On::Parent(parent), _) => {
                Some(First { mode: Some(parent.driver.clone()), bridge: None, cni: None })
            }
            // When the first network is undone, the container still has one.
            (On::Bridge(_), _) => Some(First { mode: Some("bridge".to_owned()), bridge: None, cni: None }),
        };
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
        Some(Attachment {
            name: bridge.name.clone(),
            interface,
            aliases: Vec::new(),
            on: On::Bridge(bridge),
            cni,
            other: Map::new(),
        })
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
        self.metric_of(true).min(self.metric_of(false))
    }

    /// The metric of the default route of IPv4, or of IPv6. Without one, it is the highest.
    pub fn metric_of(&self, ipv4: bool) -> u64 {
        let routes = self.cni.routes.iter().filter(|route| route.dst.prefix_len() == 0);
        let own = routes.filter(|route| route.dst.addr().is_ipv4() == ipv4);
        own.map(|route| route.priority.unwrap_or_default().into()).min().unwrap_or(u64::MAX)
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

    /// The addresses at which the other container reaches this one, one of each IP version: those on a link of
    /// the host that both are attached to, otherwise those of the first attachment that has one. Empty if none
    /// has.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `network` or `networks` of one of them does not have its form.
    pub fn addresses_for(&self, other: &Self) -> Result<Vec<IpAddr>, Error> {
        let (own, theirs) = (self.attachments()?, other.attachments()?);
        let is_shared = |one: &&Attachment| theirs.iter().any(|other| other.on.link() == one.on.link());
        let mut reachable = own.iter().filter(|one| one.addresses().next().is_some());
        let Some(found) = reachable.clone().find(is_shared).or_else(|| reachable.next()) else {
            return Ok(Vec::new());
        };
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.addresses() {
            if addresses.iter().all(|other| other.is_ipv4() != address.is_ipv4()) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
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
        let none = document(json!({"stave": 1}));
        assert_eq!(both.addresses_for(&other).unwrap(), [IpAddr::from([10, 0, 0, 3])]);
        assert_eq!(both.addresses_for(&none).unwrap(), [IpAddr::from([10, 0, 0, 2])]);
        assert!(none.addresses_for(&both).unwrap().is_empty());
        // An attachment without an address, though both are on it, leads to nobody.
        let mut bare = attachment("a", "eth0", "10.0.0.2/24");
        bare["cni"]["ips"] = json!([]);
        let list = json!([bare, attachment("b", "eth1", "10.0.0.3/24")]);
        let bare = document(json!({"stave": 1, "networks": list}));
        assert_eq!(bare.addresses_for(&both).unwrap(), [IpAddr::from([10, 0, 0, 3])]);
    }

    #[test]
    fn an_attachment_without_a_bridge() {
        let parent = json!({"name": "eth0", "driver": "macvlan", "mode": "bridge", "subnet": "10.0.0.0/24", "mine": 1});
        let one = json!({"name": "wire", "interface": "eth0", "parent": parent, "cni": cni("eth0", "10.0.0.2/24"), "theirs": 2});
        let attachment: Attachment = serde_json::from_value(one.clone()).unwrap();
        assert_eq!(serde_json::to_value(&attachment).unwrap(), one);
        assert_eq!((attachment.on.link(), attachment.on.bridge()), ("eth0", None));
        let network = json!({"mode": "none", "namespace": "/run/netns/web"});
        let network: Network = serde_json::from_value(network).unwrap();
        let parts = Attached::new(&network, attachment).parts().unwrap();
        assert_eq!(parts["network"], json!({"mode": "macvlan"}));
        let neither = json!({"name": "wire", "interface": "eth0", "cni": cni("eth0", "10.0.0.2/24")});
        assert!(serde_json::from_value::<Attachment>(neither).is_err());
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
            (network(Some("a"), true), "mode"),
            (network(Some("b"), false), "mode"),
        ] {
            let parts = Attached::new(&network, attachment.clone()).parts().unwrap();
            let first = parts.get("network").and_then(Value::as_object).cloned().unwrap_or_default();
            assert_eq!(first.keys().map(String::as_str).collect::<Vec<_>>().join(" "), keys);
            assert_eq!(parts["networks"][0]["interface"], "eth0");
        }
    }
}
