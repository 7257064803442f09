//! Undoing a step. A document is input, and undo runs as root: the document says which container and which step, and the
//! record, which only root writes, says what the step did.

use std::ffi::OsString;

use anyhow::{anyhow, bail};
use document::{
    Contribution, Document, Id, Instance, Member, Step, StepState, kept,
    members::Failure,
    record::{self, Record},
};
use operation::{Operation, Scope, causes, interrupt, undo_all};
use serde_json::Value;

use crate::{Common, Filter, failure, session};

/// The variable of the environment by which unwind tells its tools who calls them.
pub const UNWINDING: &str = "STAVE_UNWINDING";

/// `--undo`: undoes the last step of this tool in the document, and in the record; with `--steps N` the last N.
pub(crate) fn run<F: Filter>(
    tool: &str,
    common: &Common,
    arguments: &[OsString],
    document: &mut Document,
) -> anyhow::Result<()> {
    let scope = common.scope()?;
    let forget = |document: &mut Document| -> anyhow::Result<()> {
        F::forget(document)?;
        Ok(F::Adds::MEMBERS.iter().try_for_each(|member| document.complete(member))?)
    };
    let (lock, unrecorded) = (F::LOCK, F::undo_unrecorded);
    // The tool's own arguments are not needed, and where they are not complete each step is meant.
    let filter = F::try_parse_from(arguments).ok();
    let is_meant = |step: &Step| filter.as_ref().is_none_or(|filter| filter.is_meant(step));
    if document.steps_of(tool)?.is_empty() {
        return pardon(tool, &scope, document);
    }
    Undo {
        tool,
        scope: &scope,
        lock,
        is_meant: &is_meant,
        refuse: F::refuse_undo,
        forget: &forget,
        unrecorded,
    }
    .steps::<F::Operation>(common.steps, document)
}

/// Takes the error of this tool out of a document that has no step of it: it was taken back when it failed, and can be tried again.
/// Nothing is tried on a container that is being unwound.
fn pardon(tool: &str, scope: &Scope, document: &mut Document) -> anyhow::Result<()> {
    let Some(failure) = document.get::<Failure>()? else { return Ok(()) };
    let recorded = document.id()?.map(|id| record::read(&scope.run_dir, &id)).transpose()?.flatten();
    if failure.tool == tool && !recorded.is_some_and(|recorded| recorded.has_failed()) {
        document.remove(Failure::NAME);
    }
    Ok(())
}

/// How the last steps of a tool are undone.
pub(crate) struct Undo<'a> {
    pub(crate) tool: &'a str,
    pub(crate) scope: &'a Scope,
    /// The tool's own lock, by its name.
    pub(crate) lock: Option<&'static str>,
    /// Whether a step of the tool is one of those to undo.
    pub(crate) is_meant: &'a dyn Fn(&Step) -> bool,
    /// Says why a step of the record must not be undone yet, if it must not.
    pub(crate) refuse: fn(&Document, &Step) -> anyhow::Result<()>,
    /// Takes out of a document what the tool adds, for steps that do not tell what that is.
    pub(crate) forget: &'a dyn Fn(&mut Document) -> anyhow::Result<()>,
    /// Undoes what it can for a container without record.
    pub(crate) unrecorded: fn(&Scope, &Id) -> anyhow::Result<()>,
}

/// A step at its index in a document, and those of its operations that could not be undone.
type Outcome = (usize, Step, Vec<Value>);

