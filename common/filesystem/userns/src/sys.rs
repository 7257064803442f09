//! A process that does nothing, in a new user namespace. The kernel makes no namespace without a process.

use nix::libc;
use rustix::io::Errno;

/// The process. It is killed when this value is dropped, or when the caller ends.
#[derive(Debug)]
pub(crate) struct Idle(libc::pid_t);

impl Idle {
    /// Forks the process. This is safe in a program with several threads.
    pub(crate) fn in_new_namespace() -> Result<Self, Errno> {
        let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
        // SAFETY: without CLONE_VM the child has its own copy of the memory, and it only makes system calls.
        match unsafe {
            libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0_usize, 0_usize, 0_usize, 0_usize)
        } {
            -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
            // SAFETY: these calls allocate no memory. Only a signal ends the process.
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
        // SAFETY: the process is a child that nobody has waited for, so the pid is still its own.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}
