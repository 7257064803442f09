//! How every process of a cgroup is ended.

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

/// Files that stop all processes of a cgroup and below it, with what is written to stop them and to let them go on: of version
/// 2 (since Linux 5.2), and of the controller freezer of version 1.
const FREEZERS: [(&str, &str, &str); 2] =
    [("cgroup.freeze", "1", "0"), ("freezer.state", "FROZEN", "THAWED")];

impl Group {
    /// Ends every process in it and below it with SIGKILL. Returns at once.
    ///
    /// Version 1 and Linux before 5.14 have no file for that. There a process that is just being forked may be left: ask
    /// [`Group::is_populated`], and try again.
    ///
    /// # Errors
    /// EOPNOTSUPP in a threaded cgroup.
    pub fn kill(&self) -> Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(error) if is_gone(&error) => self.kill_each(),
            killed => killed,
        }
    }

    /// Ends every process in it and below it, and waits for their end.
    ///
    /// # Errors
    /// ETIMEDOUT where a process has not ended after ten seconds.
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

    /// [`Group::kill`], process by process. They are stopped meanwhile, where that is possible, so that none forks.
    fn kill_each(&self) -> Result<()> {
        let freezer = FREEZERS.iter().find(|(file, stop, _)| self.write(file, stop).is_ok());
        let killed = self.for_each(&mut Self::kill_one);
        if let Some((file, _, go_on)) = freezer {
            // A process that was stopped by version 1 dies when it goes on.
            unless_gone(self.write(file, go_on))?;
        }
        killed
    }

    /// Ends a process that is still in the cgroup once its pid cannot be given to another.
    fn kill_one(&self, pid: i32) -> Result<()> {
        let object = || format!("process {pid}");
        let Some(known) = Pid::from_raw(pid) else { return Ok(()) };
        let held = unless_gone(pidfd_open(known, PidfdFlags::empty())).map_err(at("open", object()))?;
        let Some(held) = held else { return Ok(()) };
        if !self.read("cgroup.procs")?.lines().any(|line| line == pid.to_string()) {
            return Ok(());
        }
        let sent = unless_gone(pidfd_send_signal(held, Signal::KILL));
        sent.map(drop).map_err(at("kill", object()))
    }
}

/// The file of version 2 that tells whether all processes are stopped.
const EVENTS: &str = "cgroup.events";

fn unified(path: &Path) -> Result<Option<Group>> {
    Group::open(&Hierarchy::open()?, path)
}

/// Whether the processes of the cgroup at `path` are stopped, or are about to be.
///
/// # Errors
/// When that cannot be told. One that is gone has none.
pub fn is_frozen(path: &Path) -> Result<bool> {
    let Some(group) = unified(path)? else { return Ok(false) };
    Ok(unless_gone(group.read(FREEZERS[0].0))?.is_some_and(|text| text.trim() == "1"))
}

/// Stops all processes of the cgroup at `path` and below it, or lets them go on. Returns once they are stopped.
///
/// # Errors
/// ENOENT where it is gone; ETIMEDOUT where a process has not stopped after ten seconds: all of them go on then.
pub fn freeze(path: &Path, stop: bool) -> Result<()> {
    let object = || format!("cgroup {path:?}");
    let group = unified(path)?.ok_or(Errno::NOENT).map_err(at("open", object()))?;
    let (file, on, off) = FREEZERS[0];
    group.write(file, if stop { on } else { off })?;
    let deadline = Instant::now() + PATIENCE;
    while stop && !group.read(EVENTS)?.lines().any(|line| line == "frozen 1") {
        if Instant::now() > deadline {
            group.write(file, off)?;
            return Err(at("stop", format_args!("the processes of {}", object()))(Errno::TIMEDOUT));
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The pids of all processes in the cgroup at `path` and below it, as the caller's pid namespace has them.
///
/// # Errors
/// When they cannot be listed. One that is gone has none.
pub fn processes(path: &Path) -> Result<Vec<i32>> {
    let Some(group) = unified(path)? else { return Ok(Vec::new()) };
    let mut pids = Vec::new();
    group.for_each(&mut |_, pid| {
        pids.push(pid);
        Ok(())
    })?;
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Forks one after the other, each of which ends once it has forked: what lists them is always late.
    const FLEEING: &str = "echo $$ > /dev/null; f() { true | true; f & }; f; wait";

    fn ends(hierarchy: &Hierarchy, name: &str) {
        let path = format!("/stave/test-{name}-{}", std::process::id());
        let group = Group::create(hierarchy, Path::new(&path)).unwrap();
        let below = Group::create(hierarchy, &Path::new(&path).join("below")).unwrap();
        let mut children = Vec::new();
        for (group, script) in [(&group, FLEEING), (&group, "exec sleep 100"), (&below, FLEEING)] {
            // Admitted while it waits: all that it forks is in the cgroup.
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

    /// As what has no freezer, and what has one.
    #[test]
    fn whoever_forks_is_ended_on_version_1() {
        for controller in ["pids", "freezer"] {
            ends(&Hierarchy::open_separate(&[controller.to_owned()]).unwrap(), controller);
        }
    }
}
