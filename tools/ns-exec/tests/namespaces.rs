//! Namespaces of the host and of other containers, for a new process and for one that joins. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_both, both, prepare, ready};
use testkit::Sandbox;

/// A flag and the name of its namespace in `/proc/PID/ns`.
const FLAGS: [(&str, &str); 4] =
    [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--cgroupns", "cgroup")];

/// Makes a container up to its process, and starts the process in the background.
#[track_caller]
fn start(sandbox: &Sandbox, id: &str, flags: &str, command: &str) {
    sandbox
        .sh(&format!(
            "layer-apply --id {id} < busybox.json | union-mount | ns-exec -d {flags} -- {command} > {id}.json"
        ))
        .ok();
}

/// The namespaces of a container's first process, seen from outside.
#[track_caller]
fn of_container(sandbox: &Sandbox, id: &str, name: &str) -> String {
    sandbox.sh(&format!("readlink /proc/$(jq .process.pid $STAVE_RUN/{id}.json)/ns/{name}")).ok()
}

/// Whether a process with this command line runs.
fn runs(sandbox: &Sandbox, command: &str) -> bool {
    sandbox.sh(&format!("pgrep -xf '{command}'")).status == 0
}

#[test]
fn of_the_host() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    for (flag, name) in FLAGS {
        let host = sandbox.sh(&format!("readlink /proc/self/ns/{name}")).ok();
        let look = format!("readlink /proc/self/ns/{name}");
        for own in ["", &format!("{flag} private")] {
            let [new, joined] = both(&sandbox, own, &look);
            assert!(new != host && joined != host && new.starts_with(name), "{own}: {new} {joined}");
        }
        assert_both(&sandbox, &format!("{flag} host"), &look, &host);
        // From outside too. The other namespaces are the container's own.
        start(&sandbox, "web", &format!("{flag} host"), "sleep 1000");
        for (_, other) in FLAGS {
            let host = sandbox.sh(&format!("readlink /proc/self/ns/{other}")).ok();
            assert_eq!(of_container(&sandbox, "web", other) == host, other == name, "{flag}: {other}");
        }
        sandbox.sh("unwind web").ok();
    }
    sandbox.assert_as(&before);
}

#[test]
fn of_another_container() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "first", "--ipc shareable", "sleep 1000");
    for (flag, name) in FLAGS {
        let theirs = of_container(&sandbox, "first", name);
        assert_both(
            &sandbox,
            &format!("{flag} container:first"),
            &format!("readlink /proc/self/ns/{name}"),
            &theirs,
        );
    }
    let all = FLAGS.map(|(flag, _)| format!("{flag} container:first")).join(" ");
    assert_both(&sandbox, &all, "hostname; head -n 1 /proc/1/cmdline | tr '\\0' ' '", "first\nsleep 1000 ");
    // The dry run shows it.
    prepare(&sandbox, "busybox");
    let lines = sandbox.sh(&format!("ns-exec --explain {all} -- true < ready.json")).ok();
    let enter = lines.lines().find(|line| line.starts_with("nsenter")).unwrap();
    for (_, name) in FLAGS {
        assert!(enter.contains(&format!("--{name}=/proc/")), "{enter}");
    }
    sandbox.sh("unwind web first").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_container_among_processes_of_others_is_undone_alone() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "first", "", "sh -c 'sleep 1001 & exec sleep 1002'");
    for shared in ["--pid host", "--pid container:first"] {
        start(&sandbox, "web", shared, "sh -c 'setsid sleep 1003 & exec sleep 1004'");
        sandbox.sh("ns-exec --join web -d -- sleep 1005; ns-exec --check < web.json > /dev/null").ok();
        let seen = sandbox.sh("ns-exec --join web -- ps -o args | grep -c '^sleep 100[1-5]'").ok();
        assert_eq!(seen, "5\n", "{shared}");
        sandbox.sh("ns-exec --undo < web.json > /dev/null").ok();
        assert!(!runs(&sandbox, "sleep 100[345]"), "{shared}");
        assert!(runs(&sandbox, "sleep 1001") && runs(&sandbox, "sleep 1002"), "{shared}");
        sandbox.sh("unwind web").ok();
    }
    // The cgroup may come from another tool.
    let limited = "layer-apply --id web < busybox.json | union-mount | cgroup-limit --pids 9";
    sandbox
        .sh(&format!("{limited} | ns-exec -d --pid host -- sh -c 'sleep 1003 & sleep 1004' > web.json"))
        .ok();
    sandbox.sh("ns-exec --undo < web.json > /dev/null").ok();
    assert!(!runs(&sandbox, "sleep 100[34]"));
    sandbox.sh("unwind web").ok();
    // When the other container ends, all processes in its namespace end with it. That is a normal end.
    start(&sandbox, "web", "--pid container:first", "sleep 1003");
    sandbox.sh("unwind first").ok();
    let end = "for i in $(seq 200); do jq -e .process.exitStatus $STAVE_RUN/web.json && exit; sleep 0.02; done; exit 1";
    assert_eq!(sandbox.sh(end).stdout.lines().last(), Some("137"));
    sandbox.sh("unwind web").ok();
    sandbox.assert_as(&before);
}

