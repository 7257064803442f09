//! The gate at which a new process waits until its parent has recorded it.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::{
    buffer::spare_capacity,
    io::{Errno, retry_on_intr},
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair},
};
use seccomp::Program;

use crate::{Error, error::Result};

/// Returns the side of the new process, and that of its parent.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    // A socket, not a pipe: a write to a pipe without a reader can send a signal that ends the writer.
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(Error::at("create", "socket"))
}

/// Lets the process pass, and gives it the program that it awaits.
pub(super) fn open(gate: &OwnedFd, program: Option<&Program>) -> Result<()> {
    let mut message = vec![1];
    message.extend(program.map(Program::to_bytes).unwrap_or_default());
    loop {
        match send(gate, &message, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            // The process may have ended. It says why on its channel.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(errno) => return Err(Error::system("release", "the process", errno)),
        }
    }
}

/// Waits until the parent has recorded this process. If the parent dies before that, the command is not run.
/// Returns the seccomp program, if the process awaits one.
pub(super) fn wait(gate: BorrowedFd<'_>, awaits: bool) -> Result<Option<Program>> {
    // Not filled before: each page that is touched takes as long as a system call.
    let mut message = Vec::with_capacity(if awaits { 1 + Program::MOST_BYTES } else { 1 });
    retry_on_intr(|| rustix::io::read(gate, spare_capacity(&mut message)))
        .map_err(Error::at("wait", "for the parent process"))?;
    match message.split_first() {
        Some((_, program)) if awaits => match Program::from_bytes(program) {
            Some(program) => Ok(Some(program)),
            None => Err(Error::new("start: the seccomp program did not arrive whole")),
        },
        Some(_) => Ok(None),
        None => Err(Error::new("start: given up by the parent process")),
    }
}
