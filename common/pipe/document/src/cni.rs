//! The CNI result of an attachment (CNI SPEC.md, "ADD Success").

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
