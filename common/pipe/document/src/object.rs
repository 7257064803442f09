//! A JSON object as it was read. It keeps the order of the members and the text of each value.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use serde_json::value::RawValue;

/// One JSON object. A lookup takes the same time however many members there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object(pub(crate) IndexMap<String, Box<RawValue>>);

impl Object {
    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.get(name).map(|value| &**value)
    }

    /// Replaces the value, or appends the member if it is new.
    pub(crate) fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.get_mut(name) {
            Some(place) => *place = value,
            None => drop(self.0.insert(name.to_owned(), value)),
        }
    }

    /// Removes the member. The order of the others stays.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.shift_remove(name);
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Object::default();
                // If a name appears twice, the last value counts, as in jq.
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    object.0.insert(name, value);
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
