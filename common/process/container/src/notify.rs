//! System calls that a container's seccomp policy hands to another program (OCI runtime-spec,
//! config-linux.md, "Seccomp").

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::Spec;
use runtime::HookState;
use serde_json::json;

use crate::{Error, Result, VERSION, console};

/// Sends the descriptor that receives these calls to the program, with the state of the process
/// (config-linux.md, "The Container Process State"). `first` is the pid of the container's first process.
pub(crate) fn hand_over(
    spec: &Spec,
    state: &HookState,
    (pid, first, status): (i32, i32, &str),
    listener: OwnedFd,
) -> Result<()> {
    let policy = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let Some(path) = policy.and_then(|policy| policy.listener_path().as_ref()) else { return Ok(()) };
    let metadata = policy.and_then(|policy| policy.listener_metadata().as_deref()).unwrap_or_default();
    let state = json!({
        "ociVersion": VERSION,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": metadata,
        "state": state.with(status, first),
    });
    console::pass(path, state.to_string().as_bytes(), listener.as_fd()).map_err(|error| {
        // These are runc's words.
        let cause = format!("failed to connect with seccomp agent: {error}");
        Error::new("hand over", "system calls", cause)
    })
}
