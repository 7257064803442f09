//! What we wrote into `index.json` last. Others write that file without a lock and in place: skopeo reads it when a copy
//! begins and writes it when the copy ends, and what we have written in between is gone from it. Here it is found again.

use std::{
    collections::BTreeMap,
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CONTAINERD_NAME, Layout, REF_NAME};

/// Seconds for which an entry is taken for lost rather than removed, when somebody else's list lacks it and has others
/// that we did not know: as long as copies take.
const MEMORY: u64 = 600;

/// The list as we wrote it last, and when we added what was added lately.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Recent {
    manifests: Vec<Value>,
    added: BTreeMap<String, u64>,
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
    /// What was kept; nothing where that cannot be read: it is only a help.
    pub(super) fn read(layout: &Layout) -> Self {
        let text = fs::read(layout.path().join(".recent.json"));
        text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Adds to a list what somebody who wrote it did not know of. A list that only lacks entries is one that somebody took
    /// them from.
    pub(super) fn restore(&self, manifests: &mut Vec<Value>) {
        let known: Vec<String> = self.manifests.iter().map(key).collect();
        if manifests.iter().all(|entry| known.contains(&key(entry))) {
            return;
        }
        let young = now().saturating_sub(MEMORY);
        for entry in &self.manifests {
            let lately = self.added.get(&key(entry)).is_some_and(|time| *time >= young);
            if lately && !manifests.iter().any(|other| excludes(entry, other)) {
                manifests.push(entry.clone());
            }
        }
    }

    /// The same for the list that is about to be written, which was `before`.
    pub(super) fn next(mut self, before: &[Value], manifests: &[Value]) -> Self {
        let (now, before): (u64, Vec<String>) = (now(), before.iter().map(key).collect());
        let keys: Vec<String> = manifests.iter().map(key).collect();
        self.added.retain(|key, time| keys.contains(key) && *time >= now.saturating_sub(MEMORY));
        let new = keys.into_iter().filter(|key| !before.contains(key));
        self.added.extend(new.map(|key| (key, now)));
        self.manifests = manifests.to_vec();
        self
    }
}
