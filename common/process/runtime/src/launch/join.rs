//! Starts another process in a running container.
//!
//! A process that is born into the container's pid namespace is visible there at once, and a container with
//! CAP_SYS_PTRACE can trace it (CVE-2016-9962, CVE-2019-5736). So it must have nothing worth taking when it
//! is born. A first process, in the caller's pid namespace, enters all other namespaces, gives up user,
//! groups, capabilities, descriptors and the program's file, and installs the seccomp policy. Only then does
//! it fork the process of the command, as a child of the caller. That process does nothing but execute the
//! command.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{Running, Started, channel::Channel, command, command::Command, never_ran, reap};
use crate::{
    Error, Identity,
    error::Result,
    sys::{self, Report, Undone},
};

/// The last steps of the first process. A failure is put into `report`, because the channel is closed by
/// then.
pub(super) fn hand_over(
    command: &Command,
    has_terminal: bool,
    channel: &Channel,
    report: &Report,
    confine: impl FnOnce() -> Result<Option<OwnedFd>>,
    preserved: &[i32],
) {
    if channel.announce(&command.path).is_err() {
        return report.fail(Undone::Fork, Errno::PIPE);
    }
    // The name that others see until the command is executed.
    let _ = rustix::thread::set_name(&command.name());
    let mut kept = preserved.to_vec();
    // Keep the channel, because the policy may ask another program. Nobody sees this process yet.
    kept.push(channel.as_fd().as_raw_fd());
    sys::close_others(&mut kept);
    let confined = confine().and_then(|listener| match listener {
        Some(listener) => channel.notify_by(listener.as_fd()),
        None => Ok(()),
    });
    if let Err(error) = confined {
        let errno = error.errno().map_or(Errno::PERM, |errno| Errno::from_raw_os_error(errno as i32));
        return report.fail(Undone::Confine, errno);
    }
    sys::close_others(&mut preserved.to_vec());
    let born = sys::bear(report, true, || {
        let session = || {
            rustix::process::setsid()?;
            if has_terminal { rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()) } else { Ok(()) }
        };
        match session() {
            Ok(()) => report.fail(Undone::Execute, command.execute()),
            Err(errno) => report.fail(Undone::Session, errno),
        }
    });
    if let Err(errno) = born {
        report.fail(Undone::Fork, errno);
    }
}

/// The process of the command, after the first process has ended. The first one waits for the command, and the container
/// can stop that.
pub(super) fn taken_over(
    mut started: Started,
    report: &Report,
    path: &str,
    mut running: Running,
) -> Result<Running> {
    let late = started.in_time(&started.process).err();
    if late.is_some() {
        let _ = pidfd_send_signal(&started.process, Signal::KILL);
    }
    started.reaped = true;
    let status = reap(&started.process);
    let Some(pid) = report.pid() else {
        return Err(match (late, report.failure()) {
            (Some(late), _) => late,
            (None, Some((undone, errno))) => failure(undone, path, errno),
            (None, None) => never_ran(status),
        });
    };
    running.process = Pid::from_raw(pid)
        .ok_or(Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(Error::at("open", format_args!("process {pid}")))?;
    running.identity = Identity::of(pid)?;
    if let Some(late) = late {
        let _ = pidfd_send_signal(&running.process, Signal::KILL);
        let _ = reap(running.as_fd());
        return Err(late);
    }
    if let Some((undone, errno)) = report.failure() {
        let _ = reap(running.as_fd());
        return Err(failure(undone, path, errno));
    }
    match running.identity.has_executed()? {
        true => Ok(running),
        false => Err(never_ran(reap(running.as_fd()))),
    }
}

fn failure(undone: Undone, path: &str, errno: Errno) -> Error {
    match undone {
        Undone::Confine => Error::system("confine", "the process", errno),
        Undone::Fork => Error::system("fork", "", errno),
        Undone::Session => Error::system("create", "session", errno),
        Undone::Execute => command::not_executed(path, errno),
    }
}
