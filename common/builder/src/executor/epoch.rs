//! SOURCE_DATE_EPOCH: the same sources give the same image, whenever it is built.

use std::{fs, path::Path};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::error::Cause;

/// Sets the times of what is newer than `epoch` to it (reproducible-builds.org, "SOURCE_DATE_EPOCH").
pub(super) fn clamp(directory: &Path, epoch: i64) -> Result<(), Cause> {
    use std::os::unix::fs::MetadataExt;
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = path.symlink_metadata().map_err(Cause::system("stat", &path))?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).map_err(Cause::system("read", &path))? {
                pending.push(entry.map_err(Cause::system("read", &path))?.path());
            }
        }
        if metadata.mtime() >= epoch {
            let time = Timespec { tv_sec: epoch, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Cause::system("set times of", &path))?;
        }
    }
    Ok(())
}
