//! Writes the difference of two directories.

use std::{
    collections::HashSet,
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use archive::{Shown, WHITEOUT};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};

use super::{
    Error,
    entries::{Entries, join, kind, names, open_directory, stat, tree},
};
use crate::overlay;

/// A directory of the upper tree that has not been read yet.
struct Left {
    path: Vec<u8>,
    /// Whether the lower tree also has the directory.
    both: bool,
    /// The parents without an entry so far, highest first. They get one before the first change in them.
    silent: Vec<Vec<u8>>,
}

/// The directories of the upper tree that have an entry so far.
struct Told<'fd> {
    upper: BorrowedFd<'fd>,
    paths: HashSet<Vec<u8>>,
}

impl Told<'_> {
    /// Writes the entries of parents that have none yet.
    fn tell<W: Write>(&mut self, silent: &mut Vec<Vec<u8>>, entries: &mut Entries<W>) -> Result<(), Error> {
        for parent in silent.drain(..) {
            if !parent.is_empty() && self.paths.insert(parent.clone()) {
                entries.directory(open_directory(self.upper, &parent)?, &parent)?;
            }
        }
        Ok(())
    }
}

pub(super) fn walk<W: Write>(
    lower: BorrowedFd,
    upper: BorrowedFd,
    entries: &mut Entries<W>,
) -> Result<(), Error> {
    let mut told = Told { upper, paths: HashSet::new() };
    let mut left = vec![Left { path: Vec::new(), both: true, silent: Vec::new() }];
    while let Some(Left { path, both, mut silent }) = left.pop() {
        let directory = open_directory(upper, &path)?;
        let below = if both { Some(open_directory(lower, &path)?) } else { None };
        silent.retain(|parent| !told.paths.contains(parent));
        silent.push(path.clone());
        let (is_new, root) = (!both, path.is_empty());
        if is_new || differs(&directory, below.as_ref(), &path)? {
            told.tell(&mut silent, entries)?;
            if root {
                entries.directory(&directory, &path)?;
            }
        }
        let here = names(&directory, &path)?;
        let there = below.as_ref().map(|below| names(below, &path)).transpose()?.unwrap_or_default();
        for name in there.iter().filter(|name| here.binary_search(name).is_err()) {
            told.tell(&mut silent, entries)?;
            entries.whiteout(&path, name)?;
        }
        let mut directories = Vec::new();
        for name in &here {
            let path = join(&path, name);
            if name.starts_with(WHITEOUT) {
                let reason = "a name that starts with \".wh.\" is a whiteout in a layer";
                return Err(Error::Refused { name: Shown::new(&path), reason });
            }
            let new = stat(&directory, name, &path)?;
            let old = match &below {
                Some(below) if there.binary_search(name).is_ok() => Some((below, stat(below, name, &path)?)),
                _ => None,
            };
            if kind(&new) == FileType::Directory {
                let both = old.is_some_and(|(_, old)| kind(&old) == FileType::Directory);
                directories.push((path, both));
            } else if !old
                .map_or(Ok(false), |(below, old)| is_same((below, &old), (&directory, &new), name, &path))?
            {
                told.tell(&mut silent, entries)?;
                entries.file(&directory, name, path, &new)?;
            }
        }
        let next =
            directories.into_iter().rev().map(|(path, both)| Left { path, both, silent: silent.clone() });
        left.extend(next);
    }
    Ok(())
}

/// Whether the directories differ in the content of their own entry. Times count, except that of the root,
/// which is different in every copy.
fn differs(upper: &OwnedFd, lower: Option<&OwnedFd>, path: &[u8]) -> Result<bool, Error> {
    let Some(lower) = lower else { return Ok(true) };
    let facts = |fd: &OwnedFd| -> rustix::io::Result<_> {
        let stat = fstat(fd)?;
        let mtime = (!path.is_empty()).then_some((stat.st_mtime, stat.st_mtime_nsec));
        Ok((stat.st_mode, stat.st_uid, stat.st_gid, mtime, overlay::xattrs(fd, b".")?))
    };
    Ok(facts(upper).map_err(tree("stat", path))? != facts(lower).map_err(tree("stat", path))?)
}

/// Whether two files (not directories) are equal in everything that a layer records.
fn is_same(old: (&OwnedFd, &Stat), new: (&OwnedFd, &Stat), name: &[u8], path: &[u8]) -> Result<bool, Error> {
    let facts = |stat: &Stat| {
        let owner = (stat.st_mode, stat.st_uid, stat.st_gid);
        (owner, stat.st_nlink, stat.st_rdev, stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
    };
    if (old.1.st_dev, old.1.st_ino) == (new.1.st_dev, new.1.st_ino) {
        return Ok(true);
    }
    if facts(old.1) != facts(new.1) {
        return Ok(false);
    }
    let xattrs =
        |directory: &OwnedFd| overlay::xattrs(directory, name).map_err(tree("list attributes of", path));
    if xattrs(old.0)? != xattrs(new.0)? {
        return Ok(false);
    }
    match kind(new.1) {
        FileType::Symlink => {
            let target =
                |directory: &OwnedFd| readlinkat(directory, name, Vec::new()).map_err(tree("read", path));
            Ok(target(old.0)? == target(new.0)?)
        }
        FileType::RegularFile => same_content(old.0.as_fd(), new.0.as_fd(), name, path),
        _ => Ok(true),
    }
}

pub(super) fn same_content(
    old: BorrowedFd,
    new: BorrowedFd,
    name: &[u8],
    path: &[u8],
) -> Result<bool, Error> {
    let open = |directory| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(directory, name, flags, Mode::empty()).map_err(tree("open", path))
    };
    let (old, new) = (open(old)?, open(new)?);
    let mut buffers = [vec![0; 128 << 10], vec![0; 128 << 10]];
    let mut at = 0;
    loop {
        let [a, b] = &mut buffers;
        let counts =
            [read_at(&old, a, at), read_at(&new, b, at)].map(|count| count.map_err(tree("read", path)));
        let [Ok(left), Ok(right)] = counts else {
            let [left, right] = counts;
            return left.and(right).map(|_| false);
        };
        if a[..left] != b[..right] {
            return Ok(false);
        }
        if left == 0 {
            return Ok(true);
        }
        at += left as u64;
    }
}

/// Fills the buffer, or as much of it as the file has.
fn read_at(file: &OwnedFd, buffer: &mut [u8], at: u64) -> rustix::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
