//! Counts the bytes of a directory tree.

use std::{
    collections::HashSet,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat},
    io::Errno,
};

use super::copy::{names, open};

/// The unit of `st_blocks`, in bytes (stat(3type)).
const BLOCK: u64 = 512;

/// From a directory with a longer path than this, in bytes, paths begin anew: the kernel takes none of 4096.
const FAR: usize = 3500;

/// Counts the bytes of the files below a directory. A file with several names counts once. What is removed or exchanged
/// meanwhile is not counted.
///
/// # Errors
/// The system's error for the first entry that cannot be looked at.
pub fn size(directory: impl AsFd) -> Result<u64, Errno> {
    sum(
        directory,
        |_| true,
        |stat| match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => 0,
            _ => u64::try_from(stat.st_size).unwrap_or(0),
        },
    )
}

/// Counts the bytes that a file, or a directory with all below it, takes on its disk. Holes take nothing, and what is
/// mounted below is not of this disk. Nothing at all takes nothing.
///
/// # Errors
/// As [`size`].
pub fn allocated(path: &Path) -> Result<u64, Errno> {
    let taken = |stat: &Stat| u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
    let own = match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(0),
        found => found?,
    };
    if FileType::from_raw_mode(own.st_mode) != FileType::Directory {
        return Ok(taken(&own));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(0),
        opened => opened?,
    };
    let device = fstat(&directory)?.st_dev;
    Ok(taken(&own) + sum(&directory, |stat| stat.st_dev == device, taken)?)
}

/// Adds up `bytes` of all that is below a directory. Only entries that `is_counted` are, with what is below them.
fn sum(
    directory: impl AsFd,
    is_counted: impl Fn(&Stat) -> bool,
    bytes: impl Fn(&Stat) -> u64,
) -> Result<u64, Errno> {
    let root = directory.as_fd();
    let (mut seen, mut all) = (HashSet::new(), 0);
    // Each with the directory that its path begins at, if that is not the root.
    let mut directories: Vec<(Option<Rc<OwnedFd>>, Vec<u8>)> = vec![(None, b".".to_vec())];
    while let Some((above, path)) = directories.pop() {
        let directory = match open(above.as_ref().map_or(root, AsFd::as_fd), &path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            opened => Rc::new(opened?),
        };
        let (above, path) = match path.len() < FAR {
            true => (above, path),
            false => (Some(Rc::clone(&directory)), b".".to_vec()),
        };
        for name in names(&directory)? {
            let stat = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                found => found?,
            };
            if !is_counted(&stat) {
                continue;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                directories.push((above.clone(), [&path, &b"/"[..], name.to_bytes()].concat()));
                all += bytes(&stat);
            } else if stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) {
                all += bytes(&stat);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_tree_may_be_deeper_than_a_path_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let open =
            |above: &OwnedFd, name| openat(above, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let top: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let mut last = top.try_clone().unwrap();
        for _ in 0..5000 {
            mkdirat(&last, "d", Mode::RWXU).unwrap();
            last = open(&last, "d").unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::io::write(openat(&last, "file", flags, Mode::RUSR).unwrap(), b"twelve bytes").unwrap();
        assert_eq!(size(&top), Ok(12));
        assert!(allocated(dir.path()).unwrap() > 0);
        crate::tree::remove(&dir.path().join("d")).unwrap();
    }
}
