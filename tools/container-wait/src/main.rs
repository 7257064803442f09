//! Waits until containers have ended.
//!
//! # Does
//! Waits until each container's process has ended and the end is recorded. Returns at once for a container
//! that has ended, and with 0 for one that was never started. Waits for a container that is about to be
//! restarted by its policy.
//! # Reads
//! No document. Reads the records.
//! # Adds
//! Nothing; prints a JSON array with `id` and `exitStatus` of each, or text with `--format`. `exitStatus` is
//! null if it is unknown.
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
use toolkit::{Each, FORMAT_WITH_STATUS, Named, prelude::*};

/// Wait until containers have ended, and print their exit statuses
#[derive(Parser)]
#[command(name = "container-wait", version, mut_arg("format", |format| format.help(FORMAT_WITH_STATUS)))]
struct ContainerWait {
    #[command(flatten)]
    named: Named,
}

fn wait(scope: &Scope, id: &Id) -> Result<Value> {
    loop {
        let container = life::attended(scope, id)?;
        let state = container.state()?;
        let status = match state {
            State::Running | State::Paused | State::Exited | State::Restarting
                if container.is_running()? || container.has_ended_unseen()? =>
            {
                let status = life::wait(scope, id, container.identity())?;
                if is_started_again(scope, id, &container)? {
                    continue;
                }
                status
            }
            State::Running | State::Paused => continue,
            // Without a monitor, the restart never happens.
            State::Restarting if container.has_monitor(scope)? => {
                sleep(Duration::from_millis(20));
                continue;
            }
            // As with Docker.
            State::Created => Some(0),
            State::Exited | State::Restarting => container.process.exit_status,
        };
        return Ok(json!({"id": id, "exitStatus": status}));
    }
}

/// Whether the restart policy has started a container again since `before`, or is about to.
fn is_started_again(scope: &Scope, id: &Id, before: &Container) -> Result<bool> {
    let Some(now) = Container::find(scope, id)? else { return Ok(false) };
    let again = now.identity() != before.identity() && now.process.restarts > before.process.restarts;
    Ok(again || now.process.restarting && now.has_monitor(scope)?)
}

impl Each for ContainerWait {
    const SHOWN: &'static str = "{exitStatus}";

    fn named(&self) -> &Named {
        &self.named
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn one(&self, context: &Context, id: &Id) -> Result<Value> {
        wait(&context.scope, id)
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerWait>()
}
