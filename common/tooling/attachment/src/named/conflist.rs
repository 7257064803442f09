//! Reads a CNI network (CNI SPEC.md, "Network configuration lists") whose first plugin is `bridge`, `macvlan`
//! or `ipvlan`.

use std::net::IpAddr;

use document::members::GatewayMode;
use ipnet::IpNet;
use netlink::Child;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Kind, Named, Unusable, file::Subnet, range};
use crate::{Route, Wanted, WantedParent};

#[derive(Deserialize)]
struct List {
    name: String,
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    settings: Map<String, Value>,
}

/// The supported settings of the plugin `bridge`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bridge {
    #[serde(default = "cni0")]
    bridge: String,
    #[serde(default)]
    ip_masq: bool,
    is_gateway: Option<bool>,
    #[serde(default)]
    is_default_gateway: bool,
    #[serde(default)]
    mtu: Option<u32>,
    #[serde(default)]
    ipam: Option<Ipam>,
}

fn cni0() -> String {
    "cni0".to_owned()
}

#[derive(Deserialize)]
struct Ipam {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    ranges: Vec<Vec<Range>>,
    #[serde(flatten)]
    single: Option<Range>,
    #[serde(default)]
    routes: Vec<Destination>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Range {
    subnet: IpNet,
    range_start: Option<String>,
    range_end: Option<String>,
    gateway: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Destination {
    dst: IpNet,
    gw: Option<IpAddr>,
}

/// Further plugins that our own tools replace: portmap, and the firewall rules of netns-bridge.
const OURS: [&str; 2] = ["portmap", "firewall"];

/// Settings of `bridge` that are not supported if they are set.
const OTHER: [&str; 6] =
    ["vlan", "vlanTrunk", "promiscMode", "macspoofchk", "preserveDefaultVlan", "enabledad"];

/// The supported settings of the plugins `macvlan` and `ipvlan`.
#[derive(Deserialize)]
struct Parent {
    #[serde(default)]
    master: String,
    #[serde(default)]
    mode: String,
    #[serde(default)]
    mtu: Option<u32>,
    #[serde(default)]
    ipam: Option<Ipam>,
}

/// Settings of `macvlan` and `ipvlan` that are not supported if they are set.
const OTHER_OF_PARENTS: [&str; 3] = ["linkInContainer", "linkContNs", "bcqueuelen"];

/// The first plugins that are supported.
const FIRST: [&str; 3] = ["bridge", "macvlan", "ipvlan"];

fn not(what: String) -> Unusable {
    Unusable::NotCarriedOut(what)
}

pub(super) fn read(name: &str, text: &[u8]) -> Result<Named, Unusable> {
    let list: List = serde_json::from_slice(text)?;
    if list.name != name {
        return Err(Unusable::OtherName(list.name));
    }
    let mut plugins = list.plugins.into_iter();
    let first = plugins.next().filter(|plugin| FIRST.contains(&plugin.kind.as_str()));
    let first = first.ok_or_else(|| not(format!("a first plugin that is not one of {FIRST:?}")))?;
    if let Some(other) = plugins.find(|plugin| !OURS.contains(&plugin.kind.as_str())) {
        return Err(not(format!("plugin {:?}", other.kind)));
    }
    let others = if first.kind == "bridge" { &OTHER[..] } else { &OTHER_OF_PARENTS };
    let is_set = |key: &&&str| {
        let value = first.settings.get(**key);
        // The only setting whose default is true.
        let default = Value::from(**key == "preserveDefaultVlan");
        value.is_some_and(|value| !matches!(value, Value::Null) && *value != default && *value != 0)
    };
    if let Some(other) = others.iter().find(is_set) {
        return Err(not(format!("setting {other:?} of plugin {:?}", first.kind)));
    }
    match first.kind.as_str() {
        "bridge" => bridge(name, first.settings),
        kind => parent(name, kind, first.settings),
    }
}

/// The settings of `ipam`, which must be host-local.
fn host_local(kind: &str, ipam: Option<Ipam>) -> Result<Ipam, Unusable> {
    let ipam = ipam.ok_or_else(|| not(format!("plugin {kind:?} without \"ipam\"")))?;
    match ipam.kind.as_str() {
        "host-local" => Ok(ipam),
        other => Err(not(format!("ipam {other:?}"))),
    }
}

fn bridge(name: &str, settings: Map<String, Value>) -> Result<Named, Unusable> {
    let apart = settings.get("portIsolation") == Some(&Value::Bool(true));
    let bridge: Bridge = serde_json::from_value(Value::Object(settings))?;
    crate::parse_name(&bridge.bridge).map_err(|reason| Unusable::Wrong(format!("bridge: {reason}")))?;
    let ipam = host_local("bridge", bridge.ipam)?;
    let gateway_mode = if bridge.ip_masq { GatewayMode::Nat } else { GatewayMode::Routed };
    let has_gateway = bridge.is_default_gateway || bridge.is_gateway != Some(false);
    let wanted = Wanted { gateway_mode, isolated: apart, ..Wanted::new(bridge.bridge) };
    let mut named = Named::new(name, Kind::Bridge(wanted));
    named.mtu = bridge.mtu.filter(|mtu| *mtu != 0);
    // The network has a default route anyway, by the bridge.
    let routes = ipam.routes.iter().filter(|route| route.dst.prefix_len() != 0).map(Destination::route);
    named.routes.extend(routes);
    named.take(ipam, |_, gateway| has_gateway.then_some(gateway))?;
    Ok(named)
}

fn parent(name: &str, kind: &str, settings: Map<String, Value>) -> Result<Named, Unusable> {
    let settings: Parent = serde_json::from_value(Value::Object(settings))?;
    let ipam = host_local(kind, settings.ipam)?;
    let usual = if kind == "macvlan" { Child::MACVLAN[0] } else { Child::IPVLAN[0] };
    let mode = Some(settings.mode.as_str()).filter(|mode| !mode.is_empty()).unwrap_or(usual);
    let child = Child::of(kind, mode).ok_or_else(|| Unusable::Wrong(format!("mode cannot be {mode:?}")))?;
    let parent = Some(settings.master).filter(|master| !master.is_empty());
    let parent = parent.map(|master| crate::parse_name(&master)).transpose();
    let parent = parent.map_err(|reason| Unusable::Wrong(format!("master: {reason}")))?;
    let mut named = Named::new(name, Kind::Parent(WantedParent { parent, ..WantedParent::new(child) }));
    named.mtu = settings.mtu.filter(|mtu| *mtu != 0);
    let (out, routes): (Vec<_>, Vec<_>) =
        ipam.routes.iter().map(Destination::route).partition(|route| route.destination.prefix_len() == 0);
    named.routes.extend(routes);
    // Only `routes` says that there is a default route, and may name its gateway.
    named.take(ipam, |subnet, gateway| {
        let is_v4 = subnet.addr().is_ipv4();
        let out = out.iter().find(|route| route.destination.addr().is_ipv4() == is_v4)?;
        Some(out.gateway.unwrap_or(gateway))
    })?;
    Ok(named)
}

impl Destination {
    fn route(&self) -> Route {
        Route::new(self.dst, self.gw)
    }
}

impl Named {
    /// Takes over the ranges. `gateway` chooses the gateway of a subnet, from host-local's: the given one,
    /// or the first address.
    fn take(
        &mut self,
        ipam: Ipam,
        gateway: impl Fn(IpNet, IpAddr) -> Option<IpAddr>,
    ) -> Result<(), Unusable> {
        let sets = ipam.ranges.into_iter().chain(ipam.single.map(|single| vec![single]));
        for set in sets {
            // A set has alternatives, of which a container gets one address.
            if let [first, .., last] = &*set {
                let what = format!("a set of ranges with {} and {}", first.subnet, last.subnet);
                return Err(not(what));
            }
            for one in set {
                let Range { subnet, range_start, range_end, gateway: given } = one;
                let part = range(subnet, range_start.as_deref(), range_end.as_deref())?;
                let usual = given.unwrap_or_else(|| lease::gateway(subnet.trunc()));
                self.add(&Subnet::new(subnet, gateway(subnet, usual), part))?;
            }
        }
        self.set_versions();
        Ok(())
    }
}
