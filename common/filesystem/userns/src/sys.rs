//! A process that does nothing, in a user namespace of its own: the kernel makes none without a process.

use nix::libc;
use rustix::io::Errno;

/// Such a process. It ends with this value, or with the caller.
#[derive(Debug)]
pub(crate) struct Idle(libc::pid_t);

impl Idle {
    /// Forks it. May be called from a program with several threads.
    pub(crate) fn in_new_namespace() -> Result<Self, Errno> {
        let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
        // SAFETY: without CLONE_VM the child has its own copy of the memory, and makes nothing but system calls.
        match unsafe {
            libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0_usize, 0_usize, 0_usize, 0_usize)
        } {
            -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
            // SAFETY: these calls take no memory; the process ends by a signal alone.
            0 => unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            },
            pid => Ok(Self(pid as libc::pid_t)),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // SAFETY: a child that nobody has waited for yet, so the pid is its own.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}
