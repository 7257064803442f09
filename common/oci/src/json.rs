//! JSON that comes out the same each time, so that its digest does.

use serde::Serialize;
use serde_json::Value;

/// `value` as JSON without spaces and with the members of every object in the order of their names. Types that hold
/// hash maps (labels, annotations, volumes) would otherwise give other bytes each time.
///
/// # Errors
/// When the value cannot be JSON, as a map whose keys are no strings.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut value = serde_json::to_value(value)?;
    value.sort_all_objects();
    serde_json::to_vec(&value)
}

/// Gives a list that Go wrote as `null` (an empty slice) its elements: none.
pub(crate) fn null_as_empty(value: &mut Value, pointer: &str) {
    if let Some(list @ Value::Null) = value.pointer_mut(pointer) {
        *list = Value::Array(Vec::new());
    }
}
