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

mod bridge;

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::{Parser, builder::PossibleValuesParser, builder::TypedValueParser};
use document::{
    Document, Instance,
    members::{self, GatewayMode},
};
use firewall::{Firewall, FirewallOperation};
use ipnet::Ipv4Net;
use nat::{NatOperation, Used, User};
use netlink::{Mark, Sysctl, Variable};
use operation::{Claim, Scope, Shared};
use toolkit::{Common, Context, Filter, Plan, hint};

/// The name that veth-pair gives the container's interface.
const INTERFACE: &str = "eth0";

/// Make a network namespace, and the bridge that connects it
#[derive(Parser)]
#[command(name = "netns-bridge", version)]
struct NetnsBridge {
    /// Use this bridge. A bridge that Stave did not make is used as it is, and never removed
    #[arg(long, value_name = "NAME", default_value = "stave0", value_parser = bridge::parse_name)]
    bridge: String,
    /// The subnet of the bridge; by default that of an existing bridge, otherwise the first of 172.17.0.0/16,
    /// 172.18.0.0/16 and so on that no interface and no route uses
    #[arg(long, value_name = "CIDR", value_parser = bridge::parse_subnet)]
    subnet: Option<Ipv4Net>,
    /// Where the host's firewall drops packets of the bridge, put a rule that lets them through into this one; `auto` chooses
    /// whichever drops them. A certain one gets the rule also if it drops nothing yet
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = firewalls())]
    firewall: Firewall,
    /// How containers on the bridge are reached from outside: `nat`, by published ports on the host's addresses, or `routed`,
    /// by ping and published ports on their own addresses, which others route to
    #[arg(long, value_name = "MODE", default_value = "nat", value_parser = bridge::modes())]
    gateway_mode: GatewayMode,
    /// Lease addresses of this part of the subnet only
    #[arg(long, value_name = "CIDR", value_parser = bridge::parse_range)]
    ip_range: Option<Ipv4Net>,
    #[command(flatten)]
    common: Common,
}

/// The names of firewalls, for `--help` as well.
fn firewalls() -> impl TypedValueParser<Value = Firewall> {
    PossibleValuesParser::new(Firewall::NAMES).map(|name| name.parse().unwrap_or(Firewall::Auto))
}

operation::any_of! {
    /// What this tool does.
    enum Op {
        Claim(Claim),
        Sysctl(Shared<Used<Sysctl>>),
        Link(Shared<Used<netlink::LinkOperation>>),
        Firewall(Shared<Used<FirewallOperation>>),
        // An operation with claims of its own first: read as one without, it would be undone for nobody's sake.
        EarlierNat(Shared<NatOperation>),
        Nat(NatOperation),
        Netns(netns::NetnsOperation),
        // As versions before 0.2 recorded them: claimed below the run directory alone.
        EarlierSysctl(Shared<Sysctl>),
        EarlierLink(Shared<netlink::LinkOperation>),
    }
}

impl Filter for NetnsBridge {
    type Adds = members::Network;
    type Operation = Op;
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
        let namespace = std::path::Path::new("/run/netns").join(&context.id);
        if namespace.symlink_metadata().is_ok() {
            let error = anyhow!("create network namespace {namespace:?}: File exists");
            return Err(hint(error, format!("unwind {}, or choose another --id", context.id)));
        }
        let instance = document.get::<Instance>()?.map(|instance| instance.to_string());
        let mark = Mark::new(&context.id, instance.as_deref());
        let bridge = bridge::choose(&self.bridge, self.subnet, mark)?;
        bridge::refuse_other_mode(&self.bridge, self.gateway_mode)?;
        if let Some(range) = self.ip_range {
            bridge.refuse_range(range)?;
        }
        let scope = &context.scope;
        let claim = Claim::new(scope, &format!("bridge-{}", self.bridge), &context.id);
        let user = User {
            holder: context.id.clone(),
            link: netlink::veth_name(&context.id, INTERFACE),
            claims: claim.directory.clone(),
        };
        let route_localnet = Variable::RouteLocalnet { link: self.bridge.clone() };
        let forward = Sysctl::plan(scope, Variable::IpForward { bridge: self.bridge.clone() })?;
        let nat = NatOperation::Bridge {
            bridge: self.bridge.clone(),
            subnet: bridge.subnet,
            user: Some(user.clone()),
            closed: forward.previous == "0",
            routed: self.gateway_mode == GatewayMode::Routed,
        };

        // The namespace first and ip_forward last, so that the kernel, which is busy for a while with taking a namespace
        // or a bridge apart, is asked for nothing that has to wait for it. What is shared stands behind the claims on it, below the run directory and in
        // the table;
        // the rules that protect 127.0.0.0/8 before route_localnet, which opens it.
        let mut operations: Vec<Op> = vec![
            netns::NetnsOperation::new(&namespace, &context.id).into(),
            claim.clone().into(),
            nat.into(),
        ];
        for link in bridge.operations {
            operations.push(Shared::new(&claim, Used::new(&user, Some(&self.bridge), link)).into());
        }
        let route_localnet = Used::new(&user, Some(&self.bridge), Sysctl::plan(scope, route_localnet)?);
        operations.push(Shared::new(&claim, route_localnet).into());
        // For all bridges.
        operations.push(Shared::new(&claim, Used::new(&user, None, forward)).into());
        // Undone before ip_forward, which stays where there are rules for forwarded packets.
        // With `none` as well: the last container takes the rules that an earlier one needed.
        let recorded = || toolkit::recorded(scope);
        let through = FirewallOperation::plan(&self.bridge, self.firewall, recorded)?;
        operations.push(Shared::new(&claim, Used::new(&user, Some(&self.bridge), through)).into());
        let adds = members::Network {
            mode: "bridge".into(),
            namespace,
            bridge: Some(members::Bridge {
                name: self.bridge.clone(),
                subnet: bridge.subnet.into(),
                gateway: bridge.gateway.into(),
                gateway_mode: Some(self.gateway_mode),
                ip_range: self.ip_range.map(Into::into),
                other: Default::default(),
            }),
            cni: None,
            other: Default::default(),
        };
        Ok(Plan { adds, operations })
    }
}

fn main() -> ExitCode {
    let exit = toolkit::filter::<NetnsBridge>();
    nat::close();
    exit
}
