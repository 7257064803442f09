//! `--dry-run` on the first tool plans the whole pipe: it prints what the pipe would do, in order, and changes nothing.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use testkit::{Outcome, Sandbox};

/// The pipe after the image. `{dry}` is the first tool's flag.
const PIPE: &str = "layer-apply {dry} --id web < busybox.json | union-mount -v /srv:/data | cgroup-limit --pids 99 | netns-bridge | veth-pair | \
    portmap -p 10080:80 -p 10443:443 | link-hosts --link db:base | ns-exec -d -u 7:7 --hostname web -- sleep 1000";

const TOOLS: [&str; 7] =
    ["layer-apply", "union-mount", "cgroup-limit", "netns-bridge", "veth-pair", "portmap", "ns-exec"];

/// The operations in the record, tool by tool.
fn operations(record: &Value) -> Vec<String> {
    let steps = record["steps"].as_array().unwrap().iter();
    let operations = steps.flat_map(|step| step["operations"].as_array().unwrap().clone()).map(plain);
    operations.map(|operation| without_instance(record, &operation)).collect()
}

/// A part of a document as text. The instance is random, and differs between the two runs.
fn without_instance(document: &Value, part: &Value) -> String {
    part.to_string().replace(document["instance"].as_str().unwrap(), "INSTANCE")
}

/// The operation without the values that only the kernel decides.
fn plain(mut operation: Value) -> Value {
    if let Some(operation) = operation.as_object_mut() {
        for decided in ["pid", "startTime", "pidNamespace", "inode"] {
            operation.remove(decided);
        }
    }
    operation
}

/// Plans the pipe and then runs it, and compares the documents. Returns what the plan printed.
#[track_caller]
fn is_planned_as_it_runs(sandbox: &Sandbox, id: &str, pipe: &str) -> String {
    let before = sandbox.snapshot();
    let planned = sandbox.sh(&format!("{} > planned.json", pipe.replace("{dry}", "--dry-run")));
    assert_eq!(planned.status, 0, "{}", planned.stderr);
    let after = sandbox.snapshot();
    assert_eq!(before.difference(&after), "", "a plan changes nothing: {pipe}");
    let document = sandbox.sh("cat planned.json").json();
    assert_eq!(document["planned"], true);

    let real = sandbox.sh(&format!("{} > real.json", pipe.replace("{dry}", "")));
    assert_eq!(real.status, 0, "{}", real.stderr);
    let record = sandbox.sh(&format!("cat /run/stave/{id}.json")).json();
    let (wanted, found) = (operations(&record), operations(&document));
    for (wanted, found) in wanted.iter().zip(&found) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.len(), wanted.len());
    for member in ["layers", "rootfs", "cgroup", "network", "networks", "ports", "names", "egress", "hosts"] {
        assert_eq!(
            without_instance(&document, &document[member]),
            without_instance(&record, &record[member]),
            "{member}"
        );
    }
    let process = |document: &Value| {
        let mut process = plain(document["process"].clone());
        process.as_object_mut().map(|process| process.remove("started"));
        without_instance(document, &process)
    };
    assert_eq!(process(&document), process(&record));
    planned.stderr
}

#[test]
fn a_planned_pipe_is_the_real_one() {
    let sandbox = Sandbox::with_busybox();
    // The database's pipe makes everything shared, so that it exists in both runs.
    let other = "layer-apply --id db < busybox.json | union-mount | netns-bridge | veth-pair > db.json";
    sandbox.sh(&format!("mkdir -p /srv; {other}")).ok();
    let printed = is_planned_as_it_runs(&sandbox, "web", PIPE);
    // The output is the explanation of each tool, in order.
    let mut lines = printed.lines();
    for (tool, words) in [
        ("union-mount", "overlay"),
        ("netns-bridge", "ip netns add"),
        ("veth-pair", "type veth"),
        ("portmap", "10443"),
        ("ns-exec", "unshare"),
    ] {
        assert!(lines.any(|line| line.contains(words)), "{tool}: {words}\n{printed}");
    }
    sandbox.sh("unwind web db > /dev/null").ok();
}

