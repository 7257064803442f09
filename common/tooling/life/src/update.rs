//! Changes the limits and the restart policy of a container.

use std::path::Path;

use cgroup::CgroupOperation;
use document::{
    Document, Id, Step,
    members::{Cgroup, Process, Rootfs},
    record::Record,
};
use monitor::Next;
use oci_spec::runtime::LinuxResources;
use operation::{Error, Operation, Scope};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Container, Restart, Result, keeper, unread};

/// Changes the restart policy and the limits of a container. Limits that `changes` does not contain stay. The
/// container may run, or have ended.
///
/// # Errors
/// When the kernel does not take a limit, or there is no such container. Nothing is changed then. Also when a process
/// cannot be moved to a new cgroup, whose limits stay.
pub fn update(
    scope: &Scope,
    id: &Id,
    restart: Option<Restart>,
    changes: Option<&LinuxResources>,
) -> Result<()> {
    // Reports what is missing before it takes a lock, which would leave a file.
    Container::read(scope, id)?;
    let refused = |why: &'static str| Error::new("update", format_args!("container \"{id}\""), why);
    let missing = || refused("it is gone");
    let record = Record::lock_existing(&scope.run_dir, id)?.ok_or_else(missing)?;
    let before = record.read()?.ok_or_else(missing)?;
    let mut container = Container::of(id, before.clone())?.ok_or_else(missing)?;
    if before.has_failed() {
        return Err(refused("it is being unwound"));
    }
    let mut is_called_off = false;
    if let Some(policy) = restart {
        // One that has ended gets a monitor when it is started again.
        if policy != Restart::No && !container.is_monitored() && container.is_running()? {
            let error = refused("it runs in the foreground, and nothing would start it again");
            return Err(error.with_hint("`ns-exec --monitor` starts a container to which the policy applies"));
        }
        is_called_off = container.process.restarting && policy == Restart::No;
        container.edit(|process| {
            match policy {
                Restart::No => drop(process.remove("restart")),
                policy => drop(process.insert("restart".into(), policy.to_string().into())),
            }
            if is_called_off {
                process.remove("restarting");
            }
        })?;
    }
    let limits = changes.map(|changes| plan(&mut container, changes)).transpose()?;
    keeper::put(scope, &record, &container)?;
    if let Some(new) = limits.filter(|_| !container.has_lost_its_ground()) {
        match cgroup::change(&new) {
            // What is new stays in the record, so that it is removed with the container.
            Ok(changed) => changed.fill()?,
            Err(error) => {
                let before = Container::of(id, before)?.ok_or_else(missing)?;
                keeper::put(scope, &record, &before)?;
                return Err(error);
            }
        }
    }
    if is_called_off {
        keeper::settle(scope, &record, &container, Next::Leave)?;
        drop(record);
        if let Some(monitor) = container.monitor(scope)? {
            let _ = monitor.wake();
        }
    }
    Ok(())
}

/// Whether a restart of the machine loses what the container has written.
///
/// # Errors
/// When the document is malformed.
pub fn is_lost_with_machine(container: &Container) -> Result<bool> {
    let rootfs: Option<Rootfs> = container.document.get().map_err(unread)?;
    Ok(rootfs.is_some_and(|rootfs| rootfs.upper.is_some() && !rootfs.durable))
}

/// What [`update`] does to the container's cgroups, as commands to type.
///
/// # Errors
/// As [`update`].
pub fn explain_update(scope: &Scope, id: &Id, changes: Option<&LinuxResources>) -> Result<Vec<String>> {
    let mut container = Container::read(scope, id)?;
    let Some(changes) = changes else { return Ok(Vec::new()) };
    let new = plan(&mut container, changes)?;
    Ok(new.iter().filter(|operation| !operation.settings.is_empty()).flat_map(Operation::explain).collect())
}

