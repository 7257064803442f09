//! `--dry-run` of a filter: the plan of the tool, and a document by which the tools after it plan too.

use document::{Contribution, Document, Step, StepState, members::Planned};
use operation::Operation;

use crate::{Common, Context, Filter, Plan, session};

/// Plans the job. Returns the document as it would be, marked as planned, and what the tool would do, one
/// line each. Locks, records and makes nothing.
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

/// Prints the lines for people on standard error. Standard output is for the document.
pub(super) fn print(common: &Common, lines: &[String]) {
    if !common.quiet {
        lines.iter().for_each(|line| operation::tell!("{line}"));
    }
}

/// Removes the tool's last step from a planned document, with what it adds. Nothing was made, so there is
/// nothing else to undo.
///
/// # Errors
/// When the document cannot be read.
pub(super) fn undo(tool: &str, document: &mut Document) -> anyhow::Result<()> {
    if let Some((at, _)) = document.last_step_of(tool)? {
        document.remove_step(at)?;
    }
    Ok(())
}
