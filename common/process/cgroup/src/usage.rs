use std::path::Path;

use oci_spec::runtime::LinuxResources;
use operation::unless_gone;

use crate::{Group, Hierarchy, error::Result, separate_hierarchies};

/// What the processes of a cgroup have used. What the kernel does not count is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The time of all processors, in microseconds.
    pub cpu_time: Option<u64>,
    /// The most memory at a time, in bytes.
    pub memory_peak: Option<u64>,
    /// The most processes and threads at a time.
    pub pids_peak: Option<u64>,
    /// Whether the kernel has killed a process because there was no memory left.
    pub oom_killed: bool,
}

impl Usage {
    /// Reads what the cgroup at `path` has used, in every hierarchy where it is with these limits.
    ///
    /// # Errors
    /// When the hierarchies cannot be looked at.
    pub fn of(path: &Path, limits: Option<&LinuxResources>) -> Result<Self> {
        let mut usage = Self::default();
        if let Some(group) = Group::open(&Hierarchy::open()?, path)? {
            usage.cpu_time = keyed(&group, "cpu.stat", "usage_usec")?;
            usage.memory_peak = number(&group, "memory.peak")?;
            usage.pids_peak = number(&group, "pids.peak")?;
            usage.oom_killed = keyed(&group, "memory.events", "oom_kill")?.is_some_and(|count| count > 0);
        }
        for hierarchy in limits.map(separate_hierarchies).transpose()?.unwrap_or_default() {
            let Some(group) = Group::open(&hierarchy, path)? else { continue };
            if let Some(peak) = number(&group, "memory.max_usage_in_bytes")? {
                usage.memory_peak = Some(peak);
                let killed = keyed(&group, "memory.oom_control", "oom_kill")?;
                usage.oom_killed = killed.is_some_and(|count| count > 0);
            }
        }
        Ok(usage)
    }
}

/// The number in a file; none without the file.
fn number(group: &Group, file: &str) -> Result<Option<u64>> {
    Ok(unless_gone(group.read(file))?.and_then(|text| text.trim().parse().ok()))
}

/// The number after a key, in a file of one key a line.
fn keyed(group: &Group, file: &str, key: &str) -> Result<Option<u64>> {
    let text = unless_gone(group.read(file))?.unwrap_or_default();
    let mut values = text.lines().filter_map(|line| line.split_once(' '));
    Ok(values.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse().ok()))
}
