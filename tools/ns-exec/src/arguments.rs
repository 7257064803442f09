//! The command line.

use std::{path::PathBuf, str::FromStr};

use clap::Parser;
use document::{Document, Id, Member, members};
use life::{Point, environment};
use mount::Volume;
use toolkit::{
    Common, Context, Filter, Plan,
    prelude::{Result, bail},
};

use super::{
    names::Names,
    operation::ContainerOperation,
    plan,
    request::{Log, Mode, Request},
    security::{Security, SecurityOption},
    settings::Settings,
    sharing::Sharing,
};

/// Run a process in namespaces, on a root file system
#[derive(Debug, Parser)]
#[command(name = "ns-exec", version, mut_arg("verbose", |verbose| verbose.short(None)))]
pub(crate) struct NsExec {
    /// Run in the background and print the document; with --join, discard output
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// In the foreground, keep a log as -d does, so that the container can be looked at, attached to, and restarted
    #[arg(long, conflicts_with_all = ["detach", "create", "join", "timeout", "die_with_parent"])]
    pub(crate) monitor: bool,
    /// Make everything except the process, for container-start, and print the document
    #[arg(long, conflicts_with_all = ["detach", "join", "status_fd"])]
    pub(crate) create: bool,
    /// With -d or --monitor, append output to this file instead of $STAVE_ROOT/containers/ID/log, which keeps the last 8
    /// to 16 MiB
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Use this network if the document has none: the host's, only lo (none, the default), or another
    /// container's
    #[arg(long, value_name = "host|none|container:ID")]
    pub(crate) network: Option<Mode>,
    /// Set an environment variable; NAME alone copies the caller's value; repeatable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set variables from a file with one NAME=VALUE or NAME per line, as with Docker; -e overrides it;
    /// repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Set variables from a file of NUL-terminated NAME=VALUE, as in /proc/PID/environ; keeps values out of
    /// the command line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_list: Option<PathBuf>,
    /// Run in this working directory; created if it is missing
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run as this user and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Mount a directory or file of the host; idmap: files keep their owner ids inside; repeatable
    #[arg(short, long = "volume", value_name = "SRC:DST[:ro,idmap]")]
    pub(crate) volumes: Vec<Volume>,
    /// Give the command a terminal. Its output goes to standard output; its input comes from your terminal,
    /// or with -i from standard input
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Keep standard input open for the command; read the document from --from instead, or use -n or --join.
    /// With -d, give the command an input that stays open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Set the host name; by default the first twelve characters of the id
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Programs gain no privileges by being executed (no_new_privs)
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Change the command's confinement, as with Docker: seccomp=FILE|unconfined, no-new-privileges,
    /// systempaths=unconfined; repeatable
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<SecurityOption>,
    /// Replace the image's entry point and its arguments
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Add a capability to Docker's default set; repeatable
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<String>,
    /// Remove a capability; repeatable
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_drop: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Give the command all capabilities, devices and system calls, and mask no paths
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Use this directory as root file system instead of the document's `rootfs`
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Run in all namespaces of a running container
    #[arg(long, value_name = "ID", conflicts_with_all = ["log", "network", "volumes", "rootfs", "from", "hostname", "entrypoint", "cap_add", "cap_drop", "read_only", "security_opt"])]
    pub(crate) join: Option<Id>,
    /// Read the document from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Write the document to this file when the command starts and when it ends; to a pipe only once
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
    /// Write the pid and the exit status to this descriptor, each as a line of JSON
    #[arg(long, value_name = "N")]
    pub(crate) status_fd: Option<u32>,
    #[command(flatten)]
    pub(crate) sharing: Sharing,
    #[command(flatten)]
    pub(crate) names: Names,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) common: Common,
    /// The command instead of the image's; or arguments for the image's entry point
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
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
    /// Returns the variables to set, each with a value. Later ones override earlier ones.
    pub(crate) fn variables(&self) -> Result<Vec<String>> {
        let own = |name: &str| std::env::var(name).ok();
        let mut variables = Vec::new();
        for path in &self.env_file {
            variables.extend(environment::of_file(path, own)?);
        }
        if let Some(path) = &self.env_list {
            variables.extend(environment::of_list(path)?);
        }
        variables.extend(self.env.iter().filter_map(|variable| environment::with_value(variable, own)));
        Ok(variables)
    }

    fn request(&self) -> Result<Request> {
        let entrypoint = |program: &String| if program.is_empty() { vec![] } else { vec![program.clone()] };
        Ok(Request {
            rootfs: self.rootfs.clone(),
            read_only: self.read_only || self.settings.sandbox,
            network: self.network.clone(),
            hostname: self.hostname.clone().filter(|name| !name.is_empty()),
            entrypoint: self.entrypoint.as_ref().map(entrypoint),
            command: self.command.clone(),
            variables: self.variables()?,
            // As with Docker, an empty value is none.
            workdir: self.workdir.clone().filter(|directory| !directory.is_empty()),
            user: self.user.clone().filter(|user| !user.is_empty()),
            volumes: self.volumes.clone(),
            terminal: self.tty,
            interactive: self.interactive,
            input_ends: self.interactive && (self.create || !self.detach),
            security: Security::of(&self.security_opt, self.no_new_privs || self.settings.sandbox)?,
            cap_add: self.cap_add.clone(),
            cap_drop: self
                .settings
                .sandbox
                .then(|| "ALL".to_owned())
                .into_iter()
                .chain(self.cap_drop.clone())
                .collect(),
            privileged: self.privileged,
            sharing: self.sharing.clone(),
            names: self.names.clone(),
            settings: self.settings.clone(),
            log: match (&self.log, self.detach || self.create || self.monitor) {
                (Some(_), false) => {
                    bail!("--log has no effect on a command in the foreground: give -d or --monitor too")
                }
                (None, false) => Log::None,
                (None, true) => Log::Own,
                (Some(path), true) => Log::File(path.clone()),
            },
        })
    }
}

impl Filter for NsExec {
    type Adds = members::Process;
    type Operation = ContainerOperation;
    const READS: &'static [&'static str] = &[
        members::Rootfs::NAME,
        members::Image::NAME,
        members::Network::NAME,
        members::Networks::NAME,
        members::Hosts::NAME,
        members::Cgroup::NAME,
    ];

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let (adds, operations) = plan::plan(self.request()?, context, document)?;
        Ok(Plan { adds, operations })
    }

    fn finish(
        &self,
        _: &Document,
        mut process: members::Process,
        operations: &[ContainerOperation],
    ) -> Result<members::Process> {
        if let Some(identity) = operations.last().and_then(ContainerOperation::identity) {
            (process.pid, process.start_time) = (identity.pid, identity.start_time);
            process.started = (identity.pid > 0).then(|| Point::now().text());
        }
        Ok(process)
    }
}
