//! Pauses containers.
//!
//! # Does
//! Stops all processes of each container by its cgroup, and returns once they are stopped; with `--resume` lets them go on.
//! # Reads
//! No document; the records.
//! # Adds
//! Nothing; prints a JSON array with `id` of each, or with `--format` text. The cgroup itself tells that it is paused.
//! # Undoes
//! With `--resume`, the pause.
//! # Needs
//! Root, or whoever may write to the container's cgroup.

use std::process::ExitCode;

use clap::Parser;
use document::Id;
use life::Container;
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// Stop all processes of containers for a while, or let them go on
#[derive(Parser)]
#[command(name = "container-pause", version)]
struct ContainerPause {
    /// The containers
    #[arg(value_name = "ID", required = true)]
    ids: Vec<Id>,
    /// Let them go on
    #[arg(long)]
    resume: bool,
    /// Print TEXT for each container, one line each. {id} in it is replaced
    #[arg(long, value_name = "TEXT")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl ContainerPause {
    fn one(&self, context: &Context, id: &Id) -> Result<Value> {
        let container = Container::running(&context.scope, id)?;
        let Some(path) = container.cgroup() else { bail!("container \"{id}\" has no cgroup of its own") };
        match (self.resume, container.is_paused()?) {
            (false, true) => bail!("container \"{id}\" is paused already"),
            (true, false) => bail!("container \"{id}\" is not paused"),
            (resume, _) => cgroup::freeze(path, !resume)?,
        }
        Ok(json!({"id": id}))
    }
}

impl Report for ContainerPause {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let word = u8::from(!self.resume);
        let one = |id: &Id| -> Result<String> {
            let container = Container::running(&context.scope, id)?;
            let path = container.cgroup().unwrap_or(std::path::Path::new("/"));
            Ok(format!("echo {word} > /sys/fs/cgroup{}/cgroup.freeze", path.display()))
        };
        self.ids.iter().map(one).collect()
    }

    fn report(&self, context: &Context) -> Result<Value> {
        Ok(rows::each("container-pause", &self.ids, |id| self.one(context, id)))
    }

    fn verdict(&self, report: &Value) -> Result<()> {
        rows::verdict(report)
    }

    fn text(&self, report: &Value) -> Option<String> {
        self.format.as_ref().map(|format| rows::lines(format, report))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(rows::lines("{id}", report))
    }
}

fn main() -> ExitCode {
    toolkit::report::<ContainerPause>()
}
