//! Limits (OCI runtime-spec, config-linux.md, "Control groups") as files of cgroups, for both versions
//! (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/).

use std::{borrow::Cow, path::Path};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};
use serde::{Deserialize, Serialize};

use crate::{
    CgroupOperation, Error, Hierarchy,
    controllers::{CORE, Controllers, Place},
    error::{Result, at},
};

/// A value for one file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// The file's name.
    pub file: String,
    /// Its value.
    pub value: String,
    /// Nobody asked for this setting. It is skipped if the kernel does not have the file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

impl Setting {
    pub(crate) fn new(file: &str, value: impl ToString) -> Self {
        Self { file: file.to_owned(), value: value.to_string(), optional: false }
    }
}

/// One limit, in both versions.
pub(crate) struct Limit {
    /// The name of the limit, for errors.
    pub(crate) name: Cow<'static, str>,
    pub(crate) controller: Cow<'static, str>,
    /// The settings for version 2 and for version 1; empty if the version has no such limit.
    pub(crate) unified: Vec<Setting>,
    pub(crate) separate: Vec<Setting>,
}

impl Limit {
    pub(crate) fn new(
        name: &'static str,
        controller: &'static str,
        unified: Setting,
        separate: Setting,
    ) -> Self {
        Self { unified: vec![unified], ..Self::of_old(name, controller, separate) }
    }

    /// A limit that only version 1 has.
    pub(crate) fn of_old(name: &'static str, controller: &'static str, separate: Setting) -> Self {
        Self {
            name: name.into(),
            controller: controller.into(),
            unified: Vec::new(),
            separate: vec![separate],
        }
    }

    /// The settings for one of the versions.
    fn in_version(&self, version: u8) -> Result<Vec<Setting>> {
        let settings = if version == 2 { &self.unified } else { &self.separate };
        match settings.is_empty() {
            true => Err(refused(&self.name, format!("cgroups of version {version} have no such limit"))),
            false => Ok(settings.clone()),
        }
    }
}

/// The cgroups of a container with these limits, at `path` in each hierarchy that is needed. The cgroup of
/// version 2 comes last, because a container always has it.
///
/// # Errors
/// When the kernel cannot keep a limit, which the error names; when the kernel's controllers cannot be looked
/// up.
pub fn plan(path: &Path, resources: &LinuxResources) -> Result<Vec<CgroupOperation>> {
    let limits = limits(resources)?;
    if limits.is_empty() {
        return Ok(vec![CgroupOperation::at(path)]);
    }
    arrange(path, limits, &Controllers::of_this_machine()?)
}

pub(crate) fn arrange(path: &Path, limits: Vec<Limit>, host: &Controllers) -> Result<Vec<CgroupOperation>> {
    let mut separate: Vec<CgroupOperation> = Vec::new();
    let mut unified = CgroupOperation::at(path);
    for limit in limits {
        match host.place(&limit.controller) {
            Some(Place::Unified) => {
                if limit.controller != CORE
                    && !unified.enable.iter().any(|enabled| *enabled == limit.controller)
                {
                    unified.enable.push(limit.controller.to_string());
                }
                unified.settings.extend(limit.in_version(2)?);
            }
            Some(Place::Separate(controllers)) => {
                let known = separate.iter().position(|operation| operation.controllers == controllers);
                let at = known.unwrap_or_else(|| {
                    separate.push(CgroupOperation {
                        controllers: controllers.to_vec(),
                        ..CgroupOperation::at(path)
                    });
                    separate.len() - 1
                });
                separate[at].settings.extend(limit.in_version(1)?);
            }
            None => {
                let cause = format!("this kernel has no cgroup controller {:?}", limit.controller);
                return Err(refused(&limit.name, cause));
            }
        }
    }
    separate.push(unified);
    Ok(separate)
}

/// The hierarchies of version 1 in which a container with these limits has a cgroup.
///
/// # Errors
/// As [`plan`]; when a hierarchy cannot be mounted.
pub fn separate_hierarchies(resources: &LinuxResources) -> Result<Vec<Hierarchy>> {
    let operations = plan(Path::new("/"), resources)?;
    let separate = operations.iter().filter(|operation| !operation.controllers.is_empty());
    separate.map(|operation| Hierarchy::open_separate(&operation.controllers)).collect()
}

pub(crate) fn refused(limit: &str, cause: String) -> Error {
    at("set", limit)(cause)
}

/// The limits as Docker sets them, including what Docker adds.
fn limits(resources: &LinuxResources) -> Result<Vec<Limit>> {
    let mut all = Vec::new();
    if let Some(limit) = resources.memory() {
        memory(limit, &mut all)?;
    }
    if let Some(limit) = resources.cpu() {
        cpu(limit, &mut all)?;
    }
    if let Some(pids) = resources.pids() {
        let value = amount(pids.limit());
        all.push(Limit::new(
            "the limit of processes",
            "pids",
            Setting::new("pids.max", &value),
            Setting::new("pids.max", &value),
        ));
    }
    if let Some(limit) = resources.block_io() {
        io(limit, &mut all)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        all.push(huge_pages(limit));
    }
    Ok(all)
}

