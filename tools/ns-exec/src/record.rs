//! Records of containers that run.

use std::path::Path;

use document::{Document, Id, record};
use serde::Deserialize;
use toolkit::prelude::*;

use crate::operation::ContainerOperation;

/// The record of a running container, and its process.
pub(crate) fn running(run_dir: &Path, id: &Id) -> Result<(Document, runtime::ProcessOperation)> {
    let path = run_dir.join(format!("{id}.json"));
    let document = record::read(run_dir, id)?
        .ok_or_else(|| hint(anyhow!("container \"{id}\" has no record {path:?}"), "start it first"))?;
    let steps = document.steps()?;
    let values = steps.iter().rev().filter(|step| step.tool == "ns-exec").flat_map(|step| &step.operations);
    let process = values.filter_map(|value| match ContainerOperation::deserialize(value) {
        Ok(ContainerOperation::Process(process)) => Some(process),
        _ => None,
    });
    let mut alive = None;
    for process in process {
        if process.identity.is_alive()? {
            alive = Some(process);
            break;
        }
    }
    let process = alive.ok_or_else(|| hint(anyhow!("container \"{id}\" does not run"), "start it first"))?;
    Ok((document, process))
}
