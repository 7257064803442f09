use std::path::Path;

use oci_spec::runtime::LinuxResources;
use operation::unless_gone;

use crate::{Group, Hierarchy, error::Result, separate_hierarchies};

/// What the processes of a cgroup have used. A value is none if the kernel does not count it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The time on all processors, in microseconds.
    pub cpu_time: Option<u64>,
    /// The highest use of memory, in bytes.
    pub memory_peak: Option<u64>,
    /// The highest number of processes and threads.
    pub pids_peak: Option<u64>,
    /// How many processes the kernel has killed for lack of memory, since the cgroup was created.
    pub oom_kills: u64,
}

impl Usage {
    /// Reads what the cgroup at `path` has used, in every hierarchy in which a container with these limits
    /// has a cgroup.
    ///
    /// # Errors
    /// When a hierarchy cannot be opened, or a file cannot be read.
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
            usage.pids_peak = number(&group, "pids.peak")?.or(usage.pids_peak);
            if let Some(peak) = number(&group, "memory.max_usage_in_bytes")? {
                usage.memory_peak = Some(peak);
                usage.oom_kills = keyed(&group, "memory.oom_control", "oom_kill")?.unwrap_or_default();
            }
        }
        Ok(usage)
    }
}

/// What the processes of a cgroup use now. A value is none if the kernel does not count it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Current {
    /// The time on all processors so far, in microseconds.
    pub cpu_time: Option<u64>,
    /// The use of memory in bytes, without inactive cached files.
    pub memory: Option<u64>,
    /// The memory limit in bytes; none for no limit.
    pub memory_limit: Option<u64>,
    /// The number of processes and threads.
    pub pids: Option<u64>,
}

impl Current {
    /// Reads what the cgroup at `path` uses, in every hierarchy in which a container with these limits has a
    /// cgroup.
    ///
    /// # Errors
    /// When a hierarchy cannot be opened, or a file cannot be read.
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
                // Without a limit, the file has a number that is larger than any machine's memory.
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

/// Reads the number in a file; none if the file does not exist.
fn number(group: &Group, file: &str) -> Result<Option<u64>> {
    Ok(unless_gone(group.read(file))?.and_then(|text| text.trim().parse().ok()))
}

/// Reads the number after a key, in a file with one key on each line.
fn keyed(group: &Group, file: &str, key: &str) -> Result<Option<u64>> {
    let text = unless_gone(group.read(file))?.unwrap_or_default();
    let mut values = text.lines().filter_map(|line| line.split_once(' '));
    Ok(values.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse().ok()))
}
