//! Protects the layers from other users.

use std::os::fd::AsFd;

use rustix::{fs::Mode, io::Errno};

/// Closes the directory to everyone but its owner. Layers may hold set-user-id programs with any content, so
/// nobody else may reach them (CVE-2021-41091). Older versions left the directory open.
pub(super) fn close_to_others(directory: impl AsFd) -> Result<(), Errno> {
    let found = rustix::fs::fstat(&directory)?;
    let is_ours = found.st_uid == rustix::process::geteuid().as_raw();
    match is_ours && found.st_mode & 0o077 != 0 {
        true => rustix::fs::fchmod(directory, Mode::from_raw_mode(0o700)),
        false => Ok(()),
    }
}
