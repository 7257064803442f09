//! What we wrote into `index.json` last. Others write that file without a lock and in place: skopeo reads it when a copy
//! begins and writes it when the copy ends, and what we have written in between is gone from it. Here it is found again.
//! And a power cut may leave nothing of what others have written so: then this is the list.

use std::{
    collections::{BTreeMap, HashSet},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    CONTAINERD_NAME, Layout, MAX_INDEX, REF_NAME,
    index::{empty_index, entries, entries_mut},
    read_limited,
};

/// Seconds for which an entry is taken for lost rather than removed, when somebody else's list lacks it and has others
/// that we did not know: as long as copies take.
const MEMORY: u64 = 600;

/// Where it stands.
pub(super) const FILE: &str = ".recent.json";

/// The list as we wrote it last, and when we added what was added lately, and took away what was taken away.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Recent {
    manifests: Vec<Value>,
    added: BTreeMap<String, u64>,
    #[serde(default)]
    removed: BTreeMap<String, u64>,
    /// What stands in `index.json` beside the list.
    #[serde(default)]
    others: Map<String, Value>,
}

/// What two entries must have in common to be the same: names, and what they name.
fn key(entry: &Value) -> String {
    let name = |annotation: &str| entry["annotations"][annotation].as_str().unwrap_or_default();
    let digest = entry["digest"].as_str().unwrap_or_default();
    format!("{} {} {digest}", name(REF_NAME), name(CONTAINERD_NAME))
}

/// Whether two entries cannot stand beside each other: they have one name, or are both the same image without any.
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
    /// What was kept; none where that cannot be read: it is only a help.
    pub(super) fn read(layout: &Layout) -> Option<Self> {
        let text = read_limited(&layout.path().join(FILE), 2 * MAX_INDEX);
        text.ok().and_then(|text| serde_json::from_slice(&text).ok())
    }

    /// `index.json` as we wrote it last.
    pub(super) fn into_index(self) -> Value {
        let mut index = empty_index();
        if let Value::Object(members) = &mut index {
            members.extend(self.others);
        }
        *entries_mut(&mut index) = self.manifests;
        index
    }

    /// Whether a list lacks something that we added lately.
    pub(super) fn misses_some(&self, manifests: &[Value]) -> bool {
        let young = now().saturating_sub(MEMORY);
        let mut lately = self.added.iter().filter(|(_, time)| **time >= young).peekable();
        if lately.peek().is_none() {
            return false;
        }
        let keys: HashSet<String> = manifests.iter().map(key).collect();
        lately.any(|(key, _)| !keys.contains(key))
    }

    /// Adds to a list what somebody who wrote it did not know of, and gives names back to what they were moved to. A list
    /// that has nothing new is one that somebody took entries from.
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

    /// The same for the list that is about to be written, which was `before`.
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
