//! The command line.

use anyhow::{Result, anyhow};
use attach_flags::{Inside, Subnets, refuse_flags};
use attachment::{
    Gateways, Wanted,
    named::{self, Named},
};
use clap::Parser;
use document::members::GatewayMode;
use firewall::Firewall;
use operation::Scope;
use toolkit::{Common, hint};

/// Attach a container to a network
#[derive(Parser)]
#[command(name = "bridge-attach", version)]
pub(crate) struct BridgeAttach {
    /// A network of network-create, or a bridge; default: stave0. A bridge that Stave did not make is used as
    /// it is, and never removed
    #[arg(value_name = "NAME", value_parser = target)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) inside: Inside,
    #[command(flatten)]
    subnets: Subnets,
    /// Enable IPv6, with a random subnet of fd00::/8
    #[arg(long)]
    ipv6: bool,
    /// How containers can be reached from outside, as with netns-bridge
    #[arg(long, value_name = "MODE", value_parser = toolkit::one_of::<GatewayMode>(GatewayMode::NAMES))]
    gateway_mode: Option<GatewayMode>,
    /// Answer on this link of the host for the containers' IPv6 addresses (NDP proxy); needs a routed
    /// network
    #[arg(long, value_name = "LINK", value_parser = attachment::parse_name)]
    ndp_proxy: Option<String>,
    /// With `false`, containers on the bridge reach each other only by published ports, and by link-hosts
    #[arg(long, value_name = "BOOL")]
    icc: Option<bool>,
    /// Use a bridge of another program, and do not make this host its gateway: --gateway is a router on the
    /// bridge's network, by default the subnet's first address. The host gets no address and no rules
    #[arg(long)]
    unmanaged: bool,
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

impl BridgeAttach {
    /// Reads the file of the network, if it has one.
    pub(crate) fn named(&self, scope: &Scope) -> Result<Option<Named>> {
        let Some(name) = &self.name else { return Ok(None) };
        let found = Named::find(&scope.root, name)?;
        if found.is_none() && attachment::parse_name(name).is_err() {
            let error = anyhow!("no network {name:?}, and no bridge can have this name");
            return Err(hint(error, "network-create makes networks"));
        }
        if let Some(found) = &found {
            let own = [
                self.ipv6.then_some("--ipv6"),
                self.gateway_mode.map(|_| "--gateway-mode"),
                self.ndp_proxy.as_ref().map(|_| "--ndp-proxy"),
                self.icc.map(|_| "--icc"),
                self.unmanaged.then_some("--unmanaged"),
            ];
            refuse_flags(found, &mut self.subnets.given().chain(own.into_iter().flatten()))?;
        }
        Ok(found)
    }

    /// The wanted properties of the network.
    pub(crate) fn wanted(&self, named: Option<&Named>) -> Result<Wanted> {
        let Gateways { v4, v6 } = self.subnets.gateways()?;
        let Subnets { ipv4, subnet, ip_range, subnet6, ip6_range, internal, .. } = self.subnets;
        Ok(match named {
            Some(named) => named.bridge()?.clone(),
            None => Wanted {
                bridge: self.name.clone().unwrap_or_else(|| "stave0".to_owned()),
                ipv4,
                subnet,
                range: ip_range,
                gateway: v4,
                ipv6: self.ipv6 || v6.address().is_some(),
                subnet6,
                range6: ip6_range,
                gateway6: v6,
                further: self.subnets.further.clone(),
                gateway_mode: self.gateway_mode.unwrap_or(GatewayMode::Nat),
                internal,
                isolated: self.icc == Some(false),
                vxlan: None,
                ndp_proxy: self.ndp_proxy.clone(),
                unmanaged: self.unmanaged,
            },
        })
    }
}
