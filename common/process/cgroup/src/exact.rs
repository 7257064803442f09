//! All limits of OCI runtime-spec (config-linux.md, "Control groups"), exactly as written: nothing is added.
//! A limit that the controller's version does not have is an error.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};

use crate::{
    error::Result,
    limits::{Limit, Setting, amount, huge_pages, rates, refused, weight_of_shares},
};

/// The limits, in the order in which they are written, without the device list.
pub(crate) fn limits(resources: &LinuxResources) -> Result<Vec<Limit>> {
    let mut all = Vec::new();
    if let Some(limit) = resources.memory() {
        memory(limit, &mut all)?;
    }
    if let Some(limit) = resources.cpu() {
        cpu(limit, &mut all);
    }
    // Zero is no limit, as in runc, where it means that the limit is not set.
    if let Some(pids) = resources.pids().as_ref().filter(|pids| pids.limit() != 0) {
        let value = amount(pids.limit());
        let setting = Setting::new("pids.max", value);
        all.push(Limit::new("the limit of processes", "pids", setting.clone(), setting));
    }
    if let Some(limit) = resources.block_io() {
        io(limit, &mut all);
    }
    all.extend(resources.hugepage_limits().iter().flatten().map(huge_pages));
    if let Some(network) = resources.network() {
        of_network(network, &mut all);
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let handles = limit.hca_handles().map(|number| format!(" hca_handle={number}")).unwrap_or_default();
        let objects = limit.hca_objects().map(|number| format!(" hca_object={number}")).unwrap_or_default();
        let setting = Setting::new("rdma.max", format!("{device}{handles}{objects}"));
        all.push(Limit::new("the limit of RDMA", "rdma", setting.clone(), setting));
    }
    unified(resources, &mut all)?;
    Ok(all)
}

fn memory(limit: &LinuxMemory, all: &mut Vec<Limit>) -> Result<()> {
    const CONTROLLER: &str = "memory";
    if let Some(bytes) = limit.limit().filter(|bytes| *bytes != 0) {
        let (unified, separate) =
            (Setting::new("memory.max", amount(bytes)), Setting::new("memory.limit_in_bytes", bytes));
        all.push(Limit::new("the memory limit", CONTROLLER, unified, separate));
    }
    if let Some(total) = limit.swap().filter(|bytes| *bytes != 0) {
        let alone = match (total, limit.limit().filter(|bytes| *bytes != 0)) {
            (..0, _) => "max".to_owned(),
            (_, Some(..0)) | (_, None) => {
                let cause = "it counts memory and swap together: set a memory limit too";
                return Err(refused("the swap limit", cause.to_owned()));
            }
            (total, Some(memory)) if total >= memory => (total - memory).to_string(),
            _ => {
                let cause = "it counts memory and swap together, and is below the memory limit";
                return Err(refused("the swap limit", cause.to_owned()));
            }
        };
        let separate = Setting::new("memory.memsw.limit_in_bytes", total);
        all.push(Limit::new("the swap limit", CONTROLLER, Setting::new("memory.swap.max", alone), separate));
    }
    if let Some(bytes) = limit.reservation().filter(|bytes| *bytes != 0) {
        let separate = Setting::new("memory.soft_limit_in_bytes", bytes);
        let unified = Setting::new("memory.low", amount(bytes));
        all.push(Limit::new("the memory reservation", CONTROLLER, unified, separate));
    }
    let old: [(_, _, Option<String>); 5] = [
        (
            "the limit of kernel memory",
            "memory.kmem.limit_in_bytes",
            limit.kernel().map(|one| one.to_string()),
        ),
        (
            "the limit of kernel memory for TCP",
            "memory.kmem.tcp.limit_in_bytes",
            limit.kernel_tcp().map(|one| one.to_string()),
        ),
        ("the swappiness", "memory.swappiness", limit.swappiness().map(|one| one.to_string())),
        (
            "`disableOOMKiller`",
            "memory.oom_control",
            limit.disable_oom_killer().filter(|set| *set).map(|_| "1".to_owned()),
        ),
        (
            "`useHierarchy`",
            "memory.use_hierarchy",
            limit.use_hierarchy().map(|set| u8::from(set).to_string()),
        ),
    ];
    for (name, file, value) in old {
        all.extend(value.map(|value| Limit::of_old(name, CONTROLLER, Setting::new(file, value))));
    }
    Ok(())
}

