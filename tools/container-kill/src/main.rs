//! Sends signals to containers.
//!
//! # Does
//! Sends a signal to the first process of each container, and returns at once. A container that gets SIGKILL
//! or its own stop signal is not restarted by its restart policy.
//! # Reads
//! No document. Reads the records.
//! # Adds
//! Nothing; prints a JSON array with `id` of each, or text with `--format`.
//! # Undoes
//! Nothing.
//! # Needs
//! Root, or the user who started the container.

use std::process::ExitCode;

use clap::Parser;
use document::Id;
use runtime::StopSignal;
use serde_json::{Value, json};
use toolkit::{Each, prelude::*};

/// Send a signal to the first process of containers
#[derive(Parser)]
#[command(name = "container-kill", version)]
struct ContainerKill {
    /// The ids of the containers
    #[arg(value_name = "ID", required = true)]
    ids: Vec<Id>,
    /// The signal, such as SIGHUP, 1 or RTMIN+3
    #[arg(short, long, value_name = "SIGNAL", default_value = "SIGKILL")]
    signal: StopSignal,
    /// Print TEXT for each container, one a line, with {id} replaced
    #[arg(long, value_name = "TEXT")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Each for ContainerKill {
    fn common(&self) -> &Common {
        &self.common
    }

    fn ids(&self, _: &Context) -> Result<Vec<Id>> {
        Ok(self.ids.clone())
    }

    fn format(&self) -> Option<&str> {
        self.format.as_deref()
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(self.ids.iter().map(|id| life::explain_kill(id, self.signal)).collect())
    }

    fn one(&self, context: &Context, id: &Id) -> Result<Value> {
        life::kill(&context.scope, id, self.signal)?;
        Ok(json!({"id": id}))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerKill>()
}
