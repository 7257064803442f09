//! Restricts a container to a list of names, addresses and ports.
//!
//! # Does
//! Makes an nf_tables table at the host's side of the container's link. It rejects at once what is not
//! listed, and logs it. No capability in the container lifts this. Starts a resolver process on 127.0.0.11 in
//! the container's network namespace. The resolver answers only for listed names. Before it sends an answer,
//! it opens the answer's addresses for the answer's lifetime. With `--log` everything passes, and what
//! is not listed is logged: `egress-log` makes a list from that. With `--sni`, the process also takes the container's TLS connections,
//! compares the name in the hello with the names that opened the address, and passes them on,
//! but not to this host and to other bridges of Stave, also with `--log`. With CNI_COMMAND set, it is the CNI
//! plugin `stave-egress` (docs/cni.md).
//! # Reads
//! `network`, `networks`.
//! # Adds
//! `egress`. ns-exec writes the resolver into `/etc/resolv.conf`.
//! # Undoes
//! The resolver, the tables and the log.
//! # Needs
//! Root (CAP_NET_ADMIN, CAP_SYS_ADMIN); veth-pair before it.

mod link;
mod plugin;

use std::{net::IpAddr, process::ExitCode};

use clap::{ArgGroup, Parser};
use document::{Document, Instance, Step, members};
use egress::{
    EgressOperation,
    list::{Entry, Target},
};
use netlink::Mark;
use operation::Scope;
use toolkit::prelude::*;

/// Restrict a container to a list of names, addresses and ports
#[derive(Parser)]
#[command(name = "egress-allow", version, group = ArgGroup::new("what").args(["allow", "log"]).required(true).multiple(true))]
struct EgressAllow {
    #[arg(
        help = "What it may reach: github.com, '*.debian.org:443' (all names below, not the name itself), 10.0.0.0/8, '[2001:db8::]/32', example.org:123/udp. Without a port it is every TCP port except for 53 and 853, and ping",
        value_name = "NAME|ADDRESS[:PORT][/PROTOCOL]"
    )]
    allow: Vec<Entry>,
    /// Let everything pass, and log what is not on the list; `egress-log` shows it. With --sni, connections on
    /// compared ports to this host and to other bridges of Stave are still rejected
    #[arg(long)]
    log: bool,
    /// Also compare the name in the TLS hello with the listed names. A name without a port means port 443.
    /// Connections without TLS are rejected there
    #[arg(long)]
    sni: bool,
    /// Ask this name server instead of the host's; repeatable
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    #[command(flatten)]
    common: Common,
}

impl Filter for EgressAllow {
    type Adds = members::Egress;
    type Operation = EgressOperation;
    const LOCK: Option<&'static str> = Some("network");
    const READS: &'static [&'static str] = &["network", "networks"];

    fn common(&self) -> &Common {
        &self.common
    }

    fn refuse_undo(_: &Scope, recorded: &Document, _: &Step) -> Result<()> {
        // Behind a list, name-serve leaves the answers to the resolver of this tool.
        let names = recorded.steps_of("name-serve")?;
        if !names.iter().any(|(_, step)| step.operations.is_empty()) {
            return Ok(());
        }
        let error = anyhow!("take the list back: its resolver answers the names of name-serve");
        Err(hint(error, "undo name-serve first"))
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        refuse_later(document)?;
        let network: members::Network = document.require()?;
        let attachments = document.require_attachments()?;
        let internal = attachments.iter().all(|attachment| !attachment.on.leads_out());
        let ports = self.compared_ports(internal)?;
        let links = link::of(&attachments)?;
        let instance = document.get::<Instance>()?.map(|instance| instance.to_string());
        let group = netlink::packets::free_group(link::group(&context.id))?;
        let journal = egress::journal_of(&context.scope, &context.id);
        let ipv6 = links.iter().flat_map(|link| &link.addresses).any(|net| net.addr().is_ipv6());
        let adds = members::Egress {
            resolver: egress::RESOLVER.ip(),
            log_only: self.log,
            sni: self.sni,
            allow: self.allow.iter().map(allowed).collect(),
            log: journal.clone(),
        };
        let listeners = if self.sni { egress::listeners(ipv6) } else { Vec::new() };
        let mark = Mark::new(&context.id, instance.as_deref());
        let redirect = self.sni.then(|| EgressOperation::Redirect {
            mark: mark.clone(),
            namespace: network.namespace.clone(),
            ports,
            to: listeners.clone(),
            allow: self.allow.clone(),
            networks: link::networks(&attachments),
        });
        let resolver = EgressOperation::Resolver {
            holder: context.id.clone(),
            namespace: network.namespace.clone(),
            allow: self.allow.clone(),
            servers: self.dns.clone(),
            closed: link::networks(&attachments),
            ipv6,
            group,
            link: links.first().map(|link| link.name.clone()).unwrap_or_default(),
            journal,
            learn: self.log,
            internal,
            listeners,
        };
        let table = EgressOperation::Table {
            holder: context.id.clone(),
            mark,
            links,
            allow: self.allow.clone(),
            group,
            learn: self.log,
        };
        Ok(Plan { adds, operations: [table].into_iter().chain(redirect).chain([resolver]).collect() })
    }
}

impl EgressAllow {
    /// The ports whose connections are compared with the list of names; none without `--sni`.
    fn compared_ports(&self, internal: bool) -> Result<Vec<u16>> {
        if internal && !self.dns.is_empty() {
            bail!("--dns: the container's networks are internal, and no name server is asked for it");
        }
        if internal && self.sni {
            bail!("--sni: the container's networks are internal, and no name opens an address");
        }
        let ports = if self.sni { egress::compared(&self.allow, self.log) } else { Vec::new() };
        if self.sni && ports.is_empty() {
            let error = anyhow!("--sni: the list has no name with a TCP port");
            return Err(hint(error, "--sni compares names only, not addresses"));
        }
        Ok(ports)
    }
}

/// Refuses a container that has something which must come after its list.
fn refuse_later(document: &Document) -> Result<()> {
    if document.get::<members::Egress>()?.is_some() {
        let error = anyhow!("the container has a list already");
        return Err(hint(error, "give the whole list to one egress-allow"));
    }
    if document.get::<members::Names>()?.is_some() {
        let error = anyhow!("the container has the names of name-serve, which answers for every name");
        return Err(hint(error, "put name-serve after egress-allow; the listed names are then answered"));
    }
    if document.get::<members::Process>()?.is_some() {
        let error = anyhow!("the container runs already, and asks other name servers");
        return Err(hint(error, "put egress-allow before ns-exec"));
    }
    Ok(())
}

fn allowed(entry: &Entry) -> members::Allowed {
    let (name, address) = match &entry.target {
        Target::Name(pattern) => (Some(pattern.to_string()), None),
        Target::Addresses(net) => (None, Some(*net)),
    };
    let (port, protocol) =
        (entry.port.map(|port| port.number), entry.port.map(|port| port.protocol.to_string()));
    members::Allowed { name, address, port, protocol }
}

pub(crate) fn main() -> ExitCode {
    if let Some(exit) = ::plugin::run(&plugin::PLUGIN) {
        return exit;
    }
    let exit = toolkit::filter::<EgressAllow>();
    nat::close();
    exit
}
