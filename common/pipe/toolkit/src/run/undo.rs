//! Undoing a step.

use anyhow::anyhow;
use document::{Contribution, Document, Instance, Member, Step, StepState, record::Record};
use operation::{Operation, Scope, interrupt, undo_all};

use crate::{
    Common, Filter, failure,
    session::{self, lock},
};

/// `--undo`: undoes the last step of this tool in the document, and in the record if it has the same step.
pub(crate) fn run<F: Filter>(tool: &str, common: &Common, document: &mut Document) -> anyhow::Result<()> {
    let scope = common.scope()?;
    undo_step::<F::Operation>(tool, &scope, document, F::Adds::MEMBER, || lock::<F>(&scope), F::forget)
}

/// Undoes the last step of `tool` in `document`: its operations backwards, then the step and what it added to members. Where it
/// does not tell what that is, `forget` takes that out of `member` with the tool's last step. The same is done in the record. What
/// could not be undone stays in the step. A document in which the tool has no step is left as it is, and so is the record of
/// a container that had the id later.
///
/// # Errors
/// When the document or the record cannot be read or written, or an operation could not be undone. Each error is
/// printed on standard error.
pub fn undo_step<O: Operation>(
    tool: &str,
    scope: &Scope,
    document: &mut Document,
    member: &str,
    lock: impl FnOnce() -> anyhow::Result<Option<document::record::Lock>>,
    forget: impl Fn(&mut Document) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let forget = |document: &mut Document| -> anyhow::Result<()> {
        forget(document)?;
        Ok(document.complete(member)?)
    };
    let Some(id) = document.id()? else {
        return undo_locked::<O>(tool, scope, document, None, lock, forget);
    };
    let record = Record::lock(&scope.run_dir, &id)?;
    let recorded = record.read()?;
    if let Some(recorded) = &recorded
        && !recorded.may_be_of_one_container(document)?
    {
        return Err(session::of_another(&record, &id));
    }
    let result =
        undo_locked::<O>(tool, scope, document, recorded.map(|recorded| (&record, recorded)), lock, forget);
    let emptied =
        record.read()?.map(|recorded| recorded.tools()).transpose()?.is_some_and(|tools| tools.is_empty());
    match emptied {
        true => record.remove()?,
        false => record.release(),
    }
    result
}

fn undo_locked<O: Operation>(
    tool: &str,
    scope: &Scope,
    document: &mut Document,
    record: Option<(&Record, Document)>,
    lock: impl FnOnce() -> anyhow::Result<Option<document::record::Lock>>,
    forget: impl Fn(&mut Document) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some((_, step)) = document.last_step_of(tool)? else { return Ok(()) };
    let operations =
        step.operations.iter().map(O::deserialize).collect::<Result<Vec<O>, _>>().map_err(|error| {
            anyhow!("step \"{tool}\" of the document lists no operations of this tool: {error}")
        })?;
    let _lock = lock()?;
    interrupt::block()?;
    let left = undo_all(&operations, scope);
    let remains = left.iter().filter_map(|(at, _)| step.operations.get(*at).cloned()).collect();
    let after = Step { state: StepState::Begun, operations: remains, ..step.clone() };

    replace(document, &step, &after, &forget)?;
    if let Some((record, mut recorded)) = record {
        replace(&mut recorded, &step, &after, &forget)?;
        record.write(&recorded)?;
    }
    let mut errors = left.into_iter().map(|(_, error)| anyhow::Error::from(error).context("take back"));
    let Some(first) = errors.next() else { return Ok(()) };
    errors.for_each(|error| failure::print(tool, &error));
    Err(first)
}

/// Replaces the step with `after`, or removes it if nothing remains of it.
fn replace(
    document: &mut Document,
    step: &Step,
    after: &Step,
    forget: impl Fn(&mut Document) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(at) = document.position_of(step)? else { return Ok(()) };
    if after.operations.is_empty() {
        document.remove_step(at)?;
    } else {
        document.replace_step(at, after)?;
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
