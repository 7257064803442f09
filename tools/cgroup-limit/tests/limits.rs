//! Limits, as a container sees them.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

/// Runs `command` in a container with these limits. Returns the document's member `process` at the end.
fn run(sandbox: &Sandbox, limits: &str, command: &str) -> serde_json::Value {
    let pipe = format!(
        "layer-apply --id web < busybox.json | union-mount | cgroup-limit {limits} > limited.json &&
         ns-exec --from limited.json --document end.json -- sh -c '{command}' > out 2>&1; cat end.json"
    );
    sandbox.sh(&pipe).json()
}

/// The setting of the container's cgroup in the kernel, on whatever version the controller is.
fn setting(sandbox: &Sandbox, unified: &str, separate: &str) -> String {
    let path = sandbox.sh("jq -r .cgroup.path limited.json").ok();
    let path = path.trim();
    sandbox
        .sh(&format!("cat /sys/fs/cgroup/{unified} 2> /dev/null || cat /sys/fs/cgroup/{separate}")
            .replace("PATH", path))
        .ok()
}

#[test]
fn limits_are_kept_and_go_with_undo() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let document = run(
        &sandbox,
        "--pids 20 --memory 32M --cpus 0.5",
        "n=0; while [ $n -lt 40 ]; do sleep 2 & n=$((n+1)); done; echo over",
    );
    let out = sandbox.sh("cat out").stdout;
    assert!(out.contains("can't fork"), "{out}");
    assert_eq!(document["process"]["oomKilled"], false);
    assert!(document["process"]["usage"]["cpuTime"].as_u64().unwrap() > 0);
    assert_eq!(setting(&sandbox, "PATH/pids.max", "pids/PATH/pids.max"), "20\n");
    assert_eq!(setting(&sandbox, "PATH/memory.max", "memory/PATH/memory.limit_in_bytes"), "33554432\n");
    let quota = setting(&sandbox, "PATH/cpu.max", "cpu/PATH/cpu.cfs_quota_us");
    assert!(quota.starts_with("50000"), "{quota}");
    let path = sandbox.sh("jq -r .cgroup.path limited.json").ok();
    sandbox.sh("cgroup-limit --check < limited.json > /dev/null && unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
    assert_eq!(sandbox.sh(&format!("find /sys/fs/cgroup -path '*{}' 2> /dev/null", path.trim())).stdout, "");
}

#[test]
fn a_container_without_memory_left_is_killed_and_the_document_says_so() {
    let sandbox = Sandbox::with_busybox();
    let document = run(&sandbox, "-m 16M --memory-swap 16M", "tail /dev/zero");
    assert_eq!(document["process"]["oomKilled"], true, "{}", document["process"]);
    assert_eq!(document["process"]["exitStatus"], 137);
    let peak = document["process"]["usage"]["memoryPeak"].as_u64().unwrap();
    assert!((8 << 20..=16 << 20).contains(&peak), "{peak}");
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn undo_ends_everything_in_the_cgroup() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    sandbox.sh("cgroup-limit -n --id web --pids 9 > web.json").ok();
    let path = sandbox.sh("jq -r .cgroup.path web.json").ok();
    sandbox
        .sh(&format!(
            "sleep 1000 > /dev/null 2>&1 & echo $! > /sys/fs/cgroup/pids{}/cgroup.procs",
            path.trim()
        ))
        .ok();
    assert_ne!(before, sandbox.snapshot(), "the process runs");
    sandbox.sh("cgroup-limit --undo < web.json > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn what_the_kernel_lacks_is_refused_by_name_and_leaves_nothing() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    for (arguments, message) in [
        ("--hugetlb 3MB:6MB", "hugetlb.3MB.max"),
        (
            "-m 9M --memory-swap 8M",
            "set the swap limit: it counts memory and swap together, and is below the memory limit",
        ),
        ("-m 1M", "limit the memory to 1048576 bytes: it is at least 6m"),
        ("--device-read-bps /dev/null:1m", "\"/dev/null\" is not a block device"),
        ("--memory-reservation 1M", "reserve 1048576 bytes of memory: it is at least 6m"),
        ("--cpuset-cpus 4000", "use the processors 4000: this machine has "),
        ("--pids 99999999999", "pids.max"),
    ] {
        let outcome = sandbox.sh(&format!("cgroup-limit -n --id refused {arguments} > /dev/null"));
        assert_eq!(outcome.status, 1, "{arguments}: {outcome:?}");
        assert!(outcome.stderr.contains(message), "{arguments}: {outcome:?}");
        assert_eq!(
            outcome.stderr.lines().filter(|line| !line.starts_with("hint: ")).count(),
            1,
            "{outcome:?}"
        );
        sandbox.assert_as(&before);
        assert_eq!(sandbox.sh("find /sys/fs/cgroup -path '*/stave/refused*' 2> /dev/null").stdout, "");
    }
    let outcome = sandbox.sh("cgroup-limit -n --id refused").exits(2);
    assert!(outcome.stderr.contains("--memory"), "{outcome:?}");
}

#[test]
fn explain_names_each_file() {
    let sandbox = Sandbox::new();
    let lines = sandbox.sh("cgroup-limit -n --id web --pids 9 --hugetlb 2MB:4MB --explain").ok();
    assert!(lines.contains("echo 9 > /sys/fs/cgroup/") && lines.contains("/pids.max"), "{lines}");
    assert!(lines.lines().any(|line| line.starts_with("mkdir -p /sys/fs/cgroup/")), "{lines}");
}
