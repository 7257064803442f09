//! Reads a CNI network (CNI SPEC.md, "Network configuration lists") whose first plugin is `bridge`.

use document::members::GatewayMode;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Kind, Named, Unusable, file::Subnet, range};
use crate::{Route, Wanted};

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
    gateway: Option<std::net::IpAddr>,
}

#[derive(Deserialize)]
struct Destination {
    dst: IpNet,
    gw: Option<std::net::IpAddr>,
}

/// Further plugins that our own tools replace: portmap, and the firewall rules of netns-bridge.
const OURS: [&str; 2] = ["portmap", "firewall"];

/// Settings of `bridge` that are not supported if they are set.
const OTHER: [&str; 6] =
    ["vlan", "vlanTrunk", "promiscMode", "macspoofchk", "preserveDefaultVlan", "enabledad"];

pub(super) fn read(name: &str, text: &[u8]) -> Result<Named, Unusable> {
    let list: List = serde_json::from_slice(text)?;
    if list.name != name {
        return Err(Unusable::OtherName(list.name));
    }
    let not = |what: String| Unusable::NotCarriedOut(what);
    let mut plugins = list.plugins.into_iter();
    let first = plugins.next().filter(|plugin| plugin.kind == "bridge");
    let first = first.ok_or_else(|| not("a first plugin that is not \"bridge\"".to_owned()))?;
    if let Some(other) = plugins.find(|plugin| !OURS.contains(&plugin.kind.as_str())) {
        return Err(not(format!("plugin {:?}", other.kind)));
    }
    let is_set = |key: &&str| {
        let value = first.settings.get(*key);
        // The only setting whose default is true.
        let default = Value::from(*key == "preserveDefaultVlan");
        value.is_some_and(|value| !matches!(value, Value::Null) && *value != default && *value != 0)
    };
    let apart = first.settings.get("portIsolation") == Some(&Value::Bool(true));
    if let Some(other) = OTHER.into_iter().find(is_set) {
        return Err(not(format!("setting {other:?} of plugin \"bridge\"")));
    }
    let bridge: Bridge = serde_json::from_value(Value::Object(first.settings))?;
    crate::parse_name(&bridge.bridge).map_err(|reason| Unusable::Wrong(format!("bridge: {reason}")))?;
    let ipam = bridge.ipam.ok_or_else(|| not("plugin \"bridge\" without \"ipam\"".to_owned()))?;
    if ipam.kind != "host-local" {
        return Err(not(format!("ipam {:?}", ipam.kind)));
    }
    let gateway_mode = if bridge.ip_masq { GatewayMode::Nat } else { GatewayMode::Routed };
    let wanted = Wanted { gateway_mode, isolated: apart, ..Wanted::new(bridge.bridge) };
    let has_gateway = bridge.is_default_gateway || bridge.is_gateway != Some(false);
    let mut named = Named::new(name, Kind::Bridge(wanted));
    named.mtu = bridge.mtu.filter(|mtu| *mtu != 0);
    for Range { subnet, range_start, range_end, gateway } in
        ipam.ranges.into_iter().flatten().chain(ipam.single)
    {
        let part = range(subnet, range_start.as_deref(), range_end.as_deref())?;
        // host-local's default is the first address.
        let gateway = gateway.unwrap_or_else(|| lease::gateway(subnet.trunc()));
        named.add(&Subnet::new(subnet, has_gateway.then_some(gateway), part))?;
    }
    for Destination { dst, gw } in ipam.routes {
        // The network has a default route anyway.
        if dst.prefix_len() != 0 {
            named.routes.push(Route { destination: dst, gateway: gw });
        }
    }
    Ok(named)
}
