//! Kills, stops and signals the processes of a cgroup.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use operation::{is_gone, unless_gone};

use crate::{
    Group, Hierarchy,
    error::{Result, at},
    group::PATIENCE,
};

/// The files that stop all processes of a cgroup and below it, each with the values that stop them and let
/// them go on. The first is of version 2 (since Linux 5.2), the second of the version 1 controller freezer.
const FREEZERS: [(&str, &str, &str); 2] =
    [("cgroup.freeze", "1", "0"), ("freezer.state", "FROZEN", "THAWED")];

impl Group {
    /// Sends SIGKILL to every process in the cgroup and below it. Returns at once.
    ///
    /// Version 1 and Linux before 5.14 have no file for this. A process that is just being forked may then be
    /// left: ask [`Group::is_populated`], and try again.
    ///
    /// # Errors
    /// EOPNOTSUPP in a threaded cgroup.
    pub fn kill(&self) -> Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(error) if is_gone(&error) => self.kill_each(),
            killed => killed,
        }
    }

    /// Kills every process in the cgroup and below it, and waits for their end.
    ///
    /// # Errors
    /// ETIMEDOUT if a process has not ended after ten seconds.
    pub fn end(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.is_populated()? {
            if Instant::now() > deadline {
                return Err(at("end", format_args!("the processes of cgroup {:?}", self.path()))(
                    Errno::TIMEDOUT,
                ));
            }
            self.kill()?;
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether the processes are stopped, or are about to be.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        for (file, stop, _) in FREEZERS {
            if let Some(text) = unless_gone(self.read(file))? {
                return Ok([stop, "FREEZING"].contains(&text.trim()));
            }
        }
        Ok(false)
    }

    /// Stops all processes in the cgroup and below it, or lets them go on. Returns once they are stopped.
    ///
    /// # Errors
    /// ENOENT if the cgroup has no file for this. ETIMEDOUT if a process has not stopped after ten seconds;
    /// then all of them go on.
    pub fn freeze(&self, stop: bool) -> Result<()> {
        let [unified, separate] = FREEZERS;
        let (file, on, off) = if self.is_unified()? { unified } else { separate };
        self.write(file, if stop { on } else { off })?;
        let is_stopped = || match self.is_unified()? {
            true => Ok(self.read(EVENTS)?.lines().any(|line| line == "frozen 1")),
            // The second attempt stops a process that was just being forked.
            false => self.write(file, on).and_then(|()| Ok(self.read(file)?.trim() == on)),
        };
        let deadline = Instant::now() + PATIENCE;
        while stop && !is_stopped()? {
            if Instant::now() > deadline {
                self.write(file, off)?;
                let object = format_args!("the processes of cgroup {:?}", self.path());
                return Err(at("stop", object)(Errno::TIMEDOUT));
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The pids of all processes in the cgroup and below it, in the caller's pid namespace.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        self.for_each(&mut |_, pid| {
            pids.push(pid);
            Ok(())
        })?;
        Ok(pids)
    }

    /// As [`Group::kill`], process by process. They are stopped meanwhile if possible, so that none forks.
    fn kill_each(&self) -> Result<()> {
        let freezer = FREEZERS.iter().find(|(file, stop, _)| self.write(file, stop).is_ok());
        let killed = self.for_each(&mut |group, pid| group.signal_one(pid, nix::libc::SIGKILL).map(drop));
        if let Some((file, _, go_on)) = freezer {
            // In version 1, a stopped process dies when it goes on.
            unless_gone(self.write(file, go_on))?;
        }
        killed
    }

    /// Sends a signal, by its number, to a process of the cgroup; 0 sends none. The process is opened before
    /// its cgroup is checked, so that the signal cannot reach another process with the same pid. Returns
    /// whether the process was there.
    fn signal_one(&self, pid: i32, signal: i32) -> Result<bool> {
        let object = || format!("process {pid}");
        let Some(known) = Pid::from_raw(pid) else { return Ok(false) };
        let held = unless_gone(pidfd_open(known, PidfdFlags::empty())).map_err(at("open", object()))?;
        let Some(held) = held else { return Ok(false) };
        if !self.read("cgroup.procs")?.lines().any(|line| line == pid.to_string()) {
            return Ok(false);
        }
        if signal == 0 {
            return Ok(true);
        }
        // SAFETY: `signal` is one of the kernel's, and is sent, not handled.
        let sent = pidfd_send_signal(held, unsafe { Signal::from_raw_unchecked(signal) });
        Ok(unless_gone(sent).map_err(at("kill", object()))?.is_some())
    }

    /// Sends a signal, by its number, to each process in the cgroup and below it; 0 sends none. Returns
    /// whether there was a process.
    ///
    /// # Errors
    /// EPERM for a process that the caller may not signal; when the processes cannot be listed.
    pub fn signal(&self, signal: i32) -> Result<bool> {
        let mut any = false;
        self.for_each(&mut |group, pid| {
            any |= group.signal_one(pid, signal)?;
            Ok(())
        })?;
        Ok(any)
    }
}

