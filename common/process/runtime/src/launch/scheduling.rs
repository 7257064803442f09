//! How the kernel schedules a process, where the process's memory is, and which execution domain it has:
//! sched_setattr(2), ioprio_set(2), sched_setaffinity(2), set_mempolicy(2), personality(2).

use std::ops::RangeInclusive;

use nix::libc::{c_int, c_ulong};
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler, Spec,
};
use operation::quantity::ranges;

use crate::{Error, error::Result, sys};

/// From linux/personality.h.
const PER_LINUX: c_int = 0;
const PER_LINUX32: c_int = 8;

/// Sets what the process must have before it gives up its privileges.
pub(super) fn set(process: &Process) -> Result<()> {
    if let Some(scheduler) = process.scheduler() {
        sys::set_scheduler(&attributes(scheduler))
            .map_err(Error::at("set", format_args!("the scheduler {}", scheduler.policy())))?;
    }
    if let Some(priority) = process.io_priority() {
        sys::set_io_priority(number(priority))
            .map_err(Error::at("set", format_args!("the I/O priority {}", priority.priority())))?;
    }
    Ok(())
}

/// Sets the execution domain of a new container.
pub(super) fn personality(spec: &Spec) -> Result<()> {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.personality().as_ref());
    let Some(wanted) = wanted else { return Ok(()) };
    let domain = match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => PER_LINUX,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    };
    sys::set_personality(domain)
        .map_err(Error::at("set", format_args!("the personality {}", wanted.domain())))
}

/// Limits the process to these processors (cpuset(7), "List format").
pub(super) fn affinity(list: Option<&String>) -> Result<()> {
    let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(()) };
    let object = || format!("the CPU affinity {list:?}");
    let wrong = || Error::system("set", object(), "it is no list of processors");
    let mut set = nix::sched::CpuSet::new();
    for mut range in ranges_below(list, nix::sched::CpuSet::count()).ok_or_else(wrong)? {
        range.try_for_each(|processor| set.set(processor)).map_err(|_| wrong())?;
    }
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).map_err(Error::at("set", object()))
}

/// The ranges in a list of numbers below `limit`; none if the list is malformed.
fn ranges_below(list: &str, limit: usize) -> Option<Vec<RangeInclusive<usize>>> {
    ranges(list).filter(|ranges| ranges.iter().all(|range| *range.end() < limit))
}

/// The highest number of nodes that a kernel can be built for (`NODES_SHIFT`).
const NODES: usize = 1 << 10;

/// Sets the NUMA nodes for a container's memory. The kernel rejects settings that do not fit together.
pub(super) fn memory(spec: &Spec) -> Result<()> {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.memory_policy().as_ref());
    let Some(wanted) = wanted else { return Ok(()) };
    let object = || format!("the memory policy {}", wanted.mode());
    let mut nodes = Vec::new();
    if let Some(list) = wanted.nodes().as_deref().filter(|list| !list.is_empty()) {
        let wrong = || Error::system("set", object(), format!("{list:?} is no list of NUMA nodes"));
        const BITS: usize = c_ulong::BITS as usize;
        nodes.resize(NODES / BITS, 0);
        for node in ranges_below(list, NODES).ok_or_else(wrong)?.into_iter().flatten() {
            nodes[node / BITS] |= 1 << (node % BITS);
        }
    }
    sys::set_memory_policy(memory_mode(wanted), &nodes).map_err(Error::at("set", object()))
}

/// Converts the mode to the numbers of linux/mempolicy.h.
fn memory_mode(policy: &LinuxMemoryPolicy) -> c_int {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    policy.flags().iter().flatten().map(flag).fold(mode, |all, flag| all | flag)
}

/// Converts the priority as `IOPRIO_PRIO_VALUE` of linux/ioprio.h does.
fn number(priority: &LinuxIOPriority) -> i64 {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    class << 13 | priority.priority()
}

fn attributes(scheduler: &Scheduler) -> sys::SchedulerAttributes {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => nix::libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => nix::libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => nix::libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => nix::libc::SCHED_BATCH,
        // sched(7) reserves this policy, but no kernel has it; the kernel says so.
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => nix::libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => nix::libc::SCHED_DEADLINE,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    sys::SchedulerAttributes {
        policy: policy.unsigned_abs(),
        flags: scheduler.flags().iter().flatten().map(flag).fold(0, |all, flag| all | flag),
        nice: scheduler.nice().unwrap_or_default(),
        priority: scheduler.priority().unwrap_or_default().unsigned_abs(),
        runtime: scheduler.runtime().unwrap_or_default(),
        deadline: scheduler.deadline().unwrap_or_default(),
        period: scheduler.period().unwrap_or_default(),
        ..sys::SchedulerAttributes::default()
    }
}
