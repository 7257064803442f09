//! What a build tells its display, one JSON object on each line.

use serde::Deserialize;

/// A message of a build, as `--progress json` prints it, with some more kinds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    /// `begin`, `end`, `failed`, `log`, `line`, `output`, `warning`, `result` or `over`.
    #[serde(rename = "event")]
    pub(super) kind: String,
    /// The number of the step.
    pub(super) step: u64,
    /// How many steps there are.
    pub(super) of: u64,
    /// The instruction, or a text to show.
    pub(super) text: String,
    /// The stage, if stages are built in parallel.
    pub(super) stage: Option<String>,
    /// Whether the step's result was in the cache.
    pub(super) cached: bool,
    /// Whether the build failed.
    pub(super) failed: bool,
    /// Whether nothing of the build is left to do.
    pub(super) finished: bool,
}

impl Event {
    /// Parses an object. `None` if it is for the user.
    pub(super) fn parse(object: &str) -> Option<Self> {
        let event: Self = object.starts_with("{\"event\":").then(|| serde_json::from_str(object).ok())??;
        (!event.kind.is_empty()).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_objects_are_events() {
        let event = Event::parse(r#"{"event":"begin","of":2,"step":1,"text":"FROM a"}"#).unwrap();
        assert_eq!((event.kind.as_str(), event.step, event.of), ("begin", 1, 2));
        for line in ["", "text", r#"{"cache":"hit"}"#, r#"{"event":"begin""#, r#"{"event":""}"#] {
            assert!(Event::parse(line).is_none(), "{line}");
        }
    }
}
