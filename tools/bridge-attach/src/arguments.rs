//! The command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, anyhow};
use attachment::{
    Asked, Gateways, Route, Wanted,
    named::{self, Named},
};
use clap::Parser;
use document::members::{Attachment, GatewayMode};
use firewall::Firewall;
use ipnet::{Ipv4Net, Ipv6Net};
use netlink::Mac;
use operation::Scope;
use toolkit::{Common, hint};

/// Attach a container to a network
#[derive(Parser)]
#[command(name = "bridge-attach", version)]
pub(crate) struct BridgeAttach {
    /// A network of network-create, or a bridge; default: stave0. A bridge that Stave did not make is used as
    /// it is, and never removed
    #[arg(value_name = "NAME", value_parser = target)]
    name: Option<String>,
    /// Name of the interface in the container; default: the first free one of eth0, eth1, …
    #[arg(long, value_name = "NAME", value_parser = attachment::parse_name)]
    pub(crate) interface: Option<String>,
    /// IPv4 address of the container; default: the next free one
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address of the container, on a network with IPv6
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Hardware address of the interface; default: derived from the address
    #[arg(long, value_name = "MAC", value_parser = unicast)]
    mac_address: Option<Mac>,
    /// The network with the highest priority (-900 to 900) has the default route; among equals, the first
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-900..=900))]
    gateway_priority: i32,
    /// Add a route, such as "10.8.0.0/16 via 172.17.0.9"; default gateway: the bridge; repeatable
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<Route>,
    /// MTU of the interface in bytes; default: that of the default route; on a bridge that Stave did not make,
    /// the bridge's
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))]
    mtu: Option<u32>,
    /// Subnet of the bridge; default: the existing one, or the first free one of 172.17.0.0/16,
    /// 172.18.0.0/16, …
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet)]
    subnet: Option<Ipv4Net>,
    /// Lease addresses only from this part of the subnet
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range)]
    ip_range: Option<Ipv4Net>,
    /// Address of the bridge, the containers' gateway; default: the existing one, or the first of the subnet.
    /// One for each IP version
    #[arg(long = "gateway", value_name = "ADDRESS")]
    gateways: Vec<IpAddr>,
    /// Enable IPv6, with a random subnet of fd00::/8
    #[arg(long)]
    ipv6: bool,
    /// IPv6 subnet of the bridge
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet6)]
    subnet6: Option<Ipv6Net>,
    /// Lease IPv6 addresses only from this part of the subnet
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range6)]
    ip6_range: Option<Ipv6Net>,
    /// How containers can be reached from outside, as with netns-bridge
    #[arg(long, value_name = "MODE", value_parser = toolkit::one_of::<GatewayMode>(GatewayMode::NAMES))]
    gateway_mode: Option<GatewayMode>,
    /// Answer on this link of the host for the containers' IPv6 addresses (NDP proxy); needs a routed
    /// network
    #[arg(long, value_name = "LINK", value_parser = attachment::parse_name)]
    ndp_proxy: Option<String>,
    /// Isolate the network from all others: its containers reach only each other and this host
    #[arg(long)]
    internal: bool,
    /// With `false`, containers on the bridge reach each other only by published ports, and by link-hosts
    #[arg(long, value_name = "BOOL")]
    icc: Option<bool>,
    /// The host's firewall that has to accept the bridge's packets, as with netns-bridge
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = toolkit::one_of::<Firewall>(Firewall::NAMES))]
    pub(crate) firewall: Firewall,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Parses the name of a network or a bridge.
fn target(name: &str) -> Result<String, String> {
    attachment::parse_name(name).or_else(|_| named::parse_network(name))
}

/// Parses a hardware address, which must be unicast.
fn unicast(text: &str) -> Result<Mac, String> {
    let mac: Mac = text.parse().map_err(|error: netlink::InvalidMac| error.to_string())?;
    match mac.0[0] & 1 == 0 && mac.0 != [0; 6] {
        true => Ok(mac),
        false => Err(format!("{text} is not the address of one interface")),
    }
}

impl BridgeAttach {
    /// Whether the arguments mean an attachment to this network.
    pub(crate) fn is_meant(&self, network: &str) -> bool {
        self.name.as_ref().is_none_or(|name| name == network)
    }

    /// Reads the file of the network, if it has one.
    pub(crate) fn named(&self, scope: &Scope) -> Result<Option<Named>> {
        let Some(name) = &self.name else { return Ok(None) };
        let found = Named::find(&scope.root, name)?;
        if found.is_none() && attachment::parse_name(name).is_err() {
            let error = anyhow!("no network {name:?}, and no bridge can have this name");
            return Err(hint(error, "network-create makes networks"));
        }
        let own = [
            self.subnet.map(|_| "--subnet"),
            self.ip_range.map(|_| "--ip-range"),
            self.gateways.first().map(|_| "--gateway"),
            self.ipv6.then_some("--ipv6"),
            self.subnet6.map(|_| "--subnet6"),
            self.ip6_range.map(|_| "--ip6-range"),
            self.gateway_mode.map(|_| "--gateway-mode"),
            self.ndp_proxy.as_ref().map(|_| "--ndp-proxy"),
            self.internal.then_some("--internal"),
            self.icc.map(|_| "--icc"),
        ];
        match (&found, own.into_iter().flatten().next()) {
            (Some(found), Some(flag)) => {
                let error = anyhow!("{:?} says what network {name:?} is: {flag} is not for it", found.path);
                Err(hint(error, format!("leave {flag} out; network-create takes it")))
            }
            _ => Ok(found),
        }
    }

    /// The wanted properties of the network.
    pub(crate) fn wanted(&self, named: Option<&Named>) -> Result<Wanted> {
        let gateways = Gateways::of(&self.gateways).map_err(|wrong| anyhow!(wrong))?;
        Ok(match named {
            Some(named) => named.network.clone(),
            None => Wanted {
                bridge: self.name.clone().unwrap_or_else(|| "stave0".to_owned()),
                subnet: self.subnet,
                range: self.ip_range,
                gateway: gateways.v4,
                ipv6: self.ipv6 || gateways.v6.is_some(),
                subnet6: self.subnet6,
                range6: self.ip6_range,
                gateway6: gateways.v6,
                gateway_mode: self.gateway_mode.unwrap_or(GatewayMode::Nat),
                internal: self.internal,
                isolated: self.icc == Some(false),
                vxlan: None,
                ndp_proxy: self.ndp_proxy.clone(),
            },
        })
    }

    /// The wanted properties of the container's side, after these attachments.
    pub(crate) fn asked(&self, named: Option<&Named>, attachments: &[Attachment]) -> Result<Asked> {
        let routes = named.iter().flat_map(|named| &named.routes).chain(&self.routes);
        Ok(Asked {
            name: named.map(|named| named.name.clone()),
            mtu: self.mtu.or(named.and_then(|named| named.mtu)),
            address: self.ip.map(Into::into),
            address6: self.ip6.map(Into::into),
            mac: self.mac_address,
            priority: Some(attachment::priority(self.gateway_priority, attachments)?),
            routes: routes.cloned().collect(),
            makes_bridge: None,
        })
    }
}
