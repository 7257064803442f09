//! Who may reach the layers.

use std::os::fd::AsFd;

use rustix::{fs::Mode, io::Errno};

/// Layers hold set-user-id programs with any content: nobody but their owner may reach them (CVE-2021-41091). A directory
/// of an older version is open.
pub(super) fn close_to_others(directory: impl AsFd) -> Result<(), Errno> {
    let found = rustix::fs::fstat(&directory)?;
    let is_ours = found.st_uid == rustix::process::geteuid().as_raw();
    match is_ours && found.st_mode & 0o077 != 0 {
        true => rustix::fs::fchmod(directory, Mode::from_raw_mode(0o700)),
        false => Ok(()),
    }
}
