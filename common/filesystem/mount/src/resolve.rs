//! Opens paths safely: absolute paths without any symbolic link, and paths of a container, whose links are
//! resolved inside its own root.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};

/// The kernel's limit for symbolic links in one path.
const MAX_LINKS: usize = 40;

/// Opens the absolute `path` with `O_PATH`. Follows no symbolic link in any part of it.
///
/// # Errors
/// [`Errno::LOOP`] if the path contains a symbolic link.
pub fn place(path: &Path) -> Result<OwnedFd, Errno> {
    openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// Opens the parent directory of `path` in the same way. Returns it with the last name of `path`.
///
/// # Errors
/// [`Errno::INVAL`] if `path` has no last name; the errors of [`place`].
pub fn parent(path: &Path) -> Result<(OwnedFd, &OsStr), Errno> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((openat2(CWD, directory, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?, name))
}

/// Opens `path` as a process with the root directory `root` would.
///
/// # Errors
/// The errors of openat2(2).
pub fn open_in(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // After a concurrent rename, the kernel cannot be sure that the path stays inside.
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
}

/// The expected kind of file at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// A directory.
    Directory,
    /// Anything but a directory.
    File,
}

/// Opens `path` inside `root` with `O_PATH`. Creates missing parts: directories with mode 0755, an empty file
/// with mode 0644.
///
/// # Errors
/// [`Errno::NOTDIR`] or [`Errno::ISDIR`] if the path has the other kind; errors of the system.
pub fn create_in(root: impl AsFd, path: &Path, leaf: Leaf) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    let found = match open_in(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => match make_last(root, path, leaf)? {
            Some(made) => made,
            None => make(root, path, leaf)?,
        },
        result => result?,
    };
    let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) == FileType::Directory;
    match (leaf, is_directory) {
        (Leaf::Directory, false) => Err(Errno::NOTDIR),
        (Leaf::File, true) => Err(Errno::ISDIR),
        _ => Ok(found),
    }
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

/// Creates the last name of `path` in an existing directory, the usual case. Returns `None` if more parts are
/// missing, or if the name is a dangling symbolic link.
fn make_last(root: impl AsFd, path: &Path, leaf: Leaf) -> Result<Option<OwnedFd>, Errno> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let directory = match open_in(root, above, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => return Ok(None),
        result => result?,
    };
    create(&directory, name, leaf == Leaf::File)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&made)?.st_mode);
    Ok((kind != FileType::Symlink).then_some(made))
}

fn make(root: impl AsFd, path: &Path, leaf: Leaf) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    let mut ahead: VecDeque<OsString> = parts(path).collect();
    // The part walked so far, without links or `..`.
    let mut walked = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            walked.pop();
            continue;
        }
        let next = walked.join(&name);
        let found = match open_in(root, &next, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => {
                let directory = open_in(root, &walked, OFlags::PATH | OFlags::DIRECTORY)?;
                create(&directory, &name, ahead.is_empty() && leaf == Leaf::File)?;
                open_in(root, &next, OFlags::PATH | OFlags::NOFOLLOW)?
            }
            result => result?,
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::Symlink {
            walked = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        let target = rustix::fs::readlinkat(&found, c"", Vec::new())?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            walked = PathBuf::from("/");
        }
        for part in parts(&target).rev() {
            ahead.push_front(part);
        }
    }
    open_in(root, &walked, OFlags::PATH)
}

fn create(directory: &OwnedFd, name: &OsStr, file: bool) -> Result<(), Errno> {
    let result = if file {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755))
    };
    // Another process has just made it: use that one.
    if result == Err(Errno::EXIST) { Ok(()) } else { result }
}

/// The path of a descriptor of this process in `/proc`.
pub fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// The current path of an open descriptor, as this process sees it.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn path_of(fd: BorrowedFd<'_>) -> Result<PathBuf, Errno> {
    let path = rustix::fs::readlink(proc_path(fd), Vec::new())?;
    Ok(OsString::from_vec(path.into_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn links_stay_inside_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        symlink("../../../../run/resolve.conf", root.join("etc/resolv.conf")).unwrap();
        symlink("/var/log", root.join("log")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let fd = place(&root).unwrap();
        for (path, leaf, lands) in [
            ("/etc/resolv.conf", Leaf::File, Ok("run/resolve.conf")),
            ("/log/a/../b", Leaf::Directory, Ok("var/log/b")),
            ("../../x", Leaf::Directory, Ok("x")),
            ("/", Leaf::Directory, Ok("")),
            ("/etc", Leaf::File, Err(Errno::ISDIR)),
            ("/loop/x", Leaf::File, Err(Errno::LOOP)),
        ] {
            let found = create_in(&fd, Path::new(path), leaf).map(|fd| path_of(fd.as_fd()).unwrap());
            assert_eq!(found, lands.map(|path| root.join(path).components().collect()), "{path}");
        }
        assert!(!dir.path().join("run").exists());
        assert_eq!(place(&root.join("log")).unwrap_err(), Errno::LOOP);
    }
}
