//! Attaches the terminal to a container that runs in the background.
//!
//! # Does
//! Prints the output of the container's process from now on, and passes input on to the process, if its input
//! stays open (`ns-exec -d -i` or `-t`). Passes signals on to the process. Ends when the process ends, or
//! with the detach keys.
//! # Reads
//! No document. Reads the record.
//! # Adds
//! Nothing.
//! # Undoes
//! Nothing.
//! # Needs
//! The monitor of the container. If it is gone, a new one is started.

use std::process::ExitCode;

use clap::Parser;
use document::Id;
use life::{Attachment, Outcome};
use runtime::Keys;
use serde_json::Value;
use toolkit::prelude::*;

/// Attach to a container in the background: print its output, and pass on input
#[derive(Parser)]
#[command(name = "container-attach", version)]
struct ContainerAttach {
    /// The container, by its id or its name
    #[arg(value_name = "ID")]
    container: Id,
    /// Keys that detach from the container: ctrl-X or letters, separated by commas; empty for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Keys,
    /// Pass nothing on to the container's input
    #[arg(long)]
    no_stdin: bool,
    /// Whether to pass signals on to the container's process; true by default
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    common: Common,
}

/// The exit status if the container's is unknown, as with ns-exec.
const UNKNOWN: u8 = 125;

impl ContainerAttach {
    fn run(&self, context: &Context) -> Result<u8> {
        let scope = &context.scope;
        let container = life::running(scope, &self.container)?;
        life::adopt(scope, &container)?;
        let Some(connection) = container.monitor(scope)? else {
            let error = anyhow!("container \"{}\" has no monitor", self.container);
            return Err(hint(error, "it runs in the foreground of the program that started it"));
        };
        connection.attach(!self.no_stdin)?;
        let how = Attachment { stdin: !self.no_stdin, signals: self.sig_proxy, keys: &self.detach_keys };
        match life::attend(&connection, &container, &how)? {
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

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerAttach>()
}