/// Only an unpacked layer tells the user's directory.
#[test]
fn a_home_that_is_not_known_yet_is_not_planned() {
    let sandbox = Sandbox::with_busybox();
    let pipe = "layer-apply --dry-run --id web < busybox.json | union-mount | ns-exec -d --network none -- true | jq -c .process.spec.env";
    let planned = sandbox.sh(pipe).exits(0);
    let later = "# HOME is the user's directory in /etc/passwd of the container\n";
    assert!(planned.stderr.contains(later), "{}", planned.stderr);
    assert!(!planned.stdout.contains("HOME="), "{}", planned.stdout);
    sandbox.sh("layer-apply --id first < busybox.json > /dev/null").ok();
    let planned = sandbox.sh(pipe).exits(0);
    assert!(!planned.stderr.contains(later), "{}", planned.stderr);
    assert!(planned.stdout.contains("HOME=/root"), "{}", planned.stdout);
}

#[test]
fn the_other_tools_plan_what_they_do() {
    let sandbox = Sandbox::with_busybox();
    // The kernel need not have ipvlan.
    let networks = "netns-add | bridge-attach back --subnet 10.55.0.0/24 | macvlan-attach mac --parent out0 --subnet 10.56.0.0/24";
    sandbox.sh(&format!("echo '{{\"stave\":1,\"id\":\"db\"}}' | {networks} | name-serve > db.json")).ok();
    // An unpacked layer tells HOME.
    sandbox.sh("layer-apply --id first < busybox.json | unwind > /dev/null").ok();
    for (id, pipe) in [
        (
            "named",
            "layer-apply {dry} --id named < busybox.json | union-mount | union-snapshot | {networks} | name-serve | \
                ns-exec -d -u 7:7 -- sleep 1000",
        ),
        (
            "listed",
            "netns-add {dry} -n --id listed | bridge-attach back | egress-allow --sni a.example 192.0.2.7 | name-serve",
        ),
        ("copy", "union-fork {dry} --id copy named | union-snapshot"),
        ("named", "union-merge {dry} copy"),
        ("seen", "img-mount {dry} --id seen busybox dir"),
    ] {
        sandbox.sh("mkdir -p dir; container-stop --time 0 named > /dev/null 2>&1");
        is_planned_as_it_runs(&sandbox, id, &pipe.replace("{networks}", networks));
    }
    sandbox.sh("unwind seen copy named listed db > /dev/null").ok();
}

/// Words in the trace of a call that changes something. A kernel variable or a limit is written to a file that exists.
const CHANGES: [&str; 21] = [
    "O_CREAT",
    "O_WRONLY",
    "O_RDWR",
    "mkdir",
    "rename",
    "unlink",
    "symlink",
    "mknod",
    "chmod",
    "chown",
    "mount(",
    "unshare(",
    "setns(",
    "RTM_NEW",
    "RTM_DEL",
    "RTM_SET",
    "NFT_MSG_NEW",
    "NFT_MSG_DEL",
    "BPF_PROG_LOAD",
    "BPF_MAP_CREATE",
    "BPF_MAP_UPDATE",
];

/// Runs the pipe, and returns the calls that changed something.
#[track_caller]
fn changed(sandbox: &Sandbox, pipe: &str) -> (Outcome, Vec<String>) {
    let calls = "%file,mount,move_mount,fsmount,unshare,setns,sendto,sendmsg,bpf";
    let outcome = sandbox.sh(&format!("strace -f -y -qq -e trace={calls} -o trace bash -c '{pipe}'"));
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let trace = sandbox.sh("cat trace").stdout;
    let own =
        |line: &&str| !line.contains("bash") && !line.contains("/dev/null") && !line.contains("/dev/tty");
    let is_change =
        |line: &&str| CHANGES.iter().any(|change| line.contains(change)) && !line.contains("= -1 ");
    let changed = trace.lines().filter(is_change).filter(own).map(str::to_owned).collect();
    (outcome, changed)
}

/// A plan works if neither the layers nor the bridge exist yet.
#[test]
fn a_plan_needs_nothing_of_what_it_plans() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mkdir -p /srv; unwind base > /dev/null; rm -rf \"$STAVE_ROOT/layers\"").ok();
    let pipe = "layer-apply {dry} --id web < busybox.json | union-mount | cgroup-limit --pids 9 | netns-bridge | veth-pair | \
        portmap -p 10080:80 | ns-exec -d -- sleep 0.5";
    let (planned, changes) = changed(&sandbox, &pipe.replace("{dry}", "--dry-run"));
    assert!(changes.is_empty(), "{changes:#?}");
    assert_eq!(planned.json()["network"]["cni"]["ips"][0]["address"], "172.17.0.2/16");
    sandbox.sh("ip link add spare type veth peer name spare1").ok();
    let others = "layer-apply --dry-run --id web < busybox.json | union-mount | union-snapshot | netns-add | bridge-attach back | \
        macvlan-attach mac --parent out0 --subnet 10.56.0.0/24 | ipvlan-attach ip --parent spare --subnet 10.57.0.0/24 | \
        name-serve | ns-exec -- true";
    let (planned, changes) = changed(&sandbox, others);
    assert!(changes.is_empty(), "{changes:#?}");
    assert_eq!(planned.json()["networks"].as_array().unwrap().len(), 3);
    // The trace shows what the real pipe changes.
    let (_, changes) = changed(&sandbox, &pipe.replace("{dry}", ""));
    for word in ["mount(", "RTM_NEWLINK", "NFT_MSG_NEWTABLE", "/proc/sys/", "pids.max", "O_CREAT"] {
        assert!(changes.iter().any(|change| change.contains(word)), "{word}: {changes:#?}");
    }
    sandbox.sh("unwind web > /dev/null").ok();
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

