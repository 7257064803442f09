//! `--check` and `--repair`: the document against what is there.

use anyhow::{anyhow, bail};
use document::{Document, record::Record};
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
    let (mut differ, mut repaired) = (0_usize, Vec::new());
    for (at, mut step) in document.steps()?.into_iter().enumerate().filter(|(_, step)| step.tool == tool) {
        let mut changed = false;
        for value in &mut step.operations {
            let mut operation = F::Operation::deserialize(&*value).map_err(|error| {
                anyhow!("step \"{tool}\" of the document lists no operations of this tool: {error}")
            })?;
            let what = match operation.check(&scope).map_err(from_boxed)? {
                Condition::Present => continue,
                Condition::Missing(_) if common.repair => {
                    operation.apply(&scope).map_err(advised::<F>)?;
                    *value = serde_json::to_value(&operation)?;
                    changed = true;
                    continue;
                }
                Condition::Missing(what) => format!("missing: {what}"),
                Condition::Different(what) => format!("differs: {what}"),
            };
            failure::print(tool, &anyhow!("{what}"));
            differ += 1;
        }
        if changed {
            repaired.push((at, step));
        }
    }
    for (at, step) in &repaired {
        document.replace_step(*at, step)?;
    }
    if let Some(record) = record.filter(|_| !repaired.is_empty()) {
        record.write(document)?;
    }
    if differ > 0 {
        bail!(
            "{differ} of the things that the document lists {}",
            if differ == 1 { "is not as listed" } else { "are not as listed" }
        );
    }
    Ok(())
}
