use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use nix::libc;

use crate::Program;

impl Program {
    /// Installs the program in the calling thread, for good. The thread has CAP_SYS_ADMIN in its user namespace or
    /// `no_new_privs` set, or the kernel refuses.
    ///
    /// Returns the descriptor on which calls with the action SCMP_ACT_NOTIFY arrive, where the policy has that action.
    ///
    /// # Errors
    /// EACCES without that privilege; EINVAL where the kernel does not know an action or a flag.
    pub fn install(&self) -> io::Result<Option<OwnedFd>> {
        let instructions = self.instructions();
        let program = libc::sock_fprog {
            // `Program::compile` made sure of the length.
            len: instructions.len() as u16,
            filter: instructions.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the kernel copies the program, which outlives the call; `Instruction` is laid out as `sock_filter`.
        let answer = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, self.flags(), &raw const program)
        };
        match i32::try_from(answer) {
            Ok(-1) | Err(_) => Err(io::Error::last_os_error()),
            // SAFETY: with this flag the kernel returns a new descriptor, which nobody else owns.
            Ok(listener) if self.notifies() => Ok(Some(unsafe { OwnedFd::from_raw_fd(listener) })),
            Ok(_) => Ok(None),
        }
    }
}
