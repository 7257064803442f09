//! Pauses containers.
//!
//! # Does
//! Freezes all processes of each container by its cgroup, and returns when they are frozen. With `--resume`
//! lets them continue.
//! # Reads
//! No document. Reads the records.
//! # Adds
//! Nothing; prints a JSON array with `id` of each, or text with `--format`. The cgroup itself shows the
//! pause.
//! # Undoes
//! With `--resume`, the pause.
//! # Needs
//! Root, or a user who may write to the container's cgroup.

use std::process::ExitCode;

use clap::Parser;
use document::Id;
use life::Container;
use serde_json::{Value, json};
use toolkit::{Each, prelude::*};

/// Pause all processes of containers, or resume them
#[derive(Parser)]
#[command(name = "container-pause", version)]
struct ContainerPause {
    /// The ids of the containers
    #[arg(value_name = "ID", required = true)]
    ids: Vec<Id>,
    /// Resume the processes
    #[arg(long)]
    resume: bool,
    /// Print TEXT for each container, one a line, with {id} replaced
    #[arg(long, value_name = "TEXT")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Each for ContainerPause {
    fn common(&self) -> &Common {
        &self.common
    }

    fn ids(&self, _: &Context) -> Result<Vec<Id>> {
        Ok(self.ids.clone())
    }

    fn format(&self) -> Option<&str> {
        self.format.as_deref()
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

    fn one(&self, context: &Context, id: &Id) -> Result<Value> {
        let container = life::running(&context.scope, id)?;
        let Some(path) = container.cgroup() else { bail!("container \"{id}\" has no cgroup of its own") };
        match (self.resume, container.is_paused()?) {
            (false, true) => bail!("container \"{id}\" is paused already"),
            (true, false) => bail!("container \"{id}\" is not paused"),
            (resume, _) => life::freeze(&context.scope, id, path, !resume)?,
        }
        Ok(json!({"id": id}))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerPause>()
}