#[test]
fn nothing_is_left_when_its_first_process_ends() {
    let sandbox = ready("");
    let before = sandbox.snapshot();
    let left = "sh -c 'setsid sleep 1006 & exit 7'";
    let ended = sandbox.sh(&format!("ns-exec --document end.json --pid host -- {left} < ready.json"));
    assert_eq!(ended.status, 7, "{ended:?}");
    let gone =
        "for i in $(seq 200); do pgrep -xf 'sleep 1006' > /dev/null || exit 0; sleep 0.02; done; exit 1";
    sandbox.sh(gone).ok();
    sandbox.sh("ns-exec --undo < end.json > /dev/null").ok();
    sandbox.sh(&format!("ns-exec -d --pid host -- {left} < ready.json > end.json")).ok();
    sandbox.sh(gone).ok();
    sandbox.sh("ns-exec --undo < end.json > /dev/null").ok();
    // Also after a timeout, and with a supervisor that was killed.
    let over = "sh -c 'setsid sleep 1006 & sleep 1007'";
    let ended =
        sandbox.sh(&format!("ns-exec --document end.json --pid host --timeout 0.2 -- {over} < ready.json"));
    assert_eq!(ended.status, 124, "{ended:?}");
    sandbox.sh(gone).ok();
    sandbox.sh("ns-exec --undo < end.json > /dev/null").ok();
    sandbox.sh(&format!("ns-exec -d --pid host -- {over} < ready.json > end.json")).ok();
    sandbox.sh("kill -KILL $(ps -o ppid= -p $(jq .process.pid end.json))").ok();
    sandbox.sh("ns-exec --undo < end.json > /dev/null").ok();
    assert!(!runs(&sandbox, "sleep 100[67]"));
    sandbox.assert_as(&before);
}

#[test]
fn the_hosts_processes_are_seen_and_the_kernels_files_are_not() {
    let sandbox = Sandbox::with_busybox();
    assert_both(
        &sandbox,
        "--pid host",
        "[ $$ != 1 ] && stat -c %t:%T /proc/interrupts; wc -c < /proc/keys; (echo x > /proc/sys/kernel/core_pattern) 2>&1; \
         ls /proc/1/root 2>&1",
        "1:3\n0\nsh: can't create /proc/sys/kernel/core_pattern: Read-only file system\n\
         ls: /proc/1/root: Permission denied\n",
    );
    // All cgroups of the host are visible, and none can be changed.
    let [new, joined] =
        both(&sandbox, "--cgroupns host", "grep ^0: /proc/self/cgroup; mkdir /sys/fs/cgroup/x 2>&1");
    for said in [new, joined] {
        assert!(said.starts_with("0::/stave/web.") && said.contains("Read-only file system"), "{said}");
    }
}

