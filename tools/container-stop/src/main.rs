//! Stops containers.
//!
//! # Does
//! Notes in the record that the container must not be restarted by its policy, sends its stop signal, and
//! after a time SIGKILL. Returns when the end is recorded. Only the process ends: files, network and record
//! stay for container-start.
//! # Reads
//! No document. Reads the records.
//! # Adds
//! Nothing; prints a JSON array with `id` and `exitStatus` of each, or text with `--format`.
//! # Undoes
//! Nothing. container-start starts the container again.
//! # Needs
//! Root, or the user who started the container.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use document::Id;
use runtime::StopSignal;
use serde_json::{Value, json};
use toolkit::{Each, FORMAT_WITH_STATUS, Named, prelude::*};

/// Stop containers with their stop signal, and kill them after a time
#[derive(Parser)]
#[command(name = "container-stop", version, mut_arg("format", |format| format.help(FORMAT_WITH_STATUS)))]
struct ContainerStop {
    /// Seconds to wait for the end before SIGKILL, instead of the container's own time, or else 10; -1 waits for ever
    #[arg(short, long, alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    time: Option<i64>,
    /// Send this signal instead of the container's own stop signal
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<StopSignal>,
    #[command(flatten)]
    named: Named,
}

impl Each for ContainerStop {
    fn named(&self) -> &Named {
        &self.named
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        let signal = self.signal.unwrap_or_default();
        Ok(self.named.ids.iter().map(|id| life::explain_kill(id, signal)).collect())
    }

    fn one(&self, context: &Context, id: &Id) -> Result<Value> {
        let grace = match self.time {
            Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
            None => life::Container::read(&context.scope, id)?.grace(),
        };
        let status = life::stop(&context.scope, id, self.signal, grace)?;
        Ok(json!({"id": id, "exitStatus": status}))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerStop>()
}
