//! Records of containers that run, or have run.

use std::path::{Path, PathBuf};

use cgroup::Usage;
use document::{Document, Id, Member, members::Process, record, record::Record};
use oci_spec::runtime::{LinuxResources, Spec};
use runtime::Identity;
use serde::Deserialize;
use serde_json::json;
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

/// A container's own cgroup, and the limits that it was made with.
#[derive(Debug)]
pub(crate) struct OwnCgroup {
    path: PathBuf,
    limits: Option<LinuxResources>,
}

impl OwnCgroup {
    /// That of a specification, if it names one.
    pub(crate) fn of(spec: &Spec) -> Option<Self> {
        let linux = spec.linux().as_ref()?;
        Some(Self { path: linux.cgroups_path().clone()?, limits: linux.resources().clone() })
    }
}

/// The end of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    identity: Identity,
    status: i32,
    usage: Option<Usage>,
}

impl End {
    /// The end of a process, with what was used in its own cgroup, if it has one.
    pub(crate) fn new(identity: Identity, status: i32, own: Option<&OwnCgroup>) -> Self {
        // What was used is told where it can be; the end itself always.
        let usage = own.and_then(|own| Usage::of(&own.path, own.limits.as_ref()).ok());
        Self { identity, status, usage }
    }
}

/// Writes the end of a process into its container's record, if the record is still about that process.
pub(crate) fn end(run_dir: &Path, id: &Id, end: End) -> Result<()> {
    let Some(record) = Record::lock_existing(run_dir, id)? else { return Ok(()) };
    if let Some(mut document) = record.read()?
        && ended(&mut document, end)?
    {
        record.write(&document)?;
    }
    record.release();
    Ok(())
}

/// Writes the end of a process into a document, if the document is about that process.
pub(crate) fn ended(document: &mut Document, end: End) -> Result<bool> {
    let Some(process) = document.get::<Process>()? else { return Ok(false) };
    if (process.pid, process.start_time) != (end.identity.pid, end.identity.start_time) {
        return Ok(false);
    }
    let mut told = json!({"exitStatus": end.status});
    if let Some(Usage { cpu_time, memory_peak, pids_peak, oom_killed }) = end.usage {
        told["oomKilled"] = oom_killed.into();
        told["usage"] = serde_json::to_value(members::Usage { cpu_time, memory_peak, pids_peak })?;
    }
    // What the step added stays as it was: a document that was printed while the process ran has the same step.
    document.add(Process::NAME, &told)?;
    Ok(true)
}