#[test]
fn memory_is_shared_with_those_who_allow_it() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let mounted = "mkdir -p /dev/shm; mountpoint -q /dev/shm || mount -t tmpfs shm /dev/shm; echo host > /dev/shm/of_host";
    let tmpfs = format!(
        "unshare --mount sh -c '{mounted}; layer-apply --id web < busybox.json | union-mount | ns-exec --ipc host -- cat /dev/shm/of_host'"
    );
    assert_eq!(sandbox.sh(&format!("{tmpfs}; s=$?; unwind web > /dev/null; exit $s")).ok(), "host\n");
    start(&sandbox, "first", "--ipc shareable --shm-size 1m", "sleep 1000");
    let write =
        "echo theirs > /dev/shm/note; chmod 666 /dev/shm/note; df -k /dev/shm | grep -o ' 1024 ' | head -n 1";
    assert_eq!(sandbox.sh(&format!("ns-exec --join first -- sh -c \"{write}\"")).ok(), " 1024 \n");
    let look = "cat /dev/shm/note; touch /dev/shm/x && grep -c ' /dev/shm [a-z]*,nosuid,nodev,noexec' /proc/self/mountinfo";
    assert_both(&sandbox, "--ipc container:first -u 1000", look, "theirs\n1\n");
    assert_both(
        &sandbox,
        "--ipc none",
        "ls /dev/shm 2>&1; ls -d /dev/mqueue",
        "ls: /dev/shm: No such file or directory\n/dev/mqueue\n",
    );
    // A container that shares another's namespace is shareable too. One with its own is not.
    start(&sandbox, "second", "--ipc container:first", "sleep 1000");
    assert_both(&sandbox, "--ipc container:second", "cat /dev/shm/note", "theirs\n");
    start(&sandbox, "third", "", "sleep 1000");
    prepare(&sandbox, "busybox");
    let refused = sandbox.sh("ns-exec --ipc container:third -- true < ready.json").exits(125).stderr;
    assert_eq!(
        refused,
        "ns-exec: container \"third\" does not share its memory\nhint: start it with --ipc shareable\n"
    );
    sandbox.sh("unwind web third second first").ok();
    sandbox.assert_as(&before);
}

#[test]
fn the_hosts_name_is_the_hosts() {
    let sandbox = Sandbox::with_busybox();
    let host = sandbox.sh("hostname").ok();
    let look = "hostname; echo $HOSTNAME; cat /etc/hostname";
    let thrice = host.repeat(3);
    assert_both(&sandbox, "--uts host", look, &thrice);
    // As with Docker, the host's network implies the host's name, but not its UTS namespace.
    assert_both(&sandbox, "--network host", look, &thrice);
    for flags in ["", "--network host"] {
        assert_both(&sandbox, &format!("{flags} --privileged"), "hostname changed; hostname", "changed\n");
        assert_eq!(sandbox.sh("hostname").ok(), host, "{flags}");
    }
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let sandbox = ready("");
    for (flags, message) in [
        (
            "--pid shareable",
            "invalid value 'shareable' for '--pid <private|host|container:ID>': it is private, host or container:ID",
        ),
        (
            "--uts none",
            "invalid value 'none' for '--uts <private|host|container:ID>': it is private, host or container:ID",
        ),
        ("--pid container:missing", "no container \"missing\" in /run/stave"),
        (
            "--pid host --die-with-parent",
            "--die-with-parent needs a pid namespace that ends with its first process: leave out --pid",
        ),
        ("--uts host --hostname x", "--hostname would change the name of others: leave out --uts"),
        ("--uts host --domainname x", "--domainname would change the domain name of others: leave out --uts"),
        ("--ipc host --shm-size 1m", "--shm-size needs a /dev/shm of the container's own: leave out --ipc"),
        (
            "--ipc host --sysctl kernel.msgmax=9000",
            "set kernel.msgmax: the ipc namespace is not the container's own",
        ),
        (
            "--ipc host --sysctl fs.mqueue.msg_max=9",
            "set fs.mqueue.msg_max: the ipc namespace is not the container's own",
        ),
        (
            "--network host --sysctl net.core.somaxconn=9",
            "set net.core.somaxconn: the network is not the container's own",
        ),
    ] {
        let refused = sandbox.sh(&format!("ns-exec {flags} -- true < ready.json")).exits(125);
        assert_eq!(refused.stderr.lines().next(), Some(&*format!("ns-exec: {message}")), "{flags}");
    }
    // The pid alone is not enough: another process may have it now.
    start(&sandbox, "first", "", "sleep 1000");
    let edit = "jq '(.steps[].operations[] | select(.op == \"process-start\") | .startTime) += 1' $STAVE_RUN/first.json > edited && cat edited > $STAVE_RUN/first.json";
    sandbox.sh(&format!("cp $STAVE_RUN/first.json kept && {edit}")).ok();
    for flag in ["--pid", "--uts", "--cgroupns", "--network"] {
        let refused = sandbox.sh(&format!("ns-exec {flag} container:first -- true < ready.json")).exits(125);
        assert_eq!(
            refused.stderr.lines().next(),
            Some("ns-exec: container \"first\" does not run"),
            "{flag}"
        );
    }
    sandbox.sh("cat kept > $STAVE_RUN/first.json && unwind first").ok();
}
