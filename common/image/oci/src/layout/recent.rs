//! Our own copy of `index.json`, as last written.
//!
//! Other tools write `index.json` in place and without a lock. skopeo reads the file when a copy begins and
//! writes it when the copy ends; entries that we wrote in between are then gone. They are restored from this
//! copy. A power cut may also destroy what other tools wrote in place; this copy then is the list.

use std::{
    collections::{BTreeMap, HashSet},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    CONTAINERD_NAME, Error, Layout, MAX_INDEX, REF_NAME,
    index::{empty_index, entries, entries_mut},
    read_limited,
};

/// For how many seconds a missing entry counts as lost, not as removed, when another tool's list has new
/// entries. This is about as long as a copy takes.
const MEMORY: u64 = 600;

/// The copy's file name.
pub(super) const FILE: &str = ".recent.json";

/// The list as last written by us, and the times of recent additions and removals, in seconds since 1970.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Recent {
    manifests: Vec<Value>,
    added: BTreeMap<String, u64>,
    #[serde(default)]
    removed: BTreeMap<String, u64>,
    /// The other members of `index.json`.
    #[serde(default)]
    others: Map<String, Value>,
}

/// Identifies an entry: its names and its digest.
fn key(entry: &Value) -> String {
    let name = |annotation: &str| entry["annotations"][annotation].as_str().unwrap_or_default();
    let digest = entry["digest"].as_str().unwrap_or_default();
    format!("{} {} {digest}", name(REF_NAME), name(CONTAINERD_NAME))
}

/// Whether two entries cannot both be in the list: they have the same name, or are the same image without a
/// name.
pub(super) fn excludes(one: &Value, other: &Value) -> bool {
    let name = |entry: &Value| {
        let annotations = [REF_NAME, CONTAINERD_NAME]
            .map(|annotation| entry["annotations"][annotation].as_str().map(str::to_owned));
        annotations.into_iter().flatten().next()
    };
    match (name(one), name(other)) {
        (None, None) => one["digest"] == other["digest"],
        (one, other) => one == other,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Recent {
    /// Reads the copy; None if there is none, it is damaged, or this user may not read it, because it is only an
    /// aid.
    ///
    /// # Errors
    /// When nobody knows whether there is one: the disk fails, or this process has no descriptor or memory left.
    pub(super) fn read(layout: &Layout) -> Result<Option<Self>, Error> {
        let path = layout.path().join(FILE);
        match read_limited(&path, 2 * MAX_INDEX) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
                    Err(Error::io("read", path)(error))
                }
                _ => Ok(None),
            },
        }
    }

    /// The copy as an `index.json`.
    pub(super) fn into_index(self) -> Value {
        let mut index = empty_index();
        if let Value::Object(members) = &mut index {
            members.extend(self.others);
        }
        *entries_mut(&mut index) = self.manifests;
        index
    }

    /// Whether a list lacks an entry that we added recently.
    pub(super) fn misses_some(&self, manifests: &[Value]) -> bool {
        let young = now().saturating_sub(MEMORY);
        let mut lately = self.added.iter().filter(|(_, time)| **time >= young).peekable();
        if lately.peek().is_none() {
            return false;
        }
        let keys: HashSet<String> = manifests.iter().map(key).collect();
        lately.any(|(key, _)| !keys.contains(key))
    }

    /// Adds our recent entries to a list whose writer did not know them, and points names back to where we
    /// moved them. A list without any new entry is taken as one that entries were removed from on purpose.
    pub(super) fn restore(&self, manifests: &mut Vec<Value>) {
        let known: Vec<String> = self.manifests.iter().map(key).collect();
        let young = now().saturating_sub(MEMORY);
        let lately =
            |when: &BTreeMap<String, u64>, key: &str| when.get(key).is_some_and(|time| *time >= young);
        let is_new = |key: &String| !known.contains(key) && !lately(&self.removed, key);
        if !manifests.iter().map(key).any(|key| is_new(&key)) {
            return;
        }
        for entry in self.manifests.iter().filter(|entry| lately(&self.added, &key(entry))) {
            match manifests.iter_mut().find(|other| excludes(entry, other)) {
                None => manifests.push(entry.clone()),
                Some(older) if lately(&self.removed, &key(older)) => *older = entry.clone(),
                Some(_) => {}
            }
        }
    }

    /// The copy for the list about to be written. `before` is the list it replaces.
    pub(super) fn next(mut self, before: &[Value], index: &Value) -> Self {
        let manifests = entries(index);
        let keys = |list: &[Value]| list.iter().map(key).collect::<Vec<_>>();
        let (now, before, after) = (now(), keys(before), keys(manifests));
        let young = now.saturating_sub(MEMORY);
        self.added.retain(|key, time| after.contains(key) && *time >= young);
        self.removed.retain(|key, time| !after.contains(key) && *time >= young);
        let missing_in = |one: &[String], other: &[String]| -> Vec<(String, u64)> {
            other.iter().filter(|key| !one.contains(key)).map(|key| (key.clone(), now)).collect()
        };
        self.added.extend(missing_in(&before, &after));
        self.removed.extend(missing_in(&after, &before));
        self.manifests = manifests.to_vec();
        self.others = index.as_object().cloned().unwrap_or_default();
        self.others.remove("manifests");
        self
    }
}
