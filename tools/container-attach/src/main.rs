//! Attaches the terminal to a container that runs in the background.
//!
//! # Does
//! Prints what the container's process prints from now on, and passes what is typed on to its input, if that stays open (`ns-exec
//! -d -i` or `-t`). Signals go to the process. Ends as the process does, or with the detach keys.
//! # Reads
//! No document; the record.
//! # Adds
//! Nothing.
//! # Undoes
//! Nothing.
//! # Needs
//! The monitor of the container; a new one is made where it is gone.

mod keys;
mod session;

use std::process::ExitCode;

use clap::Parser;
use document::Id;
use keys::Keys;
use life::Container;
use serde_json::Value;
use session::Outcome;
use toolkit::prelude::*;

/// Attach to a container in the background: see its output, and type
#[derive(Parser)]
#[command(name = "container-attach", version)]
struct ContainerAttach {
    /// The container
    #[arg(value_name = "ID")]
    container: Id,
    /// These keys leave the container as it is: ctrl-X or letters, separated by commas; empty for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Keys,
    /// Pass nothing on to the container's input
    #[arg(long)]
    no_stdin: bool,
    /// Do not pass signals on to the container's process; true by default
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    common: Common,
}

/// The exit status when nobody knows the container's, as with ns-exec.
const UNKNOWN: u8 = 125;

impl ContainerAttach {
    fn run(&self, context: &Context) -> Result<u8> {
        let scope = &context.scope;
        let container = Container::running(scope, &self.container)?;
        life::adopt(scope, &container)?;
        let Some(connection) = container.monitor(scope)? else {
            let error = anyhow!("container \"{}\" has no monitor", self.container);
            return Err(hint(error, "it runs in the foreground of who started it"));
        };
        match session::run(&connection, &container, self)? {
            Outcome::Detached => {
                operation::tell!("container-attach: detached from \"{}\"", self.container);
                Ok(0)
            }
            Outcome::Ended(status) => {
                Ok(status.and_then(|status| u8::try_from(status).ok()).unwrap_or(UNKNOWN))
            }
            Outcome::Lost => Err(anyhow!("the monitor of container \"{}\" is gone", self.container)),
        }
    }
}

impl Report for ContainerAttach {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        Ok(self.run(context)?.into())
    }

    fn text(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }

    fn status(&self, report: &Value) -> u8 {
        report.as_u64().and_then(|status| u8::try_from(status).ok()).unwrap_or_default()
    }
}

fn main() -> ExitCode {
    toolkit::report::<ContainerAttach>()
}
