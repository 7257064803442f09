//! Creates a process where others can look at it. Everything that must not be seen is given up before.

use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicI32, Ordering},
};

use nix::libc;
use rustix::io::Errno;

/// What the new process could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undone {
    /// Install the seccomp policy, or drop the last capabilities.
    Confine,
    /// Fork the process itself.
    Fork,
    /// Set up its session and terminal.
    Session,
    /// Execute the command.
    Execute,
}

const ALL: [Undone; 4] = [Undone::Confine, Undone::Fork, Undone::Session, Undone::Execute];

#[derive(Debug)]
struct Words {
    pid: AtomicI32,
    undone: AtomicI32,
    errno: AtomicI32,
}

/// A page that a process shares with its forks, for a report that needs no descriptor.
#[derive(Debug)]
pub(crate) struct Report(NonNull<Words>);

// SAFETY: the words are atomic, and the page belongs to no thread.
unsafe impl Send for Report {}
// SAFETY: as above.
unsafe impl Sync for Report {}

impl Report {
    /// Makes an empty report.
    pub(crate) fn new() -> io::Result<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping; zeros are valid words.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Words>(), protection, flags, -1, 0) };
        match NonNull::new(page.cast()) {
            Some(words) if page != libc::MAP_FAILED => Ok(Self(words)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn words(&self) -> &Words {
        // SAFETY: mapped until this is dropped, and only ever changed as atomic words.
        unsafe { self.0.as_ref() }
    }

    /// The pid of the new process; none if there is none.
    pub(crate) fn pid(&self) -> Option<i32> {
        Some(self.words().pid.load(Ordering::Acquire)).filter(|pid| *pid > 0)
    }

    /// What failed, if something did.
    pub(crate) fn failure(&self) -> Option<(Undone, Errno)> {
        let undone = usize::try_from(self.words().undone.load(Ordering::Acquire)).ok()?.checked_sub(1)?;
        Some((*ALL.get(undone)?, Errno::from_raw_os_error(self.words().errno.load(Ordering::Acquire))))
    }

    /// Reports a failure.
    pub(crate) fn fail(&self, undone: Undone, errno: Errno) {
        self.words().errno.store(errno.raw_os_error(), Ordering::Release);
        let number = ALL.iter().position(|one| *one == undone).unwrap_or_default() as i32 + 1;
        self.words().undone.store(number, Ordering::Release);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: the page of `new`, which nobody uses any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Words>()) };
    }
}

/// Forks a process into the pid namespace of this process's children. Its parent is this process's parent. `body`
/// runs in it; if `body` returns, the process ends. With `waits`, this process waits until the new one executes a
/// program or ends.
pub(crate) fn bear(report: &Report, waits: bool, body: impl FnOnce()) -> Result<(), Errno> {
    // The kernel writes the pid before anybody can see the process.
    let mut flags = libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
    if waits {
        flags |= libc::CLONE_VFORK;
    }
    let (stack, pid) = (std::ptr::null::<libc::c_void>(), report.words().pid.as_ptr());
    // SAFETY: without CLONE_VM the child has its own copy of the memory and goes on with this stack. There is one thread.
    match unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), stack, pid, 0_usize, 0_usize) } {
        -1 => Err(super::last_error()),
        0 => {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            super::exit(125)
        }
        _ => Ok(()),
    }
}
