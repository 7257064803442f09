//! Makes a network namespace, and the bridge that connects it.
//!
//! # Does
//! Makes `/run/netns/<id>` with `lo` up in it. Makes sure that the bridge exists with the subnet's first address as the
//! gateway, that packets are forwarded, and that packets leave the subnet with the host's address. Others reach the containers
//! only by published ports, whether from another bridge or from the host's wire. A host that forwarded nothing before forwards
//! for our bridges only. A bridge that others made is used as it is. Where the host's own firewall drops the bridge's packets,
//! it gets a rule that lets them through. With `--gateway-mode routed`, packets leave the subnet as they are, and others that
//! route to it reach the containers by ping and published ports.
//! # Reads
//! `id`.
//! # Adds
//! `network`: mode, namespace, bridge.
//! # Undoes
//! The namespace; with the last container on the bridge also the bridge, its masquerade, `ip_forward` and its rules in the
//! host's firewall.
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
    /// Use this bridge. A bridge that Stave did not make is used as it is, and never removed
    #[arg(long, value_name = "NAME", default_value = "stave0", value_parser = attachment::parse_name)]
    bridge: String,
    /// The subnet of the bridge; by default that of an existing bridge, otherwise the first of 172.17.0.0/16,
    /// 172.18.0.0/16 and so on that no interface and no route uses
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet)]
    subnet: Option<Ipv4Net>,
    /// Where the host's firewall drops packets of the bridge, put a rule that lets them through into this one; `auto` chooses
    /// whichever drops them. A certain one gets the rule also if it drops nothing yet
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = toolkit::one_of::<Firewall>(Firewall::NAMES))]
    firewall: Firewall,
    /// How containers on the bridge are reached from outside: `nat`, by published ports on the host's addresses, or `routed`,
    /// by ping and published ports on their own addresses, which others route to
    #[arg(long, value_name = "MODE", default_value = "nat", value_parser = toolkit::one_of::<GatewayMode>(GatewayMode::NAMES))]
    gateway_mode: GatewayMode,
    /// Lease addresses of this part of the subnet only
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_range)]
    ip_range: Option<Ipv4Net>,
    /// IPv6 as well: a random subnet of those that everybody may use (fd00::/8)
    #[arg(long)]
    ipv6: bool,
    /// The bridge's subnet of IPv6
    #[arg(long, value_name = "CIDR", value_parser = attachment::parse_subnet6)]
    subnet6: Option<Ipv6Net>,
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
        nat::restore(scope, || toolkit::recorded(scope))
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        // A member of another type gives its own error.
        if document.get::<members::Network>()?.is_some() {
            bail!("the container has a network already");
        }
        let (members::Namespace { namespace, .. }, made) = attachment::namespace(&context.id)?;
        let container = Container::new(&context.scope, &context.id, document)?;
        let wanted = Wanted {
            subnet: self.subnet,
            range: self.ip_range,
            ipv6: self.ipv6,
            subnet6: self.subnet6,
            gateway_mode: self.gateway_mode,
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
        // The namespace first, so that the kernel, which is busy for a while with taking one apart, is asked for nothing that has
        // to wait for it.
        let operations = [made.into()].into_iter().chain(planned.operations).collect();
        Ok(Plan { adds, operations })
    }
}

fn main() -> ExitCode {
    let exit = toolkit::filter::<NetnsBridge>();
    nat::close();
    exit
}
