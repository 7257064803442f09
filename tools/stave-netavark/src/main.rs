//! Gives podman Stave's networks: netavark's command line, over bridge-attach, macvlan-attach, ipvlan-attach and
//! portmap.
//!
//! # Does
//! `setup` attaches a container to the networks that podman names, publishes its ports, and serves it the names
//! of others. `teardown` undoes that. `update` changes the name servers of a network. `create` chooses what
//! podman leaves open in a new network, and prints the network, which podman stores. podman leases the
//! addresses itself, and listens on the published ports.
//! # Reads
//! podman's JSON, from standard input or `--file`.
//! # Adds
//! A record for each network of a container, with the id `netavark-…`; prints netavark's JSON.
//! # Undoes
//! `teardown` undoes `setup`. `unwind` and `net-repair` also work with the records.
//! # Needs
//! Root (CAP_NET_ADMIN, CAP_SYS_ADMIN); the other tools in the same directory.

mod create;
mod input;
mod naming;
mod ports;
mod work;

use std::{ffi::OsString, net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use toolkit::Exit;

const TOOL: &str = "stave-netavark";

/// Stave's networks for podman, with netavark's command line
#[derive(Parser)]
#[command(name = "stave-netavark", version)]
struct Netavark {
    /// Read podman's JSON from this file instead of standard input
    #[arg(short, long, value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    /// podman's directory for network files; not used
    #[arg(short, long, value_name = "DIR", global = true, env = "NETAVARK_CONFIG")]
    config: Option<OsString>,
    /// Whether podman runs rootless; only false works
    #[arg(short, long, value_name = "BOOL", global = true, default_value_t = false, action = clap::ArgAction::Set)]
    rootless: bool,
    /// podman's resolver; not started, because name-serve answers
    #[arg(short, long, value_name = "FILE", global = true)]
    aardvark_binary: Option<OsString>,
    /// A directory with netavark plugins; their networks are rejected
    #[arg(long, value_name = "DIR", global = true)]
    plugin_directory: Vec<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Attach a container to its networks, and publish its ports
    Setup {
        /// The container's network namespace
        #[arg(value_name = "NAMESPACE")]
        namespace: PathBuf,
    },
    /// Undo what setup made
    Teardown {
        /// The container's network namespace
        #[arg(value_name = "NAMESPACE")]
        namespace: PathBuf,
    },
    /// Change the name servers of a network, also for the containers that run
    Update {
        /// The network
        #[arg(value_name = "NETWORK")]
        network: String,
        /// The new name servers, separated by commas or repeated; empty for those of the host
        #[arg(long, value_name = "ADDRESSES", required = true, value_delimiter = ',')]
        network_dns_servers: Vec<String>,
    },
    /// Complete a new network, and refuse what setup cannot do
    Create,
    /// Print the version
    Version,
}

fn run(arguments: &Netavark) -> Result<Option<Value>> {
    if arguments.rootless {
        bail!("networks of a rootless podman are not made");
    }
    match &arguments.command {
        Command::Version => Ok(Some(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": "",
            "build_time": "",
            "target": "stave-netavark-linux",
            "default_fw_driver": "nftables",
        }))),
        Command::Setup { namespace } => {
            let options: input::Options = input::read(arguments.file.as_deref())?;
            options.refuse_unknown()?;
            work::setup(&options, namespace).map(Some)
        }
        Command::Teardown { namespace: _ } => {
            let options: input::Options = input::read(arguments.file.as_deref())?;
            work::teardown(&options).map(|()| None)
        }
        Command::Create => create::create(arguments.file.as_deref()).map(Some),
        Command::Update { network, network_dns_servers } => {
            let given = network_dns_servers.iter().filter(|server| !server.is_empty());
            let servers = given.map(|server| server.parse::<IpAddr>().with_context(|| format!("{server:?}")));
            let servers: Vec<IpAddr> =
                servers.collect::<Result<_>>().context("update the name servers of a network")?;
            naming::update(network, &servers).map(|()| None)
        }
    }
}

pub(crate) fn main() -> ExitCode {
    let outcome = match Netavark::try_parse() {
        Err(usage) if !usage.use_stderr() => return toolkit::help(TOOL, &usage).into(),
        Err(usage) => Err(anyhow!("{}", usage.to_string().lines().next().unwrap_or_default())),
        Ok(arguments) => run(&arguments),
    };
    let (text, exit) = match outcome {
        Ok(None) => (String::new(), ExitCode::SUCCESS),
        Ok(Some(result)) => (format!("{result}\n"), ExitCode::SUCCESS),
        // podman reads the error from standard output.
        Err(error) => (format!("{}\n", json!({"error": toolkit::report_line(&error)})), ExitCode::FAILURE),
    };
    match toolkit::say(TOOL, &text) {
        Exit::Done => exit,
        unwritten => unwritten.into(),
    }
}
