//! Limits with both versions of cgroups. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_error, bundle, configuration, run, start, told, write};
use serde_json::{Value, json};
use testkit::Sandbox;

/// Reads a file of the container's cgroup, in whichever hierarchy it is.
#[track_caller]
fn read(sandbox: &Sandbox, file: &str) -> String {
    let find = format!(
        "find /sys/fs/cgroup -path '*/oci-test-{}/{file}' -exec cat {{}} + 2> /dev/null || true",
        sandbox.pid()
    );
    sandbox.sh(&find).ok().trim().to_owned()
}

#[test]
fn limits_are_set_and_changed() {
    let sandbox = bundle();
    let path = format!("/oci-test-{}", sandbox.pid());
    start(&sandbox, |config| {
        config["linux"]["cgroupsPath"] = json!(path);
        config["linux"]["resources"] = json!({
            "memory": {"limit": 50_000_000}, "pids": {"limit": 20},
            "cpu": {"quota": 20_000, "period": 50_000, "shares": 512},
            "devices": [{"allow": false, "access": "rwm"}],
        });
    });
    let memory = || read(&sandbox, "memory.limit_in_bytes") + &read(&sandbox, "memory.max");
    assert_eq!(memory(), "49999872");
    assert_eq!(read(&sandbox, "pids.max"), "20");
    sandbox.sh("oci-runtime update --memory 100000000 --pids-limit 30 --cpu-quota 30000 one").ok();
    assert_eq!((memory().as_str(), read(&sandbox, "pids.max").as_str()), ("99999744", "30"));
    let quota = read(&sandbox, "cpu.cfs_quota_us") + &read(&sandbox, "cpu.max");
    assert!(["30000", "30000 50000"].contains(&quota.as_str()), "{quota}");
    sandbox.sh("echo '{\"pids\": {\"limit\": 25}, \"colour\": 1}' | oci-runtime update -r - one").ok();
    assert_eq!(read(&sandbox, "pids.max"), "25");
    // Without a memory limit, that of memory and swap together is gone as well.
    if !read(&sandbox, "memory.memsw.limit_in_bytes").is_empty() {
        sandbox.sh("oci-runtime update --memory 100000000 --memory-swap 150000000 one").ok();
        sandbox.sh("oci-runtime update --memory -1 one").ok();
        assert!(read(&sandbox, "memory.memsw.limit_in_bytes").len() > 12);
    }
    let stats = sandbox.sh("oci-runtime events --stats one").json();
    assert_eq!(
        (&stats["type"], &stats["id"], &stats["data"]["pids"]["current"]),
        (&json!("stats"), &json!("one"), &json!(1))
    );
    let refused = sandbox.sh("oci-runtime update --l3-cache-schema a one").exits(1);
    assert!(told(&refused)[0].1.ends_with("classes of service of Intel RDT are not carried out"));
    sandbox.sh("oci-runtime delete -f one").ok();
    assert_eq!(
        sandbox
            .sh(&format!("find /sys/fs/cgroup -name 'oci-test-{}' 2> /dev/null || true", sandbox.pid()))
            .ok(),
        ""
    );
}

/// Another program may have frozen the container by the older hierarchy, which the pause does not use.
#[test]
fn one_that_is_frozen_in_the_older_hierarchy_is_removed_at_once() {
    let sandbox = bundle();
    start(&sandbox, |_| {});
    let name = format!("oci-test-{}", sandbox.pid());
    let freeze = format!(
        "for file in $(find /sys/fs/cgroup -maxdepth 3 -path '*/{name}/freezer.state'); do echo FROZEN > $file; done"
    );
    sandbox.sh(&freeze).ok();
    sandbox.sh("timeout 5 oci-runtime delete -f one").ok();
    assert_eq!(sandbox.sh("ls /run/stave-oci").ok(), "");
}

#[test]
fn devices_that_are_not_allowed_do_not_open() {
    let sandbox = bundle();
    let script = "mknod /m c 1 11 && cat < /m > /dev/null 2>&1; echo $?; echo > /dev/null; echo $?";
    let shown = run(&sandbox, script, |config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
    });
    assert_eq!(shown.stdout, "1\n0\n", "{}", shown.stderr);
}

#[test]
fn what_the_kernel_cannot_keep_is_refused_by_name() {
    let sandbox = bundle();
    for (resources, error) in [
        (
            json!({"memory": {"limit": 9, "swap": 8}}),
            "set the swap limit: it counts memory and swap together, and is below the memory limit",
        ),
        (json!({"unified": {"a/b": "1"}}), "set `unified` \"a/b\": it is no file of a cgroup"),
        (
            json!({"network": {"classID": 1}}),
            "set the network class: this kernel has no cgroup controller \"net_cls\"",
        ),
    ] {
        let refused = run(&sandbox, "true", |config| config["linux"]["resources"] = resources).exits(1);
        assert_error(&refused, error);
    }
    assert_eq!(sandbox.sh("ls /run/stave-oci").ok(), "");
}

