//! Removes a directory tree of any depth and with any names.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, renameat, unlinkat},
    io::Errno,
};

/// Removes `name` in `parent` with everything below it. Does nothing if `name` does not exist. Does not
/// follow symbolic links or enter other file systems.
///
/// Subdirectories are moved up before they are emptied, so the length of paths and the number of open files
/// do not grow with the depth.
///
/// # Errors
/// The kernel's first error. `ENOTEMPTY` or `EXDEV` if something is mounted inside.
pub fn remove_tree(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let parent = parent.as_fd();
    let refused = match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(error @ (Errno::ISDIR | Errno::PERM)) => error,
        Err(error) => return Err(error),
    };
    let top = match open(parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        // Something that is not a directory could not be unlinked for another reason.
        Err(Errno::NOTDIR) => return Err(refused),
        top => top?,
    };
    let mut moved = 0_u64;
    // Entries of `top` may have the names that moved directories get, so repeat until `top` is empty.
    loop {
        let children = empty(&top)?;
        if children.is_empty() {
            break;
        }
        for child in children {
            let directory = open(&top, &child)?;
            for below in empty(&directory)? {
                move_up(&directory, &below, &top, &mut moved)?;
            }
            drop(directory);
            unlinkat(&top, &child[..], AtFlags::REMOVEDIR)?;
        }
    }
    drop(top);
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn move_up(from: &OwnedFd, name: &[u8], top: &OwnedFd, moved: &mut u64) -> rustix::io::Result<()> {
    loop {
        *moved += 1;
        let to = format!(".removed-{moved}");
        match rustix::fs::renameat_with(from, name, top, &to, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            // The file system lacks RENAME_NOREPLACE. A plain rename onto a directory that is not empty fails
            // as well.
            Err(Errno::INVAL) => match renameat(from, name, top, &to) {
                Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                other => return other,
            },
            other => return other,
        }
    }
}

fn open(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    openat2(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

/// Removes everything in the directory except directories, and returns their names.
fn empty(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let is_directory = entry.file_type() == FileType::Directory;
        if !is_directory {
            match unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) if entry.file_type() == FileType::Unknown => {}
                Err(error) => return Err(error),
            }
        }
        directories.push(name.to_vec());
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mkdirat, openat, symlinkat};

    #[test]
    fn deep_and_wide_trees_go_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::write(&kept, "x").unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat(CWD, dir.path(), flags, Mode::empty()).unwrap();
        mkdirat(&top, "tree", Mode::RWXU).unwrap();
        let mut at = openat(&top, "tree", flags, Mode::empty()).unwrap();
        for depth in 0..3000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            mkdirat(&at, format!(".removed-{depth}"), Mode::RWXU).unwrap();
            symlinkat(&kept, &at, "link").unwrap();
            at = openat(&at, "d", flags, Mode::empty()).unwrap();
        }
        remove_tree(&top, b"tree").unwrap();
        remove_tree(&top, b"tree").unwrap();
        assert!(!dir.path().join("tree").exists());
        assert!(kept.exists());
    }
}
