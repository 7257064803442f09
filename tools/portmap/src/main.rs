//! Publishes ports of a container on the host.
//!
//! # Does
//! Checks that each port is free, and adds it to the maps of the table `ip stave`: on one IPv4 address of the host, or on all
//! of them, including 127.0.0.1. IPv6 addresses do not answer. Chooses a free port if none is given. Containers reach each
//! other, and themselves, by published ports as well.
//! # Reads
//! `network.cni`.
//! # Adds
//! `ports`.
//! # Undoes
//! The published ports, and the UDP connections that the kernel remembers for them.
//! # Needs
//! root (CAP_NET_ADMIN); the table that netns-bridge makes.

mod free;
mod publish;

use std::{net::IpAddr, process::ExitCode};

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use document::{Document, members};
use nat::Mapping;
use operation::Scope;
use publish::Publish;
use toolkit::{Common, Context, Filter, Plan};

/// Publish ports of a container on the host
#[derive(Parser)]
#[command(name = "portmap", version)]
struct Portmap {
    #[arg(
        help = "Publish [[hostIP:][hostPort]:]containerPort[/tcp|/udp|/sctp], on IPv4 addresses only; repeatable. Ranges work too: 8000-8009:80-89. Without hostPort, a free port is chosen; from a range for one containerPort, the first free one. `ports` in the document names it",
        short = 'p',
        long = "publish",
        value_name = "SPEC",
        required = true
    )]
    publish: Vec<Publish>,
    #[command(flatten)]
    common: Common,
}

impl Filter for Portmap {
    type Adds = members::Ports;
    type Operation = nat::NatOperation;
    const LOCK: Option<&'static str> = Some("network");
    const READS: &'static [&'static str] = &["network"];

    fn common(&self) -> &Common {
        &self.common
    }

    fn restore(scope: &Scope) -> Result<()> {
        nat::restore(scope, || toolkit::recorded(scope))
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let container_ip = container_address(document)?;
        let mappings = free::mappings(&self.publish, container_ip)?;
        // One of another kind is said to be that.
        document.get::<members::Ports>()?;
        let adds = members::Ports(mappings.iter().map(member).collect());
        let operation = nat::NatOperation::Publish { holder: context.id.clone(), mappings };
        Ok(Plan { adds, operations: vec![operation] })
    }
}

fn container_address(document: &Document) -> Result<std::net::Ipv4Addr> {
    let network = document.require::<members::Network>()?;
    let cni = network.cni.ok_or_else(|| anyhow!("no address in `network`: run veth-pair first"))?;
    let addresses = cni.ips.iter().map(|ip| ip.address.addr());
    match addresses.into_iter().find(IpAddr::is_ipv4) {
        Some(IpAddr::V4(address)) => Ok(address),
        _ => bail!("no IPv4 address in `network`"),
    }
}

fn member(mapping: &Mapping) -> members::PortMapping {
    members::PortMapping {
        host_port: mapping.host_port,
        container_port: mapping.container_port,
        protocol: mapping.protocol.to_string(),
        host_ip: mapping.host_ip.map(IpAddr::V4),
    }
}

fn main() -> ExitCode {
    let exit = toolkit::filter::<Portmap>();
    nat::close();
    exit
}