/// runtime-spec, config.md, "capabilities": what cannot be granted is told, and does not stop the container. `runc spec`
/// of runc 1.1 asks for ambient capabilities that are not inheritable.
#[test]
fn capabilities_that_cannot_be_granted_are_told_and_left_out() {
    let sandbox = bundle();
    let script = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | tr '\\n\\t' '  '";
    let all = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let set = |config: &mut Value, sets: &[(&str, &Value)]| {
        config["process"]["capabilities"] =
            sets.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect();
    };
    let sets = [("bounding", &all), ("effective", &all), ("permitted", &all), ("ambient", &all)];
    let shown = run(&sandbox, script, |config| set(config, &sets));
    let three = "0000000020000420";
    let expected = format!(
        "CapInh: 0000000000000000 CapPrm: {three} CapEff: {three} CapBnd: {three} CapAmb: 0000000000000000 "
    );
    assert_eq!(shown.stdout, expected, "{}", shown.stderr);
    let names = ["AUDIT_WRITE", "KILL", "NET_BIND_SERVICE"];
    let told_all = told(&shown);
    let [(level, message)] = told_all.as_slice() else { panic!("{told_all:?}") };
    assert!(level == "warning" && message.starts_with("set ambient capabilities: "), "{message}");
    assert!(message.ends_with(" must be permitted and inheritable"), "{message}");
    assert!(names.iter().all(|name| message.contains(&format!("CAP_{name}"))), "{message}");
    // One that the caller lacks, and one that is not permitted.
    let kill = json!(["CAP_KILL"]);
    let more = json!(["CAP_KILL", "CAP_SYSLOG"]);
    let mut config = configuration(&sandbox, script);
    set(
        &mut config,
        &[("bounding", &more), ("effective", &json!(["CAP_KILL", "CAP_CHOWN"])), ("permitted", &kill)],
    );
    write(&sandbox, &config);
    let shown =
        sandbox.sh("setpriv --bounding-set -syslog --inh-caps -syslog oci-runtime run -b b one < /dev/null");
    assert!(
        shown.stdout.contains("CapEff: 0000000000000020 CapBnd: 0000000000000020"),
        "{} {}",
        shown.stdout,
        shown.stderr
    );
    let expected = [
        "set capabilities: CAP_SYSLOG cannot be granted",
        "set effective capabilities: CAP_CHOWN must be permitted",
    ];
    assert_eq!(told(&shown), expected.map(|text| ("warning".to_owned(), text.to_owned())));
}

/// A caller may be bound to processors, such as a service with `CPUAffinity`.
#[test]
fn the_callers_processors_are_not_the_containers() {
    let sandbox = bundle();
    let allowed = "sed -n 's/^Cpus_allowed_list:\\s*//p' /proc/self/status";
    let all = sandbox.sh(allowed).ok();
    let first = all.split(['-', ',', '\n']).next().unwrap();
    write(&sandbox, &configuration(&sandbox, &format!("{allowed}; exec sleep 1000")));
    sandbox.sh(&format!("taskset -c {first} oci-runtime run -d -b b one < /dev/null > out 2>&1")).ok();
    let shown = sandbox.sh(&format!("taskset -c {first} oci-runtime exec one {allowed}")).ok();
    sandbox.sh("until [ -s out ]; do sleep 0.05; done").ok();
    assert_eq!([sandbox.sh("cat out").ok(), shown], [all.as_str(), all.as_str()]);
    // Unless the configuration says so.
    let mut config = configuration(&sandbox, "exec sleep 1000");
    config["process"]["execCPUAffinity"] = json!({"initial": first});
    write(&sandbox, &config);
    sandbox.sh("oci-runtime delete -f one && oci-runtime run -d -b b one < /dev/null > /dev/null 2>&1").ok();
    assert_eq!(sandbox.sh(&format!("oci-runtime exec one {allowed}")).ok(), format!("{first}\n"));
    sandbox.sh("oci-runtime delete -f one").ok();
}

#[test]
fn capabilities_that_are_added_are_ambient_where_they_may_be_inherited() {
    let sandbox = bundle();
    for (inheritable, ambient) in
        [(json!([]), "0000000000000000\n"), (json!(["CAP_KILL"]), "0000000000000020\n")]
    {
        start(&sandbox, |config| {
            config["process"]["noNewPrivileges"] = json!(false);
            config["process"]["capabilities"]["inheritable"] = inheritable;
        });
        let shown = sandbox
            .sh("oci-runtime exec -u 5 --cap CAP_KILL one sed -n 's/^CapAmb:\\s*//p' /proc/self/status")
            .ok();
        assert_eq!(shown, ambient);
        sandbox.sh("oci-runtime delete -f one").ok();
    }
}
