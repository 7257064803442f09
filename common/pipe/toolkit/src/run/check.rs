//! `--check` and `--repair`: compare the document with the machine.

use anyhow::{anyhow, bail};
use document::{Document, Id, Step, kept, record::Record};
use operation::{Condition, Operation, Scope, interrupt};
use serde::Deserialize;

use crate::{
    Common, Filter, failure,
    session::{self, lock},
};

/// Compares the operations of each of this tool's steps with the machine. With `--repair`, applies missing
/// operations again. Prints differences on standard error.
pub(crate) fn run<F: Filter>(tool: &str, common: &Common, document: &mut Document) -> anyhow::Result<()> {
    let scope = common.scope()?;
    let record = match (common.repair, document.id()?) {
        (true, Some(id)) => {
            let (record, recorded) = hold(tool, &scope, document, &id)?;
            Some((id, record, recorded))
        }
        _ => None,
    };
    let _lock = if common.repair { lock(&scope, F::LOCK)? } else { None };
    if common.repair {
        interrupt::block()?;
        F::restore(&scope)?;
    }
    let (mut differ, mut repaired) = (0_usize, Vec::new());
    for (at, mut step) in document.steps()?.into_iter().enumerate().filter(|(_, step)| step.tool == tool) {
        let before = step.clone();
        let source = record.as_ref().map_or(&*document, |(_, _, recorded)| recorded);
        let (different, is_changed) = compare::<F>(&scope, source, &mut step, common.repair)?;
        differ += different;
        if is_changed {
            repaired.push((at, before, step));
        }
    }
    for (at, _, step) in &repaired {
        document.replace_step(*at, step)?;
    }
    if let Some((id, record, mut recorded)) = record {
        for (_, before, step) in &repaired {
            if let Some(at) = recorded.position_of(before)? {
                recorded.replace_step(at, step)?;
            }
        }
        if !repaired.is_empty() {
            record.write(&recorded)?;
            kept::write(&scope, &id, &recorded)?;
        }
        record.release();
    }
    if differ > 0 {
        bail!(
            "{differ} of the things that the document lists {}",
            if differ == 1 { "is not as listed" } else { "are not as listed" }
        );
    }
    Ok(())
}

/// Compares the operations of a step with the machine. With `repairs`, applies missing operations again. Returns how many are
/// not as listed, and whether the step has changed. `document` has what other steps say.
fn compare<F: Filter>(
    scope: &Scope,
    document: &Document,
    step: &mut Step,
    repairs: bool,
) -> anyhow::Result<(usize, bool)> {
    let (mut differ, mut is_changed) = (0, false);
    let mut whole = step.operations.clone();
    F::complete(document, &mut whole)?;
    for (value, whole) in step.operations.iter_mut().zip(&whole) {
        let mut operation = F::Operation::deserialize(whole).map_err(|error| {
            anyhow!("step \"{}\" of the document lists no operations of this tool: {error}", step.tool)
        })?;
        let what = match operation.check(scope)? {
            Condition::Present => continue,
            Condition::Missing(_) if repairs => {
                operation.apply(scope)?;
                *value = serde_json::to_value(&operation)?;
                is_changed = true;
                continue;
            }
            Condition::Missing(what) => format!("missing: {what}"),
            Condition::Different(what) => format!("differs: {what}"),
        };
        failure::print(&step.tool, &anyhow!("{what}"));
        differ += 1;
    }
    Ok((differ, is_changed))
}

/// Locks the container's record. Returns it with its document.
///
/// # Errors
/// The errors of [`recorded`], and of taking the lock.
fn hold(tool: &str, scope: &Scope, document: &Document, id: &Id) -> anyhow::Result<(Record, Document)> {
    let record = Record::lock(&scope.run_dir, id)?;
    let is_seen = record.is_seen_by(tool, id).map_err(Into::into);
    match is_seen.and_then(|is_seen| Ok((is_seen, recorded(tool, scope, document, &record, id)?))) {
        Ok((is_seen, recorded)) => {
            if !is_seen {
                record.move_here();
            }
            Ok((record, recorded))
        }
        Err(error) => {
            record.release();
            Err(error)
        }
    }
}

/// The document in the record. The record must list every step that this document has of the tool, so that
/// nothing is made that only a document asks for. If a restart of the machine removed the record, it is
/// written again from the second record.
///
/// # Errors
/// When there is no record, the record lists other steps, or the container is being unwound; when a record
/// cannot be read or written.
fn recorded(
    tool: &str,
    scope: &Scope,
    document: &Document,
    record: &Record,
    id: &Id,
) -> anyhow::Result<Document> {
    let (recorded, is_kept) = match record.read()? {
        Some(recorded) => (recorded, false),
        None => match kept::read(scope, id)? {
            Some(kept) => (kept.document, true),
            None => return Err(session::no_record(record.path(), id)),
        },
    };
    if recorded.has_failed() {
        return Err(session::taken_back(record.path(), id));
    }
    if !recorded.may_be_of_one_container(document)? {
        return Err(session::of_another(record.path(), id));
    }
    for step in document.steps()?.into_iter().filter(|step| step.tool == tool) {
        if recorded.position_of(&step)?.is_none() {
            return Err(session::differs(record.path(), id));
        }
    }
    if is_kept {
        record.write(&recorded)?;
    }
    Ok(recorded)
}
