//! Runs a process in namespaces, on a root file system.
//!
//! # Does
//! Starts the image's command, or the one given, with Docker's defaults: namespaces, mounts, devices, capabilities,
//! environment, user. Stays with it until it ends, or with `-d` leaves a supervisor with it. `--join` runs another
//! command in a container that runs.
//! # Reads
//! `rootfs`, `image` (its configuration), `network`, `hosts`.
//! # Adds
//! `process`. Standard output is the command's: the document goes there only with `-d`, else to `--document`.
//! # Undoes
//! Ends the process and all that it started; removes its log and its `/etc/hosts`, `hostname` and `resolv.conf`.
//! # Needs
//! Root, or to be root in a user namespace (docs/rootless.md); Linux 5.12. It exits as the command does, and with 125 when there was none.

mod arguments;
mod files;
mod join;
mod network;
mod output;
mod plan;
mod record;
mod start;
mod usage;

use std::process::ExitCode;

use arguments::NsExec;
use clap::Parser;

/// What it exits with when the command did not run.
const NOT_STARTED: u8 = 125;

fn main() -> ExitCode {
    match NsExec::try_parse() {
        Ok(tool) if tool.is_aside() => toolkit::filter::<NsExec>(),
        Ok(tool) => match &tool.join {
            Some(id) => join::run(&tool, id).into(),
            None => start::run(&tool).into(),
        },
        Err(error) if !error.use_stderr() => {
            // Help that nobody reads to its end is no failure.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        Err(error) => {
            usage::wrong(&error);
            NOT_STARTED.into()
        }
    }
}
