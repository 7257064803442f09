//! Makes a network namespace, and the bridge that connects it.
//!
//! # Does
//! Makes `/run/netns/<id>` with `lo` up in it. Makes sure that the bridge exists, with the subnet's first
//! address as the gateway, that packets are forwarded, and that packets leaving the subnet get the host's
//! address. Other bridges and the host's network reach the containers only by published ports. A host that
//! did not forward before forwards for our bridges only. A bridge that Stave did not make is used as it is.
//! If the host's firewall drops the bridge's packets, it gets a rule that accepts them. With
//! `--gateway-mode routed`, packets leave the subnet with their own address, and other hosts that route to
//! it reach the containers by ping and published ports.
//! # Reads
//! `id`.
//! # Adds
//! `network`: mode, namespace, bridge.
//! # Undoes
//! The namespace. With the last container on the bridge also the bridge, its masquerade, `ip_forward`, and
//! its rules in the host's firewall.
//! # Needs
//! root (CAP_NET_ADMIN, CAP_SYS_ADMIN).

use std::process::ExitCode;

use anyhow::{Result, bail};
use attachment::{Container, NetworkOperation, Wanted};
use clap::Parser;
use document::{
    Document,
    members::{self, GatewayMode},
};
use firewall::Firewall;
use ipnet::{Ipv4Net, Ipv6Net};
use operation::Scope;
use toolkit::{Common, Context, Filter, Plan};

/// Make a network namespace, and the bridge that connects it
#[derive(Parser)]
#[command(name = "netns-bridge", version)]
struct NetnsBridge {
    /// Name of the bridge. A bridge that Stave did not make is used as it is, and never removed
    #[arg(long, value_name = "NAME", default_value = "stave0", value_parser = attachment::parse_name)]
    bridge: String,
    /// Subnet of the bridge; default: the existing one, or the first free one of 172.17.0.0/16,
    /// 172.18.0.0/16, …
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet)]
    subnet: Option<Ipv4Net>,
    /// Firewall of the host that gets a rule to accept the bridge's packets; auto: each one that drops them
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = toolkit::one_of::<Firewall>(Firewall::NAMES))]
    firewall: Firewall,
    /// How containers can be reached: nat, by published ports on the host; routed, on their own addresses
    #[arg(long, value_name = "MODE", default_value = "nat", value_parser = toolkit::one_of::<GatewayMode>(GatewayMode::NAMES))]
    gateway_mode: GatewayMode,
    /// Lease addresses only from this part of the subnet
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range)]
    ip_range: Option<Ipv4Net>,
    /// Enable IPv6, with a random subnet of fd00::/8
    #[arg(long)]
    ipv6: bool,
    /// IPv6 subnet of the bridge
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet6)]
    subnet6: Option<Ipv6Net>,
    /// With `false`, containers on the bridge reach each other only by published ports, and by link-hosts
    #[arg(long, value_name = "BOOL")]
    icc: Option<bool>,
    #[command(flatten)]
    common: Common,
}

impl Filter for NetnsBridge {
    type Adds = members::Network;
    type Operation = NetworkOperation;
    const LOCK: Option<&'static str> = Some("network");

    fn common(&self) -> &Common {
        &self.common
    }

    fn restore(scope: &Scope) -> Result<()> {
        repair::restore(scope, || toolkit::recorded(scope))
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        // A member of another type gives its own error.
        if document.get::<members::Network>()?.is_some() {
            bail!("the container has a network already");
        }
        let container = Container::new(&context.scope, &context.id, document)?;
        let (members::Namespace { namespace, .. }, made) = attachment::namespace(&container)?;
        let wanted = Wanted {
            subnet: self.subnet,
            range: self.ip_range,
            ipv6: self.ipv6,
            subnet6: self.subnet6,
            gateway_mode: self.gateway_mode,
            isolated: self.icc == Some(false),
            ..Wanted::new(self.bridge.clone())
        };
        let recorded = || toolkit::recorded(&context.scope);
        let planned = attachment::network(&container, &wanted, self.firewall, recorded)?;
        let adds = members::Network {
            mode: "bridge".into(),
            namespace,
            bridge: Some(planned.bridge),
            cni: None,
            other: Default::default(),
        };
        // The namespace comes first, so it is undone last: the kernel is busy for a while after removing
        // one, and no other request should have to wait for that.
        let operations = [made.into()].into_iter().chain(planned.operations).collect();
        Ok(Plan { adds, operations })
    }
}

pub(crate) fn main() -> ExitCode {
    let exit = toolkit::filter::<NetnsBridge>();
    nat::close();
    exit
}
