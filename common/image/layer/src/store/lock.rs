//! One lock per layer, all in one file: a record lock on the byte that the DiffID selects.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};
use oci::Digest;
use rustix::fs::{Mode, OFlags, openat};

/// Held until it is dropped. The lock belongs to the open file, not to the process, so it also excludes other
/// threads.
pub(super) struct Lock {
    _file: OwnedFd,
}

impl Lock {
    pub(super) fn take(store: BorrowedFd, diff_id: &Digest) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(store, ".lock", flags, Mode::from_raw_mode(0o600))?;
        // 60 bits of the digest, because the offset must not be negative.
        let at = i64::from_str_radix(&diff_id.hex()[..15], 16).map_err(io::Error::other)?;
        let range = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: at,
            l_len: 1,
            l_pid: 0,
        };
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&range)) {
                Ok(_) => return Ok(Self { _file: file }),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
