//! Runs tools of Stave that work on the network for a moment. They are started from the directory of this
//! program.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use document::Id;
use operation::{Error, Scope};

use crate::Result;

/// The tool that publishes ports.
pub(crate) const PORTMAP: &str = "portmap";

/// The flag by which portmap releases the ports of a container.
pub const PORTS_RELEASE: &str = "--release";
/// The flag by which portmap takes the ports of a container again.
pub const PORTS_TAKE: &str = "--take";

/// Runs a tool for a container whose record the caller has locked. The tool reads nothing and prints nothing
/// but errors.
pub(crate) fn run(tool: &str, flag: &str, scope: &Scope, id: &Id) -> Result<()> {
    let failed = |cause: std::io::Error| Error::new("run", tool, cause);
    let own = std::env::current_exe().map_err(failed)?;
    let program = own.parent().unwrap_or(Path::new("/")).join(tool);
    let mut command = Command::new(program);
    command
        .arg(flag)
        .arg("--no-config")
        .arg("--id")
        .arg(id.as_str())
        .arg("--root")
        .arg(&scope.root)
        .arg("--run-dir")
        .arg(&scope.run_dir);
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status().map_err(failed)?;
    match ended.success() {
        true => Ok(()),
        false => Err(Error::new("run", format_args!("{tool} {flag}"), format!("{ended}"))),
    }
}