/// The file of version 2 that says whether all processes are stopped.
const EVENTS: &str = "cgroup.events";

fn unified(path: &Path) -> Result<Option<Group>> {
    Group::open(&Hierarchy::open()?, path)
}

/// Whether the processes of the cgroup at `path` are stopped, or are about to be. False if the cgroup does
/// not exist.
///
/// # Errors
/// When its files cannot be read.
pub fn is_frozen(path: &Path) -> Result<bool> {
    unified(path)?.map_or(Ok(false), |group| group.is_frozen())
}

/// Stops all processes of the cgroup at `path` and below it, or lets them go on. Returns once they are stopped.
///
/// # Errors
/// ENOENT if the cgroup does not exist. ETIMEDOUT if a process has not stopped after ten seconds; then all of
/// them go on.
pub fn freeze(path: &Path, stop: bool) -> Result<()> {
    let object = || format!("cgroup {path:?}");
    unified(path)?.ok_or(Errno::NOENT).map_err(at("open", object()))?.freeze(stop)
}

/// The pids of all processes in the cgroup at `path` and below it, in the caller's pid namespace. Empty if
/// the cgroup does not exist.
///
/// # Errors
/// When they cannot be listed.
pub fn processes(path: &Path) -> Result<Vec<i32>> {
    unified(path)?.map_or(Ok(Vec::new()), |group| group.processes())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A chain of processes: each forks the next one and ends, so a list of them is always late.
    const FLEEING: &str = "echo $$ > /dev/null; f() { true | true; f & }; f; wait";

    fn ends(hierarchy: &Hierarchy, name: &str) {
        let path = format!("/stave/test-{name}-{}", std::process::id());
        let group = Group::create(hierarchy, Path::new(&path)).unwrap();
        let below = Group::create(hierarchy, &Path::new(&path).join("below")).unwrap();
        let mut children = Vec::new();
        for (group, script) in [(&group, FLEEING), (&group, "exec sleep 100"), (&below, FLEEING)] {
            // It is admitted while it waits, so all its children are in the cgroup.
            let mut child = Command::new("sh");
            child.args(["-c", &format!("read line; {script}")]).stdin(std::process::Stdio::piped());
            let mut child = child.spawn().unwrap();
            group.admit(child.id() as i32).unwrap();
            drop(child.stdin.take());
            children.push(child);
        }
        std::thread::sleep(Duration::from_millis(50));
        assert!(group.is_populated().unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while group.is_populated().unwrap() {
            assert!(Instant::now() < deadline, "{name}: somebody fled for ten seconds");
            group.kill_each().unwrap();
            for child in &mut children {
                let _ = child.try_wait();
            }
        }
        Group::remove(hierarchy, Path::new(&path)).unwrap();
    }

    #[test]
    fn whoever_forks_is_ended_without_the_file_for_it() {
        ends(&Hierarchy::open().unwrap(), "each");
    }

    /// With a controller that has no freezer, and with the freezer.
    #[test]
    fn whoever_forks_is_ended_on_version_1() {
        for controller in ["pids", "freezer"] {
            ends(&Hierarchy::open_separate(&[controller.to_owned()]).unwrap(), controller);
        }
    }
}
