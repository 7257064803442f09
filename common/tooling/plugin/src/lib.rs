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
    process::ExitCode,
};

pub use attached::{attached, interface, on_a_wire, refuse_unknown};
use cni::{Configuration, Environment, Error};
use document::Document;
pub use ipam::Addresses;
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

/// The priority of the default route of `interface`: eth0 comes first, then eth1, and so on. Each network of
/// a container has its own document here, so none knows the routes of the others.
#[must_use]
pub fn priority(interface: &str) -> i32 {
    let number: String = interface.chars().skip_while(|c| !c.is_ascii_digit()).collect();
    -number.parse().unwrap_or(0).clamp(0, 900)
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
