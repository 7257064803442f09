use std::{fs, io, path::Path};

use nix::errno::Errno;

/// Removes a directory that several containers share, if it is empty. A directory that is in use stays, and
/// so does one that this user may not remove.
///
/// # Errors
/// When it is not known whether the directory is in use. The caller tries again later.
pub fn remove_if_empty(directory: &Path) -> io::Result<()> {
    let Err(error) = fs::remove_dir(directory) else { return Ok(()) };
    if error.raw_os_error().is_some_and(stays) { Ok(()) } else { Err(error) }
}

/// Whether this error of rmdir says that the directory must stay, or is gone already.
pub(crate) fn stays(errno: i32) -> bool {
    let errno = Errno::from_raw(errno);
    // EPERM comes from a directory with the sticky bit. Root may remove everything, so for root it is an
    // error.
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
