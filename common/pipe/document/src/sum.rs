//! Members as sums of what the steps add to them.
//!
//! One rule: arrays are concatenated, objects are merged key by key by the same rule, of anything else the last one
//! counts. What no step has added (a key that somebody put there by hand) is kept as the text that was read.

use serde_json::{Value, value::RawValue};

use crate::object::Object;

type Result<T> = serde_json::Result<T>;

fn raw(value: &Value) -> Result<Box<RawValue>> {
    serde_json::value::to_raw_value(value)
}

fn value(text: &RawValue) -> Option<Value> {
    serde_json::from_str(text.get()).ok()
}

/// `current` with `added` after it.
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

/// The sum of all of them; none of nothing.
pub(crate) fn of<'a>(all: impl IntoIterator<Item = &'a Value>) -> Result<Option<Value>> {
    let mut sum: Option<Box<RawValue>> = None;
    for added in all {
        sum = Some(match &sum {
            Some(sum) => add(sum, added)?,
            None => raw(added)?,
        });
    }
    sum.map(|sum| serde_json::from_str(sum.get())).transpose()
}

/// `current`, which held the sum `before` and perhaps more, once that has become `after`. None where nothing is left of it.
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
            for (name, before) in before {
                let after = after.and_then(|after| after.get(name));
                // What was taken out by hand stays out.
                let Some(current) = object.get(name).filter(|_| after != Some(before)) else { continue };
                match change(current, before, after)? {
                    Some(changed) => object.set(name, changed),
                    None => object.remove(name),
                }
            }
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

/// The list without what stands in `before` and not in `after`, which is a part of `before`, in the same order.
fn without(mut list: Vec<Box<RawValue>>, before: &[Value], after: Option<&Value>) -> Vec<Box<RawValue>> {
    let mut kept = after.and_then(Value::as_array).into_iter().flatten().peekable();
    let gone: Vec<&Value> = before.iter().filter(|value| kept.next_if_eq(value).is_none()).collect();
    let mut values: Vec<Option<Value>> = list.iter().map(|text| value(text)).collect();
    for gone in gone.into_iter().rev() {
        let equal = values.iter().rposition(|value| value.as_ref() == Some(gone));
        // One to which somebody has added keys is the same one.
        let at = equal.or_else(|| {
            values.iter().rposition(|value| value.as_ref().is_some_and(|value| holds(value, gone)))
        });
        if let Some(at) = at {
            list.remove(at);
            values.remove(at);
        }
    }
    list
}

/// Whether both are objects, and one has all that the other has.
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
        assert_eq!(of([]).unwrap(), None);
    }

    #[test]
    fn what_was_done_by_hand_stays() {
        for (current, before, after, changed) in [
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
            let (before, after) = (of(&all).unwrap().unwrap(), of(&others).unwrap());
            let changed = change(&raw(&before).unwrap(), &before, after.as_ref()).unwrap();
            prop_assert_eq!(changed.and_then(|changed| value(&changed)), after);
        }
    }
}
