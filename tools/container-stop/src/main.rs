//! Stops containers.
//!
//! # Does
//! Notes in the record that the container is not to be started again by itself, sends its stop signal, and after `--time` SIGKILL.
//! Returns when its end is on record. What ends is the process: files, network and record stay for container-start.
//! # Reads
//! No document; the records.
//! # Adds
//! Nothing; prints a JSON array with `id` and `exitStatus` of each, or with `--format` text.
//! # Undoes
//! Nothing: container-start starts the container again.
//! # Needs
//! Root, or whoever started the container.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use document::Id;
use runtime::StopSignal;
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// Stop containers: ask them to end, and end them after a time
#[derive(Parser)]
#[command(name = "container-stop", version)]
struct ContainerStop {
    /// The containers
    #[arg(value_name = "ID", required = true)]
    ids: Vec<Id>,
    /// How many seconds to wait for the end before SIGKILL; -1 for ever
    #[arg(short, long, alias = "timeout", value_name = "SECONDS", default_value_t = 10, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    time: i64,
    /// Ask with this signal instead of the container's own stop signal
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<StopSignal>,
    /// Print TEXT for each container, one line each. {id} and {exitStatus} in it are replaced
    #[arg(long, value_name = "TEXT")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Report for ContainerStop {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        let signal = self.signal.unwrap_or_default();
        let name = signal.to_string();
        let one = |id: &Id| {
            format!("kill -{} $(container-ls --format {{pid}} {id})", name.trim_start_matches("SIG"))
        };
        Ok(self.ids.iter().map(one).collect())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let grace = u64::try_from(self.time).ok().map(Duration::from_secs);
        Ok(rows::each("container-stop", &self.ids, |id| {
            let status = life::stop(&context.scope, id, self.signal, grace)?;
            Ok(json!({"id": id, "exitStatus": status}))
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
    toolkit::report::<ContainerStop>()
}
