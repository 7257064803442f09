//! Members as sums of what the steps add to them.
//!
//! One rule: arrays are concatenated; objects are merged key by key, by the same rule; of other values, the
//! last one counts. What no step added, such as a key that somebody added by hand, keeps the text that was
//! read.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, value::RawValue};

use crate::object::Object;

type Result<T> = serde_json::Result<T>;

fn raw(value: &Value) -> Result<Box<RawValue>> {
    serde_json::value::to_raw_value(value)
}

fn value(text: &RawValue) -> Option<Value> {
    serde_json::from_str(text.get()).ok()
}

/// The sum of `current` and `added`, in this order.
pub(crate) fn add(current: &RawValue, added: &Value) -> Result<Box<RawValue>> {
    match (current.get().as_bytes().first(), added) {
        (Some(b'{'), Value::Object(added)) => {
            let mut object: Object = serde_json::from_str(current.get())?;
            for (name, value) in added {
                let sum = match object.get(name) {
                    Some(current) => add(current, value)?,
                    None => raw(value)?,
                };
                object.set(name, sum);
            }
            serde_json::value::to_raw_value(&object)
        }
        (Some(b'['), Value::Array(added)) => {
            let mut list: Vec<Box<RawValue>> = serde_json::from_str(current.get())?;
            for value in added {
                list.push(raw(value)?);
            }
            serde_json::value::to_raw_value(&list)
        }
        _ => raw(added),
    }
}

/// The sum of all values; `None` if there are none.
pub(crate) fn of<'a>(all: impl IntoIterator<Item = &'a Value>) -> Option<Value> {
    let mut all = all.into_iter();
    let mut sum = all.next()?.clone();
    all.for_each(|added| extend(&mut sum, added));
    Some(sum)
}

/// As [`add`], but in place. So a sum of many steps is not written and parsed again for each of them.
fn extend(sum: &mut Value, added: &Value) {
    match (sum, added) {
        (Value::Object(sum), Value::Object(added)) => {
            for (name, value) in added {
                match sum.get_mut(name) {
                    Some(sum) => extend(sum, value),
                    None => drop(sum.insert(name.clone(), value.clone())),
                }
            }
        }
        (Value::Array(sum), Value::Array(added)) => sum.extend_from_slice(added),
        (sum, added) => *sum = added.clone(),
    }
}

/// Changes a member whose steps had the sum `before` and now have the sum `after`. `current` may hold more
/// than `before`; that stays. Returns `None` if nothing is left.
pub(crate) fn change(
    current: &RawValue,
    before: &Value,
    after: Option<&Value>,
) -> Result<Option<Box<RawValue>>> {
    if value(current).as_ref() == Some(before) {
        return after.map(raw).transpose();
    }
    match (current.get().as_bytes().first(), before) {
        (Some(b'{'), Value::Object(before)) => {
            let mut object: Object = serde_json::from_str(current.get())?;
            let mut gone = HashSet::new();
            for (name, before) in before {
                let after = after.and_then(|after| after.get(name));
                // What somebody removed by hand stays removed.
                let Some(current) = object.get(name).filter(|_| after != Some(before)) else { continue };
                match change(current, before, after)? {
                    Some(changed) => object.set(name, changed),
                    None => drop(gone.insert(name)),
                }
            }
            object.0.retain(|name, _| !gone.contains(name));
            let is_gone = after.is_none() && object.0.is_empty();
            (!is_gone).then(|| serde_json::value::to_raw_value(&object)).transpose()
        }
        (Some(b'['), Value::Array(before)) => {
            let list = without(serde_json::from_str(current.get())?, before, after);
            let is_gone = after.is_none() && list.is_empty();
            (!is_gone).then(|| serde_json::value::to_raw_value(&list)).transpose()
        }
        _ => after.map(raw).transpose(),
    }
}

/// Removes from the list what is in `before` and not in `after`. `after` must be a part of `before`, in the
/// same order.
fn without(list: Vec<Box<RawValue>>, before: &[Value], after: Option<&Value>) -> Vec<Box<RawValue>> {
    let mut kept = after.and_then(Value::as_array).into_iter().flatten().peekable();
    let gone: Vec<&Value> = before.iter().filter(|value| kept.next_if_eq(value).is_none()).collect();
    let mut places = Places::of(list.iter().map(|text| value(text)).collect());
    gone.into_iter().rev().for_each(|gone| places.take(gone));
    list.into_iter().zip(places.values).filter_map(|(text, value)| value.map(|_| text)).collect()
}

/// The positions of the values in a list. A value is found without a walk over the whole list.
struct Places {
    /// The values. `None` for a value that was taken.
    values: Vec<Option<Value>>,
    /// The positions of each value, by its text. Objects are also listed by the text of each of their
    /// members.
    by_text: HashMap<String, Vec<usize>>,
}

