//! Sends signals to containers, and stops them.

use std::time::Duration;

use document::{Id, record::Record};
use monitor::Next;
use operation::{Error, Scope};
use runtime::StopSignal;
use rustix::{
    io::Errno,
    process::{Signal, pidfd_send_signal},
};

use crate::{Container, Result, State, adopt, keeper, running, wait};

/// Sends a signal to the container's first process.
///
/// # Errors
/// When the container does not run, or the signal cannot be sent.
pub fn kill(scope: &Scope, id: &Id, signal: StopSignal) -> Result<()> {
    if let Some(found) = Container::find(scope, id)?.filter(waits_for_restart) {
        // As with Docker: no process can get the signal, but one that stops a container calls off the restart.
        let stops = signal == StopSignal::KILL || signal == asks(&found);
        let marked = if stops { mark(scope, id)? } else { None };
        if waits_for_restart(marked.as_ref().unwrap_or(&found))
            || !marked.is_some_and(|now| now.is_running().unwrap_or_default())
        {
            return Ok(());
        }
    }
    let mut container = running(scope, id)?;
    if signal == StopSignal::KILL || signal == asks(&container) {
        // The container may have been restarted meanwhile. After the mark it is not.
        container = mark(scope, id)?.unwrap_or(container);
    }
    send(&container, signal)?;
    // A frozen process gets SIGKILL only after it is thawed. Other signals wait until somebody resumes the
    // container.
    if signal == StopSignal::KILL { go_on(&container) } else { Ok(()) }
}

fn waits_for_restart(container: &Container) -> bool {
    container.state().is_ok_and(|state| state == State::Restarting)
}

/// The command line that a person would type for [`kill`].
pub fn explain_kill(id: &Id, signal: StopSignal) -> String {
    let name = signal.to_string();
    format!("kill -{} $(container-ls --format {{pid}} {id})", name.trim_start_matches("SIG"))
}

/// Resumes a paused container.
fn go_on(container: &Container) -> Result<()> {
    match container.cgroup() {
        Some(path) if container.is_paused()? => cgroup::freeze(path, false),
        _ => Ok(()),
    }
}

/// The signal that asks this container to stop: its stop signal, or SIGTERM.
fn asks(container: &Container) -> StopSignal {
    container.process.stop_signal.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn send(container: &Container, signal: StopSignal) -> Result<()> {
    let Some(process) = container.identity().open()? else { return Ok(()) };
    match signal.send(process) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => {
            Err(Error::new("send", format_args!("{signal} to container \"{}\"", container.id), errno))
        }
    }
}

/// Writes to the record that the restart policy must not restart the container, and wakes a monitor that
/// waits to do so. Returns the container as it is then, or `None` if it is gone.
fn mark(scope: &Scope, id: &Id) -> Result<Option<Container>> {
    let Some(record) = Record::lock_existing(&scope.run_dir, id)? else { return Ok(None) };
    let Some(document) = record.read()? else { return Ok(None) };
    let Some(mut container) = Container::of(id, document)? else { return Ok(None) };
    let waits = container.process.restarting;
    container.edit(|process| {
        process.insert("stopped".into(), true.into());
        process.remove("restarting");
    })?;
    if !waits {
        keeper::put(scope, &record, &container)?;
        return Ok(Some(container));
    }
    // The container was waiting for a restart, so this is its end.
    keeper::settle(scope, &record, &container, Next::Leave)?;
    drop(record);
    if let Some(monitor) = container.monitor(scope)? {
        let _ = monitor.wake();
    }
    Ok(Some(container))
}

/// Asks the container's process to end, by `signal` or by its own stop signal. After `grace`, kills it by
/// SIGKILL; without `grace`, waits for ever. Returns when the end is on record, with the exit status if it is
/// known. If the process does not run, only prevents a restart.
///
/// # Errors
/// When there is no such container, or it cannot be stopped.
pub fn stop(
    scope: &Scope,
    id: &Id,
    signal: Option<StopSignal>,
    grace: Option<Duration>,
) -> Result<Option<i32>> {
    let container = Container::read(scope, id)?;
    // Not every process can be seen from here.
    container.is_running()?;
    // After the mark, nobody starts another process.
    let container = mark(scope, id)?.unwrap_or(container);
    // If nobody reads what the process writes, it may never get to its end.
    let _ = adopt(scope, &container);
    let Some(process) = container.identity().open()?.filter(|_| container.process.pid > 0) else {
        return Ok(container.process.exit_status);
    };
    if !container.is_running()? {
        return wait(scope, id, container.identity());
    }
    send(&container, signal.unwrap_or_else(|| asks(&container)))?;
    go_on(&container)?;
    let ended = runtime::ended(&process, grace);
    let ended = ended.map_err(|errno| Error::new("wait", "for the process", errno))?;
    if !ended {
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(Error::new("kill", format_args!("container \"{id}\""), errno)),
        }
    }
    wait(scope, id, container.identity())
}
