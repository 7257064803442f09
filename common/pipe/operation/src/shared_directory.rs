use std::{fs, io, path::Path};

use nix::errno::Errno;

/// Removes a directory that several have things in, with the last of these. It stays when it is in use, or in a directory of
/// somebody else.
///
/// # Errors
/// When it is not known whether it is in use: the caller tries again later.
pub fn remove_if_empty(directory: &Path) -> io::Result<()> {
    let Err(error) = fs::remove_dir(directory) else { return Ok(()) };
    if error.raw_os_error().is_some_and(stays) { Ok(()) } else { Err(error) }
}

/// Whether this error of removing a directory says that it is to stay, or is gone.
pub(crate) fn stays(errno: i32) -> bool {
    let errno = Errno::from_raw(errno);
    // In a directory with the sticky bit. Root may remove everything there is.
    if errno == Errno::EPERM && !nix::unistd::geteuid().is_root() {
        return true;
    }
    [
        Errno::ENOTEMPTY,
        Errno::EEXIST,
        Errno::EBUSY,
        Errno::ENOENT,
        Errno::ENOTDIR,
        Errno::EACCES,
        Errno::EROFS,
    ]
    .contains(&errno)
}
