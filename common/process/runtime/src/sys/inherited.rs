//! Descriptors that the caller left open for this program.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{OFlags, fcntl_getfl},
    io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd},
};

/// A copy of the descriptor with this number, for writing at its current position. Unlike a file that is
/// opened through `/proc/self/fd`, it may be a socket, and it shares its position with the caller.
///
/// # Errors
/// EBADF if the caller left no descriptor with this number open for writing.
pub fn inherited(number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
    // SAFETY: it is used for these three calls, which say EBADF of a number that is not open; nothing closes it meanwhile.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    // Descriptors that this program opened close on exec; inherited ones do not.
    let is_own = fcntl_getfd(descriptor)?.contains(FdFlags::CLOEXEC);
    if is_own || fcntl_getfl(descriptor)? & OFlags::ACCMODE == OFlags::RDONLY {
        return Err(Errno::BADF.into());
    }
    Ok(fcntl_dupfd_cloexec(descriptor, 3)?)
}

/// Whether the caller left a descriptor with this number open for this program.
pub fn was_inherited(number: i32) -> bool {
    if number < 0 {
        return false;
    }
    // SAFETY: it is used for this call alone, which says EBADF of a number that is not open.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(descriptor).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn only_what_was_left_open_for_writing() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let own = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap().1;
        let number = |descriptor: &OwnedFd| descriptor.as_raw_fd().unsigned_abs();
        assert!(inherited(number(&write)).is_ok());
        for wrong in [number(&read), number(&own), 100_000, u32::MAX] {
            assert_eq!(inherited(wrong).unwrap_err().raw_os_error(), Some(Errno::BADF.raw_os_error()));
        }
    }
}