impl Places {
    fn of(values: Vec<Option<Value>>) -> Self {
        let mut by_text: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            by_text.entry(text_of(value)).or_default().push(at);
            for (name, value) in value.as_object().into_iter().flatten() {
                by_text.entry(text_of_member(name, value)).or_default().push(at);
            }
        }
        Self { values, by_text }
    }

    /// Takes the last value that is equal to `gone`. If there is none, takes the last object that has all
    /// members of `gone`: somebody may have added keys to it.
    fn take(&mut self, gone: &Value) {
        let at = self.last(&text_of(gone), |_| true).or_else(|| {
            let members = gone.as_object()?.iter();
            let texts = members.map(|(name, value)| text_of_member(name, value));
            // The member that the fewest objects have.
            let rarest = texts.min_by_key(|text| self.by_text.get(text).map_or(0, Vec::len))?;
            self.last(&rarest, |value| holds(value, gone))
        });
        if let Some(at) = at {
            self.values[at] = None;
        }
    }

    /// The last position with this text that is not taken and that `fits` accepts.
    fn last(&mut self, text: &str, fits: impl Fn(&Value) -> bool) -> Option<usize> {
        let places = self.by_text.get_mut(text)?;
        while places.pop_if(|at| self.values[*at].is_none()).is_some() {}
        places.iter().rev().copied().find(|at| self.values[*at].as_ref().is_some_and(&fits))
    }
}

/// The text of a value. Equal values have the same text, whatever the order of their keys.
fn text_of(value: &Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    sorted.to_string()
}

/// The text of an object's member. It differs from the text of every value.
fn text_of_member(name: &str, value: &Value) -> String {
    format!("{name:?}:{}", text_of(value))
}

/// Whether both are objects, and `value` has all members of `part`.
fn holds(value: &Value, part: &Value) -> bool {
    let (Some(value), Some(part)) = (value.as_object(), part.as_object()) else { return false };
    part.iter().all(|(name, part)| value.get(name) == Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn text(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn one_rule() {
        for (current, added, sum) in [
            ("[1.0]", json!([2]), "[1.0,2]"),
            (r#"{"a":[1],"b":1e400}"#, json!({"a": [2], "c": 3}), r#"{"a":[1,2],"b":1e400,"c":3}"#),
            (r#"{"a":{"b":1}}"#, json!({"a": {"b": 2}}), r#"{"a":{"b":2}}"#),
            ("1", json!([2]), "[2]"),
            ("[1]", json!({"a": 1}), r#"{"a":1}"#),
        ] {
            assert_eq!(add(&text(current), &added).unwrap().get(), sum, "{current}");
        }
        assert_eq!(of([]), None);
    }

    #[test]
    fn what_was_done_by_hand_stays() {
        for (current, before, after, changed) in [
            ("[1,2,1,2]", json!([1, 2]), Some(json!([])), "[1,2]"),
            (r#"[{"b":1,"a":2},{"a":1}]"#, json!([{"a": 2, "b": 1}]), Some(json!([])), r#"[{"a":1}]"#),
            (r#"[{"x":1},{"x":1,"y":1},3]"#, json!([{"x": 1}, {"x": 1}]), Some(json!([])), "[3]"),
            (r#"[{},{"x":1}]"#, json!([{}, 4]), Some(json!([4])), r#"[{"x":1}]"#),
            ("[1,2]", json!([1, 2]), Some(json!([1])), "[1]"),
            ("[0, 1,1.50,2]", json!([1, 2]), Some(json!([1])), "[0,1,1.50]"),
            (
                r#"[{"p":1},{"p":2,"name":"x"}]"#,
                json!([{"p": 1}, {"p": 2}]),
                Some(json!([{"p": 1}])),
                r#"[{"p":1}]"#,
            ),
            (
                r#"{"a":1,"theirs":1e400,"b":2}"#,
                json!({"a": 1, "b": 2}),
                Some(json!({"a": 1})),
                r#"{"a":1,"theirs":1e400}"#,
            ),
            (r#"{"theirs":1}"#, json!({"a": 1, "b": 2}), Some(json!({"a": 1})), r#"{"theirs":1}"#),
            (r#"{"a":{"x":1,"y":2},"b":9}"#, json!({"a": {"x": 1}, "b": 2}), None, r#"{"a":{"y":2}}"#),
            ("7", json!([1]), Some(json!([])), "[]"),
        ] {
            let told = change(&text(current), &before, after.as_ref()).unwrap().unwrap();
            assert_eq!(told.get(), changed, "{current}");
        }
        assert!(change(&text("[1]"), &json!([1]), None).unwrap().is_none());
        assert!(change(&text(r#"{"a":2}"#), &json!({"a": 1}), None).unwrap().is_none());
    }

    fn contribution() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![(0..4_i32).prop_map(Value::from), Just(Value::Bool(true))];
        let list = || prop::collection::vec(leaf.clone(), 0..4).prop_map(Value::from);
        let object = prop::collection::btree_map("[a-c]", list(), 0..3);
        prop_oneof![list(), object.prop_map(Value::from_iter)]
    }

    proptest! {
        #[test]
        fn any_of_them_can_go(all in prop::collection::vec(contribution(), 1..5), at in any::<prop::sample::Index>()) {
            let at = at.index(all.len());
            let mut others = all.clone();
            others.remove(at);
            let (before, after) = (of(&all).unwrap(), of(&others));
            let changed = change(&raw(&before).unwrap(), &before, after.as_ref()).unwrap();
            prop_assert_eq!(changed.and_then(|changed| value(&changed)), after);
        }
    }
}
