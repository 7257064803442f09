//! Tools that start processes, change a container's life, or make what containers share, killed at every
//! change: the next tool goes on from there, and in the end nothing is left.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod killing;

use killing::{killed, killed_as_in, unwound};
use testkit::Sandbox;

/// A container with a network.
const NETWORK: &str = "netns-add -n --id web | bridge-attach back --subnet 10.55.0.0/24 > web.json";

/// Kills a tool whose process stays, its undo, and its repair after the process was killed.
fn one_that_starts_a_process_is_killed(tool: &str, arguments: &str) {
    let sandbox = Sandbox::new();
    sandbox.sh(&format!("{NETWORK}; unwind web > /dev/null")).ok();
    let unwound = unwound(&sandbox, "web");
    let apply = |before: &str| format!("{before} {tool} {arguments} < web.json > done.json");
    let undo = |before: &str| format!("{before} {tool} --undo < done.json > undone.json");
    let repair = |before: &str| format!("{before} {tool} --repair < done.json > repaired.json");
    // strace stays as long as the process.
    let ended = |script: String| {
        format!("{{ {script}; }} & tool=$!; sleep 1; {tool} --undo < done.json > undone.json; wait $tool")
    };
    killed_as_in(&sandbox, NETWORK, &|before| ended(apply(before)), &apply, &unwound);
    let made = format!("{NETWORK}; {}", apply(""));
    killed(&sandbox, &made, &undo, &unwound);
    let broken = format!(
        "{made}; kill -9 $(for p in /proc/[0-9]*; do grep -qsx {tool} $p/comm && echo ${{p#/proc/}}; done)
         while grep -qsx {tool} /proc/[0-9]*/comm; do sleep 0.01; done"
    );
    killed_as_in(&sandbox, &broken, &|before| ended(repair(before)), &repair, &unwound);
}

#[test]
fn egress_allow_is_killed_at_every_change() {
    one_that_starts_a_process_is_killed("egress-allow", "10.0.0.0/8 --sni git.example");
}

#[test]
fn name_serve_is_killed_at_every_change() {
    one_that_starts_a_process_is_killed("name-serve", "");
}

/// Each tool is killed, then runs again in peace, and then the container is unwound. All sandboxes share the
/// machine's cgroups, so this container has a unique id.
#[test]
fn what_changes_a_containers_life_is_killed_at_every_change() {
    let sandbox = Sandbox::with_busybox();
    let made = |process: &str| {
        format!(
            "layer-apply --id cut < busybox.json | union-mount | cgroup-limit --pids 50 | ns-exec {process} > web.json"
        )
    };
    sandbox.sh(&format!("{}; unwind cut > /dev/null", made("-d -- true"))).ok();
    let unwound = unwound(&sandbox, "cut");
    let (short, long) = (made("--create -- sleep 0.1"), made("-d --restart always -- sleep 1000"));
    for (ready, tool) in [
        (short, "container-start cut"),
        (long.clone(), "container-stop -t 0 cut"),
        (long.clone(), "container-kill cut"),
        (long.clone(), "container-pause cut"),
        (format!("{long}; container-pause cut > /dev/null"), "container-pause --resume cut"),
        (long.clone(), "container-rename cut shop"),
        (long, "container-update --restart no --pids 40 cut"),
    ] {
        let script = |before: &str| format!("{before} {tool} > /dev/null");
        let again = |context: &str| {
            let outcome = sandbox.sh(&script(""));
            // What it did the first time needs not to be done again.
            let is_done = ["already", "does not run", "is not paused"];
            assert!(
                outcome.status == 0 || is_done.iter().any(|done| outcome.stderr.contains(done)),
                "{context}: again: {outcome:?}"
            );
            unwound(context);
        };
        killed(&sandbox, &ready, &script, &again);
    }
}

#[test]
fn oci_runtime_is_killed_at_every_change() {
    let sandbox = Sandbox::with_busybox();
    let bundle = "layer-apply --id web < busybox.json | union-mount > web.json; mkdir -p b/rootfs
        cp -a $(jq -r .rootfs.path web.json)/. b/rootfs; unwind web > /dev/null; oci-runtime spec -b b
        jq '.process.terminal = false | .process.args = [\"sleep\", \"1000\"] | .linux.cgroupsPath = \"/oci-killed\"' b/config.json > c
        mv c b/config.json; oci-runtime create -b b one < /dev/null > /dev/null; oci-runtime delete -f one";
    sandbox.sh(bundle).ok();
    let before = sandbox.snapshot();
    let removed = |context: &str| {
        let outcome = sandbox.sh("oci-runtime delete -f one");
        assert_eq!(outcome.status, 0, "{context}: {outcome:?}");
        let left = sandbox.sh("find /sys/fs/cgroup -type d -name oci-killed; ls /run/stave-oci").ok();
        assert_eq!(left, "", "{context}");
        killing::assert_as(&sandbox, &before, context);
    };
    let create =
        |before: &str| format!("{before} oci-runtime create -b b one < /dev/null > /dev/null 2> errors");
    // strace stays as long as the container.
    let ended = |before: &str| {
        format!("{{ {}; }} & tool=$!; sleep 1; oci-runtime delete -f one; wait $tool", create(before))
    };
    killed_as_in(&sandbox, "", &ended, &create, &removed);
    let made = create("");
    killed(&sandbox, &made, &|before| format!("{before} oci-runtime start one"), &removed);
    let started = format!("{made}; oci-runtime start one");
    let delete = |before: &str| format!("{before} oci-runtime delete -f one");
    killed(&sandbox, &started, &delete, &removed);
    killed(&sandbox, &format!("{started}; oci-runtime pause one"), &delete, &removed);
}

#[test]
fn what_containers_share_is_killed_at_every_change() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    for (kind, arguments) in [("volume", "v --label a=b"), ("network", "v --subnet 10.58.0.0/24")] {
        let create = |before: &str| format!("{before} {kind}-create {arguments} > /dev/null");
        let remove = |before: &str| format!("{before} {kind}-rm v > /dev/null");
        let again = |context: &str| {
            // After this it is there, whole, and after that it is gone.
            sandbox.sh(&format!("{}; {}", remove(""), create("")));
            let found = sandbox.sh(&format!("{kind}-ls | jq -c 'map(.name)'; {}", remove(""))).ok();
            assert_eq!(found, "[\"v\"]\n", "{context}");
            killing::assert_as(&sandbox, &before, context);
        };
        killed(&sandbox, "", &create, &again);
        killed(&sandbox, &create(""), &remove, &again);
    }
}
