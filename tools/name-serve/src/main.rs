//! Resolves for a container the names of the containers that share a network with it.
//!
//! # Does
//! Has the host's resolver answer at 127.0.0.11 in the container's network namespace, and starts the resolver
//! if necessary: one process for all containers. It answers names, ids, network aliases, and the
//! names that links give, each also with the network's name appended, and reverse queries for addresses of these networks. It
//! forwards everything else to the host's name servers. It reads the records, so a recreated container has
//! its name at once. After egress-allow, that tool's resolver answers the names that are on its list.
//! # Reads
//! `network`, `networks`, `egress`; the records of the other containers.
//! # Adds
//! `names`. ns-exec writes the resolver into `/etc/resolv.conf`.
//! # Undoes
//! The resolver's sockets in this container; with the last container, the process.
//! # Needs
//! Root (CAP_NET_ADMIN, CAP_SYS_ADMIN); bridge-attach or veth-pair before it.

use std::{net::IpAddr, process::ExitCode};

use clap::Parser;
use document::Document;
use names::NamesOperation;
use toolkit::prelude::*;

/// Let a container resolve the names of the containers that share a network with it
#[derive(Parser)]
#[command(name = "name-serve", version)]
struct NameServe {
    /// Another name for this container, on all of its networks; several containers may have the same;
    /// repeatable
    #[arg(long, value_name = "NAME", value_parser = names::parse_alias)]
    network_alias: Vec<String>,
    /// Forward queries for other names to this server instead of the host's; repeatable
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    #[command(flatten)]
    common: Common,
}

impl Filter for NameServe {
    type Adds = members::Names;
    type Operation = NamesOperation;
    const LOCK: Option<&'static str> = Some("network");
    const READS: &'static [&'static str] = &["network", "networks"];

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        if document.get::<members::Names>()?.is_some() {
            bail!("the container has names already");
        }
        if document.get::<members::Process>()?.is_some() {
            let error = anyhow!("the container runs already, and asks other name servers");
            return Err(hint(error, "put name-serve before ns-exec"));
        }
        let network: members::Network = document.require()?;
        document.require_attachments()?;
        // The resolver of egress-allow also answers these names, if they are on its list.
        let is_restricted = document.get::<members::Egress>()?.is_some();
        if is_restricted && !self.dns.is_empty() {
            let error = anyhow!("--dns: the resolver of egress-allow asks for the other names");
            return Err(hint(error, "give --dns to egress-allow"));
        }
        let adds = members::Names {
            resolver: names::ADDRESS.ip(),
            aliases: self.network_alias.clone(),
            servers: self.dns.clone(),
        };
        let serve = NamesOperation::Serve { holder: context.id.clone(), namespace: network.namespace };
        Ok(Plan { adds, operations: if is_restricted { Vec::new() } else { vec![serve] } })
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::filter::<NameServe>()
}
