//! The exit status of a process that is not the caller's child.

use std::{
    os::fd::{AsFd, AsRawFd},
    thread::sleep,
    time::Duration,
};

use nix::{libc, request_code_readwrite};

/// `struct pidfd_info` of linux/pidfd.h, in its first form.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// The ids of the process, of its parent, and of its users and groups.
    numbers: [u32; 11],
    exit_code: i32,
}

/// PIDFD_INFO_EXIT
const EXIT: u64 = 1 << 3;

/// The exit status, as a shell counts it, of a process that has ended. `process` is a pidfd that was opened
/// while it ran. None if the kernel does not tell the status: before Linux 6.15, or if nobody reaps the
/// process within a second.
pub fn status_of(process: impl AsFd) -> Option<i32> {
    let request = request_code_readwrite!(0xff, 11, size_of::<Info>());
    for _ in 0..200 {
        let mut info = Info { mask: EXIT, ..Info::default() };
        // SAFETY: the kernel writes at most the size that the request names, to a value that lives until it returns.
        let result = unsafe { libc::ioctl(process.as_fd().as_raw_fd(), request, &raw mut info) };
        if result != 0 && std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH) {
            return None;
        }
        if result == 0 && info.mask & EXIT != 0 {
            let code = info.exit_code;
            return Some(match code & 0x7f {
                0 => code >> 8 & 0xff,
                signal => 128 + signal,
            });
        }
        // The kernel tells the status once the parent has reaped the process.
        sleep(Duration::from_millis(5));
    }
    None
}
