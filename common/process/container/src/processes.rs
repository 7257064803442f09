//! The processes of a container.

use std::{fs, os::unix::fs::MetadataExt, time::Duration};

use operation::unless_gone;
use runtime::{Identity, Stat};
use rustix::system::sysinfo;

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
    /// The time since its start.
    pub age: Duration,
    /// The name of its terminal below `/dev`; `?` if it has none.
    pub terminal: String,
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
    let since_boot = Duration::from_secs(u64::try_from(sysinfo().uptime).unwrap_or_default());
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
            age: since_boot
                .saturating_sub(Identity { pid, start_time: stat.start_time, ..Identity::NONE }.since_boot()),
            terminal: stat.number(7).map_or_else(|| "?".to_owned(), terminal),
            command: if command.is_empty() { format!("[{}]", stat.name) } else { command },
        });
    }
    Ok(all)
}

/// The name of the terminal with this number (proc(5), `tty_nr`; kernel, Documentation/admin-guide/devices.txt).
fn terminal(number: u64) -> String {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match (major, minor) {
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        (4, 0..64) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_terminals() {
        for (number, name) in
            [(0, "?"), (0x8803, "pts/3"), (0x8901, "pts/257"), (0x401, "tty1"), (0x440, "ttyS0")]
        {
            assert_eq!(terminal(number), name, "{number:x}");
        }
    }
}
