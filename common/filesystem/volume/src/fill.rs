//! Fills a new volume with what the image has in its place.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use operation::{Error, unless_gone};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with, syncfs},
    io::Errno,
};

use crate::{Locked, VolumeUse, failed, names};

/// Copies a directory of a container into a volume that is still empty, as Docker does. Otherwise does
/// nothing.
///
/// The volume is empty, or has all files: they are copied beside it and written to the disk, and then moved.
/// If the move is interrupted, the next container that uses the volume finishes it.
///
/// # Errors
/// When something cannot be copied.
pub(crate) fn fill(volume: &Locked<'_>, usage: &VolumeUse) -> Result<(), Error> {
    let [data, filled, beside] = ["data", "filled", ".filled"].map(|name| volume.path.join(name));
    finish(&filled, &data).map_err(failed("fill", volume.name))?;
    let is_empty = names(&data).map_err(failed("read", volume.name))?.is_empty();
    if !is_empty || (usage.source.is_none() && usage.owner.is_none()) {
        return Ok(());
    }
    mount::tree::remove(&beside)?;
    let copy = || -> Result<(), Error> {
        let make = || -> io::Result<()> {
            DirBuilder::new().mode(0o755).create(&beside)?;
            match usage.owner {
                Some((user, group)) => std::os::unix::fs::lchown(&beside, Some(user), Some(group)),
                None => Ok(()),
            }
        };
        make().map_err(failed("fill", volume.name))?;
        if let Some(source) = &usage.source {
            mount::tree::fill(&usage.within, source, &beside)?;
        }
        let complete = || -> io::Result<()> {
            if !names(&beside)?.is_empty() {
                syncfs(&volume.directory)?;
            }
            fs::rename(&beside, &filled)?;
            finish(&filled, &data)
        };
        complete().map_err(failed("fill", volume.name))
    };
    copy().inspect_err(|_| drop(mount::tree::remove(&beside)))
}

/// Moves the entries of `filled` to `data`, if `filled` exists. An entry that a container has made meanwhile
/// stays.
fn finish(filled: &Path, data: &Path) -> io::Result<()> {
    if unless_gone(filled.symlink_metadata())?.is_none() {
        return Ok(());
    }
    mount::tree::copy_attributes(filled, data).map_err(io::Error::other)?;
    for name in fs::read_dir(filled)? {
        let name = name?.file_name();
        match renameat_with(CWD, filled.join(&name), CWD, data.join(&name), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            moved => moved?,
        }
    }
    // The moves changed its times.
    mount::tree::copy_attributes(filled, data).map_err(io::Error::other)?;
    File::open(data)?.sync_all()?;
    mount::tree::remove(filled).map_err(io::Error::other)
}
