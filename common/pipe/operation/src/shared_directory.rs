use std::{fs, io, path::Path};

use nix::errno::Errno;

/// Removes a directory that several have things in, with the last of these. It stays when it is in use, or in a directory of
/// somebody else.
///
/// # Errors
/// When it is not known whether it is in use: the caller tries again later.
pub fn remove_if_empty(directory: &Path) -> io::Result<()> {
    let Err(error) = fs::remove_dir(directory) else { return Ok(()) };
    let errno = error.raw_os_error().map(Errno::from_raw);
    let stays = [
        Errno::ENOTEMPTY,
        Errno::EEXIST,
        Errno::EBUSY,
        Errno::ENOENT,
        Errno::ENOTDIR,
        Errno::EACCES,
        Errno::EROFS,
    ];
    if errno.is_some_and(|errno| stays.contains(&errno)) { Ok(()) } else { Err(error) }
}