/// Each filter, with arguments that are right.
const FILTERS: [&str; 14] = [
    "union-snapshot",
    "cgroup-limit --pids 9",
    "netns-bridge",
    "netns-add",
    "veth-pair",
    "bridge-attach back",
    "macvlan-attach --parent out0",
    "portmap -p 10080:80",
    "name-serve",
    "egress-allow 192.0.2.1",
    "link-hosts --link db:base",
    "ns-exec -- true",
    "step-begin own",
    "step-done own",
];

/// What the run refuses because of the record, the plan and the explanation refuse too, in the same words.
#[test]
fn a_plan_reads_the_record_as_the_run_does() {
    let sandbox = Sandbox::with_busybox();
    let pipe = "layer-apply --id web < busybox.json | union-mount | tee older.json | netns-bridge | veth-pair > web.json";
    sandbox.sh(pipe).ok();
    sandbox.sh("jq -c '.instance = \"other\"' web.json > other.json").ok();
    sandbox.sh("jq -c '.id = \"gone\"' web.json > gone.json").ok();
    let same = |command: &str, input: &str, line: &str| {
        let real = sandbox.sh(&format!("{command} < {input}"));
        assert!(real.stderr.contains(line), "{command} < {input}: {}", real.stderr);
        let (tool, arguments) = command.split_once(' ').unwrap_or((command, ""));
        for flag in ["--dry-run", "--explain"] {
            let planned = sandbox.sh(&format!("{tool} {flag} {arguments} < {input}"));
            assert_eq!((planned.status, &planned.stderr), (real.status, &real.stderr), "{command} {flag}");
            if flag == "--dry-run" {
                assert_eq!(planned.stdout, real.stdout, "{command} {flag}");
            }
        }
    };
    let before = sandbox.sh("cat /run/stave/web.json").ok();
    for command in FILTERS {
        same(command, "older.json", "lists other steps than this document");
        same(command, "other.json", "belongs to another container than this document");
        same(command, "gone.json", "container \"gone\" has no record");
    }
    same(
        "portmap --id db -p 10080:80",
        "web.json",
        "the document belongs to container \"web\", not to \"db\"",
    );
    same("layer-apply --id web", "busybox.json", "lists other steps than this document");
    same("netns-bridge -n --id web", "/dev/null", "web.json\" is its record");
    same("ns-exec -n --id web --rootfs / -- true", "/dev/null", "web.json\" is its record");
    same("union-fork --id web web@0", "/dev/null", "union-fork: ");
    same("step-done own", "web.json", "no step \"own\" is begun in the document");
    assert_eq!(sandbox.sh("cat /run/stave/web.json").ok(), before);
    sandbox
        .sh("jq -c '.error = {tool: \"x\", step: \"undo\", message: \"x\"}' web.json > /run/stave/web.json")
        .ok();
    for command in FILTERS {
        same(command, "web.json", "container \"web\" is being unwound");
    }
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn a_plan_takes_from_the_record_what_it_knows_better() {
    let sandbox = Sandbox::with_busybox();
    let pipe = "layer-apply --id web < busybox.json | union-mount | ns-exec -d -- sleep 1000 > web.json";
    sandbox.sh(pipe).ok();
    sandbox.sh("container-stop --time 0 web > /dev/null").ok();
    let planned = sandbox.sh("union-snapshot --dry-run -q < web.json").json();
    let record = sandbox.sh("cat /run/stave/web.json").json();
    assert!(record["process"]["finished"].is_string(), "{record}");
    assert_eq!(planned["process"], record["process"]);
    sandbox.sh("unwind web > /dev/null").ok();
}
