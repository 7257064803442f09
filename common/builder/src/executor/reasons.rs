//! `--explain-cache`: says why a step is cached or not. For each position in the Dockerfile, the inputs of
//! the step are kept, so that a later build can name everything that changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use oci::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Builder;
use crate::{cache::Key, copy::Described, error::Cause};

/// How many characters of a value are shown.
const SHOWN: usize = 60;

/// Everything that a step depends on, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inputs {
    /// The inputs: `command`, `argument NAME`, `parent` and so on.
    parts: BTreeMap<String, String>,
    /// The files of a context: mode and digest of the content.
    files: BTreeMap<String, (u32, String)>,
    /// Those of the files that the instruction names. The step fails without them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    named: BTreeSet<String>,
}

impl Inputs {
    /// Adds an input.
    pub(super) fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parts.insert(name.into(), value.into());
        self
    }

    /// Adds an input for each element.
    pub(super) fn with_all<N: std::fmt::Display, V: Into<String>>(
        self,
        kind: &str,
        all: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        all.into_iter().fold(self, |inputs, (name, value)| inputs.with(format!("{kind} {name}"), value))
    }

    /// Adds files.
    pub(super) fn with_files(mut self, files: Vec<Described>) -> Self {
        self.files.extend(files.into_iter().map(|(path, mode, digest)| (path, (mode, digest))));
        self
    }
}

impl Inputs {
    /// Says which files the instruction names.
    pub(super) fn naming(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.named.extend(paths.into_iter().map(|path| path.to_string_lossy().into_owned()));
        self
    }
}

/// The step that was last built at a position.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Earlier {
    key: String,
    inputs: Inputs,
    /// How long the step took.
    milliseconds: u64,
}

/// A reason why a step has to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Reason {
    cause: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    old: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    new: Value,
}

impl Reason {
    fn of(cause: &'static str) -> Self {
        Self { cause, name: String::new(), old: Value::Null, new: Value::Null }
    }

    fn words(&self) -> String {
        let shown = |value: &Value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let short: String = text.chars().take(SHOWN).collect();
            if short.len() < text.len() { format!("{short}…") } else { short }
        };
        let what = if self.name.is_empty() {
            self.cause.to_owned()
        } else {
            format!("{} {}", self.cause, self.name)
        };
        match (&self.old, &self.new) {
            (Value::Null, Value::Null) => what,
            (Value::Null, new) => format!("{what} is new ({})", shown(new)),
            (old, Value::Null) => format!("{what} is gone (it was {})", shown(old)),
            (old, new) => format!("{what} was {}, is {}", shown(old), shown(new)),
        }
    }
}

/// All differences between the inputs.
fn reasons(earlier: &Inputs, now: &Inputs) -> Vec<Reason> {
    let mut found = Vec::new();
    let names: BTreeSet<&String> = earlier.parts.keys().chain(now.parts.keys()).collect();
    for name in names {
        let value = |inputs: &Inputs| inputs.parts.get(name).map_or(Value::Null, |value| json!(value));
        let (old, new) = (value(earlier), value(now));
        if old != new {
            let (kind, rest) = name.split_once(' ').unwrap_or((name, ""));
            let (cause, name) = match kind {
                "argument" => ("argument", rest),
                "environment" => ("environment", rest),
                "flag" => ("flag", rest),
                "mount" => ("mount", rest),
                "parent" => ("parent", ""),
                // There are too many files to name them.
                "files" => ("files", ""),
                _ => ("instruction", name.as_str()),
            };
            found.push(Reason { cause, name: name.to_owned(), old, new });
        }
    }
    let paths: BTreeSet<&String> = earlier.files.keys().chain(now.files.keys()).collect();
    for path in paths {
        let (old, new) = (earlier.files.get(path), now.files.get(path));
        let digest = |file: Option<&(u32, String)>| file.map_or(Value::Null, |(_, digest)| json!(digest));
        let mode =
            |file: Option<&(u32, String)>| file.map_or(Value::Null, |(mode, _)| json!(format!("{mode:o}")));
        let name = || path.clone();
        if digest(old) != digest(new) {
            found.push(Reason { cause: "file", name: name(), old: digest(old), new: digest(new) });
        } else if mode(old) != mode(new) {
            found.push(Reason { cause: "mode", name: name(), old: mode(old), new: mode(new) });
        }
    }
    found
}

