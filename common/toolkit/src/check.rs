//! `--check` and `--repair`: the document against what is there.

use anyhow::{anyhow, bail};
use document::{Document, Steps, record::Record};
use operation::{Condition, Operation, interrupt};
use serde::Deserialize;

use crate::{
    Common, Filter, failure,
    filter::{advised, from_boxed, lock},
};

/// Compares the operations of every step of this tool with what is there; with `--repair` applies those again that are
/// missing. Everything that differs is told on standard error.
pub(crate) fn run<F: Filter>(tool: &str, common: &Common, document: &mut Document) -> anyhow::Result<()> {
    let scope = common.scope()?;
    let record = match (common.repair, document.id()?) {
        (true, Some(id)) => Some(Record::lock(&scope.run_dir, &id)?),
        _ => None,
    };
    let _lock = if common.repair { lock::<F>(&scope)? } else { None };
    if common.repair {
        interrupt::block()?;
    }
    let mut steps = document.steps()?;
    let (mut differ, mut repaired) = (0_usize, false);
    for step in steps.iter_mut().filter(|step| step.tool == tool) {
        for value in &mut step.operations {
            let mut operation = F::Operation::deserialize(&*value).map_err(|error| {
                anyhow!("step \"{tool}\" of the document lists no operations of this tool: {error}")
            })?;
            let what = match operation.check(&scope).map_err(from_boxed)? {
                Condition::Present => continue,
                Condition::Missing(_) if common.repair => {
                    operation.apply(&scope).map_err(advised::<F>)?;
                    *value = serde_json::to_value(&operation)?;
                    repaired = true;
                    continue;
                }
                Condition::Missing(what) => format!("missing: {what}"),
                Condition::Different(what) => format!("differs: {what}"),
            };
            failure::print(tool, &anyhow!("{what}"));
            differ += 1;
        }
    }
    if repaired {
        document.set(&Steps(steps))?;
        if let Some(record) = &record {
            record.write(document)?;
        }
    }
    if differ > 0 {
        bail!(
            "{differ} of the things that the document lists {}",
            if differ == 1 { "is not as listed" } else { "are not as listed" }
        );
    }
    Ok(())
}
