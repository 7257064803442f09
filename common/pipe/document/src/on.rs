//! What an attachment is on: a bridge of the host, or a link whose wire the container shares.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::gateway_mode::GatewayMode;

/// The link of the host that an [`Attachment`](crate::members::Attachment) uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum On {
    /// A bridge, of which the container's link is a port.
    Bridge(Bridge),
    /// A link, of which the container's interface is a macvlan or an ipvlan.
    Parent(Parent),
}

impl On {
    /// The name of the link.
    pub fn link(&self) -> &str {
        match self {
            Self::Bridge(bridge) => &bridge.name,
            Self::Parent(parent) => &parent.name,
        }
    }

    /// The bridge, if it is one.
    pub fn bridge(&self) -> Option<&Bridge> {
        match self {
            Self::Bridge(bridge) => Some(bridge),
            Self::Parent(_) => None,
        }
    }

    /// The IPv4 subnet. Of a network without IPv4, the IPv6 subnet. `None` for a network whose containers get no
    /// address.
    pub fn subnet(&self) -> Option<IpNet> {
        match self {
            Self::Bridge(bridge) => Some(bridge.subnet),
            Self::Parent(parent) => parent.subnet,
        }
    }

    /// The gateway of that subnet.
    pub fn gateway(&self) -> Option<IpAddr> {
        match self {
            Self::Bridge(bridge) => bridge.gateway,
            Self::Parent(parent) => parent.gateway,
        }
    }

    /// The part of that subnet that addresses are leased from.
    pub fn ip_range(&self) -> Option<IpNet> {
        match self {
            Self::Bridge(bridge) => bridge.ip_range,
            Self::Parent(parent) => parent.ip_range,
        }
    }

    /// The IPv6 network beside the one of IPv4.
    pub fn ipv6(&self) -> Option<&Subnet> {
        match self {
            Self::Bridge(bridge) => bridge.ipv6.as_ref(),
            Self::Parent(parent) => parent.ipv6.as_ref(),
        }
    }

    /// The subnets after the first of each IP version.
    pub fn further(&self) -> &[Subnet] {
        match self {
            Self::Bridge(bridge) => &bridge.further,
            Self::Parent(parent) => &parent.further,
        }
    }

    /// Whether the network is internal.
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Bridge(bridge) => bridge.internal,
            Self::Parent(parent) => parent.internal,
        }
    }

    /// Whether the network has a gateway that leads out of it.
    pub fn leads_out(&self) -> bool {
        let gateway = self.gateway().or(self.ipv6().and_then(|ipv6| ipv6.gateway));
        gateway.is_some() && !self.is_internal()
    }
}

/// The bridge of an [`Attachment`](crate::members::Attachment).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bridge {
    /// The interface's name, `stave0`.
    pub name: String,
    /// The bridge's network, `172.17.0.0/16`. Of a network without IPv4, the IPv6 network.
    #[schemars(with = "String")]
    pub subnet: IpNet,
    /// The bridge's own address, `172.17.0.1`. It is the containers' gateway. `None` for a network without
    /// a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// How the containers are reached from outside. `None` means `nat`; earlier versions did not set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mode: Option<GatewayMode>,
    /// The part of the subnet that addresses are leased from. `None` for the whole subnet.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
    /// The IPv6 network of the bridge beside the one of IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Subnet>,
    /// The subnets after the first of each IP version. The containers have an address of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<Subnet>,
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

/// The parent of an [`Attachment`](crate::members::Attachment): a link of the host whose wire the container shares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    /// The link's name, `eth0`, or `eth0.100` for the VLAN 100 on `eth0`.
    pub name: String,
    /// The kind of the container's interface: `macvlan` or `ipvlan`.
    pub driver: String,
    /// The mode: `bridge`, `private`, `vepa` or `passthru` of a macvlan, `l2`, `l3` or `l3s` of an ipvlan.
    pub mode: String,
    /// The network on the wire, `192.0.2.0/24`. `None` for a network whose containers get no address.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<IpNet>,
    /// The router on the wire. `None` for a network without a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The part of the subnet that addresses are leased from. `None` for the whole subnet.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
    /// The IPv6 network on the wire, if the container has an address of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Subnet>,
    /// The subnets after the first of each IP version. The container has an address of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<Subnet>,
    /// Whether the network is internal: the container has no default route.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
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

/// A subnet of a [`Bridge`] or a [`Parent`] beside its first one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// The subnet, `fd01:2345:6789::/64`.
    #[schemars(with = "String")]
    pub subnet: IpNet,
    /// The containers' gateway: the bridge's own address, or a router on the wire. `None` for a network
    /// without a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The part of the subnet that addresses are leased from. `None` for the whole subnet.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
}
