//! Signals, pauses and removes containers.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::{
    io::Errno,
    process::{Signal, pidfd_send_signal},
};

use crate::{Container, Error, Record, Result, Status, of_container};

/// How long to wait for a killed process to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a creation may go on after its process was killed.
const CREATION: Duration = Duration::from_secs(1);

/// Parses a signal: its number, or its name with or without `SIG`.
///
/// # Errors
/// When there is no such signal.
pub fn signal(text: &str) -> Result<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name.parse::<i32>() {
        Ok(number) => Some(number).filter(|number| (0..=64).contains(number)),
        Err(_) => real_time(name).or_else(|| {
            format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
        }),
    };
    number.ok_or_else(|| Error::new("read", format_args!("signal {text:?}"), "there is no such signal"))
}

/// `RTMIN`, `RTMIN+N`, `RTMAX-N` (signal(7)).
fn real_time(name: &str) -> Option<i32> {
    let (first, last) = (nix::libc::SIGRTMIN(), nix::libc::SIGRTMAX());
    let number = |text: &str, sign: char| match text {
        "" => Some(0),
        text => text.strip_prefix(sign)?.parse::<i32>().ok(),
    };
    let found = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => first + number(rest, '+')?,
        (_, Some(rest)) => last - number(rest, '-')?,
        _ => return None,
    };
    (first..=last).contains(&found).then_some(found)
}

/// Sends a signal to the first process of a container, or with `all` to all of its processes.
///
/// # Errors
/// For a container that does not run. With `all`, for a container without its own cgroup: its processes cannot
/// be found.
pub fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    let record = container.record()?;
    // Callers search the message for these words.
    let stopped = || of_container("kill", container.id())("container not running");
    let is_running = !matches!(record.status()?, Status::Stopped | Status::Creating);
    // Without its own pid namespace, the other processes survive the first one.
    let spec = record.spec()?;
    let ends_with_first = has_own_pids(&spec);
    let is_kill = signal == nix::libc::SIGKILL;
    if all || (!ends_with_first && is_kill) {
        match record.cgroups.freezer()? {
            Some(group) => {
                let sent = group.signal(signal)?;
                thaw_if(is_kill, &record)?;
                return if sent || is_running || all { Ok(()) } else { Err(stopped()) };
            }
            None if all && !is_running => return Ok(()),
            None if all && !(ends_with_first && is_kill) => {
                let cause = "it has no cgroup of its own, by which all of its processes are found";
                return Err(of_container("kill", container.id())(cause));
            }
            None => {}
        }
    }
    let process = if is_running { record.process.open()? } else { None };
    send(&process.ok_or_else(stopped)?, signal).map_err(of_container("kill", container.id()))?;
    thaw_if(is_kill, &record)
}

fn send(process: impl std::os::fd::AsFd, signal: i32) -> std::result::Result<(), Errno> {
    if signal == 0 {
        return Ok(());
    }
    // SAFETY: `signal` is a valid number, and is sent, not handled.
    pidfd_send_signal(process, unsafe { Signal::from_raw_unchecked(signal) })
}

fn thaw_if(is_kill: bool, record: &Record) -> Result<()> {
    if is_kill { thaw(record) } else { Ok(()) }
}

/// Thaws the cgroups of version 1, of which only one has the freezer: a process that is frozen there only dies
/// when it is thawed.
fn thaw(record: &Record) -> Result<()> {
    for group in record.cgroups.open()? {
        if !group.is_unified()? && group.is_frozen()? {
            group.freeze(false)?;
        }
    }
    Ok(())
}

fn has_own_pids(spec: &Spec) -> bool {
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    listed.into_iter().flatten().any(|one| one.typ() == LinuxNamespaceType::Pid && one.path().is_none())
}

/// Sends SIGKILL to the first process. Returns the process, or `None` if it has ended.
fn kill_first(record: &Record) -> Result<Option<std::os::fd::OwnedFd>> {
    let Some(process) = record.process.open()? else { return Ok(None) };
    operation::unless_gone(send(&process, nix::libc::SIGKILL)).map_err(of_container("kill", &record.id))?;
    thaw(record)?;
    Ok(Some(process))
}

