//! Undoing a step. A document is input, and undo runs as root: the document says which container and which step, and the
//! record, which only root writes, says what the step did.

use anyhow::{anyhow, bail};
use document::{Contribution, Document, Id, Instance, Member, Step, StepState, kept, record::Record};
use operation::{Operation, Scope, interrupt, undo_all};

use crate::{Common, Filter, failure, session};

/// `--undo`: undoes the last step of this tool in the document, and in the record.
pub(crate) fn run<F: Filter>(tool: &str, common: &Common, document: &mut Document) -> anyhow::Result<()> {
    let scope = common.scope()?;
    let forget = |document: &mut Document| -> anyhow::Result<()> {
        F::forget(document)?;
        Ok(document.complete(F::Adds::MEMBER)?)
    };
    let (lock, unrecorded) = (F::LOCK, F::undo_unrecorded);
    Undo { tool, scope: &scope, lock, forget: &forget, unrecorded }.step::<F::Operation>(document)
}

/// How the last step of a tool is undone.
pub(crate) struct Undo<'a> {
    pub(crate) tool: &'a str,
    pub(crate) scope: &'a Scope,
    /// The tool's own lock, by its name.
    pub(crate) lock: Option<&'static str>,
    /// Takes out of a document what the tool adds, for steps that do not tell what that is.
    pub(crate) forget: &'a dyn Fn(&mut Document) -> anyhow::Result<()>,
    /// Undoes what it can for a container without record.
    pub(crate) unrecorded: fn(&Scope, &Id) -> anyhow::Result<()>,
}

impl Undo<'_> {
    /// Undoes the last step of the tool in `document`: what the record lists for it, backwards; then the step goes, and what it
    /// added to members, here and in the record. What could not be undone stays in the step. A document in which the tool has no
    /// step is left as it is, and so is the record of a container that had the id later.
    ///
    /// # Errors
    /// When the document or the record cannot be read or written, or an operation could not be undone. Each error is
    /// printed on standard error.
    pub(crate) fn step<O: Operation>(self, document: &mut Document) -> anyhow::Result<()> {
        let Some((_, step)) = document.last_step_of(self.tool)? else { return Ok(()) };
        let Some(id) = document.id()? else {
            if step.operations.is_empty() {
                return replace(document, &step, Vec::new(), self.forget);
            }
            bail!("the document has steps and no `id`: it does not say which container they are of");
        };
        let record = Record::lock(&self.scope.run_dir, &id)?;
        let undone = match recorded(self.scope, &record, &id, document) {
            Ok(Some(recorded)) => self.recorded::<O>(document, &step, &record, recorded, &id),
            Ok(None) => self.unrecorded(document, &step, &id).map(|()| false),
            Err(error) => Err(error),
        };
        match undone {
            Ok(true) => record.remove()?,
            _ => record.release(),
        }
        undone.map(drop)
    }

    /// Whether nothing is left in the record.
    fn recorded<O: Operation>(
        self,
        document: &mut Document,
        step: &Step,
        record: &Record,
        mut recorded: Document,
        id: &Id,
    ) -> anyhow::Result<bool> {
        let Some(found) = counterpart(document, step, &recorded)? else {
            // It was undone before.
            replace(document, step, Vec::new(), self.forget)?;
            return Ok(recorded.tools()?.is_empty());
        };
        let operations = found.operations.iter().map(O::deserialize).collect::<Result<Vec<O>, _>>();
        let operations = operations.map_err(|error| {
            anyhow!("step \"{}\" of the record lists no operations of this tool: {error}", self.tool)
        })?;
        let _lock = session::lock(self.scope, self.lock)?;
        interrupt::block()?;
        let left = undo_all(&operations, self.scope);
        let remains: Vec<_> = left.iter().filter_map(|(at, _)| found.operations.get(*at).cloned()).collect();

        replace(document, step, remains.clone(), self.forget)?;
        replace(&mut recorded, &found, remains, self.forget)?;
        let mut errors = left.into_iter().map(|(_, error)| anyhow::Error::from(error).context("take back"));
        let first = errors.next();
        errors.for_each(|error| failure::print(self.tool, &error));
        if recorded.tools()?.is_empty() {
            return first.map_or(Ok(true), Err);
        }
        // On a full disk the record stays as it was. It lists too much then, never too little: to undo the step once more does
        // nothing, and no tool adds to a container whose document has other steps.
        if record.write(&recorded).is_ok() {
            let _ = kept::write(self.scope, id, &recorded);
        }
        first.map_or(Ok(false), Err)
    }

    /// Without a record it is not known what the step did. Only the container's own directory is surely its own.
    fn unrecorded(self, document: &mut Document, step: &Step, id: &Id) -> anyhow::Result<()> {
        let _lock = session::lock(self.scope, self.lock)?;
        interrupt::block()?;
        (self.unrecorded)(self.scope, id)?;
        replace(document, step, Vec::new(), self.forget)
    }
}

/// The container's record; none if there is none, and nothing of the container can be in the kernel any more.
///
/// # Errors
/// When it is of another container, or cannot be read.
fn recorded(
    scope: &Scope,
    record: &Record,
    id: &Id,
    document: &Document,
) -> anyhow::Result<Option<Document>> {
    let (known, path, counts) = match record.read()? {
        Some(recorded) => (recorded, record.path().to_owned(), true),
        None => match kept::read(scope, id)? {
            Some(kept) => (kept.document, kept.path, kept.is_of_this_boot),
            None => return Ok(None),
        },
    };
    match known.may_be_of_one_container(document)? {
        true => Ok(counts.then_some(known)),
        false => Err(session::of_another(&path, id)),
    }
}

/// The record's step for one of the document: the same one, or where they differ (the document is older, or was changed by
/// hand) the one in the same place among the tool's steps.
fn counterpart(document: &Document, step: &Step, recorded: &Document) -> anyhow::Result<Option<Step>> {
    if recorded.position_of(step)?.is_some() {
        return Ok(Some(step.clone()));
    }
    let place = document.tools()?.iter().filter(|tool| **tool == step.tool).count();
    Ok(recorded.steps()?.into_iter().filter(|other| other.tool == step.tool).nth(place.saturating_sub(1)))
}

/// Leaves only the operations that `remain` in the step, or removes it if there are none.
fn replace(
    document: &mut Document,
    step: &Step,
    remain: Vec<serde_json::Value>,
    forget: &dyn Fn(&mut Document) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(at) = document.position_of(step)? else { return Ok(()) };
    if remain.is_empty() {
        document.remove_step(at)?;
    } else {
        let after = Step { state: StepState::Begun, operations: remain, ..step.clone() };
        document.replace_step(at, &after)?;
    }
    let tools = document.tools()?;
    if step.adds.is_empty() && !tools.contains(&step.tool) {
        forget(document)?;
    }
    if tools.is_empty() {
        document.remove(Instance::NAME);
    }
    Ok(())
}
