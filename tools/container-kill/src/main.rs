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
use toolkit::{Each, Named, prelude::*};

/// Send a signal to the first process of containers
#[derive(Parser)]
#[command(name = "container-kill", version)]
struct ContainerKill {
    /// The signal, such as SIGHUP, 1 or RTMIN+3
    #[arg(short, long, value_name = "SIGNAL", default_value = "SIGKILL")]
    signal: StopSignal,
    #[command(flatten)]
    named: Named,
}

impl Each for ContainerKill {
    fn named(&self) -> &Named {
        &self.named
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(self.named.ids.iter().map(|id| life::explain_kill(id, self.signal)).collect())
    }

    fn one(&self, context: &Context, id: &Id) -> Result<Value> {
        life::kill(&context.scope, id, self.signal)?;
        Ok(json!({"id": id}))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerKill>()
}
