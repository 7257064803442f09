//! `--dry-run` of a filter: the plan of the tool, and a document by which the tools after it plan too.

use document::{Contribution, Document, Step, StepState, members::Planned};
use operation::Operation;

use crate::{Common, Context, Filter, Plan, Stage, session};

/// Plans the job. Returns the document as it would be, marked as planned, and what the tool would do, one
/// line each. Compares the record as the job does, but locks, records and makes nothing.
///
/// # Errors
/// Whatever would make the job impossible, and the stage at which the job would fail.
pub(super) fn plan<F: Filter>(
    tool: &str,
    version: &str,
    filter: &F,
    document: &Document,
) -> Result<(Document, Vec<String>), (Stage, anyhow::Error)> {
    let common = filter.common();
    let foreseen = common.scope().and_then(|scope| {
        let (id, document) = session::foreseen(&scope, document, common.id.as_ref())?;
        Ok((common.context_in(scope, Some(&id)), document))
    });
    let (context, document) = foreseen.map_err(|error| (Stage::Record, error))?;
    let context = Context { planned: true, ..context };
    with_step(tool, version, filter, &context, document).map_err(|error| (Stage::Plan, error))
}

/// Adds the planned step to the document. Returns it with what the step would do.
fn with_step<F: Filter>(
    tool: &str,
    version: &str,
    filter: &F,
    context: &Context,
    mut document: Document,
) -> anyhow::Result<(Document, Vec<String>)> {
    document.set(&Planned(true))?;
    let Plan { adds, operations } = filter.plan(context, &document)?;
    let lines = operations.iter().flat_map(Operation::explain).collect();
    let adds = adds.parts()?;
    let step = Step::new(tool, version, StepState::Done, operations.iter().collect::<Vec<_>>());
    document.push_step(&Step { adds: adds.clone(), ..step })?;
    for (member, added) in &adds {
        document.add(member, added)?;
    }
    Ok((document, lines))
}

/// What the tool would do, one line each, for `--explain`. Refuses what the job refuses.
///
/// # Errors
/// Whatever would make the job impossible.
pub(super) fn explain<F: Filter>(filter: &F, document: &Document) -> anyhow::Result<Vec<String>> {
    let common = filter.common();
    let scope = common.scope()?;
    let (id, document) = session::foreseen(&scope, document, common.id.as_ref())?;
    let plan = filter.plan(&common.context_in(scope, Some(&id)), &document)?;
    Ok(plan.operations.iter().flat_map(Operation::explain).collect())
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
