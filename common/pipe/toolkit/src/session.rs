//! One tool's work on one container: the record is locked, and the step is on the stack.

use std::path::Path;

use anyhow::{anyhow, bail};
use document::{
    Contribution, Document, Id, Instance, Member, Step, StepState, kept,
    record::{Lock, Record},
};
use operation::{Operation, Scope};
use serde_json::{Map, Value};

use crate::hint;

/// A document that one tool adds a step to. Its record is locked meanwhile.
#[derive(Debug)]
pub struct Session {
    tool: String,
    version: String,
    id: Id,
    scope: Scope,
    record: Record,
    /// The document as it came.
    before: Document,
    /// Whether a record existed at the start.
    recorded: bool,
    document: Document,
    /// The index of the step, once it exists.
    step: Option<usize>,
    /// What the step adds to members, once it is done.
    adds: Map<String, Value>,
}

impl Session {
    /// Locks the record of the document's container; gives the container an id if it has none.
    ///
    /// # Errors
    /// When the id belongs to another container, or the record lists other steps than the document: continuing would
    /// lose what the record lists.
    pub fn open(
        tool: &str,
        version: &str,
        scope: &Scope,
        document: Document,
        asked: Option<&Id>,
    ) -> anyhow::Result<Self> {
        let id = container(&document, asked)?;
        let record = Record::lock(&scope.run_dir, &id)?;
        let recorded = match Self::compare(&document, &record, &id) {
            Ok(recorded) => recorded,
            Err(error) => {
                record.release();
                return Err(error);
            }
        };
        let mut opened = document.clone();
        name(&mut opened, &id)?;
        let (tool, version) = (tool.to_owned(), version.to_owned());
        let (before, document, scope) = (document, opened, scope.clone());
        Ok(Self {
            tool,
            version,
            id,
            scope,
            record,
            before,
            recorded,
            document,
            step: None,
            adds: Map::new(),
        })
    }

    /// Whether there is a record. Compares it with the document.
    fn compare(document: &Document, record: &Record, id: &Id) -> anyhow::Result<bool> {
        match record.read()? {
            Some(recorded) if recorded.has_failed() => Err(taken_back(record, id)),
            Some(recorded) => {
                let is_its_own = recorded.may_be_of_one_container(document)?;
                match document.tools()?.is_empty() {
                    _ if is_its_own && recorded.has_steps_of(document)? => Ok(true),
                    true => Err(exists(record.path(), id, "is its record")),
                    false if is_its_own => Err(differs(record.path(), id)),
                    false => Err(of_another(record.path(), id)),
                }
            }
            None if document.steps()?.iter().all(|step| step.operations.is_empty()) => Ok(false),
            None => Err(no_record(record, id)),
        }
    }

    /// The container's id.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The current document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Pushes the step as begun, and writes the record: from now on `unwind` can find what is about to be made. (A tool
    /// whose process ends with it until its release may start with [`Session::done`].)
    ///
    /// # Errors
    /// When the record cannot be written; nothing is changed then.
    pub fn begin<O: Operation>(&mut self, operations: &[O]) -> anyhow::Result<()> {
        self.put_step(StepState::Begun, operations.iter().collect())?;
        Ok(self.record.write(&self.document)?)
    }

    /// Marks the step as done, with the operations as they are after they were applied and with what it adds to members,
    /// adds that, and writes the record.
    ///
    /// # Errors
    /// When the record cannot be written; the caller undoes the operations and calls [`Session::abandon`].
    pub fn done<O: Operation, C: Contribution>(&mut self, operations: &[O], adds: &C) -> anyhow::Result<()> {
        self.done_with(operations, adds.parts()?)
    }

    /// Goes on with a step that `step-begin` has pushed.
    ///
    /// # Errors
    /// When the last step of the tool is not begun.
    pub(crate) fn resume(&mut self) -> anyhow::Result<Step> {
        match self.document.last_step_of(&self.tool)? {
            Some((at, step)) if step.state == StepState::Begun => {
                self.step = Some(at);
                self.version.clone_from(&step.version);
                Ok(step)
            }
            _ => Err(hint(
                anyhow!("no step \"{}\" is begun in the document", self.tool),
                format!("`step-begin {}` begins one", self.tool),
            )),
        }
    }

    /// As [`Session::done`], with what the step adds to any members.
    ///
    /// # Errors
    /// As [`Session::done`].
    pub(crate) fn done_with<O: Operation>(
        &mut self,
        operations: &[O],
        adds: Map<String, Value>,
    ) -> anyhow::Result<()> {
        self.adds = adds;
        self.put_step(StepState::Done, operations.iter().collect())?;
        for (name, added) in &self.adds {
            self.document.add(name, added)?;
        }
        self.record.write(&self.document)?;
        Ok(kept::write(&self.scope, &self.id, &self.document)?)
    }

