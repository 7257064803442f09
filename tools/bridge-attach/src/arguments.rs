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
    /// The network: one that network-create made, or else the name of a bridge; by default stave0. A bridge that Stave did not make
    /// is used as it is, and never removed
    #[arg(value_name = "NAME", value_parser = target)]
    name: Option<String>,
    /// The interface's name in the container; by default the first free one of eth0, eth1 and so on
    #[arg(long, value_name = "NAME", value_parser = attachment::parse_name)]
    pub(crate) interface: Option<String>,
    /// The container's address; by default the next free one
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// The container's address of IPv6, on a network that has it
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// The interface's hardware address; by default it follows from the address
    #[arg(long, value_name = "MAC", value_parser = unicast)]
    mac_address: Option<Mac>,
    /// Of several networks, that with the highest number (-900 to 900) has the way out; among equals, the first
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-900..=900))]
    gateway_priority: i32,
    /// A further route, such as "10.8.0.0/16 via 172.17.0.9"; repeatable. Without `via`, through the bridge
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<Route>,
    /// The MTU of the interface in bytes; by default that of the way out, on a bridge of others that of the bridge
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))]
    mtu: Option<u32>,
    /// The subnet of the bridge; by default that of an existing bridge, otherwise the first of 172.17.0.0/16,
    /// 172.18.0.0/16 and so on that no interface and no route uses
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet)]
    subnet: Option<Ipv4Net>,
    /// Lease addresses of this part of the subnet only
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range)]
    ip_range: Option<Ipv4Net>,
    /// The bridge's address, which is the gateway of its containers; by default that of an existing bridge, otherwise the first of the
    /// subnet. One for each version of IP
    #[arg(long = "gateway", value_name = "ADDRESS")]
    gateways: Vec<IpAddr>,
    /// IPv6 as well: a random subnet of those that everybody may use (fd00::/8)
    #[arg(long)]
    ipv6: bool,
    /// The bridge's subnet of IPv6
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet6)]
    subnet6: Option<Ipv6Net>,
    /// Lease addresses of this part of the subnet of IPv6 only
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range6)]
    ip6_range: Option<Ipv6Net>,
    /// How containers on the bridge are reached from outside, as with netns-bridge
    #[arg(long, value_name = "MODE", value_parser = toolkit::one_of::<GatewayMode>(GatewayMode::NAMES))]
    gateway_mode: Option<GatewayMode>,
    /// No way leads out of the network, or into it: its containers reach each other and this host
    #[arg(long)]
    internal: bool,
    /// With `false`, containers on the bridge do not reach each other, except by published ports
    #[arg(long, value_name = "BOOL")]
    icc: Option<bool>,
    /// Which firewall of the host lets the bridge through, as with netns-bridge
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = toolkit::one_of::<Firewall>(Firewall::NAMES))]
    pub(crate) firewall: Firewall,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// The name of a network, or of a bridge.
fn target(name: &str) -> Result<String, String> {
    attachment::parse_name(name).or_else(|_| named::parse_network(name))
}

/// A hardware address that one interface can have.
fn unicast(text: &str) -> Result<Mac, String> {
    let mac: Mac = text.parse().map_err(|error: netlink::InvalidMac| error.to_string())?;
    match mac.0[0] & 1 == 0 && mac.0 != [0; 6] {
        true => Ok(mac),
        false => Err(format!("{text} is not the address of one interface")),
    }
}

impl BridgeAttach {
    /// Whether an attachment to this network is meant.
    pub(crate) fn is_meant(&self, network: &str) -> bool {
        self.name.as_ref().is_none_or(|name| name == network)
    }

    /// The network of this name, if there is one.
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

    /// What is asked of the network.
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
            },
        })
    }

    /// What is asked of the container's side, after these attachments.
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
            makes_bridge: true,
        })
    }
}
