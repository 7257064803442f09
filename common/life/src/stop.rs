//! Signals, and stopping.

use std::time::Duration;

use document::{Id, record::Record};
use monitor::Next;
use operation::{Error, Scope};
use runtime::StopSignal;
use rustix::{
    io::Errno,
    process::{Signal, pidfd_send_signal},
};

use crate::{Container, Result, keeper, wait};

/// Sends a signal to the container's first process.
///
/// # Errors
/// When the container does not run.
pub fn kill(scope: &Scope, id: &Id, signal: StopSignal) -> Result<()> {
    let mut container = Container::running(scope, id)?;
    if signal == StopSignal::KILL || signal == asks(&container) {
        // It may have been started again meanwhile. From now on it is not.
        container = mark(scope, id)?.unwrap_or(container);
    }
    send(&container, signal)?;
    // One that is stopped gets no other signal before it goes on.
    if signal == StopSignal::KILL { go_on(&container) } else { Ok(()) }
}

/// Lets a paused container go on.
fn go_on(container: &Container) -> Result<()> {
    match container.cgroup() {
        Some(path) if container.is_paused()? => cgroup::freeze(path, false),
        _ => Ok(()),
    }
}

/// The signal that asks this container to stop.
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

/// Notes that the container is not to be started again by itself. Who waits to do so is told. Returns it as it is then, if it is
/// still there.
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
    // That is its end.
    keeper::settle(scope, &record, &container, Next::Leave)?;
    drop(record);
    if let Some(monitor) = container.monitor(scope)? {
        let _ = monitor.wake();
    }
    Ok(Some(container))
}

/// Asks the container's process to end, by `signal` or its own stop signal, and ends it by SIGKILL after `grace` (for ever without
/// one). Returns when its end is on record, with its exit status if that is known. A container that does not run is only kept
/// from being started again.
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
    // Once it is marked, nobody starts another process.
    let container = mark(scope, id)?.unwrap_or(container);
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
