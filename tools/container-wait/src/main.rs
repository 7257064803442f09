//! Waits until containers have ended.
//!
//! # Does
//! Waits for the end of each container's process, and until that is on record. A container that was not started, or has ended, is
//! not waited for. One that is about to be started again by itself is.
//! # Reads
//! No document; the records.
//! # Adds
//! Nothing; prints a JSON array with `id` and `exitStatus` of each, or with `--format` text. `exitStatus` is null if nobody knows it.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to the records.

use std::{process::ExitCode, thread::sleep, time::Duration};

use clap::Parser;
use document::Id;
use life::{Container, State};
use operation::Scope;
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// Wait until containers have ended, and print their exit statuses
#[derive(Parser)]
#[command(name = "container-wait", version)]
struct ContainerWait {
    /// The containers
    #[arg(value_name = "ID", required = true)]
    ids: Vec<Id>,
    /// Print TEXT for each container, one line each. {id} and {exitStatus} in it are replaced
    #[arg(long, value_name = "TEXT")]
    format: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn wait(scope: &Scope, id: &Id) -> Result<Value> {
    loop {
        let container = Container::read(scope, id)?;
        let status = match container.state()? {
            State::Running | State::Paused => {
                life::adopt(scope, &container)?;
                life::wait(scope, id, container.identity())?
            }
            State::Exited if container.has_ended_unseen()? => life::wait(scope, id, container.identity())?,
            // One whose monitor is gone waits in vain.
            State::Restarting if container.has_monitor(scope)? => {
                sleep(Duration::from_millis(20));
                continue;
            }
            State::Created | State::Exited | State::Restarting => container.process.exit_status,
        };
        return Ok(json!({"id": id, "exitStatus": status}));
    }
}

impl Report for ContainerWait {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        Ok(rows::each("container-wait", &self.ids, |id| wait(&context.scope, id)))
    }

    fn verdict(&self, report: &Value) -> Result<()> {
        rows::verdict(report)
    }

    fn text(&self, report: &Value) -> Option<String> {
        self.format.as_ref().map(|format| rows::lines(format, report))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(rows::lines("{exitStatus}", report))
    }
}

fn main() -> ExitCode {
    toolkit::report::<ContainerWait>()
}
