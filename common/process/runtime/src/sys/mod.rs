//! Everything that the compiler cannot check: fork, unshare, signal dispositions, one ioctl.

mod arguments;
mod inherited;
mod joining;
mod memory;
mod program_file;
mod scheduling;
mod status;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask},
    unistd::{ForkResult, Pid},
};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    net::{AddressFamily, SocketType},
    thread::UnshareFlags,
};

use crate::Stat;

pub(crate) use arguments::forget_arguments;
pub use inherited::{inherited, was_inherited};
pub(crate) use joining::{Report, Undone, bear};
pub use memory::settle_memory;
pub(crate) use memory::{forget_memory, own_memory};
pub(crate) use program_file::{ProgramFile, leave_program_file};
pub(crate) use scheduling::{
    SchedulerAttributes, run_on_all_processors, set_io_priority, set_memory_policy, set_personality,
    set_scheduler,
};
pub use status::status_of;

/// The numbers of `/proc/self/stat`, by their places in proc(5), which count from 1. The first two, pid and
/// name, and everything that is not a number are 0.
fn own_stat() -> std::io::Result<impl Fn(usize) -> usize> {
    let stat = Stat::parse(&std::fs::read("/proc/self/stat")?);
    let number = move |place| usize::try_from(stat.as_ref()?.number(place)?).ok();
    Ok(move |place| number(place).unwrap_or_default())
}

/// fork(2). `body` runs in the child, and its result is the exit status. The child unwinds and drops nothing
/// of the caller's.
pub(crate) fn fork(body: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    // SAFETY: the C library's fork leaves its allocator usable in the child, of a program with other threads too; no
    // lock of the standard library is held by this thread, and `body` starts no thread.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Parent { child }) => Ok(child),
        Ok(ForkResult::Child) => {
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(125);
            exit(status)
        }
        Err(error) => Err(errno(error)),
    }
}

/// Of linux/sched.h. The C library's constant has 32 bits, which are too few.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Whether this process has one thread.
pub(crate) fn has_one_thread() -> bool {
    use std::os::unix::fs::MetadataExt;
    // The directory has a link for itself and for each of its directories: one a thread.
    std::fs::metadata("/proc/self/task").is_ok_and(|tasks| tasks.nlink() == 3)
}

/// clone3(2) as a fork, with these `CLONE_*` flags and in this cgroup. As in [`fork`], `body` runs in the
/// child; its argument says whether it is in the cgroup. If the kernel does not create the process, `body` is returned with the
/// error.
///
/// The caller must have one thread: the C library does not know of this call, and locks of other threads
/// would stay held.
pub(crate) fn clone<B: FnOnce(bool) -> u8>(
    flags: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    body: B,
) -> Result<Pid, (Errno, B)> {
    // SAFETY: all zeros is a valid `clone_args`.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    let is_inside = cgroup.is_some();
    // SAFETY: without CLONE_VM the child has its own copy of the memory and goes on with this stack. There is one
    // thread, so nobody holds a lock that the child would wait for.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) } {
        -1 => Err((last_error(), body)),
        0 => {
            let body = std::panic::AssertUnwindSafe(|| body(is_inside));
            exit(std::panic::catch_unwind(body).unwrap_or(125))
        }
        child => Ok(Pid::from_raw(child as i32)),
    }
}

/// Ends this process as it is.
pub(crate) fn exit(status: u8) -> ! {
    // SAFETY: ends the process; handlers and buffers that the parent set up are the parent's to run and to flush.
    unsafe { libc::_exit(status.into()) }
}

/// Waits for one of these signals, which must be blocked. Returns its number.
pub(crate) fn wait_for_signal(signals: &SigSet) -> libc::c_int {
    loop {
        // SAFETY: the set outlives the call, and without a second argument the kernel tells the number alone.
        let number = unsafe { libc::sigwaitinfo(signals.as_ref(), std::ptr::null_mut()) };
        // The number is negative after an interruption.
        if number > 0 {
            return number;
        }
    }
}

/// unshare(2) of namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the descriptor table stays shared with the threads of this process.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Unblocks all signals and resets their dispositions. The Rust runtime ignores SIGPIPE, and callers block the signals
/// that they wait for.
pub(crate) fn reset_signals() -> Result<(), Errno> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default disposition runs no code of this program.
        unsafe { sigaction(signal, &default) }.map_err(errno)?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(errno)
}

/// Makes the signals that ask a program to end do so, until it executes another one. The kernel ignores them for the
/// first process of a pid namespace that has no handler.
pub(crate) fn end_on_signals() -> Result<(), Errno> {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit(2) may be called in a signal handler.
        unsafe { libc::_exit(128 + signal) }
    }
    let handler = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: the handler ends the process, and touches none of its state.
        unsafe { sigaction(signal, &handler) }.map_err(errno)?;
    }
    Ok(())
}

/// A signal by its number: a named one, or a real-time one that the C libraries leave to programs.
pub(crate) fn signal(number: i32) -> rustix::process::Signal {
    // SAFETY: no signal of the C library's own is among these.
    unsafe { rustix::process::Signal::from_raw_unchecked(number) }
}

/// Makes a write to a pipe without a reader fail with an error, instead of sending a signal.
pub(crate) fn ignore_broken_pipes() -> Result<(), Errno> {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: a signal that is ignored runs no code of this program.
    unsafe { sigaction(Signal::SIGPIPE, &ignore) }.map_err(errno)?;
    Ok(())
}

/// Brings up the loopback interface of the caller's network namespace. By ioctl, as netdevice(7) has it: the runtime
/// depends on no network crate, and one call needs no netlink socket.
pub(crate) fn raise_loopback() -> Result<(), Errno> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all zeros is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Gives the process an empty session keyring (session-keyring(7)). Keys are in no namespace, and a container
/// must not get the caller's. If the kernel has no keys, or a policy denies the call, there is nothing to
/// leave.
pub(crate) fn leave_keyring() -> Result<(), Errno> {
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: the call takes a name or null, and changes only what belongs to this process.
    let key = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, anonymous) };
    match if key < 0 { last_error() } else { return Ok(()) } {
        Errno::NOSYS | Errno::PERM => Ok(()),
        errno => Err(errno),
    }
}

/// Makes a terminal or a pipe of our own non-blocking. If that is impossible, reads and writes wait.
pub fn set_nonblocking(fd: impl AsFd) {
    if let Ok(flags) = fcntl_getfl(&fd) {
        let _ = fcntl_setfl(&fd, flags | OFlags::NONBLOCK);
    }
}

/// Makes all descriptors from `first` on close on exec.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: the descriptors stay open as long as this program runs; nothing is closed here.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Keeps these open descriptors open on exec.
pub(crate) fn keep_on_exec(descriptors: &[i32]) -> Result<(), Errno> {
    descriptors.iter().try_for_each(|number| {
        // SAFETY: it is used for this call alone, and nothing closes it meanwhile.
        let descriptor = unsafe { BorrowedFd::borrow_raw(*number) };
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())
    })
}

/// Closes all descriptors except `kept` and the first three. For a process that was just forked, and never
/// drops what it inherited.
pub(crate) fn close_others(kept: &mut [i32]) {
    kept.sort_unstable();
    let mut first = 3_u32;
    for end in kept.iter().map(|fd| fd.unsigned_abs()).chain([u32::MAX]) {
        if first < end {
            // SAFETY: the owners of these descriptors never run again in this process; see above.
            unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) };
        }
        first = end.saturating_add(1);
    }
}

/// The same error in the other library's type.
fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
