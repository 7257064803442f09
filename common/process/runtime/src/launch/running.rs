//! Waits for a process that runs, and kills it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use cgroup::Group;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_send_signal, waitid},
};

use super::Running;
use crate::{Error, Identity, error::Result};

impl Running {
    /// The pid and start time of the process.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Waits for the end of the process and reaps it. If it was a container's first process, all others of
    /// the container end too.
    ///
    /// # Errors
    /// When the process is not a child of the caller.
    pub fn wait(&mut self) -> Result<i32> {
        let status = reap(&self.process)
            .map_err(Error::at("wait", format_args!("for process {}", self.identity.pid)))?;
        self.end_rest();
        Ok(status)
    }

    /// As [`Running::wait`], but without waiting. Returns none while the process runs, and while a tracer
    /// keeps its end (ptrace(2)).
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub fn try_wait(&mut self) -> Result<Option<i32>> {
        let status = reap_now(&self.process, WaitIdOptions::NOHANG)
            .map_err(Error::at("wait", format_args!("for process {}", self.identity.pid)))?;
        if status.is_some() {
            self.end_rest();
        }
        Ok(status)
    }

    /// The descriptors to keep open, for a process that closes everything else.
    pub(crate) fn descriptors(&self) -> Vec<i32> {
        let rest = self.rest.as_ref().map(|group| group.as_fd().as_raw_fd());
        let others = self.terminal.iter().chain(&self.namespaces).chain([&self.process]);
        others.map(AsRawFd::as_raw_fd).chain(rest).collect()
    }

    /// Kills the process and all others of its container.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        self.end_rest();
    }

    /// Kills a process that [`crate::join`] has started, and those that it has started, as far as they are in its
    /// session: its process group. Nobody must have waited for the process yet.
    pub fn kill_session(&self) {
        // Until it is reaped, no other process can have its pid.
        if let Some(group) = Pid::from_raw(self.identity.pid) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.kill();
    }

    /// Kills the container's other processes. The kernel does this in a pid namespace of the container's own.
    /// Processes that survive are killed when the container is undone.
    fn end_rest(&self) {
        let _ = self.rest.as_ref().map(Group::kill);
    }
}

impl AsFd for Running {
    /// The process's pidfd (pidfd_open(2)), which becomes readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// The exit status of a process that SIGKILL ended, as a shell counts it.
const KILLED: i32 = 137;

/// The error for a process that ended before its command ran, and could not say why.
pub(super) fn never_ran(status: std::result::Result<i32, Errno>) -> Error {
    match status {
        Ok(KILLED) => Error::new("start: signal 9 ended the process before its command ran")
            .with_hint("the kernel sends it if the memory limit is too low".to_owned()),
        Ok(status @ 129..) => Error::new(format_args!(
            "start: signal {} ended the process before its command ran",
            status - 128
        )),
        _ => Error::new("start: the process ended before its command ran"),
    }
}

/// Reaps a process. Returns its exit status as a shell counts it.
pub(super) fn reap(process: impl AsFd) -> std::result::Result<i32, Errno> {
    loop {
        if let Some(status) = reap_now(&process, WaitIdOptions::empty())? {
            return Ok(status);
        }
    }
}

fn reap_now(process: impl AsFd, options: WaitIdOptions) -> std::result::Result<Option<i32>, Errno> {
    loop {
        match waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED | options) {
            Err(Errno::INTR) => {}
            ended => {
                return Ok(ended?.map(|status| {
                    let signal = status.terminating_signal().map(|signal| 128 + signal);
                    status.exit_status().or(signal).unwrap_or(125)
                }));
            }
        }
    }
}
