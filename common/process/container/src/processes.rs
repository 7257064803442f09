//! The processes of a container.

use std::{fs, os::unix::fs::MetadataExt};

use operation::unless_gone;
use runtime::Stat;

use crate::{Container, Error, Result, of_container};

/// A process of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The name of its user, or the number if the machine has no name for it.
    pub user: String,
    /// The pid in the caller's pid namespace.
    pub pid: i32,
    /// The pid of its parent.
    pub parent: i32,
    /// The state, as the letter in `/proc/PID/stat`.
    pub state: char,
    /// The processor time used, in seconds.
    pub seconds: u64,
    /// The command line, or the name in brackets if there is none.
    pub command: String,
}

/// Returns the pids of all processes, sorted.
///
/// # Errors
/// For a container without its own cgroup.
pub fn pids(container: &Container) -> Result<Vec<i32>> {
    let record = container.record()?;
    let group = record.cgroups.freezer()?;
    let group = group.ok_or_else(|| of_container("list", container.id())("it has no cgroup of its own"))?;
    let mut pids = group.processes()?;
    pids.sort_unstable();
    Ok(pids)
}

/// Returns all processes. Processes that end in the meantime are skipped.
///
/// # Errors
/// As [`pids`].
pub fn all(container: &Container) -> Result<Vec<Process>> {
    let mut all = Vec::new();
    for pid in pids(container)? {
        let Some(stat) = Stat::of(pid)? else { continue };
        let directory = format!("/proc/{pid}");
        let owner = unless_gone(fs::metadata(&directory))
            .map_err(Error::on("read", format_args!("{directory:?}")))?;
        let Some(owner) = owner else { continue };
        let line = fs::read(format!("{directory}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let command = words.join(" ").trim_end().to_owned();
        let user = nix::unistd::User::from_uid(owner.uid().into()).ok().flatten();
        all.push(Process {
            user: user.map_or_else(|| owner.uid().to_string(), |user| user.name),
            pid,
            parent: stat.parent,
            state: stat.state,
            seconds: stat.processor_time().as_secs(),
            command: if command.is_empty() { format!("[{}]", stat.name) } else { command },
        });
    }
    Ok(all)
}
