//! `--dry-run` on the first tool plans the whole pipe: it prints what the pipe would do, in order, and changes nothing.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use testkit::Sandbox;

/// The pipe after the image. `{dry}` is the first tool's flag.
const PIPE: &str = "layer-apply {dry} --id web < busybox.json | union-mount -v /srv:/data | cgroup-limit --pids 99 | netns-bridge | veth-pair | \
    portmap -p 10080:80 -p 10443:443 | link-hosts --link db:base | ns-exec -d -u 7:7 --hostname web -- sleep 1000";

const TOOLS: [&str; 7] =
    ["layer-apply", "union-mount", "cgroup-limit", "netns-bridge", "veth-pair", "portmap", "ns-exec"];

/// The operations in the record, tool by tool.
fn operations(record: &Value) -> Vec<String> {
    let steps = record["steps"].as_array().unwrap().iter();
    let instance = record["instance"].as_str().unwrap();
    let operations = steps.flat_map(|step| step["operations"].as_array().unwrap().clone()).map(plain);
    // The instance is random, and differs between the two runs.
    let same = |operation: Value| operation.to_string().replace(instance, "INSTANCE");
    operations.map(same).collect()
}

/// The operation without the values that only the kernel decides.
fn plain(mut operation: Value) -> Value {
    if let Some(operation) = operation.as_object_mut() {
        for decided in ["pid", "startTime", "inode"] {
            operation.remove(decided);
        }
    }
    operation
}

#[test]
fn a_planned_pipe_is_the_real_one() {
    let sandbox = Sandbox::with_busybox();
    // The database's pipe makes everything shared, so that it exists in both runs.
    let other = "layer-apply --id db < busybox.json | union-mount | netns-bridge | veth-pair > db.json";
    sandbox.sh(&format!("mkdir -p /srv; {other}")).ok();
    let before = sandbox.snapshot();
    let planned = sandbox.sh(&format!("{} > planned.json", PIPE.replace("{dry}", "--dry-run")));
    assert_eq!(planned.status, 0, "{}", planned.stderr);
    let after = sandbox.snapshot();
    assert_eq!(before.difference(&after), "", "a plan changes nothing");
    let document = sandbox.sh("cat planned.json").json();
    assert_eq!(document["planned"], true);

    let real = sandbox.sh(&format!("{} > real.json", PIPE.replace("{dry}", "")));
    assert_eq!(real.status, 0, "{}", real.stderr);
    let record = sandbox.sh("cat /run/stave/web.json").json();
    let (wanted, found) = (operations(&record), operations(&document));
    for (wanted, found) in wanted.iter().zip(&found) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.len(), wanted.len());
    for member in ["layers", "rootfs", "network", "ports", "hosts"] {
        assert_eq!(document[member], record[member], "{member}");
    }
    // The output is the explanation of each tool, in order.
    let mut printed = planned.stderr.lines();
    for (tool, words) in [
        ("union-mount", "overlay"),
        ("netns-bridge", "ip netns add"),
        ("veth-pair", "type veth"),
        ("portmap", "10443"),
        ("ns-exec", "unshare"),
    ] {
        assert!(printed.any(|line| line.contains(words)), "{tool}: {words}\n{}", planned.stderr);
    }
    sandbox.sh("unwind web db > /dev/null").ok();
}

/// A plan works if neither the layers nor the bridge exist yet.
#[test]
fn a_plan_needs_nothing_of_what_it_plans() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mkdir -p /srv; unwind base > /dev/null; rm -rf \"$STAVE_ROOT/layers\"").ok();
    let pipe = "layer-apply --dry-run --id web < busybox.json | union-mount | netns-bridge | veth-pair | \
        portmap -p 10080:80 | ns-exec -- sleep 1";
    let script = format!(
        "strace -f -qq -e trace=%file,mount,move_mount,fsmount,unshare,sendto,sendmsg -o trace bash -c '{pipe}'"
    );
    let planned = sandbox.sh(&script);
    assert_eq!(planned.status, 0, "{}", planned.stderr);
    let trace = sandbox.sh("cat trace").stdout;
    let changes =
        ["O_CREAT", "mkdir", "rename", "unlink", "symlink", "mknod", "mount(", "unshare(", "chmod", "chown"];
    let own =
        |line: &&str| !line.contains("bash") && !line.contains("/dev/null") && !line.contains("/dev/tty");
    let changed: Vec<_> = trace
        .lines()
        .filter(|line| changes.iter().any(|change| line.contains(change)) && !line.contains("= -1 "))
        .filter(own)
        .collect();
    assert!(changed.is_empty(), "{changed:#?}");
    assert_eq!(planned.json()["network"]["cni"]["ips"][0]["address"], "172.17.0.2/16");
}

#[test]
fn a_planned_document_is_not_carried_out() {
    let sandbox = Sandbox::with_busybox();
    let planned = sandbox.sh("netns-bridge -n --id web --dry-run --quiet | tee planned.json");
    assert_eq!(planned.stderr, "", "--quiet");
    for tool in TOOLS {
        let checked = sandbox.sh(&format!("{tool} --check < planned.json"));
        assert_eq!(checked.status, 1, "{tool}");
        assert!(
            checked.stderr.contains("the document is planned: nothing of it exists"),
            "{}",
            checked.stderr
        );
    }
    let undone = sandbox.sh("netns-bridge --undo < planned.json").json();
    assert_eq!((&undone["steps"], undone.get("network")), (&serde_json::json!([]), None));
    sandbox.sh("unwind < planned.json > /dev/null").ok();
    assert!(!sandbox.sh("ls /run/netns/web").stderr.is_empty());
    // A container that exists stays, whatever is planned for it.
    sandbox
        .sh("layer-apply --id real < busybox.json | union-mount | ns-exec -d -- sleep 1000 > real.json")
        .ok();
    for pipe in [
        "img-commit --dry-run -t copy < real.json | unwind",
        "union-snapshot --dry-run --end < real.json | tee planned.json | unwind; unwind < planned.json",
    ] {
        let unwound =
            sandbox.sh(&format!("{pipe} > unwound.json; jq -c '[.planned, .steps]' unwound.json")).ok();
        assert_eq!(unwound.lines().last(), Some("[true,[]]"), "{pipe}");
        assert_eq!(sandbox.sh("container-ls --format '{state}' real").ok(), "running\n", "{pipe}");
    }
    sandbox.sh("unwind real > /dev/null").ok();
}
