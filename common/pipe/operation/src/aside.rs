//! A child process that nobody waits for.
//!
//! Some system calls take effect at once, but return only after every processor has let go of something
//! (RCU). A process cannot end while it is in such a call. So another process makes the call.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{
    errno::Errno,
    libc,
    unistd::{ForkResult, chdir, fork},
};

/// Runs `work` in a child process and returns as soon as the child is forked. The child keeps nothing of the
/// caller but the descriptors in `kept`, which become its descriptors 0, 1 and so on. Use it only in a
/// program that ends soon, because the child is never waited for.
///
/// # Safety
/// `work` must only make system calls. It must not allocate memory, take a lock, or use any other descriptor.
///
/// # Errors
/// When the process cannot be forked; EBADF when a descriptor in `kept` has a number below `kept.len()`.
pub unsafe fn run(kept: &[BorrowedFd<'_>], work: impl FnOnce()) -> Result<(), Errno> {
    if kept.iter().any(|descriptor| (descriptor.as_raw_fd().unsigned_abs() as usize) < kept.len()) {
        return Err(Errno::EBADF);
    }
    // SAFETY: as promised, the child takes no lock that another thread has, and ends with _exit.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(()),
        ForkResult::Child => {
            if keep_only(kept).is_ok() {
                work();
            }
            // SAFETY: ends the process. `_exit` runs no exit handlers and flushes no buffers: those are the
            // parent's.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Closes all descriptors except these, which become 0, 1 and so on, and leaves the caller's directory.
fn keep_only(kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    for (number, descriptor) in (0..).zip(kept) {
        // SAFETY: none of `kept` has this number, and nothing else in this process uses the descriptor
        // with this number.
        Errno::result(unsafe { libc::dup2(descriptor.as_raw_fd(), number) })?;
    }
    // SAFETY: nothing in this process uses the descriptors that are closed here any more.
    unsafe { crate::close_descriptors(kept.len() as u32, u32::MAX) };
    chdir(c"/")
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        os::fd::AsFd,
        time::Duration,
    };

    use nix::unistd::{pipe, write};

    use super::*;

    #[test]
    fn it_holds_what_it_was_given_and_nothing_else() {
        let (answer, told) = pipe().unwrap();
        let (mut other, held) = pipe().map(|(read, write)| (File::from(read), File::from(write))).unwrap();
        let work = || {
            // SAFETY: the child has `told` as its descriptor 0.
            let told = unsafe { BorrowedFd::borrow_raw(0) };
            // SAFETY: plain system calls.
            let (parent, next) = unsafe { (libc::getppid(), libc::fcntl(1, libc::F_GETFD)) };
            let _ = write(told, if parent != 0 && next == -1 { b"alone" } else { b"wrong" });
            // Writes until nobody reads any more, or until a minute has passed.
            let goes_on = |_: &u32| write(told, b"x").is_ok();
            let times = (0..6000).take_while(goes_on);
            if times.map(|_| std::thread::sleep(Duration::from_millis(10))).count() == 6000 {
                let _ = write(told, b"z");
            }
        };
        // SAFETY: it makes system calls only.
        unsafe { run(&[told.as_fd()], work) }.unwrap();
        let (mut answer, mut text) = (File::from(answer), [0; 5]);
        answer.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"alone");
        // The pipe `other` reaches its end here, although the child is still running.
        (&held).write_all(b"x").unwrap();
        drop(held);
        assert_eq!(other.read_to_end(&mut Vec::new()).unwrap(), 1);
        let mut told = [0; 8192];
        let length = answer.read(&mut told).unwrap();
        assert!(!told[..length].contains(&b'z'), "it ended only with that process");
    }

    #[test]
    fn descriptors_in_each_others_place_are_refused() {
        // SAFETY: standard input is open in a test.
        let stdin = unsafe { BorrowedFd::borrow_raw(0) };
        // SAFETY: the closure does nothing.
        assert_eq!(unsafe { run(&[stdin], || {}) }, Err(Errno::EBADF));
    }
}
