//! The snapshot that a fork is based on.

use std::path::{Path, PathBuf};

use document::{
    Document, Id, Instance,
    members::{Fork, Rootfs},
};
use mount::{MountOperation, level};
use serde::Deserialize;

use crate::{Container, Result, base, said, tops, unread};

/// The frozen levels of another container, and the operations that keep them.
#[derive(Debug)]
pub struct Ground {
    /// The claim on the snapshot. If the levels are in a file system of their own, also its mount.
    pub(crate) operations: Vec<MountOperation>,
    /// The levels, lowest first.
    pub(crate) levels: Vec<PathBuf>,
    /// The fork in the document.
    pub(crate) fork: Fork,
    /// Mode, user and group of the root of the highest level.
    pub(crate) top: Option<(u32, u32, u32)>,
}

/// Plans `container` as a fork of a snapshot of the container `of`, which has this document.
/// Without a number, it is the newest snapshot.
///
/// # Errors
/// When there is no such snapshot; when the other container is being unwound.
pub fn ground(
    container: Container<'_>,
    of: &Id,
    document: &Document,
    snapshot: Option<u32>,
    durable: bool,
) -> Result<Ground> {
    if document.has_failed() {
        return Err(said(format!("container \"{of}\" is being unwound")));
    }
    let rootfs: Rootfs = document.require().map_err(unread)?;
    let own = container.scope.container(of.as_str());
    if !rootfs.path.starts_with(&own) || rootfs.upper.is_none() {
        return Err(said(format!(
            "container \"{of}\" has no root file system of its own that can be written to"
        )));
    }
    if durable && !rootfs.durable {
        let error = said(format!(
            "make a durable fork: container \"{of}\" is not durable, and a crash may lose its snapshot"
        ));
        return Err(error.with_hint("`union-mount --durable` makes one that is"));
    }
    let newest = base::newest(document)?;
    let number = snapshot.unwrap_or(newest);
    if snapshot.is_none() && newest == 0 {
        let error = said(format!("container \"{of}\" has no snapshot"));
        return Err(error.with_hint(format!(
            "`union-snapshot {of}` takes one; {of}@0 is what it was before anything was written"
        )));
    }
    let levels = tops(&rootfs, of.as_str(), Some(number))?;
    let instance: Option<Instance> = document.get().map_err(unread)?;
    let instance = instance.ok_or_else(|| said(format!("container \"{of}\" has no instance")))?;
    let top = levels.last().map(|level| level::owner_and_mode(level)).transpose()?;
    let mut operations = vec![MountOperation::FileAdd {
        path: claim(&own, number, container.id),
        content: String::new(),
        mode: 0o600,
    }];
    for operation in &base::step(document)?.operations {
        if let Ok(MountOperation::DiskMount(disk) | MountOperation::DiskShare(disk)) =
            MountOperation::deserialize(operation)
        {
            operations.push(MountOperation::DiskShare(disk));
        }
    }
    let fork = Fork { container: of.clone(), instance, snapshot: number, levels: levels.len() };
    Ok(Ground { operations, levels, fork, top })
}

/// The claim file by which a fork keeps a snapshot of the container with the directory `own`.
fn claim(own: &Path, number: u32, fork: &str) -> PathBuf {
    level::claims(own, number).join(fork)
}
