//! Containers of other runtimes. Each network of such a container is a container here: it has its own
//! document, record and id. The id is derived from the names that the runtime uses.

use std::path::Path;

use document::{Document, Error, Id, InvalidId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The id for something that the runtime names: `kind`, a hyphen, and a hash of the name's parts.
///
/// # Errors
/// When `kind` is not valid as the beginning of an id, or too long.
pub fn id(kind: &str, parts: &[&str]) -> Result<Id, InvalidId> {
    let digits: String =
        Sha256::digest(parts.join("\0")).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{kind}-{digits}").parse()
}

/// A new document for a container in this network namespace. `about` says what the runtime calls the
/// container; it becomes the member `kind`.
///
/// # Errors
/// [`Error`], when the document cannot be made.
pub fn document(kind: &str, id: &Id, namespace: &Path, about: &Value) -> Result<Document, Error> {
    let network = json!({"mode": "none", "namespace": namespace});
    Document::parse(json!({"stave": 1, "id": id, "network": network, kind: about}).to_string().as_bytes())
}

/// What the runtime calls the container of a document. `None` if the document has no member `kind`.
pub fn about(kind: &str, document: &Document) -> Option<Value> {
    serde_json::from_str(document.raw(kind)?.get()).ok()
}

/// The arguments by which a tool undoes all its steps in a document. `None` if it has none.
///
/// # Errors
/// [`Error`], when the document's steps cannot be read.
pub fn undo(tool: &str, document: &Document) -> Result<Option<[String; 3]>, Error> {
    let count = document.steps()?.iter().filter(|step| step.tool == tool).count();
    Ok((count > 0).then(|| ["--undo".to_owned(), "--steps".to_owned(), count.to_string()]))
}

/// A published port in the form of `portmap -p`. `host` and `container` are ports or ranges. Without an
/// address, or with 0.0.0.0, the port is published on all addresses.
pub fn port(address: &str, host: &str, container: &str, protocol: &str) -> String {
    let address = match address {
        "" | "0.0.0.0" => String::new(),
        // IPv6 addresses stand in brackets.
        address if address.contains(':') => format!("[{address}]:"),
        address => format!("{address}:"),
    };
    format!("{address}{host}:{container}/{protocol}")
}
