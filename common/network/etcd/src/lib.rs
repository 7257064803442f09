//! A client for etcd through its JSON gateway: keys below a prefix, leases, and watches (etcd API
//! v3, etcdserverpb/rpc.proto).
//!
//! The gateway encodes keys and values in Base64, and 64-bit numbers as strings.

mod http;
mod watch;

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use operation::Error;
use serde::Deserialize;
use serde_json::{Value, json};

pub use http::{Client, Trust};
pub use watch::{Change, Watch};

/// A lease. Keys with the lease are removed when it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease(i64);

/// The keys below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The revision of the store that was read.
    pub revision: i64,
    /// Values by their keys.
    pub values: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Header {
    revision: Number,
}

/// A number as the gateway encodes it. The gateway leaves out 0.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Number {
    Text(String),
    Plain(i64),
    #[default]
    None,
}

impl Number {
    fn value(&self) -> i64 {
        match self {
            Self::Text(text) => text.parse().unwrap_or_default(),
            Self::Plain(number) => *number,
            Self::None => 0,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Pair {
    key: String,
    value: String,
}

impl Pair {
    /// Key and value as text. None if they are not text, so not ours.
    fn read(&self) -> Option<(String, String)> {
        Some((text_of(&self.key)?, text_of(&self.value)?))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Range {
    header: Header,
    kvs: Vec<Pair>,
}

fn encoded(text: impl AsRef<[u8]>) -> String {
    STANDARD.encode(text)
}

fn text_of(encoded: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

/// The first key after all keys with this prefix.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // Text contains no byte 0xff, so the last byte can be increased.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

impl Client {
    /// Reads all keys below a prefix.
    ///
    /// # Errors
    /// When no server answers.
    pub fn list(&self, prefix: &str) -> Result<Listed, Error> {
        let asked = json!({ "key": encoded(prefix), "range_end": encoded(end_of(prefix)) });
        let range: Range = self.call("kv/range", &asked)?;
        let values = range.kvs.iter().filter_map(Pair::read).collect();
        Ok(Listed { revision: range.header.revision.value(), values })
    }

    /// Reads the value of a key. None if there is no such key.
    ///
    /// # Errors
    /// When no server answers.
    pub fn get(&self, key: &str) -> Result<Option<String>, Error> {
        let range: Range = self.call("kv/range", &json!({ "key": encoded(key) }))?;
        Ok(range.kvs.first().and_then(Pair::read).map(|(_, value)| value))
    }

    /// Sets the value of a key, optionally with a lease.
    ///
    /// # Errors
    /// When no server answers, or the lease has expired.
    pub fn put(&self, key: &str, value: &str, lease: Option<Lease>) -> Result<(), Error> {
        self.call::<Value>("kv/put", &pair(key, value, lease)).map(drop)
    }

    /// Sets the value of a key if it does not exist. Returns the existing value otherwise.
    ///
    /// # Errors
    /// When no server answers, or the lease has expired.
    pub fn create(&self, key: &str, value: &str, lease: Option<Lease>) -> Result<Option<String>, Error> {
        let (put, key) = (pair(key, value, lease), encoded(key));
        let asked = json!({
            "compare": [{ "key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0" }],
            "success": [{ "request_put": put }],
            "failure": [{ "request_range": { "key": key } }],
        });
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Done {
            succeeded: bool,
            responses: Vec<Response>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Response {
            response_range: Range,
        }
        let done: Done = self.call("kv/txn", &asked)?;
        let standing = done.responses.iter().flat_map(|response| &response.response_range.kvs);
        Ok(match done.succeeded {
            true => None,
            false => Some(standing.filter_map(Pair::read).map(|(_, value)| value).next().unwrap_or_default()),
        })
    }

    /// Removes a key.
    ///
    /// # Errors
    /// When no server answers.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.call::<Value>("kv/deleterange", &json!({ "key": encoded(key) })).map(drop)
    }

    /// Requests a lease of this many seconds.
    ///
    /// # Errors
    /// When no server answers.
    pub fn grant(&self, seconds: u32) -> Result<Lease, Error> {
        #[derive(Deserialize)]
        struct Granted {
            #[serde(rename = "ID")]
            id: Number,
        }
        let granted: Granted = self.call("lease/grant", &json!({ "TTL": seconds.to_string() }))?;
        Ok(Lease(granted.id.value()))
    }

    /// Renews a lease. Returns whether the lease still exists.
    ///
    /// # Errors
    /// When no server answers.
    pub fn keep_alive(&self, lease: Lease) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Kept {
            result: Left,
        }
        #[derive(Deserialize)]
        struct Left {
            #[serde(rename = "TTL", default)]
            seconds: Number,
        }
        let kept: Kept = self.call("lease/keepalive", &json!({ "ID": lease.0.to_string() }))?;
        Ok(kept.result.seconds.value() > 0)
    }

    /// Ends a lease and removes its keys.
    ///
    /// # Errors
    /// When no server answers.
    pub fn revoke(&self, lease: Lease) -> Result<(), Error> {
        self.call::<Value>("lease/revoke", &json!({ "ID": lease.0.to_string() })).map(drop)
    }
}

fn pair(key: &str, value: &str, lease: Option<Lease>) -> Value {
    let lease = lease.map_or(0, |lease| lease.0);
    json!({ "key": encoded(key), "value": encoded(value), "lease": lease.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gateway_writes_is_read() {
        let text = r#"{"header":{"cluster_id":"14841639068965178418","revision":"7"},"kvs":[
            {"key":"L3N0YXZlL2E=","value":"MQ==","mod_revision":"7"},{"key":"/w==","value":"MQ=="},{"key":"L3N0YXZlL2I="}],"count":"3"}"#;
        let range: Range = serde_json::from_str(text).unwrap();
        let pairs: Vec<_> = range.kvs.iter().filter_map(Pair::read).collect();
        let expected = [("/stave/a", "1"), ("/stave/b", "")];
        assert_eq!(pairs, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(range.header.revision.value(), 7);
        let empty: Range = serde_json::from_str(r#"{"header":{"revision":1}}"#).unwrap();
        assert_eq!((empty.kvs.len(), empty.header.revision.value()), (0, 1));
        assert_eq!(end_of("/stave/"), b"/stave0");
    }
}
