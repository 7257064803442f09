//! The result of ADD (SPEC.md, "ADD Success").

use serde_json::{Map, Value, json};

use crate::Version;

/// Converts a result of version 1.1.0 to another version.
#[must_use]
pub fn to_version(result: &Value, version: Version) -> Value {
    let mut result = result.clone();
    result["cniVersion"] = json!(version.as_str());
    if version < Version::V110 {
        each(&mut result, "interfaces", |interface| retain(interface, &["name", "mac", "sandbox"]));
        each(&mut result, "routes", |route| retain(route, &["dst", "gw"]));
    }
    each(&mut result, "ips", |ip| match version < Version::V100 {
        true => {
            let is_6 = ip.get("address").and_then(Value::as_str).is_some_and(|address| address.contains(':'));
            ip.insert("version".to_owned(), json!(if is_6 { "6" } else { "4" }));
        }
        false => drop(ip.shift_remove("version")),
    });
    result
}

/// Joins the result of the previous plugins with this plugin's own. The result of a chain lists
/// both.
#[must_use]
pub fn joined(previous: &Value, own: &Value) -> Value {
    let mut result = previous.clone();
    let before = previous["interfaces"].as_array().map_or(0, Vec::len) as u64;
    let mut own = own.clone();
    each(&mut own, "ips", |ip| {
        if let Some(at) = ip.get("interface").and_then(Value::as_u64) {
            ip.insert("interface".to_owned(), json!(at + before));
        }
    });
    for key in ["interfaces", "ips", "routes"] {
        let list = own[key].as_array().cloned().unwrap_or_default();
        match &mut result[key] {
            Value::Array(before) => before.extend(list),
            other => *other = Value::Array(list),
        }
    }
    for key in ["nameservers", "domain", "search", "options"] {
        if !own["dns"][key].is_null() {
            result["dns"][key] = own["dns"][key].clone();
        }
    }
    result
}

fn each(result: &mut Value, key: &str, mut change: impl FnMut(&mut Map<String, Value>)) {
    let list = result.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut change);
}

fn retain(object: &mut Map<String, Value>, keys: &[&str]) {
    object.retain(|key, _| keys.contains(&key.as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> Value {
        json!({"cniVersion": "1.1.0", "dns": {},
            "interfaces": [{"name": "b", "mtu": 1500}, {"name": "eth0", "mac": "02:00", "mtu": 1500, "sandbox": "/n"}],
            "ips": [{"address": "10.0.0.2/24", "interface": 1}, {"address": "fd00::2/64", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "priority": 7}]})
    }

    #[test]
    fn versions_differ() {
        assert_eq!(to_version(&result(), Version::V110), result());
        let old = to_version(&result(), Version::V031);
        let expected = json!({"cniVersion": "0.3.1", "dns": {},
            "interfaces": [{"name": "b"}, {"name": "eth0", "mac": "02:00", "sandbox": "/n"}],
            "ips": [{"address": "10.0.0.2/24", "interface": 1, "version": "4"},
                {"address": "fd00::2/64", "interface": 1, "version": "6"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]});
        assert_eq!(old, expected);
        let newer = to_version(&old, Version::V100);
        assert_eq!(newer["ips"][0], json!({"address": "10.0.0.2/24", "interface": 1}));
    }

    #[test]
    fn a_chain_lists_all() {
        let own = json!({"interfaces": [{"name": "eth1"}], "ips": [{"address": "10.1.0.2/24", "interface": 0}],
            "dns": {"domain": "x"}});
        let both = joined(&result(), &own);
        assert_eq!(both["interfaces"].as_array().unwrap().len(), 3);
        assert_eq!(both["ips"][2]["interface"], 2);
        assert_eq!(both["dns"], json!({"domain": "x"}));
        assert_eq!(both["routes"].as_array().unwrap().len(), 1);
    }
}
