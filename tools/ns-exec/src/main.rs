//! Runs a process in namespaces, on a root file system.
//!
//! # Does
//! Starts the image's command, or the given one, with Docker's defaults: namespaces, mounts, devices, capabilities,
//! environment, user. Waits until it ends, or with `-d` leaves a supervisor with it. `--join` runs another command in a
//! running container.
//! # Reads
//! `rootfs`, `image` (its configuration), `network`, `hosts`.
//! # Adds
//! `process`. Standard output belongs to the command. The document goes there only with `-d`, otherwise to `--document`.
//! # Undoes
//! Ends the process and all that it started; removes its log and its `/etc/hosts`, `hostname` and `resolv.conf`.
//! # Needs
//! Root, or root in a user namespace (docs/rootless.md); Linux 5.12. It exits as the command does, and with 125 if the
//! command did not start.

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

/// The exit status when the command did not start.
const NOT_STARTED: u8 = 125;

fn main() -> ExitCode {
    match NsExec::try_parse() {
        Ok(tool) if tool.is_aside() => toolkit::filter::<NsExec>(),
        Ok(tool) => match &tool.join {
            Some(id) => join::run(&tool, id).into(),
            None => start::run(&tool).into(),
        },
        Err(error) if !error.use_stderr() => {
            // A reader may close the pipe before it has read all of the help.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        Err(error) => {
            usage::wrong(&error);
            NOT_STARTED.into()
        }
    }
}
