//! Containers of other runtimes. Each network of theirs is a container here, with a document and a record of its own, and an id that
//! follows from what the runtime calls it.

use std::path::Path;

use document::{Document, Error, Id, InvalidId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The id for what the runtime calls it: the parts of a name, in a form that an id may have. `kind` stands in front.
///
/// # Errors
/// When `kind` is too long for an id.
pub fn id(kind: &str, parts: &[&str]) -> Result<Id, InvalidId> {
    let digits: String =
        Sha256::digest(parts.join("\0")).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{kind}-{digits}").parse()
}

/// A document of a container in this network namespace. Its member `kind` holds `about`, what the runtime calls it.
///
/// # Errors
/// [`Error`], when the document cannot be made.
pub fn document(kind: &str, id: &Id, namespace: &Path, about: &Value) -> Result<Document, Error> {
    let network = json!({"mode": "none", "namespace": namespace});
    Document::parse(json!({"stave": 1, "id": id, "network": network, kind: about}).to_string().as_bytes())
}

/// What the runtime calls the container of a document; none, if the document is not of this `kind`.
pub fn about(kind: &str, document: &Document) -> Option<Value> {
    serde_json::from_str(document.raw(kind)?.get()).ok()
}

/// The arguments by which a tool takes back all that it did for a container; none, if it did nothing.
///
/// # Errors
/// [`Error`], when the document's steps cannot be read.
pub fn undo(tool: &str, document: &Document) -> Result<Option<[String; 3]>, Error> {
    let count = document.steps()?.iter().filter(|step| step.tool == tool).count();
    Ok((count > 0).then(|| ["--undo".to_owned(), "--steps".to_owned(), count.to_string()]))
}

/// A published port as `portmap -p` takes it. `host` and `container` are ports or ranges. Without an address, or with 0.0.0.0, it is
/// published on all of them.
pub fn port(address: &str, host: &str, container: &str, protocol: &str) -> String {
    let address = match address {
        "" | "0.0.0.0" => String::new(),
        // IPv6 addresses stand in brackets.
        address if address.contains(':') => format!("[{address}]:"),
        address => format!("{address}:"),
    };
    format!("{address}{host}:{container}/{protocol}")
}
