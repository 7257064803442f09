//! Merges the writes of a fork into the container that it is based on.
//!
//! # Does
//! If that container has not changed since the fork's snapshot, copies what the fork has written to its
//! top. Otherwise changes nothing, and lists the paths that both have changed. The fork stays as it is. No
//! process may use either container in the meantime.
//! # Reads
//! No document: the records of both.
//! # Adds
//! Nothing to members. Adds a step to the container that the fork is based on, and prints its document.
//! # Undoes
//! Restores what the container was before, and discards what was written since.
//! # Needs
//! The same as union-snapshot.

use std::{
    cell::{OnceCell, RefCell},
    process::ExitCode,
};

use clap::Parser;
use document::{
    Contribution, Id, Step,
    members::Rootfs,
    record::{self, Record},
};
use operation::Scope;
use serde_json::{Map, Value};
use toolkit::prelude::*;
use union::{Merge, base};

/// Merge the writes of a fork into the container that it is based on
#[derive(Debug, Parser)]
#[command(name = "union-merge", version)]
struct UnionMerge {
    /// The fork
    #[arg(value_name = "FORK")]
    fork: Id,
    /// The container that the fork is based on.
    #[arg(skip)]
    onto: OnceCell<Id>,
    /// The lock of the fork's record, while it is merged.
    #[arg(skip)]
    held: RefCell<Option<Record>>,
    #[command(flatten)]
    common: Common,
}

/// The step adds no member.
struct Nothing;

impl Contribution for Nothing {
    const MEMBERS: &'static [&'static str] = &[];

    fn parts(&self) -> serde_json::Result<Map<String, Value>> {
        Ok(Map::new())
    }
}

impl UnionMerge {
    /// The container that the fork is based on, from the fork's record. None if it is not a fork.
    fn find(&self) -> Result<Option<Id>> {
        let Some(recorded) = record::read(&self.common.scope()?.run_dir, &self.fork)? else {
            return Ok(None);
        };
        Ok(recorded.get::<Rootfs>()?.and_then(|rootfs| rootfs.fork).map(|fork| fork.container))
    }

    /// Refuses to go on if the container that the fork is based on is not known.
    fn known(&self) -> Result<()> {
        // Without a record that can be read, the fork is taken for its own container.
        if self.container() == Some(&self.fork) {
            self.find()?;
        }
        Ok(())
    }
}

impl Filter for UnionMerge {
    type Adds = Nothing;
    type Operation = Merge;
    const LOCK: Option<&'static str> = Some(union::LOCK);

    fn common(&self) -> &Common {
        &self.common
    }

    fn container(&self) -> Option<&Id> {
        Some(self.onto.get_or_init(|| self.find().ok().flatten().unwrap_or_else(|| self.fork.clone())))
    }

    /// Nobody may use the fork while it is read. Its record is locked before that of the container, as the fork of a fork is.
    fn before(&self, scope: &Scope, _: &Document) -> Result<()> {
        self.known()?;
        // What is no fork is found to be its own container, and is refused later.
        if !self.common.undo && self.container() != Some(&self.fork) {
            *self.held.borrow_mut() = Record::lock_existing(&scope.run_dir, &self.fork)?;
        }
        Ok(())
    }

    fn after(&self, _: &Scope, _: &Document) -> Result<()> {
        drop(self.held.take());
        Ok(())
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        self.known()?;
        let other = record::read_existing(&context.scope.run_dir, &self.fork)?;
        let id = context.id.parse()?;
        let merge = union::merge(&context.scope, document, &id, &self.fork, &other)?;
        Ok(Plan { adds: Nothing, operations: vec![merge] })
    }

    fn complete(document: &Document, operations: &mut [Value]) -> Result<()> {
        base::complete_levels(document, operations, document.has_failed() || toolkit::is_unwound());
        Ok(())
    }

    fn refuse_undo(_: &Scope, recorded: &Document, step: &Step) -> Result<()> {
        let number = step.operations.iter().find_map(|operation| operation["level"]["number"].as_u64());
        match number.is_some_and(|number| u64::from(base::newest(recorded).unwrap_or_default()) > number) {
            true => bail!("undo the merge: a snapshot was taken since"),
            false => Ok(()),
        }
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::filter::<UnionMerge>()
}
