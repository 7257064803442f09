//! A session is the work of one tool on one container. It holds the lock of the record, and knows the tool's
//! step.

use std::path::Path;

use anyhow::{anyhow, bail};
use document::{
    Contribution, Document, Id, Instance, Member, Name, Step, StepState, kept,
    members::{Process, Rootfs},
    record::{self, Lock, Record},
    table,
};
use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};
use operation::{Operation, Scope};
use serde_json::{Map, Value};

use crate::hint;

/// A document that a tool adds a step to. The record is locked meanwhile.
#[derive(Debug)]
pub struct Session {
    tool: String,
    version: String,
    id: Id,
    scope: Scope,
    record: Record,
    /// The document as it came in.
    before: Document,
    /// Whether a record existed at the start.
    recorded: bool,
    document: Document,
    /// The index of the step, once it is on the stack.
    step: Option<usize>,
    /// What the step adds to members, once it is done.
    adds: Map<String, Value>,
}

impl Session {
    /// Locks the record of the document's container. A container without an id gets one.
    ///
    /// # Errors
    /// When the id belongs to another container, or the record lists other steps than the document. To
    /// continue would lose what the record lists.
    pub fn open(
        tool: &str,
        version: &str,
        scope: &Scope,
        document: Document,
        asked: Option<&Id>,
    ) -> anyhow::Result<Self> {
        let id = container(&document, asked)?;
        let record = Record::lock(&scope.run_dir, &id)?;
        let known = record.read().map_err(anyhow::Error::from);
        let compared = known.and_then(|known| compare(&document, known, record.path(), &id));
        let recorded = match compared {
            Ok(recorded) => recorded,
            Err(error) => {
                record.release();
                return Err(error);
            }
        };
        let opened = opened(&document, recorded.as_ref(), &id)?;
        let recorded = recorded.is_some();
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

    /// The container's id.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The document, as it is at the moment.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Pushes the step as begun, and writes the record. From now on `unwind` finds what the tool is about to
    /// make. A tool may start with [`Session::done`] if all it makes is a process that ends with the tool.
    ///
    /// # Errors
    /// When the record cannot be written. Nothing has changed then.
    pub fn begin<O: Operation>(&mut self, operations: &[O]) -> anyhow::Result<()> {
        self.put_step(StepState::Begun, operations.iter().collect())?;
        Ok(self.record.write(&self.document)?)
    }

    /// Marks the step as done, adds to the members what the step adds, and writes the record. `operations`
    /// are as they are after they were applied.
    ///
    /// # Errors
    /// When the record cannot be written. The caller then undoes the operations and calls
    /// [`Session::abandon`].
    pub fn done<O: Operation, C: Contribution>(&mut self, operations: &[O], adds: &C) -> anyhow::Result<()> {
        self.done_with(operations, adds.parts()?)
    }

    /// Continues a step that `step-begin` pushed.
    ///
    /// # Errors
    /// When the last step of the tool is not begun, or there is none.
    pub(crate) fn resume(&mut self) -> anyhow::Result<Step> {
        let (at, step) = begun(&self.document, &self.tool)?;
        self.step = Some(at);
        self.version.clone_from(&step.version);
        Ok(step)
    }

    /// As [`Session::done`], for additions to any members.
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

    /// Removes the step after its operations were undone, and restores the document and the record.
    /// Operations at the indices `left` could not be undone: they stay in the step.
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

    /// Returns the document as it came in, for a tool that fails before it has begun its step.
    pub fn give_up(self) -> Document {
        if !self.recorded {
            self.record.release();
        }
        self.before
    }

    /// Returns the document, and unlocks the record.
    pub fn into_document(self) -> Document {
        self.document
    }
}

/// As [`Session::open`], for a tool that only plans: the container's id, and the document as a session would have it. Takes no
/// lock and writes nothing. A planned document has no record yet.
///
/// # Errors
/// As [`Session::open`].
pub(crate) fn foreseen(
    scope: &Scope,
    document: &Document,
    asked: Option<&Id>,
) -> anyhow::Result<(Id, Document)> {
    let id = container(document, asked)?;
    let recorded = match document.is_planned()? {
        true => None,
        false => {
            let known = record::read(&scope.run_dir, &id)?;
            compare(document, known, &record::path(&scope.run_dir, &id), &id)?
        }
    };
    let document = opened(document, recorded.as_ref(), &id)?;
    Ok((id, document))
}

/// The document in the record, if there is one: it must belong to the document that came in, and list the same steps.
fn compare(
    document: &Document,
    recorded: Option<Document>,
    path: &Path,
    id: &Id,
) -> anyhow::Result<Option<Document>> {
    match recorded {
        Some(recorded) if recorded.has_failed() => Err(taken_back(path, id)),
        Some(recorded) => {
            let is_its_own = recorded.may_be_of_one_container(document)?;
            match document.tools()?.is_empty() {
                _ if is_its_own && recorded.has_steps_of(document)? => Ok(Some(recorded)),
                true => Err(exists(path, id, "is its record")),
                false if is_its_own => Err(differs(path, id)),
                false => Err(of_another(path, id)),
            }
        }
        None if document.steps()?.iter().all(|step| step.operations.is_empty()) => Ok(None),
        None => Err(no_record(path, id)),
    }
}

/// The last step of the tool, which must be begun, and its index.
pub(crate) fn begun(document: &Document, tool: &str) -> anyhow::Result<(usize, Step)> {
    match document.last_step_of(tool)? {
        Some((at, step)) if step.state == StepState::Begun => Ok((at, step)),
        _ => Err(hint(
            anyhow!("no step \"{tool}\" is begun in the document"),
            format!("`step-begin {tool}` begins one"),
        )),
    }
}

/// The document that a tool works on: named, and with what the record knows better.
fn opened(document: &Document, recorded: Option<&Document>, id: &Id) -> anyhow::Result<Document> {
    let mut opened = document.clone();
    name(&mut opened, id)?;
    match recorded {
        Some(recorded) => opened.catch_up_with(recorded),
        // A new container is called by its id.
        None => opened.remove(Name::NAME),
    }
    Ok(opened)
}

/// The id of the container: the document's, the one that was asked for, or a new one.
///
/// # Errors
/// When the document has another id than the one that was asked for.
fn container(document: &Document, asked: Option<&Id>) -> anyhow::Result<Id> {
    let named = document.id()?;
    if let (Some(named), Some(asked)) = (&named, asked)
        && named != asked
    {
        bail!("the document belongs to container \"{named}\", not to \"{asked}\"");
    }
    Ok(named.or(asked.cloned()).unwrap_or_else(Id::random))
}

/// Writes the container's id into the document, and an instance if it has none.
fn name(document: &mut Document, id: &Id) -> anyhow::Result<()> {
    document.set(id)?;
    if document.raw(Instance::NAME).is_none() {
        document.set(&Instance::random())?;
    }
    Ok(())
}

/// Takes a tool's own lock, [`Filter::LOCK`](crate::Filter::LOCK). Always take the record's lock first.
pub(crate) fn lock(scope: &Scope, name: Option<&str>) -> anyhow::Result<Option<Lock>> {
    Ok(name.map(|name| Lock::take(&scope.run_dir, name)).transpose()?)
}

/// The error for a document that lists steps of a container that has no record.
pub(crate) fn no_record(record: &Path, id: &Id) -> anyhow::Error {
    hint(
        anyhow!("container \"{id}\" has no record {record:?}"),
        "it was unwound, the machine was restarted, or --run-dir differs: start it again",
    )
}

/// Refuses to undo steps of these tools while the container's directory is read-only from here. Otherwise a part would be
/// undone, such as a mount of this mount namespace only, and nobody would know of the same mount elsewhere.
///
/// # Errors
/// That it is read-only.
pub fn refuse_read_only(scope: &Scope, id: &Id, tools: &[impl AsRef<str>]) -> anyhow::Result<()> {
    let has_files = |tool: &str| table::makes(tool, Rootfs::NAME) || table::makes(tool, Process::NAME);
    let directory = scope.container(id.as_str());
    let is_read_only = || access(&directory, AccessFlags::W_OK) == Err(Errno::EROFS);
    if tools.iter().any(|tool| has_files(tool.as_ref())) && is_read_only() {
        let error = operation::Error::new("write to", format_args!("{directory:?}"), Errno::EROFS);
        let hint = "mount it read-write, or run the command in a mount namespace where it is";
        return Err(error.with_hint(hint).into());
    }
    Ok(())
}

/// Refuses a container whose files may be half written because the machine was restarted.
///
/// # Errors
/// When the files may be half written, or the second record cannot be read.
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

/// Refuses a document whose id belongs to another container by now: what it says about files would be read from that one.
///
/// # Errors
/// When it does, and when the record cannot be read.
pub(crate) fn refuse_other(scope: &Scope, document: &Document) -> anyhow::Result<()> {
    let Some(id) = document.id()? else { return Ok(()) };
    match record::read(&scope.run_dir, &id)? {
        Some(recorded) if !recorded.may_be_of_one_container(document)? => {
            Err(of_another(&record::path(&scope.run_dir, &id), &id))
        }
        _ => Ok(()),
    }
}

/// The error for a record with `error`. `unwind` sets it when it begins.
pub(crate) fn taken_back(record: &Path, id: &Id) -> anyhow::Error {
    hint(
        anyhow!("container \"{id}\" is being unwound, according to {record:?}"),
        format!("run `unwind {id}` to finish that, or choose another `--id`"),
    )
}

/// The error for a record of another container that has or had the id.
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
