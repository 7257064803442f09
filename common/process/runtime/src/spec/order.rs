//! Gives the sets and maps of oci-spec, which have no order, a fixed one. So the same container gives the
//! same document.

use oci_spec::runtime::{Process, Spec};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// The process in the form of the document.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn process(process: &Process) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(process)?;
    sort_capabilities(&mut value);
    Ok(value)
}

/// For `serialize_with`.
pub(crate) fn serialize<S: Serializer>(spec: &Spec, serializer: S) -> Result<S::Ok, S::Error> {
    let mut value = serde_json::to_value(spec).map_err(serde::ser::Error::custom)?;
    value.pointer_mut("/process").map(sort_capabilities);
    for map in ["/annotations", "/linux/sysctl"] {
        if let Some(Value::Object(map)) = value.pointer_mut(map) {
            map.sort_keys();
        }
    }
    value.serialize(serializer)
}

fn sort_capabilities(process: &mut Value) {
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(serde_json::Map::values_mut).filter_map(Value::as_array_mut) {
        set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
}
