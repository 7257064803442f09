//! The functions of Go's templates, and those that Docker adds.

use serde_json::Value;

use crate::{LONGEST, printf, value};

/// The functions that [`call`] has.
const NAMES: [&str; 22] = [
    "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "pad", "print",
    "printf", "println", "slice", "split", "title", "truncate", "upper", "toJson",
];

/// The functions that evaluate their arguments only as far as needed.
const LAZY: [&str; 2] = ["and", "or"];

/// Whether there is such a function.
pub(crate) fn exists(name: &str) -> bool {
    NAMES.contains(&name) || LAZY.contains(&name)
}

/// In the headings of a table, these only pass on the heading.
pub(crate) fn is_of_values(name: &str) -> bool {
    ["json", "toJson", "split", "join", "title", "lower", "upper", "pad", "truncate"].contains(&name)
}

type Called = Result<Value, String>;

/// The value of a function.
///
/// # Errors
/// Why it has none for these arguments.
pub(crate) fn call(name: &str, arguments: &[Value]) -> Called {
    let value = match (name, arguments) {
        ("print", all) => Value::String(print(all)),
        ("println", all) => {
            Value::String(all.iter().map(value::printed).collect::<Vec<_>>().join(" ") + "\n")
        }
        ("printf", [Value::String(format), rest @ ..]) => Value::String(printf::fill(format, rest)?),
        ("not", [one]) => Value::Bool(!value::is_true(one)),
        ("json" | "toJson", [one]) => Value::String(one.to_string()),
        ("len", [one]) => len(one)?.into(),
        ("index", [one, keys @ ..]) => keys.iter().try_fold(one.clone(), |one, key| index(&one, key))?,
        ("slice", [one, bounds @ ..]) => slice(one, bounds)?,
        ("eq", [one, others @ ..]) if !others.is_empty() => {
            let equal = |other| value::equal(one, other).ok_or_else(|| unlike(one, other));
            let mut results = others.iter().map(equal);
            Value::Bool(results.try_fold(false, |any, is| is.map(|is| any || is))?)
        }
        ("ne", [a, b]) => Value::Bool(!value::equal(a, b).ok_or_else(|| unlike(a, b))?),
        ("lt" | "le" | "gt" | "ge", [a, b]) => {
            let order = value::compare(a, b).ok_or_else(|| unlike(a, b))?;
            Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        ("join", [Value::Array(list), Value::String(by)]) => {
            Value::String(list.iter().map(value::printed).collect::<Vec<_>>().join(by))
        }
        ("join", [Value::Null, Value::String(_)]) => Value::String(String::new()),
        ("split", [Value::String(text), Value::String(by)]) => split(text, by),
        ("lower", [Value::String(text)]) => Value::String(text.to_lowercase()),
        ("upper", [Value::String(text)]) => Value::String(text.to_uppercase()),
        ("title", [Value::String(text)]) => Value::String(title(text)),
        ("truncate", [Value::String(text), count]) => {
            Value::String(text.chars().take(size(count)?).collect())
        }
        ("pad", [Value::String(text), before, after]) => {
            let [before, after] = [size(before)?, size(after)?];
            let is_empty = text.is_empty();
            Value::String(if is_empty {
                String::new()
            } else {
                [&" ".repeat(before), text.as_str(), &" ".repeat(after)].concat()
            })
        }
        _ => {
            let kinds: Vec<_> = arguments.iter().map(value::kind).collect();
            return Err(format!("{name} does not take these arguments: {}", or_none(&kinds.join(", "))));
        }
    };
    let is_long = value.as_str().is_some_and(|text| text.len() > LONGEST);
    if is_long { Err(format!("the result of {name} is longer than {LONGEST} bytes")) } else { Ok(value) }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn unlike(a: &Value, b: &Value) -> String {
    format!("{} and {} cannot be compared", value::kind(a), value::kind(b))
}

/// A count that is not too large.
fn size(value: &Value) -> Result<usize, String> {
    let size = value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= LONGEST);
    size.ok_or_else(|| format!("{value} is no count"))
}

/// As Go's `fmt.Sprint`: a space between two that are both no texts.
fn print(all: &[Value]) -> String {
    let mut text = String::new();
    for (index, one) in all.iter().enumerate() {
        if index > 0 && !one.is_string() && !all[index - 1].is_string() {
            text.push(' ');
        }
        text += &value::printed(one);
    }
    text
}

fn len(value: &Value) -> Result<usize, String> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(list) => Ok(list.len()),
        Value::Object(members) => Ok(members.len()),
        // Docker's lists and maps are null if they are empty.
        Value::Null => Ok(0),
        other => Err(format!("{} has no length", value::kind(other))),
    }
}

/// An element of a list, or the value of a key; an absent key has no value.
fn index(value: &Value, key: &Value) -> Called {
    match (value, key) {
        (Value::Array(list), key) => {
            let found = key.as_u64().and_then(|key| list.get(usize::try_from(key).ok()?));
            found.cloned().ok_or_else(|| format!("the list has {} elements, and none at {key}", list.len()))
        }
        (Value::Object(members), Value::String(key)) => Ok(match members.get(key) {
            Some(value) => value.clone(),
            // Go: the empty value of the map's type. A map of texts has texts.
            None if members.values().all(Value::is_string) => Value::String(String::new()),
            None => Value::Null,
        }),
        (Value::Null, Value::String(_)) => Ok(Value::Null),
        (Value::Null, _) => Err("there is no value to take an element of".to_owned()),
        (value, key) => Err(format!("{} has no element {key}", value::kind(value))),
    }
}

/// A part of a text (in bytes) or of a list.
fn slice(value: &Value, bounds: &[Value]) -> Called {
    let bounds = bounds.iter().map(size).collect::<Result<Vec<_>, _>>()?;
    let length = len(value)?;
    let (from, to) = match bounds[..] {
        [] => (0, length),
        [from] => (from, length),
        [from, to] => (from, to),
        _ => return Err("slice takes two bounds at most".to_owned()),
    };
    let outside = || format!("no part from {from} to {to} of {length}");
    match value {
        Value::String(text) => text.get(from..to).map(Value::from).ok_or_else(outside),
        Value::Array(list) => list.get(from..to).map(Value::from).ok_or_else(outside),
        other => Err(format!("{} has no parts", value::kind(other))),
    }
}

fn split(text: &str, by: &str) -> Value {
    if by.is_empty() {
        return text.chars().map(String::from).collect();
    }
    text.split(by).collect()
}

/// The first letter of each word as a capital.
fn title(text: &str) -> String {
    let mut is_first = true;
    let upper = |one: char| {
        let starts = std::mem::replace(&mut is_first, !one.is_alphanumeric() && one != '_' && one != '\'');
        if starts { one.to_uppercase().collect::<String>() } else { one.to_string() }
    };
    text.chars().map(upper).collect()
}
