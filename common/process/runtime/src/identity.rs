//! Tells which process a pid means, because pids are reused.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use operation::{Namespace, is_gone, unless_gone};

use crate::{Error, Stat, error::Result, stat};

/// A process, unique during one boot of the machine.
#[derive(Debug, Clone, Copy, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its pid on the host; 0 before it is started.
    pub pid: i32,
    /// Its start time in clock ticks since boot (proc(5), field 22 of /proc/pid/stat).
    pub start_time: u64,
    /// The inode of the pid namespace that the pid belongs to. None in records of versions before 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<u64>,
}

impl PartialEq for Identity {
    /// Two processes do not start in one clock tick with one pid.
    fn eq(&self, other: &Self) -> bool {
        (self.pid, self.start_time) == (other.pid, other.start_time)
    }
}

impl Identity {
    /// That of a process which has not been started.
    pub const NONE: Self = Self { pid: 0, start_time: 0, pid_namespace: None };

    /// The identity of an existing process.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn of(pid: i32) -> Result<Self> {
        let Some(Stat { start_time, .. }) = Stat::of(pid)? else {
            return Err(Error::system("read", format_args!("/proc/{pid}/stat"), Errno::SRCH));
        };
        Ok(Self { pid, start_time, pid_namespace: Some(Namespace::Pids.own()?) })
    }

    /// The time from the boot of the machine to the start of the process.
    pub fn since_boot(&self) -> Duration {
        stat::ticks(self.start_time)
    }

    /// Its `/proc/pid/stat`; none if the process is gone.
    ///
    /// # Errors
    /// When it cannot be read, for example without free descriptors, or the pid is one of another pid
    /// namespace.
    pub fn stat(&self) -> Result<Option<Stat>> {
        if let Some(pids) = self.pid_namespace
            && !Namespace::Pids.is_here(format_args!("process {}", self.pid), pids, pids)?
        {
            return Ok(None);
        }
        Ok(Stat::of(self.pid)?.filter(|stat| stat.start_time == self.start_time))
    }

    /// The pid of its parent; none if the process is gone.
    ///
    /// # Errors
    /// When this cannot be determined.
    pub(crate) fn parent(&self) -> Result<Option<i32>> {
        Ok(self.stat()?.map(|stat| stat.parent))
    }

    /// Whether the process has executed a program of its own ([`Stat::has_executed`]); false if it is gone.
    ///
    /// # Errors
    /// When this cannot be determined.
    pub(crate) fn has_executed(&self) -> Result<bool> {
        Ok(self.stat()?.is_some_and(|stat| stat.has_executed))
    }

    /// Opens the process; none if it is gone. A process that has ended and waits to be reaped still exists.
    ///
    /// # Errors
    /// When this cannot be determined.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        // A document may contain any number.
        let Some(pid) = Some(self.pid).filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            // EINVAL: the pid now belongs to a thread. In either case it may be one of another pid namespace.
            Err(errno) if errno == Errno::INVAL || is_gone(&errno) => return self.stat().map(|_| None),
            result => result.map_err(Error::at("open", format_args!("process {pid}")))?,
        };
        // Checked after it was opened: if it matches now, it matched then.
        Ok(self.stat()?.map(|_| process))
    }

    /// Whether the process is running: it exists and has not ended. Its first thread may have ended before
    /// the others.
    ///
    /// # Errors
    /// When this cannot be determined, for example without free descriptors.
    pub fn is_alive(&self) -> Result<bool> {
        Ok(self.stat()?.is_some_and(|stat| !stat.has_ended()))
    }

    /// Whether the process is the first one of its own pid namespace, as in a container that does not share
    /// one.
    ///
    /// # Errors
    /// When this cannot be determined.
    pub fn is_first_of_namespace(&self) -> Result<bool> {
        let path = format!("/proc/{}/status", self.pid);
        let status = unless_gone(fs::read_to_string(&path)).map_err(Error::at("read", path))?;
        let status = status.unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        let pids: Vec<&str> = pids.split_whitespace().collect();
        Ok(pids.len() > 1 && pids.last() == Some(&"1"))
    }

    /// Kills the process and its whole pid namespace with SIGKILL, and returns when it has ended. A missing
    /// process is fine. A process that is not a container's is left alone.
    ///
    /// # Errors
    /// When the process may not be killed, or has not ended after ten seconds.
    pub fn kill(&self) -> Result<()> {
        let Some(process) = self.open()? else { return Ok(()) };
        if !self.is_alive()? || !self.is_first_of_namespace()? {
            return Ok(());
        }
        let failed = |errno: Errno| Error::system("kill", format_args!("process {}", self.pid), errno);
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) => {}
            Err(errno) if is_gone(&errno) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
        match ended(process, Some(Duration::from_secs(10))) {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed(Errno::TIMEDOUT)),
            Err(errno) => Err(failed(errno)),
        }
    }
}

/// Waits until the process has ended, but no longer than `within`. Returns whether it has ended.
///
/// # Errors
/// When the process cannot be waited for.
pub fn ended(process: impl AsFd, within: Option<Duration>) -> std::result::Result<bool, Errno> {
    let patience = within.map(|within| Timespec {
        tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(within.subsec_nanos()),
    });
    loop {
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], patience.as_ref()) {
            Err(Errno::INTR) => {}
            polled => return Ok(polled? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    /// Python's first thread ends itself by a system call. Another thread goes on until its standard input
    /// ends.
    const LEADERLESS: &str = "import ctypes, os, sys, threading
def stay():
    while open(f'/proc/self/stat').read().split()[2] != 'Z': pass
    os.write(1, b'ready\\n'); os.read(0, 1); os._exit(0)
threading.Thread(target=stay).start()
ctypes.CDLL(None).syscall({'x86_64': 60}.get(os.uname().machine, 93), 0)";

    #[test]
    fn a_process_lives_while_any_of_its_threads_does() {
        let mut child = Command::new("python3")
            .args(["-c", LEADERLESS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let identity = Identity::of(child.id() as i32).unwrap();
        let state = Stat::of(identity.pid).unwrap().unwrap().state;
        let alive = identity.is_alive().unwrap();
        let process = identity.open().unwrap().unwrap();
        drop(child.stdin.take());
        assert!(ended(process, Some(Duration::from_secs(60))).unwrap());
        let after = identity.is_alive().unwrap();
        child.wait().unwrap();
        assert_eq!((line.as_str(), state, alive, after), ("ready\n", 'Z', true, false));
    }

    #[test]
    fn a_pid_with_another_start_time_is_another_process() {
        let own = Identity::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive().unwrap() && own.open().unwrap().is_some());
        let other = Identity { start_time: own.start_time + 1, ..own };
        assert!(!other.is_alive().unwrap() && other.open().unwrap().is_none());
        other.kill().unwrap();
        // The process is not the first of a pid namespace, so a document must not end it.
        own.kill().unwrap();
        assert!(Identity::NONE.open().unwrap().is_none());
        assert!(Identity { pid: -1, ..Identity::NONE }.open().unwrap().is_none());
    }
}
