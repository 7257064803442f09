use oci_spec::runtime::LinuxResources;
use serde_json::Value;

use crate::{Container, Error, Result, Status, of_container, properties};

/// Changes limits of a running container. `changes` has the form of `linux.resources` in a configuration;
/// limits that it does not contain stay.
/// Returns warnings about ignored properties.
///
/// # Errors
/// For a stopped container, and for a limit that the kernel cannot set, by its name.
pub fn update(container: &Container, mut changes: Value) -> Result<Vec<String>> {
    let _lock = container.lock()?;
    let mut record = container.record()?;
    if record.status()? == Status::Stopped {
        return Err(of_container("update", container.id())("container not running"));
    }
    let warnings = properties::filtered(&mut changes, "/linux/resources")?;
    let linux = record
        .config
        .as_object_mut()
        .map(|config| config.entry("linux").or_insert_with(|| serde_json::json!({})));
    let Some(linux) = linux.and_then(Value::as_object_mut) else {
        return Err(of_container("update", container.id())("its record is damaged"));
    };
    let resources = linux.entry("resources").or_insert_with(|| serde_json::json!({}));
    lift_swap(&mut changes, resources);
    // A swap limit depends on the memory limit, and a quota on its period.
    let mut whole = changes.clone();
    complete(&mut whole, resources);
    merge(resources, changes);
    let limits: LinuxResources =
        serde_json::from_value(whole).map_err(|error| Error::new("read", "the limits", error.to_string()))?;
    record.cgroups.set(&limits)?;
    if let Some(rules) = limits.devices() {
        record.cgroups.set_devices(&crate::create::with_defaults(rules))?;
    }
    container.write(&record)?;
    Ok(warnings)
}

/// Removes an earlier limit of memory and swap together if that of memory is removed, as in runc.
fn lift_swap(changes: &mut Value, before: &Value) {
    let Some(memory) = changes.get_mut("memory").and_then(Value::as_object_mut) else { return };
    let is_lifted = memory.get("limit").and_then(Value::as_i64).is_some_and(|limit| limit < 0);
    let had = before.pointer("/memory/swap").is_some_and(|swap| !swap.is_null());
    if is_lifted && had && !memory.contains_key("swap") {
        memory.insert("swap".to_owned(), serde_json::json!(-1));
    }
}

/// Adds the earlier values of limits that a changed limit depends on.
fn complete(changes: &mut Value, before: &Value) {
    for (group, asked, needed) in [
        ("memory", "swap", "limit"),
        ("memory", "limit", "swap"),
        ("cpu", "quota", "period"),
        ("cpu", "period", "quota"),
    ] {
        let Some(members) = changes.get_mut(group).and_then(Value::as_object_mut) else { continue };
        let earlier = before.get(group).and_then(|group| group.get(needed));
        if let (true, false, Some(earlier)) =
            (members.contains_key(asked), members.contains_key(needed), earlier)
        {
            // If the new memory limit is above the earlier sum of memory and swap, only the new limit counts.
            let is_below = needed == "swap"
                && earlier.as_i64().is_some_and(|swap| {
                    swap >= 0 && members[asked].as_i64().is_none_or(|limit| limit > swap || limit < 0)
                });
            if !is_below {
                members.insert(needed.to_owned(), earlier.clone());
            }
        }
    }
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (name, value) in changes {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, changes) => *into = changes,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_belongs_to_a_limit_is_kept() {
        for (changes, before, expected) in [
            (
                json!({"memory": {"swap": 9}}),
                json!({"memory": {"limit": 5}}),
                json!({"memory": {"swap": 9, "limit": 5}}),
            ),
            (
                json!({"memory": {"limit": 5}}),
                json!({"memory": {"limit": 1, "swap": 9}}),
                json!({"memory": {"limit": 5, "swap": 9}}),
            ),
            (
                json!({"memory": {"limit": 10}}),
                json!({"memory": {"swap": 9}}),
                json!({"memory": {"limit": 10}}),
            ),
            (
                json!({"cpu": {"quota": 5}}),
                json!({"cpu": {"period": 7}}),
                json!({"cpu": {"quota": 5, "period": 7}}),
            ),
            (json!({"pids": {"limit": 5}}), json!({"memory": {"limit": 1}}), json!({"pids": {"limit": 5}})),
        ] {
            let mut whole = changes.clone();
            complete(&mut whole, &before);
            assert_eq!(whole, expected, "{changes}");
        }
        for (changes, before, expected) in [
            (json!({"limit": -1}), json!({"limit": 5, "swap": 9}), json!({"limit": -1, "swap": -1})),
            (json!({"limit": -1, "swap": 9}), json!({"swap": 9}), json!({"limit": -1, "swap": 9})),
            (json!({"limit": -1}), json!({"limit": 5}), json!({"limit": -1})),
            (json!({"limit": 7}), json!({"limit": 5, "swap": 9}), json!({"limit": 7})),
        ] {
            let mut lifted = json!({ "memory": changes });
            lift_swap(&mut lifted, &json!({ "memory": before }));
            assert_eq!(lifted["memory"], expected, "{changes}");
        }
        let mut all = json!({"memory": {"limit": 1, "swap": 2}});
        merge(&mut all, json!({"memory": {"limit": 3}, "pids": {"limit": 4}}));
        assert_eq!(all, json!({"memory": {"limit": 3, "swap": 2}, "pids": {"limit": 4}}));
    }
}
