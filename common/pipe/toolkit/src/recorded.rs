//! What the records of all containers list.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
};

use anyhow::anyhow;
use document::{
    Document, Id, StepState,
    record::{self, Lock},
};
use operation::{Namespace, Scope, unless_gone};
use serde::de::DeserializeOwned;

use crate::{hint, session};

/// The operations of type `O` in the records of all containers, in the order of the ids. Containers that are
/// being unwound are left out. A record that is removed meanwhile is skipped.
///
/// ```no_run
/// # fn main() -> anyhow::Result<()> {
/// # let scope = operation::Scope { root: "/var/lib/stave".into(), run_dir: "/run/stave".into() };
/// let claims: Vec<operation::Claim> = toolkit::recorded(&scope)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When a record cannot be read.
pub fn recorded<O: DeserializeOwned>(scope: &Scope) -> anyhow::Result<Vec<O>> {
    let mut found = Vec::new();
    for id in record::list(&scope.run_dir)? {
        let Some(document) = record::read(&scope.run_dir, &id)?.filter(|document| !document.has_failed())
        else {
            continue;
        };
        let has_ended = document.has_ended();
        let steps = document.steps()?.into_iter();
        let steps = steps.filter(|step| !(has_ended && document.has_let_go(&step.tool)));
        let operations = steps.flat_map(|step| step.operations);
        found.extend(operations.filter_map(|operation| O::deserialize(operation).ok()));
    }
    Ok(found)
}

/// What the steps of some tools did, for containers that no tool is making or unwinding at the moment.
#[derive(Debug)]
pub struct Settled<'a, O> {
    /// The containers, each with the operations of these tools' steps, in order.
    pub containers: Vec<(Id, &'a [O])>,
    /// The containers that were left out, with the reason.
    pub left: Vec<(Id, anyhow::Error)>,
    /// The lock of these tools. It is held until this is dropped.
    _lock: Option<Lock>,
}

/// The records, for a process that reads them again and again. A record that did not change is not read
/// again.
#[derive(Debug)]
pub struct Records<O> {
    known: HashMap<Id, (Stamp, Option<Vec<O>>)>,
}

/// Identifies a version of a file: its inode, and the seconds and nanoseconds of its last change.
type Stamp = (u64, i64, i64);

impl<O> Default for Records<O> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<O: DeserializeOwned> Records<O> {
    /// What the steps of these tools did for the containers in `ids`, or for all containers if `ids` is
    /// empty. `lock` is the lock of these tools: with it, the result stays true until it is dropped.
    ///
    /// If all containers are asked for, those that are being made or unwound are left out without a reason.
    /// Their record has `error`, or lists a step of these tools as begun.
    ///
    /// # Errors
    /// When the lock cannot be taken, or the records cannot be listed. A container whose record cannot be
    /// read is in `left`.
    pub fn settled(
        &mut self,
        scope: &Scope,
        lock: Option<&'static str>,
        tools: &[&str],
        ids: &[Id],
    ) -> anyhow::Result<Settled<'_, O>> {
        let all = ids.is_empty();
        // No lock is taken if there is no container, so that its file is not left behind.
        let lock =
            lock.filter(|_| !all || !matches!(record::list(&scope.run_dir), Ok(none) if none.is_empty()));
        let lock = session::lock(scope, lock)?;
        // A build's network is visible only in the build's mount namespace, and ends with the build.
        let is_of_build = |id: &Id| scope.run_dir.join("locks").join(format!("{id}.build")).exists();
        let mut ids = if all { record::list(&scope.run_dir)? } else { ids.to_vec() };
        ids.retain(|id| !all || !is_of_build(id));
        let (mut there, mut left) = (Vec::new(), Vec::new());
        for id in &ids {
            let read = self.read(scope, tools, id);
            match read.and_then(|is_there| Ok(is_there && is_of_here(scope, id, all)?)) {
                Ok(true) => there.push(id.clone()),
                Ok(false) if all => {}
                Ok(false) => left.push((id.clone(), record::missing(&scope.run_dir, id).into())),
                Err(error) => left.push((id.clone(), error)),
            }
        }
        let listed: HashSet<&Id> = ids.iter().collect();
        self.known.retain(|id, _| listed.contains(id));
        let mut containers = Vec::new();
        for id in there {
            match self.known.get(&id).and_then(|(_, operations)| operations.as_deref()) {
                Some(operations) => containers.push((id, operations)),
                None if all => {}
                None => {
                    let unsettled = anyhow!("container \"{id}\" is being made or taken back");
                    let todo = format!("if no tool works on it any more: unwind {id}");
                    left.push((id, hint(unsettled, todo)));
                }
            }
        }
        Ok(Settled { containers, left, _lock: lock })
    }

    /// Reads the record into `known`, unless it is there and unchanged. Returns false if there is no record.
    fn read(&mut self, scope: &Scope, tools: &[&str], id: &Id) -> anyhow::Result<bool> {
        let path = record::path(&scope.run_dir, id);
        let stamp = match unless_gone(fs::metadata(&path)) {
            Ok(Some(file)) => Some((file.ino(), file.ctime(), file.ctime_nsec())),
            Ok(None) => None,
            Err(error) => {
                return Err(operation::Error::new("look at record", format!("{path:?}"), error).into());
            }
        };
        let Some(stamp) = stamp else { return Ok(false) };
        if self.known.get(id).is_some_and(|(known, _)| *known == stamp) {
            return Ok(true);
        }
        self.known.remove(id);
        let Some(document) = record::read(&scope.run_dir, id)? else { return Ok(false) };
        self.known.insert(id.clone(), (stamp, operations(&document, tools, id)?));
        Ok(true)
    }
}

/// Whether the container's network is in this process's network namespace. With `all`, one elsewhere is none
/// of ours.
fn is_of_here(scope: &Scope, id: &Id, all: bool) -> anyhow::Result<bool> {
    if all {
        return Ok(record::is_begun_here(Namespace::Network, &scope.run_dir, id)?);
    }
    match record::is_of_this(Namespace::Network, &scope.run_dir, id)? {
        true => Ok(true),
        false => {
            let ended = anyhow!("the network namespace of the host of container \"{id}\" has ended");
            Err(hint(ended, format!("`container-start {id}` starts it here")))
        }
    }
}

/// The operations of the steps of these tools; none of a container that is being made or taken back.
fn operations<O: DeserializeOwned>(
    document: &Document,
    tools: &[&str],
    id: &Id,
) -> anyhow::Result<Option<Vec<O>>> {
    if document.has_failed() {
        return Ok(None);
    }
    let mut operations = Vec::new();
    let has_ended = document.has_ended();
    for step in document.steps()?.into_iter().filter(|step| tools.contains(&step.tool.as_str())) {
        if has_ended && document.has_let_go(&step.tool) {
            continue;
        }
        if step.state == StepState::Begun {
            return Ok(None);
        }
        for operation in step.operations {
            let unknown = |error| {
                anyhow!(
                    "step \"{}\" in the record of \"{id}\" lists an unknown operation: {error}",
                    step.tool
                )
            };
            operations.push(O::deserialize(operation).map_err(unknown)?);
        }
    }
    Ok(Some(operations))
}
