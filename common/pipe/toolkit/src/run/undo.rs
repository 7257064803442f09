//! Undo of steps. The document is input, and undo runs as root. So the document only says which container and
//! which step. What the step did comes from the record, which only root can write.

use anyhow::{anyhow, bail};
use document::{
    Contribution, Document, Id, Instance, Member, Step, StepState, StepText, kept,
    members::Failure,
    record::{self, Record},
};
use operation::{Operation, Scope, causes, interrupt, undo_all};
use serde_json::Value;

use crate::{Common, Filter, failure, session};

/// The environment variable that tells a tool that unwind has started it.
pub const UNWINDING: &str = "STAVE_UNWINDING";

/// Whether unwind has started this tool.
pub fn is_unwound() -> bool {
    std::env::var_os(UNWINDING).is_some()
}

/// `--undo`: undoes the last step of this tool, in the document and in the record. With `--steps N`, the last
/// N.
pub(crate) fn run<F: Filter>(
    tool: &str,
    common: &Common,
    scope: &Scope,
    filter: Option<&F>,
    document: &mut Document,
) -> anyhow::Result<()> {
    let forget = |document: &mut Document| -> anyhow::Result<()> {
        F::forget(document)?;
        Ok(F::Adds::MEMBERS.iter().try_for_each(|member| document.complete(member))?)
    };
    let (lock, unrecorded) = (F::LOCK, F::undo_unrecorded);
    // The tool's own arguments are not needed, and where they are not complete each step is meant.
    let is_meant = |step: &Step| filter.is_none_or(|filter| filter.is_meant(step));
    if document.texts_of(tool)?.is_empty() {
        return pardon(tool, scope, document);
    }
    Undo {
        tool,
        scope,
        lock,
        is_meant: &is_meant,
        refuse: F::refuse_undo,
        complete: F::complete,
        forget: &forget,
        unrecorded,
    }
    .steps::<F::Operation>(common.steps, document)
}

/// Whether there is a step of this tool to undo. Asks [`Filter::refuse_undo`] of the newest one, as [`run`] will.
///
/// # Errors
/// The refusal; when the document or the record cannot be read.
pub(crate) fn is_possible<F: Filter>(tool: &str, scope: &Scope, document: &Document) -> anyhow::Result<bool> {
    let own = document.texts_of(tool)?;
    let (Some(last), Some(id)) = (own.last(), document.id()?) else { return Ok(false) };
    let record = Record::lock(&scope.run_dir, &id)?;
    let known = recorded(scope, &record, &id, document);
    record.release();
    if let Some(known) = known? {
        let listed = known.texts_of(tool)?;
        if let Some((_, step)) = counterpart(&listed, own.len() - 1, &last.step()?)? {
            F::refuse_undo(scope, &known, &step)?;
        }
    }
    Ok(true)
}

/// Removes `error` from a document that has no step of this tool: the tool failed and undid its step, and can
/// be tried again. But not if the container is being unwound.
fn pardon(tool: &str, scope: &Scope, document: &mut Document) -> anyhow::Result<()> {
    let Some(failure) = document.get::<Failure>()? else { return Ok(()) };
    let recorded = document.id()?.map(|id| record::read(&scope.run_dir, &id)).transpose()?.flatten();
    if failure.tool == tool && !recorded.is_some_and(|recorded| recorded.has_failed()) {
        document.remove(Failure::NAME);
    }
    Ok(())
}

/// Undoes the last steps of a tool.
pub(crate) struct Undo<'a> {
    pub(crate) tool: &'a str,
    pub(crate) scope: &'a Scope,
    /// The name of the tool's own lock.
    pub(crate) lock: Option<&'static str>,
    /// Whether a step of the tool is one of those to undo.
    pub(crate) is_meant: &'a dyn Fn(&Step) -> bool,
    /// Says why a step of the record must not be undone yet, if it must not.
    pub(crate) refuse: fn(&Scope, &Document, &Step) -> anyhow::Result<()>,
    /// Puts into the operations what other steps of the record say.
    pub(crate) complete: fn(&Document, &mut [Value]) -> anyhow::Result<()>,
    /// Takes out of a document what the tool adds, for steps that do not tell what that is.
    pub(crate) forget: &'a dyn Fn(&mut Document) -> anyhow::Result<()>,
    /// Undoes what is possible for a container without a record.
    pub(crate) unrecorded: fn(&Scope, &Id) -> anyhow::Result<()>,
}

/// A step to undo: its position among the tool's steps, and its index in the document.
type Chosen = (usize, (usize, Step));

/// A step at its index in a document, and those of its operations that could not be undone.
type Outcome = (usize, Step, Vec<Value>);

