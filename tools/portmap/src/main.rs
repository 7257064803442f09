//! Publishes ports of a container on the host.
//!
//! # Does
//! Checks that each port is free, and adds it to the maps of the table `inet stave`: on one address of the
//! host, or on all of them, including 127.0.0.1. If the container has IPv6, the host's IPv6 addresses answer
//! as well, including ::1. Chooses a free port if none is given. Containers also reach each other and
//! themselves by published ports. Processes of the host cannot listen on them. On a bridge with gateway mode
//! `routed`, it opens the container's port on the container's own address instead.
//! # Reads
//! `network`, `networks`; with `--publish-all`, `image` and `ports`.
//! # Adds
//! `ports`.
//! # Undoes
//! The published ports, what holds them, and the UDP connections that the kernel tracks for them.
//! # Needs
//! Root (CAP_NET_ADMIN); the table that netns-bridge makes.

mod attachment;
mod exposed;
mod free;
mod hand_over;
mod plugin;
mod publish;
mod routed;

use std::{net::Ipv6Addr, process::ExitCode};

use self::attachment::{Targets, tell_unanswered_from_outside};
use anyhow::Result;
use clap::{ArgGroup, Parser};
use document::{Document, members};
use hand_over::HandOver;
use nat::Mapping;
use operation::Scope;
use publish::Publish;
use toolkit::{Common, Context, Filter, Invocation, Plan};

/// Publish ports of a container on the host
#[derive(Parser)]
#[command(name = "portmap", version, group = ArgGroup::new("ports").args(["publish", "publish_all", "release", "take"]).required(true).multiple(true))]
struct Portmap {
    #[arg(
        help = "Publish [[hostIP:][hostPort]:]containerPort[/tcp|/udp|/sctp]; repeatable. Put an IPv6 address in brackets. Ranges work too: 8000-8009:80-89. Without hostPort, a free port is chosen; from a range for one containerPort, the first free one. The document's `ports` names it",
        short = 'p',
        long = "publish",
        value_name = "SPEC"
    )]
    publish: Vec<Publish>,
    #[arg(
        help = "Publish each port that the image exposes on a free port, as with `-p PORT`",
        short = 'P',
        long
    )]
    publish_all: bool,
    #[arg(
        help = "Also hold ranges of more than 256 ports, so that no process of the host can listen there. Smaller ranges are always held",
        long
    )]
    hold: bool,
    /// Do not hold ports, because another program listens on them itself, as podman does
    #[arg(long, conflicts_with = "hold")]
    no_hold: bool,
    #[arg(
        help = "Release the ports of the container --id, which has ended; container-start takes them again",
        long,
        requires = "id",
        conflicts_with_all = ["publish", "publish_all", "hold", "take"]
    )]
    release: bool,
    #[arg(
        help = "Take the ports of the container --id again, which is about to start",
        long,
        requires = "id",
        conflicts_with_all = ["publish", "publish_all", "hold"]
    )]
    take: bool,
    #[command(flatten)]
    common: Common,
}

/// The longest range of a `-p` or of an exposed port that is held by default. A longer one is a single
/// interval in the kernel, if it has the same numbers on both sides.
const HELD: usize = 256;

operation::any_of! {
    /// The operations of portmap.
    enum Op { Nat(nat::NatOperation), Hold(hold::HoldOperation) }
}

impl Filter for Portmap {
    type Adds = members::Ports;
    type Operation = Op;
    const LOCK: Option<&'static str> = Some("network");
    const READS: &'static [&'static str] = &["network", "networks", "image", "ports"];

    fn common(&self) -> &Common {
        &self.common
    }

    fn restore(scope: &Scope) -> Result<()> {
        repair::restore(scope, || toolkit::recorded(scope))
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let targets = Targets::find(document)?;
        let container = targets.container;
        // A member of the wrong type gives its own error.
        let standing = document.get::<members::Ports>()?.map_or_else(Vec::new, |ports| ports.0);
        let mut wanted = self.publish.clone();
        if self.publish_all {
            wanted.extend(exposed::ports(document, &self.publish)?);
        }
        tell_unanswered_from_outside(&targets, &wanted);
        let (open, publish) = match targets.is_routed() {
            true => routed::split(&wanted, container, &standing)?,
            false => (Vec::new(), wanted),
        };
        let chosen = free::mappings(&publish, container, !self.no_hold)?;
        let mappings = chosen.concat();
        if mappings.iter().any(|mapping| mapping.host_ip == Some(Ipv6Addr::LOCALHOST.into())) {
            tell_unanswered();
        }
        let adds = open.iter().map(routed::member).chain(mappings.iter().map(member)).collect();
        let mut operations: Vec<Op> = Vec::new();
        let holder = || context.id.clone();
        if !open.is_empty() {
            operations.push(nat::NatOperation::Open { holder: holder(), ports: open }.into());
        }
        if !mappings.is_empty() {
            operations.push(nat::NatOperation::Publish { holder: holder(), mappings }.into());
        }
        let is_held = |publish: &Publish| !self.no_hold && (self.hold || publish.together() <= HELD);
        let held = publish.iter().zip(chosen).filter(|(publish, _)| is_held(publish));
        let held: Vec<Mapping> = held.flat_map(|(_, mappings)| mappings).collect();
        if !held.is_empty() {
            let recorded = || toolkit::recorded(&context.scope);
            operations.push(hold::HoldOperation::new(&context.id, &held, recorded)?.into());
        }
        Ok(Plan { adds: members::Ports(adds), operations })
    }
}

/// Warns if ports on ::1 do not answer. With br_netfilter the kernel translates a container's answer before
/// it leaves the bridge, and then drops it as a packet from ::1.
fn tell_unanswered() {
    const VARIABLE: &str = "net.bridge.bridge-nf-call-ip6tables";
    let path = format!("/proc/sys/{}", VARIABLE.replace('.', "/"));
    if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
        operation::note(&format!("ports on ::1 do not answer as long as {VARIABLE} is 1"));
    }
}

fn member(mapping: &Mapping) -> members::PortMapping {
    members::PortMapping {
        host_port: mapping.host_port,
        container_port: mapping.container_port,
        protocol: mapping.protocol.to_string(),
        // None means all IPv4 addresses, as with CNI.
        host_ip: mapping.host_ip.or(mapping.container_ip.is_ipv6().then(|| Ipv6Addr::UNSPECIFIED.into())),
        range: (mapping.count > 1).then_some(mapping.count),
    }
}

pub(crate) fn main() -> ExitCode {
    if let Some(exit) = ::plugin::run(&plugin::PLUGIN) {
        return exit;
    }
    let invocation = Invocation::<Portmap>::parse();
    let handed = invocation.job().and_then(|tool| match (tool.release, tool.take) {
        (true, _) => Some(hand_over::run(tool, HandOver::Release)),
        (_, true) => Some(hand_over::run(tool, HandOver::Take)),
        _ => None,
    });
    let exit = match handed {
        Some(status) => status.into(),
        None => toolkit::filter_of::<Portmap>(invocation),
    };
    nat::close();
    exit
}