/// Writes the changes into the container's document. Returns the operations for its cgroups.
fn plan(container: &mut Container, changes: &LinuxResources) -> Result<Vec<CgroupOperation>> {
    let Some(path) = container.cgroup().map(Path::to_owned) else {
        let why = "it has no cgroup of its own, which could have limits";
        return Err(Error::new("update", format_args!("container \"{}\"", container.id), why));
    };
    let changes = json!(changes);
    let resources = merged(container.limits(), &changes)?;
    let new = cgroup::plan(&path, &resources)?;
    let (at, mut step) = of_cgroup(&container.document, &path)?.ok_or_else(|| {
        Error::new("find", format_args!("cgroup {path:?}"), "no step of the container has made it")
    })?;
    replace(&mut step, &path, &new)?;
    if let Some(adds) = step.adds.get_mut("cgroup") {
        let before = serde_json::from_value(adds["resources"].clone()).map_err(malformed)?;
        adds["resources"] = json!(merged(Some(&before), &changes)?);
    }
    container.document.replace_step(at, &step).map_err(unread)?;
    if let Some(cgroup) = container.document.get::<Cgroup>().map_err(unread)? {
        let whole = merged(Some(&cgroup.resources), &changes)?;
        let put = |member: &mut serde_json::Map<String, Value>| {
            member.insert("resources".into(), json!(whole));
        };
        container.document.edit::<Cgroup>(put).map_err(unread)?;
    }
    // The operation of the process is another one now: its step may be the one that was replaced.
    let lost = || Error::new("read", "the record", "it has no process any more");
    *container = Container::of(&container.id, container.document.clone())?.ok_or_else(lost)?;
    container.limit(resources)?;
    Ok(new)
}

/// The step with the operation that makes the cgroup at `path`, with its index.
fn of_cgroup(document: &Document, path: &Path) -> Result<Option<(usize, Step)>> {
    let steps = document.steps().map_err(unread)?;
    let is_it = |step: &Step| step.operations.iter().any(|value| cgroup_of(value, path).is_some());
    Ok(steps.into_iter().enumerate().find(|(_, step)| is_it(step)))
}

fn cgroup_of(value: &Value, path: &Path) -> Option<CgroupOperation> {
    CgroupOperation::deserialize(value).ok().filter(|operation| operation.path == path)
}

/// Replaces the operations for the cgroups at `path`, and adds those that are missing.
fn replace(step: &mut Step, path: &Path, new: &[CgroupOperation]) -> Result<()> {
    for operation in new {
        let value = serde_json::to_value(operation).map_err(malformed)?;
        let all = step.operations.iter().enumerate();
        let known: Vec<(usize, CgroupOperation)> =
            all.filter_map(|(at, value)| Some((at, cgroup_of(value, path)?))).collect();
        match known.iter().find(|(_, known)| known.controllers == operation.controllers) {
            Some((at, _)) => step.operations[*at] = value,
            // That of version 2 comes last, because a container always has it.
            None => step.operations.insert(known.first().map_or(0, |(at, _)| *at), value),
        }
    }
    Ok(())
}

/// The limits of `before` with the changes.
fn merged(before: Option<&LinuxResources>, changes: &Value) -> Result<LinuxResources> {
    let mut whole = json!(before.cloned().unwrap_or_default());
    merge(&mut whole, changes);
    serde_json::from_value(whole).map_err(malformed)
}

/// Puts the changes into `into`. Of two elements for the same device, or for pages of the same size, the new one
/// counts.
fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (name, value) in changes {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(changes)) => {
            let is_same = |one: &Value, other: &Value| {
                ["major", "minor", "pageSize"].into_iter().all(|key| one.get(key) == other.get(key))
            };
            into.retain(|one| !changes.iter().any(|other| is_same(one, other)));
            into.extend(changes.iter().cloned());
        }
        (into, changes) => *into = changes.clone(),
    }
}

fn malformed(error: serde_json::Error) -> Error {
    use document::Member;
    unread(document::Error::Malformed { name: Process::NAME, source: error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_not_named_stay() {
        let mut all = json!({
            "memory": {"limit": 1, "reservation": 2},
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 1, "rate": 2}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        });
        merge(
            &mut all,
            &json!({
                "memory": {"limit": 3},
                "pids": {"limit": 4},
                "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
            }),
        );
        let expected = json!({
            "memory": {"limit": 3, "reservation": 2},
            "pids": {"limit": 4},
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 2}, {"major": 8, "minor": 0, "rate": 9}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
        });
        assert_eq!(all, expected);
    }
}
