//! Watches the keys below a prefix.

use std::io::{BufRead, BufReader, Read};

use operation::Error;
use serde::Deserialize;
use serde_json::json;

use crate::{Client, Number, Pair, encoded, end_of, http::unanswered};

/// The longest line of the answer, in bytes. One line may contain many changes.
const MAX_LINE: u64 = 64 << 20;

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The new value. None if the key was removed.
    pub value: Option<String>,
}

/// A stream of changes.
pub struct Watch {
    url: String,
    lines: BufReader<ureq::BodyReader<'static>>,
}

// One line of the stream (etcdserverpb/rpc.proto, WatchResponse).

#[derive(Deserialize)]
struct Line {
    result: Option<Heard>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Heard {
    canceled: bool,
    compact_revision: Number,
    cancel_reason: String,
    events: Vec<Event>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    kv: Pair,
}

impl Client {
    /// Watches a prefix for changes after this revision.
    ///
    /// # Errors
    /// When no server answers.
    pub fn watch(&self, prefix: &str, revision: i64) -> Result<Watch, Error> {
        let asked = json!({ "create_request": {
            "key": encoded(prefix),
            "range_end": encoded(end_of(prefix)),
            "start_revision": (revision + 1).to_string(),
        }});
        let (url, body) = self.stream("watch", &asked)?;
        let lines = BufReader::new(body.into_with_config().limit(u64::MAX).reader());
        Ok(Watch { url, lines })
    }
}

impl Watch {
    /// Waits for the next changes. The list may be empty.
    ///
    /// # Errors
    /// When the watch has ended: the server closed it, was silent for too long, or no longer has
    /// the revision.
    pub fn wait(&mut self) -> Result<Vec<Change>, Error> {
        let mut line = String::new();
        let read = self.lines.by_ref().take(MAX_LINE).read_line(&mut line);
        if read.map_err(|error| unanswered(&self.url, error))? == 0 {
            return Err(unanswered(&self.url, "the answer ended"));
        }
        changes(&line).map_err(|cause| unanswered(&self.url, cause))
    }
}

fn changes(line: &str) -> Result<Vec<Change>, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let Some(heard) = line.result else {
        return Err(line.error.map_or_else(|| "an empty answer".to_owned(), |error| error.to_string()));
    };
    if heard.canceled || heard.compact_revision.value() != 0 {
        return Err(format!("the watch was ended: {}", heard.cancel_reason));
    }
    let change = |event: &Event| {
        let (key, value) = event.kv.read()?;
        Some(Change { key, value: (event.kind != "DELETE").then_some(value) })
    };
    Ok(heard.events.iter().filter_map(change).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_watch() {
        let made = r#"{"result":{"header":{"revision":"3"},"created":true}}"#;
        assert_eq!(changes(made), Ok(vec![]));
        let two = r#"{"result":{"header":{"revision":"4"},"events":[{"kv":{"key":"YQ==","value":"MQ=="}},{"type":"DELETE","kv":{"key":"Yg=="}}]}}"#;
        let change =
            |key: &str, value: Option<&str>| Change { key: key.into(), value: value.map(str::to_owned) };
        assert_eq!(changes(two), Ok(vec![change("a", Some("1")), change("b", None)]));
        for (line, told) in [
            (r#"{"result":{"canceled":true,"cancel_reason":"gone"}}"#, "the watch was ended: gone"),
            (r#"{"result":{"compact_revision":"9"}}"#, "the watch was ended: "),
            (r#"{"error":{"grpc_code":14}}"#, r#"{"grpc_code":14}"#),
        ] {
            assert_eq!(changes(line), Err(told.to_owned()), "{line}");
        }
        assert!(changes("").is_err());
    }
}
