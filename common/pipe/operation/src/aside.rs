//! A separate process that is not waited for.
//!
//! Some system calls return only after every processor has let go of something (RCU), long after they have taken
//! effect. A process in such a call cannot end before it returns, so another process makes the call.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{
    errno::Errno,
    libc,
    unistd::{ForkResult, chdir, fork},
};

/// Runs `work` in a process that keeps nothing of the caller but `kept`, as its descriptors 0, 1 and so on. Returns as
/// soon as it is forked. For a program that ends soon: the process is its child until then, and is not waited for.
///
/// # Safety
/// `work` only makes system calls: it allocates nothing, takes no lock, and uses no descriptor but those.
///
/// # Errors
/// When no process can be made; when a descriptor of `kept` has the number of another's place.
pub unsafe fn run(kept: &[BorrowedFd<'_>], work: impl FnOnce()) -> Result<(), Errno> {
    if kept.iter().any(|descriptor| (descriptor.as_raw_fd().unsigned_abs() as usize) < kept.len()) {
        return Err(Errno::EBADF);
    }
    // SAFETY: the child only makes system calls that neither allocate nor take a lock, and ends with _exit.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(()),
        ForkResult::Child => {
            if keep_only(kept).is_ok() {
                work();
            }
            // SAFETY: ends the process; handlers and buffers that the parent set up are the parent's to run and to
            // flush.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Leaves only these descriptors, under the first numbers, and no directory of the caller.
fn keep_only(kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    for (number, descriptor) in (0..).zip(kept) {
        // SAFETY: none of `kept` has this number, and nothing else in this process uses the descriptor with this
        // number.
        Errno::result(unsafe { libc::dup2(descriptor.as_raw_fd(), number) })?;
    }
    // SAFETY: nothing in this process uses the descriptors that are closed here any more.
    unsafe { libc::close_range(kept.len() as u32, u32::MAX, 0) };
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
            // SAFETY: `told` was put there.
            let told = unsafe { BorrowedFd::borrow_raw(0) };
            // SAFETY: plain system calls.
            let (parent, next) = unsafe { (libc::getppid(), libc::fcntl(1, libc::F_GETFD)) };
            let _ = write(told, if parent != 0 && next == -1 { b"alone" } else { b"wrong" });
            // Until nobody listens any more, or it has waited for long.
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
        // The other pipe ends here, although that process is still running.
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
        // SAFETY: it does nothing.
        assert_eq!(unsafe { run(&[stdin], || {}) }, Err(Errno::EBADF));
    }
}
