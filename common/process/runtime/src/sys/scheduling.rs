//! Scheduler calls that no library has.

use nix::libc;
use rustix::io::Errno;

/// `struct sched_attr` of linux/sched/types.h, version 0.
#[repr(C)]
#[derive(Debug, Clone)]
pub(crate) struct SchedulerAttributes {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

impl Default for SchedulerAttributes {
    fn default() -> Self {
        let size = size_of::<Self>() as u32;
        Self { size, policy: 0, flags: 0, nice: 0, priority: 0, runtime: 0, deadline: 0, period: 0 }
    }
}

fn answer(result: libc::c_long) -> Result<(), Errno> {
    if result < 0 { Err(super::last_error()) } else { Ok(()) }
}

/// sched_setattr(2) on the calling thread.
pub(crate) fn set_scheduler(attributes: &SchedulerAttributes) -> Result<(), Errno> {
    // SAFETY: the attributes have the kernel's layout and tell their size; the kernel only reads.
    answer(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) })
}

/// sched_setaffinity(2): the calling thread may run on all processors that its cgroup allows.
pub(crate) fn run_on_all_processors() -> Result<(), Errno> {
    // As many as a kernel can be built for (`NR_CPUS`).
    let all = [libc::c_ulong::MAX; 8192 / libc::c_ulong::BITS as usize];
    // SAFETY: the kernel reads no more bytes than it is told.
    answer(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&all), all.as_ptr()) })
}

/// ioprio_set(2) on the calling thread.
pub(crate) fn set_io_priority(number: i64) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the call takes numbers only.
    answer(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, number) })
}

/// set_mempolicy(2) on the calling thread. `mode` includes the flags; `nodes` has a bit for each node.
pub(crate) fn set_memory_policy(mode: libc::c_int, nodes: &[libc::c_ulong]) -> Result<(), Errno> {
    // The kernel takes one bit fewer than it is told.
    let (bits, nodes) = match nodes.len() {
        0 => (0, std::ptr::null()),
        words => (words * libc::c_ulong::BITS as usize + 1, nodes.as_ptr()),
    };
    // SAFETY: the kernel reads no more bits than there are, and none from a null pointer.
    answer(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes, bits) })
}

/// personality(2).
pub(crate) fn set_personality(domain: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the call takes a number only.
    answer(unsafe { libc::personality(domain as libc::c_ulong) }.into())
}
