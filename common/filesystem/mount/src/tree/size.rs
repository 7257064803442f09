//! Counts the bytes of a tree that a container may change meanwhile.

use std::{collections::HashSet, os::fd::AsFd};

use rustix::{
    fs::{AtFlags, FileType, statat},
    io::Errno,
};

use super::copy::{names, open};

/// Counts the bytes of the files below a directory. A file with several names counts once. What is removed or exchanged
/// meanwhile is not counted.
///
/// # Errors
/// The system's error for the first entry that cannot be looked at.
pub fn size(directory: impl AsFd) -> Result<u64, Errno> {
    let root = directory.as_fd();
    let (mut seen, mut bytes) = (HashSet::new(), 0);
    let mut directories = vec![b".".to_vec()];
    while let Some(path) = directories.pop() {
        let directory = match open(root, &path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            opened => opened?,
        };
        for name in names(&directory)? {
            let stat = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                found => found?,
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                directories.push([&path, &b"/"[..], name.to_bytes()].concat());
            } else if stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) {
                bytes += u64::try_from(stat.st_size).unwrap_or(0);
            }
        }
    }
    Ok(bytes)
}
