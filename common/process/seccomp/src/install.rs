use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use nix::libc;

use crate::{Instruction, Program};

/// The length of what stands before the instructions in a program's bytes: the flags, and whether a rule
/// notifies.
const HEAD: usize = size_of::<libc::c_ulong>() + 1;

impl Program {
    /// The most bytes that a program has (see [`Program::to_bytes`]).
    pub const MOST_BYTES: usize = HEAD + crate::compile::MOST * Instruction::BYTES;

    /// The program as bytes, for another process on this machine.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.flags.to_ne_bytes().to_vec();
        bytes.push(u8::from(self.notifies));
        bytes.extend(self.instructions.iter().flat_map(|instruction| instruction.to_bytes()));
        bytes
    }

    /// The program of these bytes. None if they are not the whole of one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first_chunk()?;
        let (notifies, rest) = rest.split_first()?;
        let (instructions, rest) = rest.as_chunks();
        let instructions: Vec<_> = instructions.iter().map(Instruction::from_bytes).collect();
        let is_whole = rest.is_empty() && (1..=crate::compile::MOST).contains(&instructions.len());
        let flags = libc::c_ulong::from_ne_bytes(*flags);
        is_whole.then_some(Self { instructions, flags, notifies: *notifies != 0 })
    }

    /// Installs the program in the calling thread, for good. The thread needs CAP_SYS_ADMIN in its user
    /// namespace, or `no_new_privs`.
    ///
    /// If the policy has the action SCMP_ACT_NOTIFY, returns the descriptor on which calls with this action
    /// arrive.
    ///
    /// # Errors
    /// EACCES without that privilege; EINVAL if the kernel does not know an action or a flag.
    pub fn install(&self) -> io::Result<Option<OwnedFd>> {
        let instructions = self.instructions();
        let program = libc::sock_fprog {
            // `Program::compile` has checked the length.
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
