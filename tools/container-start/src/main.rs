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
//! `--format`.
//! # Undoes
//! Nothing: container-stop stops the container, and unwind removes it.
//! # Needs
//! The same rights as the tools that made the container.

mod again;

use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use document::Id;
use serde_json::{Value, json};
use toolkit::{Each, prelude::*};

/// Start containers, for the first time or again
#[derive(Parser)]
#[command(name = "container-start", version, group = ArgGroup::new("what").args(["ids", "all"]).required(true))]
struct ContainerStart {
    /// The ids of the containers
    #[arg(value_name = "ID")]
    ids: Vec<Id>,
    /// Start all containers that should run by their restart policies, as after a restart of the machine
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Print TEXT for each container, one a line, with {id} replaced
    #[arg(long, value_name = "TEXT")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Each for ContainerStart {
    fn common(&self) -> &Common {
        &self.common
    }

    fn ids(&self, context: &Context) -> Result<Vec<Id>> {
        if !self.all {
            return Ok(self.ids.clone());
        }
        let wanted = again::wanted(&context.scope)?;
        again::adopt_all(&context.scope)?;
        Ok(wanted)
    }

    fn format(&self) -> Option<&str> {
        self.format.as_deref()
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let ids = if self.all { again::wanted(&context.scope)? } else { self.ids.clone() };
        ids.iter().try_for_each(|id| life::may_start(&context.scope, id))?;
        Ok(ids.iter().map(|id| format!("container-start {id}")).collect())
    }

    fn one(&self, context: &Context, id: &Id) -> Result<Value> {
        let scope = &context.scope;
        again::rebuild(scope, id)?;
        for warning in life::start(scope, id)?.unwrap_or_default() {
            operation::tell!("container-start: warning: {warning}");
        }
        Ok(json!({"id": id}))
    }
}

fn main() -> ExitCode {
    toolkit::report::<ContainerStart>()
}
