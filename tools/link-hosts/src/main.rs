//! Gives a container names for other containers.
//!
//! # Does
//! Looks up the records of the other containers. ns-exec writes the names into `/etc/hosts` and the variables
//! into the environment. On a bridge that isolates its containers (`--icc=false`), the link opens the ports
//! of the other container for this one, and nothing else: those that its image exposes, and those that are
//! published.
//! # Reads
//! `id`, `networks`; `networks`, `image`, `ports`, `hosts` and `process` in the records of the other containers.
//! # Adds
//! `hosts`.
//! # Undoes
//! The open ports, with the last link to the other container.
//! # Needs
//! Read access to the records; CAP_NET_ADMIN.

mod environment;
mod link;

use std::{collections::HashSet, process::ExitCode};

use anyhow::{Context as _, Result, anyhow};
use attachment::{End, NetworkOperation};
use clap::Parser;
use document::{Document, members, name, record};
use link::Link;
use operation::Scope;
use toolkit::{Common, Context, Filter, Plan, hint};

const TOOL: &str = "link-hosts";

/// Give a container names for other containers
#[derive(Parser)]
#[command(name = TOOL, version)]
struct LinkHosts {
    /// Link to CONTAINER under the name ALIAS; repeatable
    #[arg(long = "link", value_name = "CONTAINER[:ALIAS]", required = true)]
    links: Vec<Link>,
    #[command(flatten)]
    common: Common,
}

impl Filter for LinkHosts {
    type Adds = members::Hosts;
    type Operation = NetworkOperation;
    const LOCK: Option<&'static str> = Some("network");

    fn common(&self) -> &Common {
        &self.common
    }

    fn restore(scope: &Scope) -> Result<()> {
        repair::restore(scope, || toolkit::recorded(scope))
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        // A member of the wrong type gives its own error.
        document.get::<members::Hosts>()?;
        let mut hosts = members::Hosts::default();
        let mut operations = Vec::new();
        let step = document.tools()?.iter().filter(|tool| *tool == TOOL).count() + 1;
        let mut linked = HashSet::new();
        for link in &self.links {
            let id = name::resolve(&context.scope, &link.container);
            let path = record::path(&context.scope.run_dir, &id);
            let other = record::read_existing(&context.scope.run_dir, &id)?;
            let addresses = other.addresses_for(document).with_context(|| format!("read record {path:?}"))?;
            let first = *addresses.first().ok_or_else(|| no_address(link))?;
            // As with Docker: the alias first, then the container's own name, without duplicates. Its id comes last.
            let mut names = vec![link.alias.clone(), link.container.to_string(), id.to_string()];
            names.dedup();
            let entry = |ip| members::HostEntry { ip, names: names.clone() };
            hosts.entries.extend(addresses.into_iter().map(entry));
            hosts.environment.extend(environment::variables(&context.id, &link.alias, first, &other)?);
            if linked.insert(id.clone()) {
                let own = End { id: &context.id, document };
                let other = End { id: id.as_str(), document: &other };
                operations.extend(attachment::open_link(&context.scope, step, own, other)?);
            }
        }
        Ok(Plan { adds: hosts, operations })
    }
}

fn no_address(link: &Link) -> anyhow::Error {
    let error = anyhow!("container \"{}\" has no address", link.container);
    hint(
        error,
        "a link needs a container in a network: bridge-attach, or netns-bridge and veth-pair, join one",
    )
}

pub(crate) fn main() -> ExitCode {
    let exit = toolkit::filter::<LinkHosts>();
    nat::close();
    exit
}