impl Builder<'_> {
    /// The path where the step at the current position is kept.
    fn place(&self) -> PathBuf {
        let file = std::path::absolute(&self.input.file).unwrap_or_default();
        let (stage, step) = self.at.get();
        let place = format!("{}\0{stage}\0{}\0{}", file.display(), self.step, step);
        self.options.root.join("cache/steps").join(format!("{}.json", Digest::of(place.as_bytes()).hex()))
    }

    /// Says why a step is cached or not, with `--explain-cache`. Keeps the inputs of a cached step. Those of
    /// a step that is about to run are kept after the run, because a failed step leaves nothing.
    pub(super) fn looked_up(&self, key: &Key, inputs: &Inputs, cached: bool) -> Result<(), Cause> {
        let keeps = cached && self.rehearsal.is_none();
        if !keeps && !self.options.explain_cache {
            return Ok(());
        }
        let text = fs::read(self.place()).ok();
        let earlier: Option<Earlier> = text.and_then(|text| serde_json::from_slice(&text).ok());
        let key = self.cache.name(key);
        if self.options.explain_cache {
            self.tell(earlier.as_ref(), &key, inputs, cached);
        }
        match earlier {
            _ if !keeps => Ok(()),
            Some(earlier) if earlier.key == key && earlier.inputs == *inputs => Ok(()),
            earlier => self.remember(key, inputs, earlier.map_or(0, |earlier| earlier.milliseconds)),
        }
    }

    /// Keeps the inputs of a step that has run, and how long it took.
    pub(super) fn ran(&self, key: &Key, inputs: &Inputs, cost: Duration) -> Result<(), Cause> {
        if self.rehearsal.is_some() {
            return Ok(());
        }
        let milliseconds = u64::try_from(cost.as_millis()).unwrap_or(u64::MAX).max(1);
        self.remember(self.cache.name(key), inputs, milliseconds)
    }

    fn remember(&self, key: String, inputs: &Inputs, milliseconds: u64) -> Result<(), Cause> {
        let (path, now) = (self.place(), Earlier { key, inputs: inputs.clone(), milliseconds });
        let beside = self.store.workspace()?.path().join("step.json");
        fs::write(&beside, serde_json::to_vec(&now)?).map_err(Cause::system("write", &beside))?;
        if let Some(above) = path.parent() {
            operation::make_directories(above, 0o777).map_err(Cause::system("create directory", above))?;
        }
        fs::rename(&beside, &path).map_err(Cause::system("write", &path))
    }

    fn tell(&self, earlier: Option<&Earlier>, key: &str, inputs: &Inputs, cached: bool) {
        let mut why = match earlier {
            _ if cached => Vec::new(),
            None => vec![Reason::of("never built")],
            Some(earlier) => reasons(&earlier.inputs, inputs),
        };
        if !cached && self.options.no_cache {
            why = vec![Reason { name: "--no-cache".to_owned(), ..Reason::of("flag") }];
        } else if !cached && why.is_empty() {
            let is_same = earlier.is_some_and(|earlier| earlier.key == *key);
            why.push(Reason::of(if is_same { "removed" } else { "another version of the cache" }));
        }
        let cost = earlier.map(|earlier| earlier.milliseconds).filter(|cost| *cost > 0);
        // If only files of the context changed, the step may not need these files, unless it names them.
        let files =
            |reason: &Reason| matches!(reason.cause, "file" | "mode") && !inputs.named.contains(&reason.name);
        let ignore: Vec<&str> = match why.iter().all(files) {
            true => why.iter().map(|reason| reason.name.as_str()).collect(),
            false => Vec::new(),
        };
        let mut words = if cached { "cache: hit".to_owned() } else { "cache: miss".to_owned() };
        if !why.is_empty() {
            words.push_str(&format!(": {}", why.iter().map(Reason::words).collect::<Vec<_>>().join("; ")));
        }
        if let Some(cost) = cost {
            words.push_str(&format!("; it took {}.{:03} s last time", cost / 1000, cost % 1000));
        }
        if let [first, ..] = ignore.as_slice() {
            words.push_str(&format!("; a line {first:?} in .dockerignore would avoid it"));
        }
        let report = json!({
            "step": self.step, "of": self.plan.steps, "cached": cached, "causes": why, "milliseconds": cost, "ignore": ignore,
        });
        operation::tell!("{words}");
        self.progress.object(&json!({"cache": report}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_named() {
        let file = |path: &str, mode, digest: &str| (path.to_owned(), mode, digest.to_owned());
        let before = Inputs::default()
            .with("parent", "x")
            .with("command", "make")
            .with_all("argument", [("A", "1"), ("B", "2")])
            .with_files(vec![file("a", 0o644, "1"), file("b", 0o644, "2"), file("c", 0o644, "3")]);
        let now = Inputs::default()
            .with("parent", "y")
            .with("command", "make all")
            .with_all("argument", [("A", "3"), ("C", "4")])
            .with_files(vec![file("a", 0o755, "1"), file("b", 0o644, "5"), file("d", 0o644, "6")]);
        let words: Vec<String> = reasons(&before, &now).iter().map(Reason::words).collect();
        assert_eq!(
            words,
            [
                "argument A was 1, is 3",
                "argument B is gone (it was 2)",
                "argument C is new (4)",
                "instruction command was make, is make all",
                "parent was x, is y",
                "mode a was 644, is 755",
                "file b was 2, is 5",
                "file c is gone (it was 3)",
                "file d is new (6)",
            ]
        );
        assert!(reasons(&before, &before).is_empty());
    }
}
