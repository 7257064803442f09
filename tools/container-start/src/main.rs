//! Starts containers that have ended, or that `ns-exec --create` made.
//!
//! # Does
//! Starts the process that the record describes, in the background with a monitor. Publishes the container's
//! ports again. With `--all` it starts all containers that should run by their restart policies, and starts a
//! monitor for each container that has lost its own. After a restart of the machine it first makes root file
//! systems and networks again. A running container is left alone.
//! # Reads
//! No document. Reads the records, and after a restart of the machine the second records in `$STAVE_ROOT`.
//! # Adds
//! Nothing; changes `process` in the record, and prints a JSON array with `id` of each, or text with
//! `--format`. With `--attach`, standard streams belong to the container's process instead.
//! # Undoes
//! Nothing: container-stop stops the container, and unwind removes it.
//! # Needs
//! The same rights as the tools that made the container.

mod again;

use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use document::Id;
use life::{Attachment, Container, Outcome};
use runtime::Keys;
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// Start containers, for the first time or again
#[derive(Parser)]
#[command(name = "container-start", version, group = ArgGroup::new("what").args(["ids", "all"]).required(true))]
struct ContainerStart {
    /// The containers, by their ids or names
    #[arg(value_name = "ID")]
    ids: Vec<Id>,
    /// Start all containers that should run by their restart policies, as after a restart of the machine
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Print the container's output until it ends, and exit as its process does; pass signals on
    #[arg(short, long, conflicts_with_all = ["all", "format"])]
    attach: bool,
    /// With --attach, pass standard input on to the process, if its input stays open
    #[arg(short, long, requires = "attach")]
    interactive: bool,
    /// Keys that detach from the container: ctrl-X or letters, separated by commas; empty for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", requires = "attach")]
    detach_keys: Keys,
    /// With --attach, whether to pass signals on to the process; true by default
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, requires = "attach")]
    sig_proxy: bool,
    /// Print TEXT for each container, one a line, with {id} and {name} replaced
    #[arg(long, value_name = "TEXT")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// The exit status if the container's is unknown, as with ns-exec.
const UNKNOWN: u8 = 125;

impl ContainerStart {
    fn ids(&self, context: &Context) -> Result<Vec<Id>> {
        if self.attach && self.ids.len() != 1 {
            bail!("--attach takes one container");
        }
        if !self.all {
            return Ok(self.ids.clone());
        }
        let wanted = again::wanted(&context.scope)?;
        again::adopt_all(&context.scope)?;
        Ok(wanted)
    }

    fn one(&self, context: &Context, id: &Id) -> Result<Value> {
        let scope = &context.scope;
        again::rebuild(scope, id)?;
        if self.attach {
            return self.attached(context, id);
        }
        tell(life::start(scope, id)?.unwrap_or_default());
        Ok(json!({"id": id}))
    }

    fn attached(&self, context: &Context, id: &Id) -> Result<Value> {
        let scope = &context.scope;
        let connection = match life::start_attached(scope, id, self.interactive)? {
            Some((warnings, connection)) => {
                tell(warnings);
                connection
            }
            None => {
                let running = life::running(scope, id)?.monitor(scope)?;
                let connection = running.ok_or_else(|| anyhow!("container \"{id}\" has no monitor"))?;
                connection.attach(self.interactive)?;
                connection
            }
        };
        let container = Container::read(scope, id)?;
        let how = Attachment { stdin: self.interactive, signals: self.sig_proxy, keys: &self.detach_keys };
        match life::attend(&connection, &container, &how)? {
            Outcome::Ended(status) => Ok(json!({"id": id, "exitStatus": status, "ended": true})),
            Outcome::Detached => {
                operation::tell!("container-start: detached from \"{id}\"");
                Ok(json!({"id": id}))
            }
            Outcome::Lost => Err(anyhow!("the monitor of container \"{id}\" is gone")),
        }
    }
}

impl ContainerStart {
    /// With `--attach`, a command that cannot be executed ends with the exit status of a shell.
    fn not_executed(&self, id: &Id, error: anyhow::Error) -> Result<Value> {
        let of_command = error.chain().find_map(|cause| cause.downcast_ref::<runtime::Error>());
        match of_command.map(runtime::Error::status) {
            Some(status @ (126 | 127)) if self.attach => {
                toolkit::print_error("container-start", &error);
                Ok(json!({"id": id, "exitStatus": status, "ended": true}))
            }
            _ => Err(error),
        }
    }
}

fn tell(warnings: Vec<String>) {
    for warning in warnings {
        operation::tell!("container-start: warning: {warning}");
    }
}

impl Report for ContainerStart {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let ids = if self.all { again::wanted(&context.scope)? } else { self.ids.clone() };
        ids.iter().try_for_each(|id| life::may_start(&context.scope, id))?;
        Ok(ids.iter().map(|id| format!("container-start {id}")).collect())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let started = |id: &Id| self.one(context, id).or_else(|error| self.not_executed(id, error));
        let one = |id: &Id| rows::called(&context.scope, id, || started(id));
        Ok(rows::each("container-start", &self.ids(context)?, one))
    }

    fn verdict(&self, report: &Value) -> Result<()> {
        rows::verdict(report)
    }

    fn status(&self, report: &Value) -> u8 {
        let ended = report.as_array().and_then(|rows| rows.first()).filter(|row| row["ended"] == true);
        let code = |row: &Value| row["exitStatus"].as_u64().and_then(|status| u8::try_from(status).ok());
        ended.filter(|_| self.attach).map_or(0, |row| code(row).unwrap_or(UNKNOWN))
    }

    fn text(&self, report: &Value) -> Option<String> {
        if self.attach {
            return Some(String::new());
        }
        self.format.as_deref().map(|format| rows::lines(format, report))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(rows::lines("{name}", report))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerStart>()
}
