//! `--dry-run`: the plan of a tool, and of all tools behind it.

use document::{Contribution, Document, Step, StepState, members::Planned};
use operation::Operation;

use crate::{Common, Context, Filter, Plan, session};

/// What the tool would do, a line each, and the document as it would then be, marked as planned. Nothing is locked, recorded
/// or made.
///
/// # Errors
/// Whatever would make the job impossible.
pub(super) fn plan<F: Filter>(
    tool: &str,
    version: &str,
    filter: &F,
    mut document: Document,
) -> anyhow::Result<(Document, Vec<String>)> {
    let common = filter.common();
    let id = session::container(&document, common.id.as_ref())?;
    session::name(&mut document, &id)?;
    document.set(&Planned(true))?;
    let context = Context { planned: true, ..common.context(Some(&id))? };
    let Plan { adds, operations } = filter.plan(&context, &document)?;
    let lines = operations.iter().flat_map(Operation::explain).collect();
    let adds = adds.parts()?;
    let step = Step::new(tool, version, StepState::Done, operations.iter().collect::<Vec<_>>());
    document.push_step(&Step { adds: adds.clone(), ..step })?;
    for (member, added) in &adds {
        document.add(member, added)?;
    }
    Ok((document, lines))
}

/// Prints the lines for people; standard output is the document's.
pub(super) fn print(common: &Common, lines: &[String]) {
    if !common.quiet {
        lines.iter().for_each(|line| operation::tell!("{line}"));
    }
}

/// Takes the last step of the tool out of a planned document, with what it adds. There is nothing to undo.
///
/// # Errors
/// When the document cannot be read.
pub(super) fn undo(tool: &str, document: &mut Document) -> anyhow::Result<()> {
    if let Some((at, _)) = document.last_step_of(tool)? {
        document.remove_step(at)?;
    }
    Ok(())
}
