//! Sends signals to containers.
//!
//! # Does
//! Sends a signal to the first process of each container, and returns at once. After SIGKILL and the container's own stop signal
//! it is not started again by itself.
//! # Reads
//! No document; the records.
//! # Adds
//! Nothing; prints a JSON array with `id` of each, or with `--format` text.
//! # Undoes
//! Nothing.
//! # Needs
//! Root, or whoever started the container.

use std::process::ExitCode;

use clap::Parser;
use document::Id;
use runtime::StopSignal;
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// Send a signal to the first process of containers
#[derive(Parser)]
#[command(name = "container-kill", version)]
struct ContainerKill {
    /// The containers
    #[arg(value_name = "ID", required = true)]
    ids: Vec<Id>,
    /// The signal, such as SIGHUP, 1 or RTMIN+3
    #[arg(short, long, value_name = "SIGNAL", default_value = "SIGKILL")]
    signal: StopSignal,
    /// Print TEXT for each container, one line each. {id} in it is replaced
    #[arg(long, value_name = "TEXT")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Report for ContainerKill {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        let name = self.signal.to_string();
        let one = |id: &Id| {
            format!("kill -{} $(container-ls --format {{pid}} {id})", name.trim_start_matches("SIG"))
        };
        Ok(self.ids.iter().map(one).collect())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        Ok(rows::each("container-kill", &self.ids, |id| {
            life::kill(&context.scope, id, self.signal)?;
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
    toolkit::report::<ContainerKill>()
}
