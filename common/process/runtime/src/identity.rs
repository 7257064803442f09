//! Which process is meant by a pid, now that pids are given again.

use std::{fs, io::Read, os::fd::OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use operation::{is_gone, unless_gone};

use crate::{Error, error::Result};

/// A process for as long as the machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its pid, as the host sees it; 0 before it was started.
    pub pid: i32,
    /// Its start time in clock ticks since boot (proc(5), field 22 of /proc/pid/stat).
    pub start_time: u64,
}

impl Identity {
    /// Of a process that exists now.
    ///
    /// # Errors
    /// When it does not.
    pub fn of(pid: i32) -> Result<Self> {
        let Some((start_time, _)) = stat(pid)? else {
            return Err(Error::system("read", format_args!("/proc/{pid}/stat"), Errno::SRCH));
        };
        Ok(Self { pid, start_time })
    }

    /// Opens the process; none if it is gone. One that has ended and waits to be reaped is still there.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        // A document may hold any number.
        let Some(pid) = Some(self.pid).filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            // EINVAL: the pid is a thread's by now.
            Err(Errno::INVAL) => return Ok(None),
            Err(errno) if is_gone(&errno) => return Ok(None),
            result => result.map_err(Error::at("open", format_args!("process {pid}")))?,
        };
        // Looked at after it was opened: if it is this one now, it was this one then.
        Ok(stat(self.pid)?.is_some_and(|(start_time, _)| start_time == self.start_time).then_some(process))
    }

    /// Whether it runs: is there, and is no zombie.
    ///
    /// # Errors
    /// When it cannot be told: a caller without descriptors has not seen that it is gone.
    pub fn is_alive(&self) -> Result<bool> {
        Ok(stat(self.pid)?
            .is_some_and(|(start_time, state)| start_time == self.start_time && !b"ZX".contains(&state)))
    }

    /// Whether it is the first process of a pid namespace of its own. All that Stave starts are.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn is_first_of_namespace(&self) -> Result<bool> {
        let path = format!("/proc/{}/status", self.pid);
        let status = unless_gone(fs::read_to_string(&path)).map_err(Error::at("read", path))?;
        let status = status.unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        let pids: Vec<&str> = pids.split_whitespace().collect();
        Ok(pids.len() > 1 && pids.last() == Some(&"1"))
    }

    /// Ends it with SIGKILL, and all of its pid namespace with it; returns when it has ended. That it is gone is fine,
    /// and a process that is no container's is left alone.
    ///
    /// # Errors
    /// When it may not be killed, or has not ended after ten seconds.
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
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        loop {
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)) {
                Ok(0) => return Err(failed(Errno::TIMEDOUT)),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

/// Start time and state; none of a process that is gone.
fn stat(pid: i32) -> Result<Option<(u64, u8)>> {
    // Fifty numbers and a name: in one piece, as the kernel gives it.
    let mut text = [0; 2048];
    let path = format!("/proc/{pid}/stat");
    let length = fs::File::open(&path).and_then(|mut file| file.read(&mut text));
    let Some(length) = unless_gone(length).map_err(Error::at("read", &path))? else { return Ok(None) };
    match fields(&text[..length]) {
        Some(fields) => Ok(Some(fields)),
        None => Err(Error::system("read", path, "it is not as proc(5) describes it")),
    }
}

fn fields(text: &[u8]) -> Option<(u64, u8)> {
    // The second field, the name in parentheses, may hold anything.
    let after = text.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(&text[after + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((fields.nth(18)?.parse().ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_with_another_start_time_is_another_process() {
        let own = Identity::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive().unwrap() && own.open().unwrap().is_some());
        let other = Identity { start_time: own.start_time + 1, ..own };
        assert!(!other.is_alive().unwrap() && other.open().unwrap().is_none());
        other.kill().unwrap();
        // Not the first of a pid namespace: nothing that a document may end.
        own.kill().unwrap();
        assert!(Identity { pid: 0, start_time: 0 }.open().unwrap().is_none());
        assert!(Identity { pid: -1, start_time: 0 }.open().unwrap().is_none());
    }
}
