//! Finds device nodes in an unpacked layer: earlier runs may have allowed them.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};

use crate::overlay;

/// Whether the layer at `root` contains device nodes. Directories are opened by their paths below `root`, so
/// that few are open at once.
pub(super) fn holds_devices(root: BorrowedFd) -> rustix::io::Result<bool> {
    let mut left = vec![b".".to_vec()];
    while let Some(path) = left.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let directory = openat2(root, &path[..], flags, Mode::empty(), resolve)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let kind = match entry.file_type() {
                FileType::RegularFile | FileType::Symlink => continue,
                FileType::Unknown | FileType::CharacterDevice => {
                    let stat = statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
                    if overlay::is_whiteout(&stat) {
                        continue;
                    }
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            match kind {
                FileType::CharacterDevice | FileType::BlockDevice => return Ok(true),
                FileType::Directory if !matches!(name.to_bytes(), b"." | b"..") => {
                    left.push([&path[..], b"/", name.to_bytes()].concat());
                }
                _ => {}
            }
        }
    }
    Ok(false)
}