fn cpu(limit: &LinuxCpu, all: &mut Vec<Limit>) {
    if let Some(shares) = limit.shares().filter(|shares| *shares != 0) {
        let unified = Setting::new("cpu.weight", weight_of_shares(shares));
        all.push(Limit::new("the CPU shares", "cpu", unified, Setting::new("cpu.shares", shares)));
    }
    let (quota, period) = (limit.quota().filter(|quota| *quota != 0), limit.period().filter(|one| *one != 0));
    if quota.is_some() || period.is_some() {
        let text = quota.map_or("max".to_owned(), amount);
        let separate = [
            period.map(|period| Setting::new("cpu.cfs_period_us", period)),
            quota.map(|quota| Setting::new("cpu.cfs_quota_us", quota.max(-1))),
        ];
        all.push(Limit {
            name: "the CPU limit".into(),
            controller: "cpu".into(),
            unified: vec![Setting::new("cpu.max", format!("{text} {}", period.unwrap_or(100_000)))],
            separate: separate.into_iter().flatten().collect(),
        });
    }
    if let Some(burst) = limit.burst() {
        let separate = Setting::new("cpu.cfs_burst_us", burst);
        all.push(Limit::new("the CPU burst", "cpu", Setting::new("cpu.max.burst", burst), separate));
    }
    if let Some(idle) = limit.idle() {
        let setting = Setting::new("cpu.idle", idle);
        all.push(Limit::new("`idle`", "cpu", setting.clone(), setting));
    }
    let period = limit.realtime_period().filter(|one| *one != 0);
    all.extend(period.map(|period| {
        Limit::of_old("the real-time period", "cpu", Setting::new("cpu.rt_period_us", period))
    }));
    let runtime = limit.realtime_runtime().filter(|one| *one != 0);
    all.extend(runtime.map(|runtime| {
        Limit::of_old("the real-time runtime", "cpu", Setting::new("cpu.rt_runtime_us", runtime))
    }));
    for (name, file, value) in
        [("the CPUs", "cpuset.cpus", limit.cpus()), ("the memory nodes", "cpuset.mems", limit.mems())]
    {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            all.push(Limit::new(name, "cpuset", Setting::new(file, value), Setting::new(file, value)));
        }
    }
}

fn io(limit: &LinuxBlockIo, all: &mut Vec<Limit>) {
    const CONTROLLER: &str = "io";
    if let Some(weight) = limit.weight().filter(|weight| *weight != 0) {
        // Only the scheduler BFQ has weights.
        let separate = Setting::new("blkio.bfq.weight", weight);
        all.push(Limit::new("the io weight", CONTROLLER, Setting::new("io.bfq.weight", weight), separate));
    }
    if let Some(weight) = limit.leaf_weight().filter(|weight| *weight != 0) {
        all.push(Limit::of_old("the leaf weight", CONTROLLER, Setting::new("blkio.leaf_weight", weight)));
    }
    for device in limit.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let unified = Setting::new("io.bfq.weight", format!("{number} {weight}"));
            let separate = Setting::new("blkio.bfq.weight_device", format!("{number} {weight}"));
            all.push(Limit::new("the io weight of a device", CONTROLLER, unified, separate));
        }
        if let Some(weight) = device.leaf_weight().filter(|weight| *weight != 0) {
            let separate = Setting::new("blkio.leaf_weight_device", format!("{number} {weight}"));
            all.push(Limit::of_old("the leaf weight of a device", CONTROLLER, separate));
        }
    }
    rates(limit, all);
}

fn of_network(network: &LinuxNetwork, all: &mut Vec<Limit>) {
    if let Some(class) = network.class_id() {
        all.push(Limit::of_old("the network class", "net_cls", Setting::new("net_cls.classid", class)));
    }
    for priority in network.priorities().iter().flatten() {
        let setting =
            Setting::new("net_prio.ifpriomap", format!("{} {}", priority.name(), priority.priority()));
        all.push(Limit::of_old("a network priority", "net_prio", setting));
    }
}

/// Files of version 2. The name of the file begins with the controller.
fn unified(resources: &LinuxResources, all: &mut Vec<Limit>) -> Result<()> {
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort();
    for (file, value) in files {
        let name = format!("`unified` {file:?}");
        let Some((controller, _)) = file.split_once('.').filter(|_| !file.contains('/')) else {
            return Err(refused(&name, "it is no file of a cgroup".to_owned()));
        };
        // cgroup.procs would move others' processes in, and cgroup.freeze or cgroup.kill would stop the container
        // while it is made.
        if controller == "cgroup" {
            return Err(refused(&name, "it is no limit, but controls the cgroup itself".to_owned()));
        }
        // Each line is a setting of its own: a kernel file takes one at a time.
        all.push(Limit {
            name: name.into(),
            controller: controller.to_owned().into(),
            unified: value.lines().map(|line| Setting::new(file, line)).collect(),
            separate: Vec::new(),
        });
    }
    Ok(())
}
