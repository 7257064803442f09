//! The writable directories of an overlay.

use std::path::{Path, PathBuf};

use mount::{Disk, MountOperation};
use operation::Error;

use crate::{Request, Result, directory};

/// The smallest size, in bytes. Less has no room for even a few files.
const LEAST: u64 = 1 << 20;

/// Parses the size limit of a root file system, in bytes.
///
/// # Errors
/// When it is not a size, or is too small or too large.
pub fn room(text: &str) -> std::result::Result<u64, String> {
    match operation::quantity::size(text)? {
        size @ LEAST..=Disk::LARGEST => Ok(size),
        _ => Err("it is at least 1m and at most 8t".to_owned()),
    }
}

/// Makes `upper` and `work` of an overlay. Its root gets the attributes of the topmost directory.
pub(crate) fn make(
    request: &Request,
    container: &Path,
    (mode, user, group): (u32, u32, u32),
    operations: &mut Vec<MountOperation>,
) -> Result<(PathBuf, PathBuf)> {
    let Some(size) = request.size else {
        let (upper, work) = (container.join("upper"), container.join("work"));
        operations.push(directory(&upper, mode, Some((user, group))));
        operations.push(directory(&work, 0o700, None));
        return Ok((upper, work));
    };
    if !userns::is_first()? {
        let cause = "it is a file system of its own, which only root of the machine can mount";
        let error = Error::new("limit", format_args!("the root file system to {size} bytes"), cause);
        return Err(
            error.with_hint("leave out `--size`; a quota of the user limits all of the user's containers")
        );
    }
    let image = container.join("top.ext4");
    let target = container.join(Disk::TARGET);
    let disk = Disk { image, target, size, durable: request.durable, mode, owner: (user, group) };
    operations.push(MountOperation::DiskAdd(disk.clone()));
    operations.push(directory(&disk.target, 0o700, None));
    operations.push(MountOperation::DiskMount(disk.clone()));
    Ok((disk.upper(), disk.work()))
}
