//! Runs a process in namespaces, on a root file system.
//!
//! # Does
//! Starts the image's command, or the given one, with Docker's defaults: namespaces, mounts, devices,
//! capabilities, environment, user. Waits until it ends. With `-d`, a supervisor waits instead. `--join` runs
//! another command in a running container.
//! # Reads
//! `rootfs`, `image` (its configuration), `network`, `hosts`, `cgroup`.
//! # Adds
//! `process`. Standard output belongs to the command. The document goes there only with `-d`, otherwise to
//! `--document`.
//! # Undoes
//! Ends all processes in the container's cgroup. Removes the cgroup, the log, and the container's
//! `/etc/hosts`, `hostname` and `resolv.conf`.
//! # Needs
//! Root, or root in a user namespace (docs/rootless.md); Linux 5.12. It exits as the command does, and with
//! 125 if the command did not start.

mod arguments;
mod csv;
mod declared;
mod device_flag;
mod files;
mod join;
mod lifetime;
mod links;
mod mount_flag;
mod names;
mod network;
mod operation;
mod output;
mod owners;
mod plan;
mod request;
mod salvage;
mod security;
mod settings;
mod sharing;
mod start;
mod timeout;

use std::process::ExitCode;

use arguments::NsExec;
use start::Start;
use toolkit::Invocation;

const TOOL: &str = "ns-exec";

/// The exit status after `--timeout`, as with timeout(1).
const TIMED_OUT: u8 = 124;

/// The exit status when the command did not start.
const NOT_STARTED: u8 = 125;

pub(crate) fn main() -> ExitCode {
    let invocation = Invocation::<NsExec>::parse();
    match invocation.job().and_then(|tool| tool.join.as_ref().map(|id| join::run(tool, id))) {
        Some(status) => status.into(),
        None => toolkit::filter_with::<NsExec, Start>(invocation),
    }
}
