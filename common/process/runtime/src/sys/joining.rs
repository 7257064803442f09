//! A process that is born where others can look at it, with everything that must not be seen given up before.

use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicI32, Ordering},
};

use nix::libc;
use rustix::io::Errno;

/// What the process that is born could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undone {
    /// The seccomp policy, or the last capabilities.
    Confine,
    /// The process itself.
    Fork,
    /// Its session and terminal.
    Session,
    /// The command.
    Execute,
}

const ALL: [Undone; 4] = [Undone::Confine, Undone::Fork, Undone::Session, Undone::Execute];

#[derive(Debug)]
struct Words {
    pid: AtomicI32,
    undone: AtomicI32,
    errno: AtomicI32,
}

/// A page that a process shares with its forks, for a report without any descriptor.
#[derive(Debug)]
pub(crate) struct Report(NonNull<Words>);

// SAFETY: the words are atomic, and the page belongs to no thread.
unsafe impl Send for Report {}
// SAFETY: as above.
unsafe impl Sync for Report {}

impl Report {
    /// An empty one.
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

    /// The pid of the process that was born; none if there is none.
    pub(crate) fn pid(&self) -> Option<i32> {
        Some(self.words().pid.load(Ordering::Acquire)).filter(|pid| *pid > 0)
    }

    /// What failed, if something did.
    pub(crate) fn failure(&self) -> Option<(Undone, Errno)> {
        let undone = usize::try_from(self.words().undone.load(Ordering::Acquire)).ok()?.checked_sub(1)?;
        Some((*ALL.get(undone)?, Errno::from_raw_os_error(self.words().errno.load(Ordering::Acquire))))
    }

    /// Says that something failed.
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

/// Forks a process whose parent is this one's parent, into the pid namespace of this one's children. `body` runs in it; if
/// it returns, the process ends. This one waits until the other executes a program or ends.
pub(crate) fn bear(report: &Report, body: impl FnOnce()) -> Result<(), Errno> {
    // The kernel writes the pid before anybody can see the process.
    let flags = libc::CLONE_PARENT | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
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
