//! Finds the root overlay of a container, below its snapshots, in the step that mounted it.

use std::path::{Path, PathBuf};

use document::{Document, Member, Step, members::Rootfs, table};
use mount::{Level, MountOperation, Newest, Overlay, level};
use operation::Scope;
use serde::Deserialize;
use serde_json::Value;

use crate::{MERGE, Result, said, unread};

/// The tool that takes snapshots.
pub const SNAPSHOT: &str = "union-snapshot";

/// The lowest overlay of a container's snapshot levels.
#[derive(Debug)]
pub struct Base {
    /// The overlay as it was mounted.
    pub overlay: Overlay,
    /// The directory of its writable top, on the disk. The directories of the levels are there too.
    pub around: PathBuf,
}

impl Base {
    /// The level `number` over the base, to be mounted at `target`, the place of the container's root. Level 0 is
    /// the base's own top.
    ///
    /// # Errors
    /// When the id of the boot cannot be read.
    pub fn level(self, number: u32, target: PathBuf) -> Result<Level> {
        Ok(Level {
            number,
            directory: level::place(&self.around, number),
            target,
            source: self.overlay.source.clone(),
            boot: Some(operation::boot()?),
            base: Some(Box::new(self.overlay)),
            volumes: Vec::new(),
            ends: false,
        })
    }
}

/// The step that mounted the root file system: all others that say something of it come later.
pub(crate) fn step(document: &Document) -> Result<Step> {
    let tools = document.tools().map_err(unread)?;
    let tool = tools.iter().find(|tool| table::makes(tool, Rootfs::NAME)).ok_or_else(missing)?;
    let step = document.last_step_of(tool).map_err(unread)?;
    step.map(|(_, step)| step).ok_or_else(missing)
}

fn missing() -> operation::Error {
    said("no step of the document has mounted a root file system: run union-mount first")
}

/// The base of the document's container.
///
/// # Errors
/// When no step of the document mounted a writable root file system.
pub fn of(document: &Document) -> Result<Base> {
    let step = step(document)?;
    let read = |operation| match MountOperation::deserialize(operation) {
        Ok(MountOperation::OverlayMount(overlay)) => Some(overlay),
        _ => None,
    };
    let is_it = |operation: &&Value| operation["op"] == "overlay-mount";
    let overlay = step.operations.iter().find(is_it).and_then(read).ok_or_else(missing)?;
    let upper = step.adds.get(Rootfs::NAME).and_then(|rootfs| rootfs["upper"].as_str());
    let around = upper.and_then(|upper| Path::new(upper).parent()).ok_or_else(missing)?;
    Ok(Base { overlay, around: around.to_owned() })
}

/// The number of a container's newest snapshot; 0 if there is none.
///
/// # Errors
/// When its step cannot be read.
pub fn newest(document: &Document) -> Result<u32> {
    let Some((_, step)) = document.last_step_of(SNAPSHOT).map_err(unread)? else { return Ok(0) };
    number(&step).ok_or_else(|| said(format!("a step of {SNAPSHOT} has no number")))
}

/// The number of the snapshot that a step took.
pub fn number(step: &Step) -> Option<u32> {
    let number = step.operations.iter().find_map(|operation| operation["number"].as_u64());
    number.and_then(|number| u32::try_from(number).ok())
}

/// Refuses to undo the step that mounted the root file system while a snapshot or a fork depends on
/// it.
///
/// # Errors
/// What depends on it.
pub fn refuse_undo(scope: &Scope, document: &Document) -> Result<()> {
    if !document.steps_of(SNAPSHOT).map_err(unread)?.is_empty() {
        let hint = "`union-snapshot --undo` undoes the newest one, and unwind everything";
        return Err(said("undo the mount: there are snapshots of it").with_hint(hint));
    }
    refuse_below_forks(scope, document, 0)
}

/// Refuses to undo a snapshot or a merge if a fork was merged after it.
///
/// # Errors
/// That there is such a merge.
pub fn refuse_below_merge(document: &Document, number: u32) -> Result<()> {
    if merges(document)?.iter().all(|merged| *merged < number) {
        return Ok(());
    }
    let error = said(format!("undo snapshot {number}: a fork was merged after it"));
    Err(error.with_hint("`union-merge --undo` undoes the merge"))
}

/// Refuses to undo a snapshot if another container is a fork of it, or of a later one.
///
/// # Errors
/// The container that is.
pub fn refuse_below_forks(scope: &Scope, document: &Document, number: u32) -> Result<()> {
    let Some(id) = document.id().map_err(unread)? else { return Ok(()) };
    let forks = level::forks(scope, id.as_str(), number)?;
    let Some(fork) = forks.first() else { return Ok(()) };
    let error =
        said(format!("undo snapshot {number} of container \"{id}\": container \"{fork}\" is based on it"));
    Err(error.with_hint(format!("`unwind {}` first", forks.join(" "))))
}

/// Adds what other steps say to the operations of a step that mounted the root file system: to its overlay, the newest level.
pub fn complete_mount(document: &Document, operations: &mut [Value]) {
    let newest = newest(document).and_then(|number| {
        let merges = merges(document)?;
        Ok(Newest { number, merged: merges.contains(&number) })
    });
    let newest = newest.ok().and_then(|newest| serde_json::to_value(newest).ok());
    for overlay in operations.iter_mut().filter(|operation| operation["op"] == "overlay-mount") {
        overlay["newest"] = newest.clone().into();
    }
}

/// The numbers of the levels into which the steps of the document merge forks.
fn merges(document: &Document) -> Result<Vec<u32>> {
    let merges = document.steps_of(MERGE).map_err(unread)?;
    let numbers = merges.iter().flat_map(|(_, step)| &step.operations).filter_map(|operation| {
        operation["level"]["number"].as_u64().and_then(|number| u32::try_from(number).ok())
    });
    Ok(numbers.collect())
}

/// Adds what other steps say to the operations of a snapshot or a merge: to its level, the base overlay, the volumes, and whether
/// the container is being undone.
pub fn complete_levels(document: &Document, operations: &mut [Value], ends: bool) {
    let base = of(document).ok().and_then(|base| serde_json::to_value(base.overlay).ok());
    let volumes = step(document).map_or_else(|_| Value::Array(Vec::new()), |step| volumes(&step));
    for operation in operations {
        let level = match operation["op"].as_str() {
            Some("level-mount") => operation,
            Some("tops-merge") => &mut operation["level"],
            _ => continue,
        };
        // Without the base nothing can be mounted. An operation that needs no mount works without
        // it.
        if let Some(base) = &base {
            level["base"] = base.clone();
        }
        level["volumes"] = volumes.clone();
        level["ends"] = ends.into();
    }
}

/// The mounts in the root file system that the step lists which mounted it.
fn volumes(step: &Step) -> Value {
    step.operations.iter().filter(|operation| operation["op"] == "bind-mount").cloned().collect()
}
