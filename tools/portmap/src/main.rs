//! Publishes ports of a container on the host.
//!
//! # Does
//! Makes sure that each port is free, and adds it to the maps of the table `ip stave`: on all IPv4 addresses of the host,
//! 127.0.0.1 among them (and no IPv6 address: `[::1]` does not answer), or on one; chooses a free one where none is told.
//! Containers reach each other, and themselves, by a published port as well.
//! # Reads
//! `network.cni`.
//! # Adds
//! `ports`.
//! # Undoes
//! The published ports, and what the kernel remembers of UDP through them.
//! # Needs
//! root (CAP_NET_ADMIN); the table that netns-bridge makes.

mod free;
mod publish;

use std::{net::IpAddr, process::ExitCode};

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use document::{Document, members};
use nat::Mapping;
use publish::Publish;
use toolkit::{Common, Context, Filter, Plan};

/// Publish ports of a container on the host
#[derive(Parser)]
#[command(name = "portmap", version)]
struct Portmap {
    /// [[hostIP:][hostPort]:]containerPort[/tcp|/udp|/sctp]; also ranges of ports, 8000-8009:80-89. Without hostPort one
    /// that is free, and of a range for a single containerPort the first that is free: `ports` tells which. Ports are
    /// published on IPv4 addresses only
    #[arg(short = 'p', long = "publish", value_name = "SPEC", required = true)]
    publish: Vec<Publish>,
    #[command(flatten)]
    common: Common,
}

impl Filter for Portmap {
    type Member = members::Ports;
    type Operation = nat::NatOperation;
    const LOCK: Option<&'static str> = Some("network");
    const READS: &'static [&'static str] = &["network"];

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let container_ip = container_address(document)?;
        let mappings = free::mappings(&self.publish, container_ip)?;
        let mut ports = document.get::<members::Ports>()?.unwrap_or(members::Ports(Vec::new()));
        ports.0.extend(mappings.iter().map(member));
        let operation = nat::NatOperation::Publish { holder: context.id.clone(), mappings };
        Ok(Plan { member: ports, operations: vec![operation] })
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
