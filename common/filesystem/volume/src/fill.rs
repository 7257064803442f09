//! Fills a new volume with what the image has in its place.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

use operation::{Error, unless_gone};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with, syncfs},
    io::Errno,
};

use crate::{Locked, VolumeUse, failed};

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
    let failed = |error: io::Error| failed("fill", volume.name)(error);
    finish(&filled, &data).map_err(failed)?;
    if !is_empty(&data).map_err(failed)? {
        return Ok(());
    }
    // Nobody has chosen an owner for a volume that is as it was made.
    let found = fs::metadata(&data).map_err(failed)?;
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let is_new = (found.uid(), found.gid()) == own && found.mode() & 0o7777 == 0o755;
    let owner = usage.owner.filter(|_| is_new);
    if usage.source.is_none() && owner.is_none() {
        return Ok(());
    }
    mount::tree::remove(&beside)?;
    let copy = || -> Result<(), Error> {
        DirBuilder::new().mode(0o755).create(&beside).map_err(failed)?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::lchown(&beside, Some(user), Some(group)).map_err(failed)?;
        }
        let is_copied = match &usage.source {
            Some(source) => mount::tree::fill(&usage.within, source, &beside)?,
            None => false,
        };
        if !is_copied && owner.is_none() {
            return mount::tree::remove(&beside);
        }
        let complete = || -> io::Result<()> {
            if !is_empty(&beside)? {
                syncfs(&volume.directory)?;
            }
            fs::rename(&beside, &filled)?;
            finish(&filled, &data)
        };
        complete().map_err(failed)
    };
    copy().inspect_err(|_| drop(mount::tree::remove(&beside)))
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.next().transpose()?.is_none())
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