    fn put_step<O: Operation>(&mut self, state: StepState, operations: Vec<&O>) -> anyhow::Result<()> {
        let adds = self.adds.clone();
        let step = Step { adds, ..Step::new(&self.tool, &self.version, state, operations) };
        match self.step {
            Some(at) => self.document.replace_step(at, &step)?,
            None => self.step = Some(self.document.push_step(&step)?),
        }
        Ok(())
    }

    /// Removes the step after its operations were undone, except those at the indices `left`. The document and the
    /// record are then as they came, except for these.
    ///
    /// # Errors
    /// When the record cannot be written or removed.
    pub fn abandon<O: Operation>(
        mut self,
        operations: &[O],
        left: &[usize],
    ) -> (Document, anyhow::Result<()>) {
        let result = self.restore(operations, left);
        let document = if left.is_empty() { self.before } else { self.document };
        let result = result.and_then(|()| match left.is_empty() && !self.recorded {
            true => Ok(self.record.remove()?),
            false => Ok(self.record.write(&document)?),
        });
        (document, result)
    }

    fn restore<O: Operation>(&mut self, operations: &[O], left: &[usize]) -> anyhow::Result<()> {
        if left.is_empty() {
            return Ok(());
        }
        let left = left.iter().filter_map(|&at| operations.get(at)).collect();
        self.put_step(StepState::Begun, left)
    }

    /// The document as it came, for passing on with an error; nothing was begun.
    pub fn give_up(self) -> Document {
        if !self.recorded {
            self.record.release();
        }
        self.before
    }

    /// The current document; the record is unlocked.
    pub fn into_document(self) -> Document {
        self.document
    }
}

/// Which container it is: the document's, the one that was asked for, or a new one.
///
/// # Errors
/// When the document is of another one than was asked for.
pub(crate) fn container(document: &Document, asked: Option<&Id>) -> anyhow::Result<Id> {
    let named = document.id()?;
    if let (Some(named), Some(asked)) = (&named, asked)
        && named != asked
    {
        bail!("the document belongs to container \"{named}\", not to \"{asked}\"");
    }
    Ok(named.or(asked.cloned()).unwrap_or_else(Id::random))
}

/// Writes into the document which container it is of.
pub(crate) fn name(document: &mut Document, id: &Id) -> anyhow::Result<()> {
    document.set(id)?;
    if document.raw(Instance::NAME).is_none() {
        document.set(&Instance::random())?;
    }
    Ok(())
}

/// A tool's own lock, [`Filter::LOCK`](crate::Filter::LOCK). It is taken after the record's.
pub(crate) fn lock(scope: &Scope, name: Option<&str>) -> anyhow::Result<Option<Lock>> {
    Ok(name.map(|name| Lock::take(&scope.run_dir, name)).transpose()?)
}

/// The error for a document that lists steps of a container that has no record.
pub(crate) fn no_record(record: &Record, id: &Id) -> anyhow::Error {
    hint(
        anyhow!("container \"{id}\" has no record {:?}", record.path()),
        "it was unwound, the machine was restarted, or --run-dir differs: start it again",
    )
}

/// Refuses a container whose files a restart of the machine may have left half written.
///
/// # Errors
/// That, and when the second record cannot be read.
pub fn refuse_lost(scope: &Scope, document: &Document) -> anyhow::Result<()> {
    match (kept::is_lost(scope, document)?, document.id()?) {
        (true, Some(id)) => Err(hint(
            anyhow!(
                "the files of container \"{id}\" are lost: the machine was restarted, and they may be half written"
            ),
            format!("`unwind {id}` removes them; with `union-mount --durable` they survive a restart"),
        )),
        _ => Ok(()),
    }
}

/// The error for a record with `error`, which `unwind` sets when it begins.
pub(crate) fn taken_back(record: &Record, id: &Id) -> anyhow::Error {
    hint(
        anyhow!("container \"{id}\" is being unwound, according to {:?}", record.path()),
        format!("run `unwind {id}` to finish that, or choose another `--id`"),
    )
}

/// The error for a record of another container, which had the id before or after.
pub fn of_another(record: &Path, id: &Id) -> anyhow::Error {
    exists(record, id, "belongs to another container than this document")
}

/// The error for a record with more or fewer steps than the document.
pub fn differs(record: &Path, id: &Id) -> anyhow::Error {
    exists(record, id, "lists other steps than this document")
}

fn exists(record: &Path, id: &Id, how: &str) -> anyhow::Error {
    hint(
        anyhow!("container \"{id}\" exists: {record:?} {how}"),
        format!("run `unwind {id}`, or choose another `--id`"),
    )
}
