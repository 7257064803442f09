//! The command line.

use std::{path::PathBuf, str::FromStr};

use clap::Parser;
use document::{Document, Id, Member, members};
use mount::Volume;
use toolkit::{Common, Context, Filter, Plan};

use crate::plan::{self, ContainerOperation};

/// Run a process in namespaces, on a root file system
#[derive(Debug, Parser)]
#[command(name = "ns-exec", version, mut_arg("verbose", |verbose| verbose.short(None)))]
pub(crate) struct NsExec {
    /// Leave the process in the background, and print the document; with --join, its output is for nobody
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// With -d: where its output goes; $STAVE_RUN/ID.log by default
    #[arg(long, value_name = "FILE", requires = "detach")]
    pub(crate) log: Option<PathBuf>,
    /// Its network, where the document brings none: the host's, one with nothing but lo (the default), or that of
    /// another container
    #[arg(long, value_name = "host|none|container:ID")]
    pub(crate) network: Option<Mode>,
    /// Set a variable of its environment; without a value, to the one it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Its working directory, made if it is missing
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Its user, and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Mount a directory or a file of the host in it
    #[arg(short, long = "volume", value_name = "SRC:DST[:ro]")]
    pub(crate) volumes: Vec<Volume>,
    /// Give it a terminal. What it shows goes to standard output; what is typed comes from this session's terminal, or,
    /// with -i, from standard input
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Leave it standard input, which must not be the document's: see --from, -n and --join. With -d: one that stays open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Its host name; the first twelve characters of the id by default
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// No program in it gains privileges by being executed
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Replace the image's entry point, and its arguments
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Give it a capability beside Docker's default ones
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<String>,
    /// Take a capability from it
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_drop: Vec<String>,
    /// Refuse writing to its root file system
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Give it all capabilities and devices, and hide nothing from it
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Run on this directory instead of the document's `rootfs`
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Run in a container that runs, in all its namespaces
    #[arg(long, value_name = "ID", conflicts_with_all = ["log", "network", "volumes", "rootfs", "from", "hostname", "entrypoint", "read_only", "privileged"])]
    pub(crate) join: Option<Id>,
    /// Read the document from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Write the document to a file: when the command starts and when it ends; once, if the file is a pipe
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
    /// Write pid and exit status to a descriptor, as one line of JSON each
    #[arg(long, value_name = "N")]
    pub(crate) status_fd: Option<u32>,
    #[command(flatten)]
    pub(crate) common: Common,
    /// The command, instead of the image's, or arguments for the image's entry point
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// A network that is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    Host,
    None,
    Container(Id),
}

impl FromStr for Mode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("container:")) {
            ("host", _) => Ok(Self::Host),
            ("none", _) => Ok(Self::None),
            (_, Some(id)) => {
                id.parse().map(Self::Container).map_err(|error: document::InvalidId| error.to_string())
            }
            _ => Err("it is host, none or container:ID".to_owned()),
        }
    }
}

impl NsExec {
    /// Whether it is asked for something that every tool does in the same way.
    pub(crate) fn is_aside(&self) -> bool {
        let common = &self.common;
        common.undo || common.check || common.repair || common.schema || common.generate.is_some()
    }

    /// The variables that are asked for, each with a value.
    pub(crate) fn variables(&self) -> Vec<String> {
        let with_value = |variable: &String| match variable.contains('=') {
            true => Some(variable.clone()),
            false => std::env::var(variable).ok().map(|value| format!("{variable}={value}")),
        };
        self.env.iter().filter_map(with_value).collect()
    }
}

impl Filter for NsExec {
    type Member = members::Process;
    type Operation = ContainerOperation;
    const READS: &'static [&'static str] =
        &[members::Rootfs::NAME, members::Image::NAME, members::Network::NAME, members::Hosts::NAME];

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, document: &Document) -> toolkit::prelude::Result<Plan<Self>> {
        let (member, operations) = plan::plan(self, context, document)?;
        Ok(Plan { member, operations })
    }
}
