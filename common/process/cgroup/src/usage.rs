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
    /// How many processes the kernel has killed because there was no memory left, since the cgroup was made.
    pub oom_kills: u64,
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
            usage.oom_kills = keyed(&group, "memory.events", "oom_kill")?.unwrap_or_default();
        }
        for hierarchy in limits.map(separate_hierarchies).transpose()?.unwrap_or_default() {
            let Some(group) = Group::open(&hierarchy, path)? else { continue };
            if let Some(peak) = number(&group, "memory.max_usage_in_bytes")? {
                usage.memory_peak = Some(peak);
                usage.oom_kills = keyed(&group, "memory.oom_control", "oom_kill")?.unwrap_or_default();
            }
        }
        Ok(usage)
    }
}

/// What the processes of a cgroup use now. What the kernel does not count is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Current {
    /// The time of all processors so far, in microseconds.
    pub cpu_time: Option<u64>,
    /// Memory in bytes, without files that are only cached.
    pub memory: Option<u64>,
    /// The most that it may be; none for no limit.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Current {
    /// Reads what the cgroup at `path` uses, in every hierarchy where it is with these limits.
    ///
    /// # Errors
    /// When the hierarchies cannot be looked at.
    pub fn of(path: &Path, limits: Option<&LinuxResources>) -> Result<Self> {
        let mut found = Self::default();
        if let Some(group) = Group::open(&Hierarchy::open()?, path)? {
            found.cpu_time = keyed(&group, "cpu.stat", "usage_usec")?;
            let cached = keyed(&group, "memory.stat", "inactive_file")?.unwrap_or_default();
            found.memory = number(&group, "memory.current")?.map(|all| all.saturating_sub(cached));
            found.memory_limit = number(&group, "memory.max")?;
            found.pids = number(&group, "pids.current")?;
        }
        for hierarchy in limits.map(separate_hierarchies).transpose()?.unwrap_or_default() {
            let Some(group) = Group::open(&hierarchy, path)? else { continue };
            if let Some(all) = number(&group, "memory.usage_in_bytes")? {
                let cached = keyed(&group, "memory.stat", "total_inactive_file")?.unwrap_or_default();
                found.memory = Some(all.saturating_sub(cached));
                // Without a limit it is a number that no machine has.
                found.memory_limit =
                    number(&group, "memory.limit_in_bytes")?.filter(|limit| *limit < 1 << 60);
            }
            found.pids = number(&group, "pids.current")?.or(found.pids);
            let time = number(&group, "cpuacct.usage")?.map(|nanoseconds| nanoseconds / 1000);
            found.cpu_time = time.or(found.cpu_time);
        }
        if found.pids.is_none() {
            found.pids = u64::try_from(crate::processes(path)?.len()).ok();
        }
        Ok(found)
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
