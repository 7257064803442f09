//! Tools that run in other namespaces than those in which a container was started: what they cannot see there is
//! not gone.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

const STARTED: &str =
    "layer-apply --id web < busybox.json | union-mount | netns-bridge | veth-pair | portmap -p 8080:80 |
    ns-exec -d -- sleep 300 > web.json";

/// Runs the command, which must fail with this error, and compares the whole host.
#[track_caller]
fn refused(sandbox: &Sandbox, command: &str, told: &str) {
    let before = sandbox.snapshot();
    let outcome = sandbox.sh(&format!("{command} > /dev/null < web.json"));
    assert_eq!(outcome.status, 1, "{command}: {}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().next(), Some(told), "{command}");
    assert_eq!(sandbox.difference(&before), "", "{command}");
    sandbox.sh("container-exec web true").ok();
}

#[test]
fn what_cannot_be_seen_from_another_namespace_is_not_taken_for_gone() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    sandbox.sh(STARTED).ok();
    let network = "container \"web\": it was started in another network namespace than this process";
    for command in ["unwind", "unwind web", "portmap --undo", "netns-bridge --undo", "portmap --repair"] {
        let tool = command.split(' ').next().unwrap();
        refused(&sandbox, &format!("unshare -n {command}"), &format!("{tool}: {network}"));
    }
    refused(&sandbox, "unshare -n net-repair web", &format!("net-repair: {network}"));
    // It repairs the networks of its own namespace.
    sandbox.sh("unshare -n net-repair --all > /dev/null").ok();
    // The sandbox has a pid namespace of its own. Here, the container is one of the machine's first.
    sandbox.sh("cd $STAVE_RUN && cp web.json record && cp locks/web.container lock").ok();
    sandbox.sh("sed -i 's/[0-9]*$/4026531836/' $STAVE_RUN/locks/web.container").ok();
    let pids = "container \"web\": it was started in another pid namespace than this process";
    for command in ["unwind", "unwind web", "ns-exec --undo"] {
        let tool = command.split(' ').next().unwrap();
        refused(&sandbox, command, &format!("{tool}: {pids}"));
    }
    // Any other one that cannot be seen may exist too. Nobody but the user knows whether it has ended.
    sandbox.sh("sed -i 's/[0-9]*$/1/' $STAVE_RUN/locks/web.container").ok();
    refused(&sandbox, "unwind web", &format!("unwind: {pids}"));
    let hint =
        "hint: run the command there, or on the host; if that namespace has ended, set STAVE_ORIGIN=ended\n";
    let unseen = sandbox.sh("unwind web > /dev/null").exits(1).stderr;
    assert!(unseen.ends_with(hint), "{unseen}");
    sandbox.sh("sed -i 's/\"pidNamespace\":[0-9]*/\"pidNamespace\":4026531836/' $STAVE_RUN/web.json").ok();
    for command in ["container-stop web", "container-kill web"] {
        let outcome = sandbox.sh(&format!("{command} > /dev/null")).exits(1);
        assert!(outcome.stderr.contains("it was started in another pid namespace"), "{}", outcome.stderr);
    }
    sandbox.sh("cd $STAVE_RUN && cat record > web.json && mv lock locks/web.container && rm record").ok();
    sandbox.sh("container-exec web true").ok();
    // The hint leads there.
    let hint = sandbox.sh("unshare -n unwind web > /dev/null").exits(1).stderr;
    let enter = hint.lines().nth(1).unwrap().split('`').nth(1).unwrap().replace("COMMAND", "unwind web");
    sandbox.sh(&format!("unshare -n {enter} > /dev/null")).ok();
    sandbox.assert_as(&before);
}

#[test]
fn what_was_in_a_namespace_that_has_ended_is_gone() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let pipe =
        "layer-apply --id web < busybox.json | union-mount | netns-bridge | veth-pair | portmap -p 8080:80";
    sandbox.sh(&format!("unshare -n sh -c 'ip link set lo up; {pipe} > web.json'")).ok();
    sandbox.sh("net-repair --all > /dev/null").ok();
    let ended = sandbox.sh("net-repair web > /dev/null").exits(1).stderr;
    assert!(ended.contains("the network namespace of the host of container \"web\" has ended"), "{ended}");
    sandbox.sh("unwind web > /dev/null").ok();
    // Only the machine's first pid namespace shows that one has ended.
    let pipe = "layer-apply --id web < busybox.json | union-mount | ns-exec -d --network none -- sleep 300 > web.json";
    sandbox.sh(&format!("unshare -pf --mount-proc sh -c '{pipe}'")).ok();
    sandbox.sh("unwind web > /dev/null").exits(1);
    sandbox.sh("STAVE_ORIGIN=ended unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// Undo would unmount there what is still mounted here, and forget it.
#[test]
fn a_store_that_is_read_only_in_another_mount_namespace_is_left_alone() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    sandbox.sh(STARTED).ok();
    let told = format!("write to {:?}: Read-only file system", sandbox.root().join("containers/web"));
    let closed = "unshare -m sh -c 'mount --bind $STAVE_ROOT $STAVE_ROOT; mount -o remount,bind,ro $STAVE_ROOT; $0 \"$@\"'";
    for command in ["unwind web", "unwind", "ns-exec --undo", "union-mount --undo"] {
        let tool = command.split(' ').next().unwrap();
        refused(&sandbox, &format!("{closed} {command}"), &format!("{tool}: {told}"));
    }
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// Without a record, nobody knows what belongs to the container. That is no success.
#[test]
fn a_container_whose_record_is_lost_is_told() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    sandbox.sh("netns-bridge -n --id web | veth-pair > web.json; mv $STAVE_RUN/web.json record").ok();
    let lost = sandbox.sh("unwind < web.json > /dev/null").exits(1).stderr;
    assert!(
        lost.starts_with("unwind: container \"web\" has no record, and \"/run/netns/web\" is there: "),
        "{lost}"
    );
    // A damaged one says what to do.
    sandbox.sh("touch $STAVE_RUN/web.json").ok();
    let damaged = sandbox.sh("unwind web > /dev/null").exits(1).stderr;
    assert!(damaged.contains("it is empty\nhint: move it away; `unwind web` then"), "{damaged}");
    sandbox.sh("mv record $STAVE_RUN/web.json; unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}
