//! Compares the configurations of two images.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Difference;

/// Members that only list the layers.
const OF_LAYERS: &str = "rootfs";

/// Compares the values `a` and `b` at the same path of both configurations.
pub(crate) fn compare(path: &str, a: &Value, b: &Value, found: &mut Vec<Difference>) {
    if a == b {
        return;
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (a, b) {
        (Value::Object(own), Value::Object(other)) => {
            let names: BTreeSet<&String> = own.keys().chain(other.keys()).collect();
            for name in names.into_iter().filter(|name| !path.is_empty() || *name != OF_LAYERS) {
                compare(&below(name), &a[name.as_str()], &b[name.as_str()], found);
            }
        }
        (Value::Array(own), Value::Array(other)) if own.len() == other.len() => {
            for (at, (a, b)) in own.iter().zip(other).enumerate() {
                compare(&format!("{path}[{at}]"), a, b, found);
            }
        }
        _ => found.push(Difference {
            layer: None,
            path: path.to_owned(),
            what: "setting",
            a: a.clone(),
            b: b.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_setting_that_differs() {
        let mut found = Vec::new();
        let a = json!({"config": {"Env": ["A=1", "B=2"], "User": "x"}, "rootfs": 1, "history": [1]});
        let b = json!({"config": {"Env": ["A=1", "B=3"]}, "rootfs": 2, "history": [1, 2]});
        compare("", &a, &b, &mut found);
        let paths: Vec<&str> = found.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["config.Env[1]", "config.User", "history"]);
        assert_eq!((&found[1].a, &found[1].b), (&json!("x"), &Value::Null));
    }
}
