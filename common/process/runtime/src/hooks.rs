//! Hooks of OCI runtime-spec (config.md, "POSIX-platform Hooks"): programs that run at certain moments of a container's life.

use std::{
    ffi::CString,
    fs::File,
    os::unix::{fs::FileExt, process::CommandExt},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use oci_spec::runtime::Hook;
use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{Pid, PidfdFlags, Signal, pidfd_open},
};
use serde_json::{Value, json};

use crate::{Error, ended, error::Result, sys};

/// The state of a container that its hooks get (runtime.md, "State"), without the status and the pid, which
/// change.
#[derive(Debug, Clone)]
pub struct HookState(Value);

impl HookState {
    /// `state` is an object with `ociVersion`, `id`, `bundle` and, if there are any, `annotations`.
    pub fn new(state: Value) -> Self {
        Self(state)
    }

    /// The bundle directory.
    pub(crate) fn bundle(&self) -> Option<&Path> {
        self.0["bundle"].as_str().map(Path::new)
    }

    /// The state with this status and pid. The pid is the one in the reader's pid namespace; 0 for none.
    pub fn with(&self, status: &str, pid: i32) -> Value {
        let mut state = self.0.clone();
        state["status"] = json!(status);
        if pid > 0 {
            state["pid"] = json!(pid);
        }
        state
    }
}

/// Runs the hooks of one kind, one after the other. Each hook gets the state on its standard input. A hook
/// that names no environment gets `variables`, each a `NAME=value`, or without them the caller's environment,
/// as in runc.
///
/// # Errors
/// At the first hook that cannot be started, does not end in time, or ends with another status than 0.
pub fn run(
    kind: &str,
    hooks: Option<&Vec<Hook>>,
    state: &Value,
    variables: Option<&[CString]>,
) -> Result<()> {
    run_in(kind, hooks, state, &Surroundings { variables, ..Surroundings::default() })
}

/// What the process of a hook does before it executes the hook. The process that runs the hook has one thread.
pub(crate) type Confine = Arc<dyn Fn() -> std::io::Result<()> + Send + Sync>;

/// What a hook is run in, where that is not the caller's.
#[derive(Default)]
pub(crate) struct Surroundings<'a> {
    /// The variables of a hook that names none, each a `NAME=value`.
    pub(crate) variables: Option<&'a [CString]>,
    /// The working directory.
    pub(crate) directory: Option<&'a Path>,
    /// How it is confined.
    pub(crate) confine: Option<Confine>,
}

/// As [`run`], in these surroundings.
///
/// # Errors
/// As [`run`]; when a hook cannot be confined.
pub(crate) fn run_in(
    kind: &str,
    hooks: Option<&Vec<Hook>>,
    state: &Value,
    surroundings: &Surroundings<'_>,
) -> Result<()> {
    hooks.into_iter().flatten().enumerate().try_for_each(|(index, hook)| {
        one(hook, state, surroundings).map_err(|cause| {
            let what = format!("{kind} hook {index} {:?}", hook.path());
            Error::system("run", what, cause)
        })
    })
}

fn one(hook: &Hook, state: &Value, surroundings: &Surroundings<'_>) -> std::result::Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_ref().and_then(|args| args.split_first()) {
        command.arg0(name).args(rest);
    }
    if let Some(directory) = surroundings.directory {
        command.current_dir(directory);
    }
    let confine = surroundings.confine.clone();
    if let Some(own) = hook.env() {
        command.env_clear().envs(own.iter().filter_map(|variable| variable.split_once('=')));
    } else if let Some(variables) = surroundings.variables {
        let pairs = variables.iter().filter_map(|variable| variable.to_str().ok()?.split_once('='));
        command.env_clear().envs(pairs);
    }
    // A file, not a pipe: a hook that prints much must not wait for a reader, and a process that the hook
    // leaves behind may keep it open.
    let output = memfd_create("hook", MemfdFlags::CLOEXEC).map_err(|errno| errno.to_string())?;
    let output = File::from(output);
    // The state is a file too: a hook that does not read must not be waited for.
    let input = File::from(memfd_create("state", MemfdFlags::CLOEXEC).map_err(|errno| errno.to_string())?);
    input.write_all_at(state.to_string().as_bytes(), 0).map_err(said)?;
    command.stdin(input);
    command.stdout(output.try_clone().map_err(said)?).stderr(output.try_clone().map_err(said)?);
    // SAFETY: between fork and exec this makes system calls only; a hook is confined in a program with one thread.
    unsafe {
        command.pre_exec(move || {
            // If this process is killed, nobody waits for the hook any more.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            sys::reset_signals()?;
            confine.as_ref().map_or(Ok(()), |confine| confine())
        })
    };
    let mut child = command.spawn().map_err(said)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("it has no pid")?;
    let patience = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let held = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| errno.to_string())?;
    let in_time = ended(held, patience).map_err(|errno| errno.to_string())?;
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().map_err(said)?;
    match (in_time, status.success()) {
        (true, true) => Ok(()),
        (false, _) => {
            Err(format!("it has not ended after {} seconds", patience.unwrap_or_default().as_secs()))
        }
        (true, false) => Err(match quoted(&output).trim() {
            "" => status.to_string(),
            text => format!("{status}: {text}"),
        }),
    }
}

/// How much of a hook's output an error quotes, in bytes.
const QUOTED: usize = 4096;

fn quoted(output: &File) -> String {
    let mut text = vec![0; QUOTED];
    let length = output.read_at(&mut text, 0).unwrap_or_default();
    String::from_utf8_lossy(&text[..length]).into_owned()
}
