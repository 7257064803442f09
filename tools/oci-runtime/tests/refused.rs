//! Properties of a configuration that are rejected, each by its JSON path. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_error, bundle, run, set, told};
use serde_json::json;

/// Properties by their paths, a value of each as JSON, and the error.
const REFUSED: &[(&str, &str, &str)] = &[
    ("/windows", r#"{"layerFolders": ["a"]}"#, "/windows: it is for another platform than Linux"),
    (
        "/linux/intelRdt",
        r#"{"closID": "a"}"#,
        "/linux/intelRdt: classes of service of Intel RDT are not carried out",
    ),
    ("/process/selinuxLabel", r#""a""#, "/process/selinuxLabel: labels of SELinux are not carried out"),
    ("/process/apparmorProfile", r#""a""#, "/process/apparmorProfile: AppArmor does not run here"),
    ("/process/args", r#"[]"#, "/process/args: there is no command"),
    ("/process/cwd", r#""tmp""#, "/process/cwd: \"tmp\" is not absolute"),
    ("/ociVersion", r#""one""#, "/ociVersion: \"one\" is no version"),
    ("/ociVersion", r#""2.0.0""#, "/ociVersion: version 2.0.0 is not known"),
    (
        "/linux/sysctl",
        r#"{"vm.swappiness": "1"}"#,
        "/linux/sysctl/vm.swappiness: it is no variable of a namespace, but the whole machine's",
    ),
    (
        "/linux/sysctl",
        r#"{"net/../vm/swappiness": "1"}"#,
        "/linux/sysctl/net~1..~1vm~1swappiness: it is no variable of a namespace, but the whole machine's",
    ),
    (
        "/linux/timeOffsets",
        r#"{"boottime": {"secs": 1}}"#,
        "/linux/timeOffsets: there is no new time namespace for it",
    ),
    (
        "/linux/uidMappings",
        r#"[{"containerID": 0, "hostID": 0, "size": 1}]"#,
        "/linux/uidMappings: there is no user namespace for it",
    ),
    ("/linux/cgroupsPath", r#""/a/../b""#, "/linux/cgroupsPath: \"/a/../b\" leads out of itself"),
    ("/linux/rootfsPropagation", r#""often""#, "/linux/rootfsPropagation: there is no propagation \"often\""),
    (
        "/linux/personality",
        r#"{"domain": "LINUX", "flags": ["A"]}"#,
        "/linux/personality/flags: the specification has none yet, so none is known",
    ),
    (
        "/linux/namespaces/0",
        r#"{"type": "mount"}"#,
        "/linux/namespaces/4/type: the mount namespace is listed twice",
    ),
    (
        "/linux/seccomp",
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}"#,
        "/linux/seccomp/listenerPath: SCMP_ACT_NOTIFY needs a program that answers",
    ),
    ("/hooks", r#"{"poststop": [{"path": "a"}]}"#, "/hooks/poststop/0/path: \"a\" is not absolute"),
    (
        "/process/rlimits",
        r#"[{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]"#,
        "/process/rlimits/1/type: RLIMIT_CORE is limited twice",
    ),
    (
        "/process/ioPriority",
        r#"{"class": "IOPRIO_CLASS_BE", "priority": 9}"#,
        "/process/ioPriority/priority: 9 is not from 0 to 7",
    ),
    (
        "/process/scheduler",
        r#"{"policy": "SCHED_OTHER", "nice": 50}"#,
        "/process/scheduler/nice: 50 is not from -20 to 19",
    ),
    ("/process/env", r#"["PATH=/bin", "A"]"#, "/process/env/1: \"A\" is not NAME=VALUE"),
    ("/process/env", r#"["=b"]"#, "/process/env/0: \"=b\" is not NAME=VALUE"),
    (
        "/linux/devices",
        r#"[{"type": "a", "path": "/dev/x", "major": 1, "minor": 3}]"#,
        "/linux/devices/0/type: there is no device of type \"a\"",
    ),
    (
        "/mounts/0",
        r#"{"destination": "/x", "type": "tmpfs", "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}"#,
        "/mounts/0/uidMappings: only the owners of a bind mount can be mapped",
    ),
    ("/annotations", r#"{"x": 1}"#, "/annotations/x: invalid type: integer `1`, expected a string"),
];

#[test]
fn what_is_not_carried_out_is_refused_by_its_path() {
    let sandbox = bundle();
    for (path, value, error) in REFUSED {
        let value = serde_json::from_str(value).unwrap();
        let refused = run(&sandbox, "true", |config| set(config, path, value)).exits(1);
        assert_error(&refused, &format!("carry out {error}"));
    }
    // The library's own words name no path.
    for (path, value, place) in [
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_BOGUS", "soft": 0, "hard": 0}]),
            "/process/rlimits/0/type",
        ),
        ("/linux/personality", json!({"domain": "SOLARIS"}), "/linux/personality/domain"),
        ("/linux/namespaces/0", json!({"type": "bogus"}), "/linux/namespaces/0/type"),
    ] {
        let refused = run(&sandbox, "true", |config| set(config, path, value)).exits(1);
        let error = &told(&refused)[0].1;
        assert!(error.starts_with(&format!("carry out {place}: ")), "{error}");
    }
    assert_eq!(sandbox.sh("ls /run/stave-oci 2> /dev/null || true").ok(), "");
}
