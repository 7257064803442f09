//! Runs a filter as a CNI plugin: carries out ADD, DEL, CHECK, GC, STATUS and VERSION with a tool that reads
//! and writes the document.
//!
//! Each attachment (network, container id, interface) has its own document and record. Its id is derived from
//! these three. The plugins of a chain add their steps to the same document, so `unwind`, `net-repair` and
//! `net-guard` work on it as usual.
//!
//! The tool does the work: the plugin starts its own program again, with flags and the document.

mod attached;
pub mod foreign;
mod ipam;
mod operate;
pub mod tool;

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

pub use attached::{attached, interface, is_set, on_a_wire, refuse_unknown};
use cni::{Configuration, Environment, Error};
use document::Document;
pub use ipam::Addresses;
use netlink::Connection;
use serde_json::Value;

/// A filter that is also a CNI plugin.
#[derive(Debug)]
pub struct Plugin {
    /// The name of the tool: `bridge-attach`.
    pub tool: &'static str,
    /// Whether the plugin may be the first of a chain. Other plugins add to the document of an earlier one.
    pub begins: bool,
    /// The arguments of the tool for ADD. `None` if there is nothing to do.
    pub arguments: fn(&Request) -> Result<Option<Vec<String>>, Error>,
    /// What the tool added to a document, as a CNI result of version 1.1.0. `None` if results have no place
    /// for it.
    pub result: fn(&Request, &Document) -> Result<Option<Value>, Error>,
}

/// A request of the runtime.
#[derive(Debug)]
pub struct Request {
    /// The runtime's environment variables (`CNI_…`).
    pub environment: Environment,
    /// The network configuration, from standard input.
    pub configuration: Configuration,
}

/// Runs the tool as a plugin if a runtime asks for it: `CNI_COMMAND` is set and there are no arguments.
/// Otherwise returns `None`.
#[must_use]
pub fn run(plugin: &Plugin) -> Option<ExitCode> {
    if env::args_os().len() > 1 {
        return None;
    }
    let variables = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (version, outcome) = match Environment::read(variables) {
        Ok(None) => return None,
        Ok(Some(environment)) => answer(plugin, environment),
        Err(error) => (cni::Version::V110.to_string(), Err(error)),
    };
    let (text, exit) = match outcome {
        Ok(None) => (String::new(), ExitCode::SUCCESS),
        Ok(Some(result)) => (format!("{result}\n"), ExitCode::SUCCESS),
        Err(error) => (format!("{}\n", error.to_json(&version)), ExitCode::FAILURE),
    };
    // The runtime may be gone. Then nobody reads the answer.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Some(exit)
}

/// The metric of the default route of `interface`: eth0 comes first, then eth1, and so on. Each network of
/// a container has its own document here, so none knows the routes of the others. Interfaces without different
/// numbers come in the order in which they are made.
fn metric(interface: &str, namespace: &Path) -> u32 {
    let number: String = interface.chars().skip_while(|c| !c.is_ascii_digit()).collect();
    let wanted = attachment::metric((-number.parse().unwrap_or(0), 0));
    // The tool says why a namespace cannot be entered.
    free_metric(namespace, wanted).unwrap_or(wanted)
}

/// The wanted metric, or the next higher one that no default route in the namespace has.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel does not answer.
pub fn free_metric(namespace: &Path, wanted: u32) -> Result<u32, netlink::Error> {
    let inside = Connection::open(Some(namespace))?;
    let routes = inside.routes(None)?.into_iter().chain(inside.routes6(None)?);
    let taken: Vec<u32> =
        routes.filter(|route| route.destination.prefix_len() == 0).map(|route| route.metric).collect();
    Ok((wanted..=u32::MAX).find(|metric| !taken.contains(metric)).unwrap_or(wanted))
}

/// The version of the answer, and the answer.
fn answer(plugin: &Plugin, environment: Environment) -> (String, Result<Option<Value>, Error>) {
    match Configuration::read(io::stdin().lock()) {
        Ok(configuration) => {
            let version = configuration.version_text().to_owned();
            (version, operate::carry_out(plugin, &Request { environment, configuration }))
        }
        Err(error) => (cni::Version::V110.to_string(), Err(error)),
    }
}
