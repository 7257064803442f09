//! Lists the processes of a container.
//!
//! # Does
//! Looks up the processes of the container's cgroup in `/proc`; without a cgroup, those of its pid namespace.
//! # Reads
//! No document. Reads the record.
//! # Adds
//! Nothing; prints a JSON array, or with `--table` and `--format` text.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to the record.

mod process;

use std::process::ExitCode;

use clap::Parser;
use document::Id;
use serde_json::Value;
use toolkit::{prelude::*, rows};

/// List the processes of a container
#[derive(Parser)]
#[command(name = "container-top", version)]
struct ContainerTop {
    /// The container, by its id or its name
    #[arg(value_name = "ID")]
    container: Id,
    /// Print a table instead of JSON
    #[arg(long)]
    table: bool,
    /// Print TEXT for each process, one a line, with {pid}, {inside}, {parent}, {uid}, {state}, {time},
    /// {memory}, {command} replaced
    #[arg(long, value_name = "TEXT", conflicts_with = "table")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Report for ContainerTop {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let container = life::running(&context.scope, &self.container)?;
        let mut pids = match container.cgroup() {
            Some(path) => cgroup::processes(path)?,
            // Without a cgroup, as an ordinary user, a container always has a pid namespace of its own.
            None => process::beside(container.identity().pid)?,
        };
        pids.sort_unstable();
        // Processes that have ended in the meantime are left out.
        Ok(pids.into_iter().filter_map(process::row).collect())
    }

    fn text(&self, report: &Value) -> Option<String> {
        match (&self.format, self.table) {
            (Some(format), _) => Some(rows::lines(format, report)),
            (None, true) => Some(process::table(report)),
            (None, false) => None,
        }
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(process::table(report))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerTop>()
}
