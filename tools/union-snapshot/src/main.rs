//! Takes a snapshot of a container's root file system.
//!
//! # Does
//! Turns what the container has written so far into another read-only lower directory, and replaces the
//! mounted overlay by one with an empty top. No process of the container may run in the meantime, because
//! it would keep using the old overlay. What is mounted in the root file system is moved to the new one.
//! Volumes are not part of a snapshot.
//! # Reads
//! `rootfs`; the steps, for what is mounted below; `process`, with `--end`.
//! # Adds
//! To `rootfs`: one of `levels`, and another `upper` and `work`.
//! # Undoes
//! Discards what was written since the snapshot, and continues with the top that it had frozen: a rollback.
//! # Needs
//! The same as union-mount. overlayfs allows 500 directories.

mod end;

use std::{cell::Cell, path::PathBuf, process::ExitCode};

use clap::Parser;
use document::{
    Contribution, Id, Member, Step,
    members::{Process, Rootfs},
};
use mount::{Level, MountOperation, level};
use operation::Scope;
use serde_json::{Map, Value, json};
use toolkit::prelude::*;
use union::base;

/// Take a snapshot of a container's root file system; --undo returns to it
#[derive(Debug, Parser)]
#[command(name = "union-snapshot", version)]
struct UnionSnapshot {
    /// The container; default: the document on standard input
    #[arg(value_name = "ID")]
    container: Option<Id>,
    /// End the container's processes first. With a restart policy, it is started again afterwards
    #[arg(long)]
    end: bool,
    /// Whether to start the container again.
    #[arg(skip)]
    ended: Cell<bool>,
    #[command(flatten)]
    common: Common,
}

/// What a snapshot adds to `rootfs`.
struct Snapshot {
    frozen: PathBuf,
    level: Level,
}

impl Contribution for Snapshot {
    const MEMBERS: &'static [&'static str] = &[Rootfs::NAME];

    fn parts(&self) -> serde_json::Result<Map<String, Value>> {
        let added = json!({"levels": [self.frozen], "upper": self.level.upper(), "work": self.level.work()});
        Ok(Map::from_iter([(Rootfs::NAME.to_owned(), added)]))
    }
}

impl Filter for UnionSnapshot {
    type Adds = Snapshot;
    type Operation = MountOperation;
    const LOCK: Option<&'static str> = Some(union::LOCK);
    const READS: &'static [&'static str] = &[Rootfs::NAME, Process::NAME];

    fn common(&self) -> &Common {
        &self.common
    }

    fn container(&self) -> Option<&Id> {
        self.container.as_ref()
    }

    fn is_rehearsed(&self) -> bool {
        self.end
    }

    fn before(&self, scope: &Scope, document: &Document) -> Result<()> {
        if self.end {
            self.ended.set(end::end(scope, document)?);
        }
        Ok(())
    }

    fn after(&self, scope: &Scope, document: &Document) -> Result<()> {
        if self.ended.get() { end::start_again(scope, document) } else { Ok(()) }
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let rootfs: Rootfs = document.require()?;
        let own = context.scope.container(&context.id);
        if !rootfs.path.starts_with(&own) {
            bail!(
                "take a snapshot of {:?}: it is not the root file system of container {:?}",
                rootfs.path,
                context.id
            );
        }
        let frozen = rootfs.upper.filter(|_| !rootfs.readonly).ok_or_else(|| {
            anyhow!("take a snapshot of container {:?}: its root file system is read-only", context.id)
        })?;
        let level = base::of(document)?.level(base::newest(document)? + 1, rootfs.path)?;
        let (mode, user, group) = match level::owner_and_mode(&frozen) {
            Err(error) if context.planned && operation::is_gone(&error) => (0o755, 0, 0),
            found => found?,
        };
        let make = |path, mode, owner| MountOperation::DirectoryAdd { path, mode, owner };
        let operations = vec![
            make(level.directory.clone(), 0o700, None),
            make(level.upper(), mode, Some((user, group))),
            make(level.work(), 0o700, None),
            MountOperation::LevelMount(level.clone()),
        ];
        Ok(Plan { adds: Snapshot { frozen, level }, operations })
    }

    fn complete(document: &Document, operations: &mut [Value]) -> Result<()> {
        base::complete_levels(document, operations, document.has_failed() || toolkit::is_unwound());
        Ok(())
    }

    fn refuse_undo(scope: &Scope, recorded: &Document, step: &Step) -> Result<()> {
        let number = base::number(step).unwrap_or_default();
        base::refuse_below_merge(recorded, number)?;
        Ok(base::refuse_below_forks(scope, recorded, number)?)
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::filter::<UnionSnapshot>()
}