/// Version 2 writes "max" for no limit; Docker's flags use -1.
pub(crate) fn amount(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn memory(limit: &LinuxMemory, all: &mut Vec<Limit>) -> Result<()> {
    const CONTROLLER: &str = "memory";
    if let Some(bytes) = limit.limit() {
        let separate = Setting::new("memory.limit_in_bytes", bytes);
        all.push(Limit::new(
            "the memory limit",
            CONTROLLER,
            Setting::new("memory.max", amount(bytes)),
            separate,
        ));
    }
    swap(limit, all)?;
    if let Some(bytes) = limit.reservation() {
        let separate = Setting::new("memory.soft_limit_in_bytes", bytes);
        let unified = Setting::new("memory.low", amount(bytes));
        all.push(Limit::new("the memory reservation", CONTROLLER, unified, separate));
    }
    if let Some(swappiness) = limit.swappiness() {
        let cause =
            "cgroups of version 2 have no swappiness, and those of version 1 none that counts: leave it out";
        return Err(refused(&format!("swappiness {swappiness}"), cause.to_owned()));
    }
    Ok(())
}

/// `swap` in the specification is memory and swap together, like `--memory-swap`; version 2 counts swap
/// alone. Without it, a container may use as much swap as memory (Docker, "Runtime options with Memory, CPUs,
/// and GPUs").
fn swap(limit: &LinuxMemory, all: &mut Vec<Limit>) -> Result<()> {
    let memory = limit.limit().filter(|bytes| *bytes >= 0);
    let (total, optional) = match (limit.swap(), memory) {
        (Some(total), _) => (total, false),
        (None, Some(memory)) => (memory.saturating_mul(2), true),
        (None, None) => return Ok(()),
    };
    let alone = match (total, memory) {
        (..0, _) => "max".to_owned(),
        (total, Some(memory)) if total >= memory => (total - memory).to_string(),
        (_, Some(_)) => {
            return Err(refused(
                "the swap limit",
                "it counts memory and swap together, and is below the memory limit".to_owned(),
            ));
        }
        (_, None) => {
            return Err(refused(
                "the swap limit",
                "it counts memory and swap together: set a memory limit too".to_owned(),
            ));
        }
    };
    let setting = |file, value: String| Setting { optional, ..Setting::new(file, value) };
    let unified = setting("memory.swap.max", alone);
    let separate = setting("memory.memsw.limit_in_bytes", total.to_string());
    all.push(Limit::new("the swap limit", "memory", unified, separate));
    Ok(())
}

fn cpu(limit: &LinuxCpu, all: &mut Vec<Limit>) -> Result<()> {
    if let Some(shares) = limit.shares().filter(|shares| *shares != 0) {
        let unified = Setting::new("cpu.weight", weight_of_shares(shares));
        all.push(Limit::new(
            "the CPU shares",
            "cpu",
            unified,
            Setting::new("cpu.shares", shares.clamp(2, 262_144)),
        ));
    }
    if limit.quota().is_some() || limit.period().is_some() {
        // The default of both versions is 100 ms.
        let (period, quota) = (limit.period().unwrap_or(100_000), limit.quota().unwrap_or(-1));
        all.push(Limit {
            name: "the CPU limit".into(),
            controller: "cpu".into(),
            unified: vec![Setting::new("cpu.max", format!("{} {period}", amount(quota)))],
            separate: vec![
                Setting::new("cpu.cfs_period_us", period),
                Setting::new("cpu.cfs_quota_us", quota.max(-1)),
            ],
        });
    }
    for (name, file, value) in
        [("the CPUs", "cpuset.cpus", limit.cpus()), ("the memory nodes", "cpuset.mems", limit.mems())]
    {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            all.push(Limit::new(name, "cpuset", Setting::new(file, value), Setting::new(file, value)));
        }
    }
    match (limit.realtime_runtime(), limit.realtime_period()) {
        (None | Some(0), None | Some(0)) => Ok(()),
        _ => Err(refused(
            "real-time CPU limits",
            "kernels since 6.1 are seldom built with them: leave them out".to_owned(),
        )),
    }
}

/// Converts shares (2 to 262144, 1024 by default) to a weight (1 to 10000, 100 by default), linearly, as
/// systemd and runc do.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn io(limit: &LinuxBlockIo, all: &mut Vec<Limit>) -> Result<()> {
    let devices = limit.weight_device().as_ref().is_some_and(|list| !list.is_empty());
    if limit.leaf_weight().is_some_and(|weight| weight != 0) || devices {
        return Err(refused(
            "the io weight of a device",
            "only the weight of all devices is carried out: `weight`".to_owned(),
        ));
    }
    if let Some(weight) = limit.weight().filter(|weight| *weight != 0) {
        // Only the scheduler BFQ has weights.
        let unified = Setting::new("io.bfq.weight", weight);
        all.push(Limit::new(
            "the io weight (scheduler BFQ)",
            "io",
            unified,
            Setting::new("blkio.bfq.weight", weight),
        ));
    }
    rates(limit, all);
    Ok(())
}

