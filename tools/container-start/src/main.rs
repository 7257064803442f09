//! Starts containers that have ended, or were made by `ns-exec --create`.
//!
//! # Does
//! Starts the process that the record describes, in the background, with a monitor. Takes the container's ports again. With `--all`
//! it starts what should run by its restart policy, and makes a monitor for each container that has lost its own; after a restart of
//! the machine it makes root file systems and networks again first. A container that runs already is left alone.
//! # Reads
//! No document: the records, and after a restart of the machine the second records in `$STAVE_ROOT`.
//! # Adds
//! Nothing; changes `process` in the record, and prints a JSON array with `id` of each, or with `--format` text.
//! # Undoes
//! Nothing: container-stop stops the container, and unwind removes it.
//! # Needs
//! What made the container.

mod again;

use std::process::ExitCode;

use clap::Parser;
use document::Id;
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// Start containers again, or for the first time
#[derive(Parser)]
#[command(name = "container-start", version)]
struct ContainerStart {
    /// The containers
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<Id>,
    /// Start all that should run by their restart policies, as after a restart of the machine
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Print TEXT for each container, one line each. {id} in it is replaced
    #[arg(long, value_name = "TEXT")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Report for ContainerStart {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let ids = if self.all { again::wanted(&context.scope)? } else { self.ids.clone() };
        Ok(ids.iter().map(|id| format!("container-start {id}")).collect())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let scope = &context.scope;
        let ids = if self.all { again::wanted(scope)? } else { self.ids.clone() };
        if self.all {
            again::adopt_all(scope)?;
        }
        Ok(rows::each("container-start", &ids, |id| {
            again::rebuild(scope, id)?;
            for warning in life::start(scope, id)?.unwrap_or_default() {
                operation::tell!("container-start: warning: {warning}");
            }
            Ok(json!({"id": id}))
        }))
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
    toolkit::report::<ContainerStart>()
}
