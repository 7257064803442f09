//! A filter as a CNI plugin: what ADD, DEL, CHECK, GC, STATUS and VERSION mean for a tool that reads and writes the document.
//!
//! Each attachment (network, container id, interface) has a document and a record of its own, with an id that follows from the
//! three. The plugins of a chain add their steps to it, so `unwind`, `net-repair` and `net-guard` know it like any other.
//! The tool itself does the work: the plugin starts it again, with flags and the document.

pub mod foreign;
mod operate;
pub mod tool;

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use cni::{Configuration, Environment, Error};
use document::Document;
use serde_json::Value;

/// A filter that is a plugin as well.
#[derive(Debug)]
pub struct Plugin {
    /// The tool's name: `bridge-attach`.
    pub tool: &'static str,
    /// Whether it may be the first of a chain. Others add to what an earlier one of Stave's began.
    pub begins: bool,
    /// The tool's arguments for ADD; none, if there is nothing to do.
    pub arguments: fn(&Request) -> Result<Option<Vec<String>>, Error>,
    /// What the tool has added to a document, as a CNI result of version 1.1.0; none, if that has no place in a result.
    pub result: fn(&Request, &Document) -> Result<Option<Value>, Error>,
}

/// What the runtime asks.
#[derive(Debug)]
pub struct Request {
    /// Its variables.
    pub environment: Environment,
    /// The network.
    pub configuration: Configuration,
}

/// Runs the tool as a plugin, if a runtime asks for that: `CNI_COMMAND` is set, and there are no arguments. None otherwise.
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
    // A runtime that has gone reads nothing.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Some(exit)
}

/// The priority of an interface's default route. Each network of a container has a document of its own here, so none knows the routes of
/// the others: eth0 comes first, then eth1, and so on.
#[must_use]
pub fn priority(interface: &str) -> i32 {
    let number: String = interface.chars().skip_while(|c| !c.is_ascii_digit()).collect();
    -number.parse().unwrap_or(0).clamp(0, 900)
}

/// The version to answer in, and the answer.
fn answer(plugin: &Plugin, environment: Environment) -> (String, Result<Option<Value>, Error>) {
    match Configuration::read(io::stdin().lock()) {
        Ok(configuration) => {
            let version = configuration.version_text().to_owned();
            (version, operate::carry_out(plugin, &Request { environment, configuration }))
        }
        Err(error) => (cni::Version::V110.to_string(), Err(error)),
    }
}
