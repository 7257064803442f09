//! Bundles with busybox, in a sandbox.

#![allow(dead_code)] // Each test uses a part of it.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::{Value, json};
use testkit::{Outcome, Sandbox};

/// A sandbox with a bundle `b`: busybox, and a configuration without a terminal.
pub(crate) fn bundle() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("layer-apply --id web < busybox.json | union-mount > /dev/null").ok();
    sandbox.sh("mkdir -p b/rootfs && cp -a $(jq -r .rootfs.path $STAVE_RUN/web.json)/. b/rootfs && unwind web > /dev/null").ok();
    sandbox.sh("oci-runtime spec -b b && mv b/config.json b/template.json").ok();
    sandbox
}

/// The configuration of a new bundle: its shell runs `script`, and its root file system is writable.
pub(crate) fn configuration(sandbox: &Sandbox, script: &str) -> Value {
    let mut config = sandbox.sh("cat b/template.json").json();
    // Other tests run beside this one, and see the same cgroups.
    config["linux"]["cgroupsPath"] = json!(format!("/oci-test-{}", sandbox.pid()));
    config["process"]["terminal"] = json!(false);
    config["root"]["readonly"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", script]);
    config
}

/// Parses the tool's output as lines of runc's log: level and message. Other lines are skipped.
#[track_caller]
pub(crate) fn told(outcome: &Outcome) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (time, rest) = line.strip_prefix("time=\"")?.split_once("\" level=")?;
        assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00Z".len(), "{line}");
        let (level, message) = rest.split_once(" msg=")?;
        Some((level.to_owned(), serde_json::from_str(message).unwrap()))
    };
    outcome.stderr.lines().map(|text| line(text).unwrap_or_else(|| panic!("{text:?}"))).collect()
}

/// Asserts that the tool reported this error, and nothing else.
#[track_caller]
pub(crate) fn assert_error(outcome: &Outcome, error: &str) {
    assert_eq!(told(outcome), [("error".to_owned(), error.to_owned())]);
}

/// Writes a configuration into the bundle.
pub(crate) fn write(sandbox: &Sandbox, config: &Value) {
    std::fs::write(sandbox.directory().join("b/config.json"), config.to_string()).unwrap();
}

/// Runs a script with a changed configuration.
#[track_caller]
pub(crate) fn run(sandbox: &Sandbox, script: &str, change: impl FnOnce(&mut Value)) -> Outcome {
    let mut config = configuration(sandbox, script);
    change(&mut config);
    write(sandbox, &config);
    sandbox.sh("oci-runtime run -b b one < /dev/null")
}

/// Starts a container `one` that sleeps in the background.
#[track_caller]
pub(crate) fn start(sandbox: &Sandbox, change: impl FnOnce(&mut Value)) {
    let mut config = configuration(sandbox, "exec sleep 1000");
    change(&mut config);
    write(sandbox, &config);
    sandbox.sh("oci-runtime run -d -b b one < /dev/null > /dev/null 2> /dev/null").ok();
}

/// Sets the property at `path`, and creates missing parents.
pub(crate) fn set(config: &mut Value, path: &str, value: Value) {
    let mut place = config;
    for name in path.split('/').skip(1) {
        place = match place {
            Value::Array(list) => &mut list[name.parse::<usize>().unwrap()],
            place => &mut place[name],
        };
    }
    *place = value;
}
