//! The names of a container, which `name-serve` serves. A network namespace has one resolver, so one of a
//! container's records has the step, and the others keep what it needs.

use std::net::IpAddr;

use anyhow::{Context, Result};
use document::{
    Document, Id,
    record::{self, Record},
};
use operation::Scope;
use plugin::foreign;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    input::{Interface, Network, Options},
    work::{KIND, run, undo},
};

/// The tool.
pub(crate) const TOOL: &str = "name-serve";

/// What `name-serve` needs for a container on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Names {
    aliases: Vec<String>,
    /// The name servers for all other names.
    servers: Vec<IpAddr>,
    /// Whether these are the container's own. Then those of the network do not count.
    own: bool,
}

impl Names {
    /// The names of a container on a network. `None` if podman wants none.
    pub(crate) fn wanted(options: &Options, interface: &Interface, network: &Network) -> Option<Self> {
        if !network.dns_enabled {
            return None;
        }
        let aliases = interface.aliases.iter().flatten();
        // A number, for example, cannot be looked up.
        let (aliases, others): (Vec<_>, Vec<_>) =
            [&options.container_name].into_iter().chain(aliases).partition(|name| names::is_name(name));
        for other in others {
            operation::note(&format!("nobody can look up {other:?}: it is no name of a host"));
        }
        let mut aliases: Vec<String> = aliases.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        aliases.sort();
        aliases.dedup();
        let own = options.dns_servers.clone().filter(|servers| !servers.is_empty());
        let is_own = own.is_some();
        let servers = own.or_else(|| network.network_dns_servers.clone()).unwrap_or_default();
        Some(Self { aliases, servers, own: is_own })
    }

    /// The flags of `name-serve`.
    pub(crate) fn flags(&self) -> Vec<String> {
        let aliases = self.aliases.iter().flat_map(|name| ["--network-alias".to_owned(), name.clone()]);
        let servers = self.servers.iter().flat_map(|server| ["--dns".to_owned(), server.to_string()]);
        aliases.chain(servers).collect()
    }

    /// The names in a record. `None` if podman wants none, or the record has another form.
    fn of(document: &Document) -> Option<Self> {
        serde_json::from_value(foreign::about(KIND, document)?.get("names")?.clone()).ok()
    }
}

/// The records of the containers for which `is_meant`, with what podman calls them.
fn records(scope: &Scope, is_meant: impl Fn(&Value) -> bool) -> Result<Vec<(Id, Document)>> {
    let mut found = Vec::new();
    for id in record::list(&scope.run_dir)? {
        let Some(document) = record::read(&scope.run_dir, &id)? else { continue };
        if foreign::about(KIND, &document).is_some_and(|about| is_meant(&about)) {
            found.push((id, document));
        }
    }
    Ok(found)
}

/// Whether one of the container's records has this tool's step.
pub(crate) fn has(scope: &Scope, container: &str, tool: &str) -> Result<bool> {
    for (_, document) in records(scope, |about| about["containerID"] == container)? {
        if foreign::undo(tool, &document)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Serves the names of a container that has left the network whose record had them, by another network.
pub(crate) fn go_on(scope: &Scope, container: &str) -> Result<()> {
    if has(scope, container, TOOL)? {
        return Ok(());
    }
    for (_, document) in records(scope, |about| about["containerID"] == container)? {
        if let Some(names) = Names::of(&document) {
            return run(TOOL, &names.flags(), &document).map(drop);
        }
    }
    Ok(())
}

/// Changes the name servers of a network for the containers on it. As in netavark, containers with name servers
/// of their own keep these, and a network without names has nothing to change.
pub(crate) fn update(network: &str, servers: &[IpAddr]) -> Result<()> {
    let scope: Scope = toolkit::scope(None, None)?;
    let mut first = Ok(());
    for (id, document) in records(&scope, |about| about["network"] == network)? {
        let Some(names) = Names::of(&document).filter(|names| !names.own && names.servers != servers) else {
            continue;
        };
        let names = Names { servers: servers.to_vec(), ..names };
        let changed = change(&scope, &id, &document, &names);
        first = first.and(changed.with_context(|| format!("network {network:?}, record {id}")));
    }
    first
}

/// Serves other name servers in one record, or keeps them there for when it has to serve. If it cannot serve
/// them, serves the old ones again.
fn change(scope: &Scope, id: &Id, document: &Document, names: &Names) -> Result<()> {
    if foreign::undo(TOOL, document)?.is_none() {
        let Some(record) = Record::lock_existing(&scope.run_dir, id)? else { return Ok(()) };
        return match record.read()? {
            Some(document) => Ok(record.write(&with(&document, names)?)?),
            None => Ok(()),
        };
    }
    undo(scope, id, TOOL)?;
    let undone = record::read_existing(&scope.run_dir, id)?;
    let changed = with(&undone, names)?;
    let served = run(TOOL, &names.flags(), &changed).map(drop);
    if let (Err(_), Some(old)) = (&served, Names::of(document)) {
        // The first error is the one to report.
        let _ = run(TOOL, &old.flags(), &undone);
    }
    served
}

/// The document with these names in its member about podman's container.
fn with(document: &Document, names: &Names) -> Result<Document> {
    let mut whole: Value = serde_json::from_str(&document.to_line())?;
    whole[KIND]["names"] = serde_json::to_value(names)?;
    Ok(Document::parse(whole.to_string().as_bytes())?)
}
