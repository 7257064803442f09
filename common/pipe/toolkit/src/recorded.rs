//! What all containers' records list.

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
use operation::{Scope, unless_gone};
use serde::de::DeserializeOwned;

use crate::{hint, session};

/// The operations of this type in the records of all containers, in the order of the ids. Those of a container that is being
/// taken back do not count, and a record that is removed meanwhile is skipped.
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

/// What the steps of some tools did for containers that nobody makes or takes back meanwhile.
#[derive(Debug)]
pub struct Settled<'a, O> {
    /// The containers, each with the operations of these steps in their order.
    pub containers: Vec<(Id, &'a [O])>,
    /// The other ones, with the reason.
    pub left: Vec<(Id, anyhow::Error)>,
    /// The tools' lock.
    _lock: Option<Lock>,
}

/// The records, for a process that reads them again and again: one that did not change is not read again.
#[derive(Debug)]
pub struct Records<O> {
    known: HashMap<Id, (Stamp, Option<Vec<O>>)>,
}

/// What changes with a file: its inode, and the time of its last change.
type Stamp = (u64, i64, i64);

impl<O> Default for Records<O> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<O: DeserializeOwned> Records<O> {
    /// What the steps of these tools did for the containers `ids`; for all on record without any. With the `lock` of these tools,
    /// it stays so until the result is dropped. Of all, a container is left out that is being made or taken back: its record has
    /// `error`, or lists a step of these tools as begun.
    ///
    /// # Errors
    /// When the lock cannot be taken, or the records cannot be listed. One that cannot be read is among those that are left.
    pub fn settled(
        &mut self,
        scope: &Scope,
        lock: Option<&'static str>,
        tools: &[&str],
        ids: &[Id],
    ) -> anyhow::Result<Settled<'_, O>> {
        let all = ids.is_empty();
        // Where there is no container, no lock is left behind.
        let lock =
            lock.filter(|_| !all || !matches!(record::list(&scope.run_dir), Ok(none) if none.is_empty()));
        let lock = session::lock(scope, lock)?;
        // The network of a build is seen in the mount namespace of the build alone, and ends with it.
        let is_of_build = |id: &Id| scope.run_dir.join("locks").join(format!("{id}.build")).exists();
        let mut ids = if all { record::list(&scope.run_dir)? } else { ids.to_vec() };
        ids.retain(|id| !all || !is_of_build(id));
        let (mut there, mut left) = (Vec::new(), Vec::new());
        for id in &ids {
            match self.read(scope, tools, id) {
                Ok(true) => there.push(id.clone()),
                Ok(false) if all => {}
                Ok(false) => left.push((id.clone(), missing(scope, id))),
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

    /// Makes sure that what the record says is known. False if there is none.
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

fn missing(scope: &Scope, id: &Id) -> anyhow::Error {
    hint(anyhow!("no container \"{id}\" in {}", scope.run_dir.display()), "container-ls lists them")
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
