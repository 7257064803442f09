//! Runs another command in a running container.
//!
//! # Does
//! Starts the command in all namespaces and in the cgroup of the container, with the user, variables and
//! policies of the container's process. Waits until the command ends, or with `-d` leaves it in the
//! background.
//! # Reads
//! No document. Reads the record.
//! # Adds
//! Nothing. Standard streams belong to the command.
//! # Undoes
//! Nothing: the command ends with the container.
//! # Needs
//! Root, or the user who started the container. Exits with the status of the command, or with 125 if the
//! command did not start.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use document::Id;
use life::{Container, Exec, environment};
use runtime::{Foreground, Keys, Terminal, Waited};
use serde_json::Value;
use toolkit::prelude::*;

/// Run another command in a running container
#[derive(Parser)]
#[command(name = "container-exec", version, mut_arg("verbose", |verbose| verbose.short(None)))]
struct ContainerExec {
    /// The container, by its id or its name
    #[arg(value_name = "ID")]
    container: Id,
    /// Leave the command in the background; its output is discarded
    #[arg(short, long)]
    detach: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Keep standard input open for the command
    #[arg(short, long)]
    interactive: bool,
    /// Set an environment variable; without VALUE, use the caller's; repeatable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set variables from a file with one NAME=VALUE or NAME per line, as with Docker; -e overrides it;
    /// repeatable
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Set variables from a file of NUL-terminated NAME=VALUE entries, as in /proc/PID/environ
    #[arg(long, value_name = "FILE")]
    env_list: Option<PathBuf>,
    /// Run in this working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Keys that leave the command in the background, with -t: ctrl-X or letters, separated by commas; empty
    /// for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Keys,
    /// Give the command all capabilities and system calls
    #[arg(long)]
    privileged: bool,
    #[command(flatten)]
    common: Common,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// The exit status if the command did not start.
const NOT_STARTED: u8 = 125;

impl ContainerExec {
    fn exec(&self, size: Option<(u16, u16)>) -> Result<Exec> {
        let own = |name: &str| std::env::var(name).ok();
        let mut variables = Vec::new();
        for path in &self.env_file {
            variables.extend(environment::of_file(path, own)?);
        }
        if let Some(path) = &self.env_list {
            variables.extend(environment::of_list(path)?);
        }
        variables.extend(self.env.iter().filter_map(|variable| environment::with_value(variable, own)));
        Ok(Exec {
            command: self.command.clone(),
            variables,
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            terminal: self.tty,
            size,
            privileged: self.privileged,
            no_new_privileges: false,
        })
    }

    fn run(&self, context: &Context) -> Result<i32> {
        let container = life::running(&context.scope, &self.container)?;
        let terminal = (self.tty && !self.detach).then(|| Terminal::open(self.interactive)).transpose();
        let terminal =
            terminal.map_err(|error| hint(error, "without -t, the command reads from a pipe or a file"))?;
        let exec = self.exec(terminal.as_ref().and_then(Terminal::size))?;
        let signals = Foreground::new()?;
        let (mut running, relays) = exec.start(&container, self.interactive, self.detach)?;
        for warning in std::mem::take(&mut running.warnings) {
            operation::tell!("container-exec: warning: {warning}");
        }
        if self.detach {
            return Ok(0);
        }
        let raw = terminal.map(Terminal::into_raw).transpose()?;
        let Some(raw) = raw else {
            let (status, lost) = runtime::foreground(running, &signals, None, relays)?;
            return Ok(toolkit::with_failures("container-exec", status, lost));
        };
        match runtime::foreground_or_detached(running, &signals, Some(&raw), &self.detach_keys)? {
            Waited::Ended(status) => Ok(status),
            Waited::Detached => {
                drop(raw);
                operation::tell!("container-exec: detached from the command in \"{}\"", self.container);
                Ok(0)
            }
        }
    }
}

impl Report for ContainerExec {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let pid = Container::running(&context.scope, &self.container)?.identity().pid.to_string();
        let words = ["nsenter", "--target", &pid, "--all", "--"];
        Ok(vec![operation::words(words.into_iter().chain(self.command.iter().map(String::as_str)))])
    }

    fn report(&self, context: &Context) -> Result<Value> {
        Ok(match self.run(context) {
            Ok(status) => status.into(),
            Err(error) => {
                toolkit::print_error("container-exec", &error);
                let of_command = error.chain().find_map(|cause| cause.downcast_ref::<runtime::Error>());
                of_command.map_or(NOT_STARTED, runtime::Error::status).into()
            }
        })
    }

    fn text(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }

    fn status(&self, report: &Value) -> u8 {
        report.as_u64().and_then(|status| u8::try_from(status).ok()).unwrap_or(NOT_STARTED)
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerExec>()
}
