use std::{io::Write, os::fd::AsFd, path::Path};

use operation::{Condition, Scope, remove_if_empty};
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, mkdirat, openat, statat},
    io::Errno,
    path::Arg,
};

use crate::{Error, Result, error::on, resolve, tree};

pub(super) fn add(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let make = || {
        let (directory, name) = with_parent(path)?;
        make(&directory, name, mode, owner)
    };
    make().map_err(on("create directory", path))
}

/// Makes the directory `name` in `within`. After an error nothing is left.
pub(crate) fn make(
    within: impl AsFd,
    name: impl Arg + Copy,
    mode: u32,
    owner: Option<(u32, u32)>,
) -> std::result::Result<(), Errno> {
    mkdirat(&within, name, Mode::from_raw_mode(0o700))?;
    let finish = || {
        let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&within, name, open, Mode::empty())?;
        if let Some((user, group)) = owner {
            let ids = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
            chownat(&made, c"", ids.0, ids.1, AtFlags::EMPTY_PATH)?;
        }
        fchmod(made, Mode::from_raw_mode(mode & 0o7777))
    };
    finish().inspect_err(|_| {
        let _ = rustix::fs::unlinkat(&within, name, AtFlags::REMOVEDIR);
    })
}

pub(super) fn add_file(path: &Path, content: &str, mode: u32) -> Result<()> {
    let make = || {
        let (directory, name) = with_parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&directory, name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = std::fs::File::from(file);
        let mut finish = || {
            file.write_all(content.as_bytes())
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            fchmod(file.as_fd(), Mode::from_raw_mode(mode & 0o7777))
        };
        finish().inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
        })
    };
    make().map_err(on("create file", path))
}

/// Opens the parent directory, and makes it if it is missing. Undo removes an empty parent, so it may
/// disappear at any time.
fn with_parent(path: &Path) -> std::result::Result<(std::os::fd::OwnedFd, &std::ffi::OsStr), Errno> {
    loop {
        match resolve::parent(path) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let Some(parent) = path.parent() else { return Err(Errno::INVAL) };
        // Containers lie below it, and other users must not reach them.
        let made = ::operation::make_directories(parent, 0o700);
        made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    }
}

/// Removes a file, or a directory with its content. Also removes the parent directory if that is empty and
/// within the scope: it was made for the first container.
pub(crate) fn remove(scope: &Scope, path: &Path) -> std::result::Result<(), Error> {
    tree::remove(scope.contain(path)?)?;
    let parent = path.parent().filter(|parent| scope.contain(parent).is_ok());
    // A claim on a snapshot is in a directory of the snapshot, and that in one of all claims.
    let all = parent.and_then(Path::parent).filter(|all| all.ends_with("forks"));
    parent.into_iter().chain(all).try_for_each(|directory| {
        remove_if_empty(directory).map_err(Error::on("remove", format_args!("directory {directory:?}")))
    })
}

pub(super) fn check(path: &Path, is_directory: bool) -> Result<Condition> {
    let stat = match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Condition::Missing(format!("{path:?}"))),
        result => result.map_err(on("look at", path))?,
    };
    Ok(match (is_directory, FileType::from_raw_mode(stat.st_mode)) {
        (true, FileType::Directory) | (false, FileType::RegularFile) => Condition::Present,
        (true, _) => Condition::Different(format!("{path:?} is not a directory")),
        (false, _) => Condition::Different(format!("{path:?} is not a regular file")),
    })
}
