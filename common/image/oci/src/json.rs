//! JSON with reproducible bytes, and so with a reproducible digest; and strict parsing of untrusted JSON, so
//! that no other program can read it differently.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer, Serialize,
    de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use crate::{
    media_type::{Kind, kind_of},
    shape,
};

/// Writes `value` as JSON, without spaces and with the members of every object sorted by name. Types with
/// hash maps (labels, annotations, volumes) would otherwise give different bytes each time.
///
/// # Errors
/// When the value has no JSON form, for example a map whose keys are not strings.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut value = serde_json::to_value(value)?;
    value.sort_all_objects();
    serde_json::to_vec(&value)
}

/// Parses JSON and rejects objects with a duplicate member. Of two members with the same name, some programs
/// use the first and some the last (RFC 8259, section 4), so one program could check what another does not
/// see. What is no Unicode in a string becomes U+FFFD, as in Go: labels and commands may be in any encoding.
///
/// # Errors
/// When the JSON is malformed; the error tells where.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    let text = with_pairs(String::from_utf8_lossy(text));
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    T::deserialize(value)
}

/// The text with U+FFFD for each escaped half of a surrogate pair that stands alone. Python writes such halves for bytes
/// that are no UTF-8 (`surrogateescape`).
fn with_pairs(text: Cow<'_, str>) -> Cow<'_, str> {
    const LENGTH: usize = "\\uXXXX".len();
    let unit = |at: usize| {
        let digits = text.get(at..at + LENGTH)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut fixed, mut kept, mut at) = (String::new(), 0, 0);
    while let Some(found) = text[at..].find('\\') {
        at += found;
        let is_pair =
            |high| matches!(high, 0xd800..=0xdbff) && matches!(unit(at + LENGTH), Some(0xdc00..=0xdfff));
        match unit(at) {
            Some(high) if is_pair(high) => at += 2 * LENGTH,
            Some(0xd800..=0xdfff) => {
                fixed.push_str(&text[kept..at]);
                fixed.push_str("\\ufffd");
                at += LENGTH;
                kept = at;
            }
            // The character behind a backslash may be another backslash.
            _ => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    if kept == 0 {
        return text;
    }
    fixed.push_str(&text[kept..]);
    fixed.into()
}

/// Parses a manifest or an index, and checks that it cannot be read as something else too (CVE-2021-41190).
/// Null, which Go writes for what is empty, becomes that. Entries of an index that are no descriptors are left
/// out, unless all are.
///
/// # Errors
/// When the JSON is malformed or is another kind of document.
pub fn document(text: &[u8], expected: Kind) -> Result<Value, serde_json::Error> {
    let mut value: Value = from_slice(text)?;
    if matches!(expected, Kind::Manifest | Kind::Index) {
        shape::kind(&mut value)?;
        // Null in place of the list of the other kind is no list.
        null_as_empty(&mut value, if expected == Kind::Index { "/manifests" } else { "/layers" });
        hold(&value, expected)?;
        if let Value::Object(members) = &mut value {
            members.entry("schemaVersion").or_insert_with(|| 2.into());
        }
        shape::document(&mut value, expected)?;
    }
    Ok(value)
}

/// Checks that `value` is a document of the `expected` kind and of no other.
pub(crate) fn hold(value: &Value, expected: Kind) -> Result<(), serde_json::Error> {
    let wrong = |problem: String| Err(serde_json::Error::custom(problem));
    let is_told = match value.get("mediaType") {
        None | Some(Value::Null) => false,
        Some(Value::String(own)) if own.is_empty() => false,
        Some(Value::String(own)) if kind_of(&own.as_str().into()) == expected => true,
        Some(own) => return wrong(format!("it says that it is {own}")),
    };
    // Programs go by it only where the media type does not tell. Version 1 is another format.
    if let Some(version) = value.get("schemaVersion").filter(|version| **version != 2 && !is_told) {
        return wrong(format!("schemaVersion is {version}, not 2"));
    }
    let has = |name: &str| value.get(name).is_some_and(|member| !member.is_null());
    match has("manifests") && (has("layers") || has("config")) {
        true => wrong("it is an index and a manifest at once".to_owned()),
        false => Ok(()),
    }
}

/// Gives the members with these names this spelling: decoders in Go take any letters, and put the entries of objects in
/// several spellings together.
pub fn spelled(members: Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    let mut spelled = Map::new();
    for (key, value) in members {
        let known = known.iter().find(|known| known.eq_ignore_ascii_case(&key));
        let key = known.map_or(key, |known| (*known).to_owned());
        match (spelled.get_mut(&key), value) {
            (Some(Value::Object(earlier)), Value::Object(later)) => earlier.extend(later),
            (_, value) => drop(spelled.insert(key, value)),
        }
    }
    spelled
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom(format_args!("member {name:?} twice")));
            }
            let value = object.next_value_seed(Self)?;
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

/// Replaces a list that Go wrote as `null` (an empty slice) with an empty one.
fn null_as_empty(value: &mut Value, pointer: &str) {
    if let Some(list @ Value::Null) = value.pointer_mut(pointer) {
        *list = Value::Array(Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_could_read_differently_is_refused() {
        let read = |text: &str| from_slice::<Value>(text.as_bytes()).map_err(|error| error.to_string());
        let text = r#"{"a":[1,-2,2.5,true,null,"x\u00e9"],"b":{"a":{}}}"#;
        assert_eq!(read(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        for (text, wrong) in [
            (r#"{"a":1,"b":2,"a":1}"#, "member \"a\" twice at line 1 column 16"),
            (r#"{"x":[{"a":1,"\u0061":2}]}"#, "member \"a\" twice at line 1 column 21"),
            ("{} {}", "trailing characters at line 1 column 4"),
            ("", "EOF while parsing a value at line 1 column 0"),
        ] {
            assert_eq!(read(text), Err(wrong.to_owned()), "{text}");
        }
        for (text, expected) in [
            (&b"[\"A=\xff\"]"[..], "A=\u{fffd}"),
            (br#"["\ud83d"]"#, "\u{fffd}"),
            (br#"["a\udcffb\udc80"]"#, "a\u{fffd}b\u{fffd}"),
            (br#"["\ud83d\ude00\ud83dx"]"#, "\u{1f600}\u{fffd}x"),
            (br#"["\ud83d\ud83d\ude00"]"#, "\u{fffd}\u{1f600}"),
            (br#"["\\ud83d \"\\\\udc00"]"#, "\\ud83d \"\\\\udc00"),
            ("[\"\u{e9}\\ud800\u{e9}\"]".as_bytes(), "\u{e9}\u{fffd}\u{e9}"),
        ] {
            assert_eq!(from_slice::<Vec<String>>(text).unwrap(), [expected], "{text:?}");
        }
        assert!(read(r#"["\ud8"]"#).is_err() && read("[\"\\").is_err());
        assert!(read(r#"{"\ud800":1,"\udfff":2}"#).unwrap_err().contains("twice"));
        let deep = "[".repeat(100_000);
        assert!(read(&deep).unwrap_err().starts_with("recursion limit exceeded"));
    }

    #[test]
    fn a_manifest_without_layers_has_none() {
        let read = |text: &str| document(text.as_bytes(), Kind::Manifest).unwrap();
        assert_eq!(read(r#"{"config":{"digest":"x"}}"#)["layers"], serde_json::json!([]));
        assert_eq!(read("{}").get("layers"), None);
    }

    #[test]
    fn documents_that_are_what_they_should_be() {
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let index = "application/vnd.oci.image.index.v1+json";
        for (text, kind, wrong) in [
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{manifest}","layers":null}}"#),
                Kind::Manifest,
                None,
            ),
            (r#"{"schemaVersion":2,"mediaType":"","layers":[]}"#.to_owned(), Kind::Manifest, None),
            (format!(r#"{{"schemaVersion":1,"mediaType":"{manifest}","layers":[]}}"#), Kind::Manifest, None),
            (format!(r#"{{"SchemaVersion":2,"MediaType":"{manifest}","Layers":[]}}"#), Kind::Manifest, None),
            (
                r#"{"layers":[],"Manifests":[]}"#.to_owned(),
                Kind::Manifest,
                Some("it is an index and a manifest at once".to_owned()),
            ),
            (r#"{"layers":[],"manifests":null}"#.to_owned(), Kind::Manifest, None),
            (r#"{"manifests":[],"layers":null,"config":null}"#.to_owned(), Kind::Index, None),
            (
                r#"{"layers":[],"Layers":[]}"#.to_owned(),
                Kind::Manifest,
                Some("layers is there twice, in other letters, not once".to_owned()),
            ),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{index}","layers":[]}}"#),
                Kind::Manifest,
                Some(format!("it says that it is {index:?}")),
            ),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{manifest}","manifests":[]}}"#),
                Kind::Index,
                Some(format!("it says that it is {manifest:?}")),
            ),
            (r#"{"mediaType":7}"#.to_owned(), Kind::Index, Some("it says that it is 7".to_owned())),
            (r#"{"schemaVersion":1}"#.to_owned(), Kind::Index, Some("schemaVersion is 1, not 2".to_owned())),
            (
                r#"{"schemaVersion":"2"}"#.to_owned(),
                Kind::Manifest,
                Some("schemaVersion is \"2\", not 2".to_owned()),
            ),
            (
                r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#.to_owned(),
                Kind::Manifest,
                Some("it is an index and a manifest at once".to_owned()),
            ),
        ] {
            let found = document(text.as_bytes(), kind).err().map(|error| error.to_string());
            assert_eq!(found, wrong, "{text}");
        }
    }
}