impl Undo<'_> {
    /// Undoes the last `count` steps of the tool in `document`, the newest first: what the record lists for each, backwards;
    /// then the step goes, and what it added to members, here and in the record. What could not be undone stays in the step. A
    /// document in which the tool has no step is left as it is, and so is the record of a container that had the id later.
    ///
    /// The record is written once, after all of them. If the tool is killed before that, the record lists too much, which does
    /// no harm: undo of what is gone does nothing.
    ///
    /// # Errors
    /// When the document or the record cannot be read or written, or an operation could not be undone. Each error is
    /// printed on standard error.
    pub(crate) fn steps<O: Operation>(self, count: usize, document: &mut Document) -> anyhow::Result<()> {
        let all = document.steps_of(self.tool)?;
        let meant = all.into_iter().enumerate().filter(|(_, (_, step))| (self.is_meant)(step));
        let mut chosen: Vec<_> = meant.collect();
        chosen.drain(..chosen.len().saturating_sub(count));
        chosen.reverse();
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
        let undone = match recorded(self.scope, &record, &id, document) {
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

    /// Whether nothing is left in the record. Each of the chosen steps has its place among the tool's steps, and its index in the
    /// document.
    fn recorded<O: Operation>(
        self,
        document: &mut Document,
        chosen: Vec<(usize, (usize, Step))>,
        record: &Record,
        mut recorded: Document,
        id: &Id,
    ) -> anyhow::Result<bool> {
        let mut listed = recorded.steps_of(self.tool)?;
        let _lock = session::lock(self.scope, self.lock)?;
        interrupt::block()?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut errors: Vec<anyhow::Error> = Vec::new();
        for (place, (at, step)) in chosen {
            // The question takes the signal: it is asked only where the answer counts.
            if !ours.is_empty()
                && let Err(error) = interrupt::checked()
            {
                errors.push(error.into());
                break;
            }
            let Some(found) = counterpart(&listed, place, &step) else {
                // It was undone before.
                ours.push((at, step, Vec::new()));
                continue;
            };
            // unwind undoes step by step what the record listed: its document tells what of that is left, also where the record could
            // not be written meanwhile. What is left has failed, and that was told.
            let is_unwound = std::env::var_os(UNWINDING).is_some();
            let there = if is_unwound { &*document } else { &recorded };
            if let Err(error) = (self.refuse)(there, &listed[found].1) {
                errors.extend((!is_unwound).then_some(error));
                break;
            }
            match self.undo::<O>(&listed[found].1, &mut errors) {
                Err(error) => errors.push(error),
                Ok(remains) => {
                    let (there, found) = match remains.is_empty() {
                        true => listed.remove(found),
                        false => listed[found].clone(),
                    };
                    ours.push((at, step, remains.clone()));
                    theirs.push((there, found, remains));
                }
            }
        }
        self.settle(document, ours)?;
        let changed = !theirs.is_empty();
        self.settle(&mut recorded, theirs)?;
        let mut errors = errors.into_iter();
        let first = errors.next();
        errors.for_each(|error| failure::print(self.tool, &error));
        if recorded.tools()?.is_empty() {
            return first.map_or(Ok(true), Err);
        }
        // On a full disk the record stays as it was. It lists too much then, never too little: to undo the step once more does
        // nothing, and no tool adds to a container whose document has other steps.
        if changed && record.write(&recorded).is_ok() {
            let _ = kept::write(self.scope, id, &recorded);
        }
        first.map_or(Ok(false), Err)
    }

    /// Undoes the operations of a step. Returns those that could not be undone.
    ///
    /// # Errors
    /// When they are not of this tool: nothing is undone then.
    fn undo<O: Operation>(&self, step: &Step, errors: &mut Vec<anyhow::Error>) -> anyhow::Result<Vec<Value>> {
        let operations = step.operations.iter().map(O::deserialize).collect::<Result<Vec<O>, _>>();
        let operations = operations.map_err(|error| {
            anyhow!("step \"{}\" of the record lists no operations of this tool: {error}", self.tool)
        })?;
        let left = undo_all(&operations, self.scope);
        let remains = left.iter().filter_map(|(at, _)| step.operations.get(*at).cloned()).collect();
        errors.extend(causes(left).map(|error| anyhow::Error::from(error).context("undo")));
        Ok(remains)
    }

    /// Without a record it is not known what the steps did. Only the container's own directory is surely its own.
    fn unrecorded(
        self,
        document: &mut Document,
        chosen: Vec<(usize, (usize, Step))>,
        id: &Id,
    ) -> anyhow::Result<()> {
        let _lock = session::lock(self.scope, self.lock)?;
        interrupt::block()?;
        (self.unrecorded)(self.scope, id)?;
        self.forget(document, chosen)
    }

    /// Removes the steps from a document.
    fn forget(&self, document: &mut Document, chosen: Vec<(usize, (usize, Step))>) -> anyhow::Result<()> {
        self.settle(document, chosen.into_iter().map(|(_, (at, step))| (at, step, Vec::new())).collect())
    }

    /// Leaves only the operations that remain in each step, and removes a step if there are none.
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

/// Which of the record's steps of the tool stands for one of the document: the same one, or where they differ (the document is
/// older, or was changed by hand) the one in the same place.
fn counterpart(listed: &[(usize, Step)], place: usize, step: &Step) -> Option<usize> {
    let is_it = |(_, other): &(usize, Step)| other == step;
    match listed.get(place).is_some_and(is_it) {
        true => Some(place),
        false => listed.iter().rposition(is_it).or((place < listed.len()).then_some(place)),
    }
}