/// How much may be read from devices and written to them per second.
pub(crate) fn rates(limit: &LinuxBlockIo, all: &mut Vec<Limit>) {
    let rates: [(_, _, _, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("the read bandwidth", "rbps", "blkio.throttle.read_bps_device", limit.throttle_read_bps_device()),
        ("the write bandwidth", "wbps", "blkio.throttle.write_bps_device", limit.throttle_write_bps_device()),
        ("the read rate", "riops", "blkio.throttle.read_iops_device", limit.throttle_read_iops_device()),
        ("the write rate", "wiops", "blkio.throttle.write_iops_device", limit.throttle_write_iops_device()),
    ];
    for (name, key, old, devices) in rates {
        for device in devices.iter().flatten() {
            let (number, rate) = (format!("{}:{}", device.major(), device.minor()), device.rate());
            let unified = Setting::new("io.max", format!("{number} {key}={rate}"));
            all.push(Limit::new(name, "io", unified, Setting::new(old, format!("{number} {rate}"))));
        }
    }
}

pub(crate) fn huge_pages(limit: &LinuxHugepageLimit) -> Limit {
    let (size, bytes) = (limit.page_size(), limit.limit());
    let unified = Setting::new(&format!("hugetlb.{size}.max"), amount(bytes));
    let separate = Setting::new(&format!("hugetlb.{size}.limit_in_bytes"), bytes);
    Limit::new("the limit of huge pages", "hugetlb", unified, separate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURE: (&str, &str) = ("0::/\n", "cpuset cpu io memory pids hugetlb");
    const HYBRID: (&str, &str) =
        ("4:memory:/\n3:cpuset:/\n1:cpu,cpuacct:/\n7:blkio:/\n8:pids:/\n0::/\n", "hugetlb");

    fn planned(resources: &str, (own, unified): (&str, &str)) -> Result<String> {
        let resources = serde_json::from_str(resources).unwrap();
        let operations =
            arrange(Path::new("/stave/web"), limits(&resources)?, &Controllers::parse(own, unified))?;
        let line = |operation: &CgroupOperation| {
            let files = operation.settings.iter().map(|set| format!("{}={}", set.file, set.value));
            format!("{}[{}]", operation.controllers.join(","), files.collect::<Vec<_>>().join(" "))
        };
        Ok(operations.iter().map(line).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_limit_in_both_versions() {
        for (resources, pure, hybrid) in [
            (
                r#"{"memory": {"limit": 1048576}}"#,
                "[memory.max=1048576 memory.swap.max=1048576]",
                "memory[memory.limit_in_bytes=1048576 memory.memsw.limit_in_bytes=2097152] []",
            ),
            (
                r#"{"memory": {"limit": 4096, "swap": 4096, "reservation": 100}}"#,
                "[memory.max=4096 memory.swap.max=0 memory.low=100]",
                "memory[memory.limit_in_bytes=4096 memory.memsw.limit_in_bytes=4096 memory.soft_limit_in_bytes=100] []",
            ),
            (
                r#"{"cpu": {"quota": 150000, "period": 100000, "cpus": "0-1"}, "pids": {"limit": -1}}"#,
                "[cpu.max=150000 100000 cpuset.cpus=0-1 pids.max=max]",
                "cpu,cpuacct[cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000] cpuset[cpuset.cpus=0-1] pids[pids.max=max] []",
            ),
            (r#"{"cpu": {"shares": 1024}}"#, "[cpu.weight=39]", "cpu,cpuacct[cpu.shares=1024] []"),
            (
                r#"{"blockIO": {"weight": 300, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]}}"#,
                "[io.bfq.weight=300 io.max=8:0 rbps=1000]",
                "blkio[blkio.bfq.weight=300 blkio.throttle.read_bps_device=8:0 1000] []",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#,
                "[hugetlb.2MB.max=4194304]",
                "[hugetlb.2MB.max=4194304]",
            ),
            ("{}", "[]", "[]"),
        ] {
            assert_eq!(planned(resources, PURE).unwrap(), pure, "{resources}");
            assert_eq!(planned(resources, HYBRID).unwrap(), hybrid, "{resources}");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_name() {
        for (resources, error) in [
            (
                r#"{"memory": {"limit": 9, "swap": 8}}"#,
                "set the swap limit: it counts memory and swap together, and is below the memory limit",
            ),
            (
                r#"{"memory": {"swap": 8}}"#,
                "set the swap limit: it counts memory and swap together: set a memory limit too",
            ),
            (
                r#"{"pids": {"limit": 9}}"#,
                "set the limit of processes: this kernel has no cgroup controller \"pids\"",
            ),
        ] {
            assert_eq!(planned(resources, ("0::/\n", "memory")).unwrap_err().to_string(), error);
        }
    }
}