impl Undo<'_> {
    /// Undoes the last `count` steps of the tool in `document`, newest first. For each step, undoes backwards
    /// the operations that the record lists. Then removes the step, and what it added to members, from
    /// document and record. Operations that could not be undone stay in the step. Does nothing if the
    /// document has no step of the tool. Does not touch the record of a later container with the same id.
    ///
    /// The record is written once, at the end. If the tool is killed before, the record lists too much. That
    /// does no harm, because undoing again does nothing.
    ///
    /// # Errors
    /// When the document or the record cannot be read or written, or an operation could not be undone. The
    /// first error is returned; the others are printed on standard error.
    pub(crate) fn steps<O: Operation>(self, count: usize, document: &mut Document) -> anyhow::Result<()> {
        let chosen = self.chosen(count, document)?;
        if chosen.is_empty() {
            return Ok(());
        }
        let Some(id) = document.id()? else {
            if chosen.iter().all(|(_, (_, step))| step.operations.is_empty()) {
                return self.forget(document, chosen);
            }
            bail!("the document has steps and no `id`: it does not name their container");
        };
        let record = Record::lock(&self.scope.run_dir, &id)?;
        let is_seen = record.is_seen_by(self.tool, &id).map_err(Into::into);
        let known = is_seen
            .and_then(|_| session::refuse_read_only(self.scope, &id, &[self.tool]))
            .and_then(|()| recorded(self.scope, &record, &id, document));
        let undone = match known {
            Ok(Some(recorded)) => self.recorded::<O>(document, chosen, &record, recorded, &id),
            Ok(None) => self.unrecorded(document, chosen, &id).map(|()| false),
            Err(error) => Err(error),
        };
        match undone {
            Ok(true) => record.remove()?,
            _ => record.release(),
        }
        undone.map(drop)
    }

    /// The last `count` steps of the tool that are meant, newest first. Older ones are not parsed: a container can
    /// have hundreds of snapshots.
    fn chosen(&self, count: usize, document: &Document) -> anyhow::Result<Vec<Chosen>> {
        let mut chosen = Vec::new();
        for (place, text) in document.texts_of(self.tool)?.into_iter().enumerate().rev() {
            if chosen.len() == count {
                break;
            }
            let step = text.step()?;
            if (self.is_meant)(&step) {
                chosen.push((place, (text.at, step)));
            }
        }
        Ok(chosen)
    }

    /// Undoes the chosen steps by the record. Returns whether the record lists nothing any more.
    fn recorded<O: Operation>(
        self,
        document: &mut Document,
        chosen: Vec<Chosen>,
        record: &Record,
        mut recorded: Document,
        id: &Id,
    ) -> anyhow::Result<bool> {
        let mut listed = recorded.texts_of(self.tool)?;
        let _lock = session::lock(self.scope, self.lock)?;
        interrupt::block()?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut errors: Vec<anyhow::Error> = Vec::new();
        for (place, (at, step)) in chosen {
            // `checked` takes the signal off the queue. The first step is undone in any case, so the signal
            // only counts after it.
            if !ours.is_empty()
                && let Err(error) = interrupt::checked()
            {
                errors.push(error.into());
                break;
            }
            let (found, recorded_step) = match counterpart(&listed, place, &step) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    // The step was undone before.
                    ours.push((at, step, Vec::new()));
                    continue;
                }
                Err(error) => {
                    errors.push(error);
                    break;
                }
            };
            if !self.may_undo(document, &recorded, &recorded_step, &mut errors) {
                break;
            }
            match self.undo::<O>(&recorded, &recorded_step, &mut errors) {
                Err(error) => errors.push(error),
                Ok(remains) => {
                    let there = listed[found].at;
                    if remains.is_empty() {
                        listed.remove(found);
                    }
                    ours.push((at, step, remains.clone()));
                    theirs.push((there, recorded_step, remains));
                }
            }
        }
        let changed = !theirs.is_empty();
        let was_durable = kept::is_durable(&recorded);
        self.settle_both(document, ours, &mut recorded, theirs)?;
        if was_durable && !kept::is_durable(&recorded) {
            errors.extend(kept::sync_removal(self.scope, id).err().map(Into::into));
        }
        self.keep(record, &recorded, id, changed, errors)
    }

    /// Whether the step must not be refused. unwind undoes the record step by step, and its document tells what is
    /// left, even if the record could not be written meanwhile. A step that depends on this one has failed to be
    /// undone then, and that was reported.
    fn may_undo(
        &self,
        document: &Document,
        recorded: &Document,
        step: &Step,
        errors: &mut Vec<anyhow::Error>,
    ) -> bool {
        let is_unwound = is_unwound();
        let there = if is_unwound { document } else { recorded };
        let Err(error) = (self.refuse)(self.scope, there, step) else { return true };
        let is_of_system = operation::errno_of(&*error).is_some();
        errors.extend((!is_unwound || is_of_system).then_some(error));
        false
    }

    /// Writes the record without what was undone. Prints all errors but the first, which it returns. Returns whether the
    /// record lists nothing any more.
    fn keep(
        &self,
        record: &Record,
        recorded: &Document,
        id: &Id,
        changed: bool,
        mut errors: Vec<anyhow::Error>,
    ) -> anyhow::Result<bool> {
        failure::once(&mut errors);
        let mut errors = errors.into_iter();
        let first = errors.next();
        errors.for_each(|error| failure::print(self.tool, &error));
        if recorded.tools()?.is_empty() {
            return first.map_or(Ok(true), Err);
        }
        // On a full disk the record stays as it was. It then lists too much and never too little: undoing a
        // step again does nothing, and no tool adds to a container whose document has other steps.
        if changed && record.write(recorded).is_ok() {
            let _ = kept::write(self.scope, id, recorded);
        }
        first.map_or(Ok(false), Err)
    }

    /// Undoes the operations of a step. Returns those that could not be undone.
    ///
    /// # Errors
    /// When they are not of this tool: nothing is undone then.
    fn undo<O: Operation>(
        &self,
        recorded: &Document,
        step: &Step,
        errors: &mut Vec<anyhow::Error>,
    ) -> anyhow::Result<Vec<Value>> {
        let mut whole = step.operations.clone();
        (self.complete)(recorded, &mut whole)?;
        let operations = whole.iter().map(O::deserialize).collect::<Result<Vec<O>, _>>();
        let operations = operations.map_err(|error| {
            anyhow!("step \"{}\" of the record lists no operations of this tool: {error}", self.tool)
        })?;
        let left = undo_all(&operations, self.scope);
        let remains = left.iter().filter_map(|(at, _)| step.operations.get(*at).cloned()).collect();
        errors.extend(causes(left).map(|error| anyhow::Error::from(error).context("undo")));
        Ok(remains)
    }

    /// Undoes the chosen steps without a record. What the steps did is not known then, and only the
    /// container's own directory is certain to belong to it.
    fn unrecorded(self, document: &mut Document, chosen: Vec<Chosen>, id: &Id) -> anyhow::Result<()> {
        let _lock = session::lock(self.scope, self.lock)?;
        interrupt::block()?;
        (self.unrecorded)(self.scope, id)?;
        self.forget(document, chosen)
    }

    /// Removes the chosen steps from a document.
    fn forget(&self, document: &mut Document, chosen: Vec<(usize, (usize, Step))>) -> anyhow::Result<()> {
        self.settle(document, chosen.into_iter().map(|(_, (at, step))| (at, step, Vec::new())).collect())
    }

    /// Settles the document and the record. They are nearly always equal, and then this is done once.
    fn settle_both(
        &self,
        document: &mut Document,
        ours: Vec<Outcome>,
        recorded: &mut Document,
        theirs: Vec<Outcome>,
    ) -> anyhow::Result<()> {
        let are_equal = document.is_same_text(recorded) && ours == theirs;
        self.settle(document, ours)?;
        if are_equal {
            recorded.clone_from(document);
            return Ok(());
        }
        self.settle(recorded, theirs)
    }

    /// Keeps the operations that could not be undone in each step. Removes a step that has none.
    fn settle(&self, document: &mut Document, outcomes: Vec<Outcome>) -> anyhow::Result<()> {
        let all_tell = outcomes.iter().all(|(_, step, _)| !step.adds.is_empty());
        let mut gone = Vec::new();
        for (at, step, remain) in outcomes {
            match remain.is_empty() {
                true => gone.push(at),
                false => {
                    let after = Step { state: StepState::Begun, operations: remain, ..step };
                    document.replace_step(at, &after)?;
                }
            }
        }
        document.remove_steps(&gone)?;
        let tools = document.tools()?;
        if !all_tell && !tools.iter().any(|tool| tool == self.tool) {
            (self.forget)(document)?;
        }
        if tools.is_empty() {
            document.remove(Instance::NAME);
        }
        Ok(())
    }
}

/// The document in the container's record. `None` if there is no record of this boot, so that nothing of the
/// container can be in the kernel.
///
/// # Errors
/// When the record is of another container, or cannot be read.
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

/// Finds the step in the record that corresponds to a step of the document: the same step, or else the one at
/// the same position, because the document may be older or changed by hand. Returns its place in the list, and
/// the step.
///
/// # Errors
/// When a step of the list cannot be read.
fn counterpart(listed: &[StepText<'_>], place: usize, step: &Step) -> anyhow::Result<Option<(usize, Step)>> {
    let there = listed.get(place).map(|text| text.step()).transpose()?;
    if there.as_ref() == Some(step) {
        return Ok(there.map(|there| (place, there)));
    }
    for (other, text) in listed.iter().enumerate().rev() {
        let found = text.step()?;
        if found == *step {
            return Ok(Some((other, found)));
        }
    }
    Ok(there.map(|there| (place, there)))
}