/// Kills all processes of a container, and waits until they have ended.
pub(crate) fn stop(record: &Record) -> Result<()> {
    if let Some(process) = kill_first(record)? {
        let ended = runtime::ended(process, Some(PATIENCE)).map_err(of_container("wait for", &record.id))?;
        if !ended {
            return Err(of_container("kill", &record.id)(Errno::TIMEDOUT));
        }
    }
    thaw(record)?;
    record.cgroups.open()?.iter().try_for_each(cgroup::Group::end)
}

/// Kills the process that creates the container, if it does not end soon: it may wait for a hook that never ends.
/// The hook ends with it.
fn end_creator(container: &Container) -> Result<()> {
    let deadline = Instant::now() + CREATION;
    loop {
        // Without a record, the creator has undone everything.
        let Ok(record) = container.record() else { return Ok(()) };
        let Some(creator) = record.creator else { return Ok(()) };
        let Some(process) = creator.open()? else { return Ok(()) };
        if Instant::now() > deadline {
            let killed = operation::unless_gone(send(&process, nix::libc::SIGKILL));
            return killed.map(drop).map_err(of_container("end the creation of", container.id()));
        }
        sleep(Duration::from_millis(5));
    }
}

/// Removes a stopped or created container, or with `force` a running one. Then runs its `poststop` hooks, and
/// returns their errors.
///
/// # Errors
/// For a container that runs.
pub fn delete(container: &Container, force: bool) -> Result<Vec<String>> {
    let _lock = match force {
        false => container.lock()?,
        true => {
            // Kill first: the lock may be held by a process that waits for a hook that never ends.
            kill_first(&container.record()?)?;
            end_creator(container)?;
            match container.hold()? {
                Some(lock) => lock,
                // The creator has undone everything.
                None => return Ok(Vec::new()),
            }
        }
    };
    let record = container.record()?;
    match record.status()? {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        status => {
            let cause = format!("cannot delete container that is not stopped: {}", status.name());
            return Err(of_container("delete", container.id())(cause));
        }
    }
    destroy(container, &record)
}

/// Kills the container, and removes what its creation made. The caller holds the lock. Returns the errors of
/// its `poststop` hooks.
pub(crate) fn destroy(container: &Container, record: &Record) -> Result<Vec<String>> {
    stop(record)?;
    record.cgroups.remove()?;
    container.remove()?;
    run_last_hooks(record)
}

/// Runs the `poststop` hooks of a removed container. Returns their errors.
pub(crate) fn run_last_hooks(record: &Record) -> Result<Vec<String>> {
    let spec = record.spec()?;
    let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.poststop().as_ref());
    let state = record.hook_state().with(Status::Stopped.name(), 0);
    // A failed hook does not stop the others.
    let one = |hook: &oci_spec::runtime::Hook| {
        runtime::hooks::run("poststop", Some(&vec![hook.clone()]), &state, None)
            .err()
            .map(|error| error.to_string())
    };
    Ok(hooks.into_iter().flatten().filter_map(one).collect())
}

/// Freezes all processes of a container.
///
/// # Errors
/// For a container that does not run; ETIMEDOUT if a process does not freeze within ten seconds.
pub fn pause(container: &Container) -> Result<()> {
    let record = container.record()?;
    match record.status()? {
        Status::Running | Status::Created => set_frozen(&record, true),
        status => {
            Err(of_container("pause", container.id())(format!("container not running: {}", status.name())))
        }
    }
}

/// Thaws all processes of a container.
///
/// # Errors
/// For a container that is not paused.
pub fn resume(container: &Container) -> Result<()> {
    let record = container.record()?;
    match record.status()? {
        Status::Paused => set_frozen(&record, false),
        status => {
            Err(of_container("resume", container.id())(format!("container not paused: {}", status.name())))
        }
    }
}

fn set_frozen(record: &Record, stop: bool) -> Result<()> {
    let missing = || of_container("pause", &record.id)("it has no cgroup of its own");
    record.cgroups.freezer()?.ok_or_else(missing)?.freeze(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_their_names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("RTMIN+1", nix::libc::SIGRTMIN() + 1),
            ("0", 0),
        ] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIG", "65", "-1", "NOSUCH", "RTMIN-1", "RTMAX+1"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
