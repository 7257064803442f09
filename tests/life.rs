//! A container's life: it ends, starts again, is stopped, and loses its monitor. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

/// The monitor of the container `web`.
const MONITOR: &str = "awk '/PPid/ {print $2}' /proc/$(container-ls --format '{pid}' web)/status";

fn start(sandbox: &Sandbox, pipe: &str, flags: &str) {
    sandbox
        .sh(&format!("layer-apply --id web < busybox.json | union-mount {pipe} | ns-exec {flags} > web.json"))
        .ok();
}

#[test]
fn it_ends_and_starts_again_and_an_old_document_still_fits() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d -- sh -c 'echo run; exec sleep 1000'");
    assert_eq!(sandbox.sh("container-stop -t 0 web --format '{id} {exitStatus}'").ok(), "web 137\n");
    assert_eq!(sandbox.sh("container-ls --format '{state} {ip}' web").ok(), "exited \n");
    assert_eq!(sandbox.sh("container-start web --format '{id}'").ok(), "web\n");
    assert_eq!(
        sandbox.sh("container-ls --format '{state}' web; container-exec web echo in").ok(),
        "running\nin\n"
    );
    sandbox.sh("until [ $(container-logs web | wc -l) = 2 ]; do sleep 0.02; done").ok();
    assert_eq!(sandbox.sh("container-logs --tail 1 web").ok(), "run\n");
    // The document is from before: its process is another one, its steps are the same.
    sandbox.sh("unwind < web.json > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn policies_start_it_again_and_a_stop_ends_that() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d --restart on-failure:2 -- sh -c 'echo run; exit 4'");
    let done =
        "until [ \"$(container-ls --format '{state} {restarts}' web)\" = 'exited 2' ]; do sleep 0.02; done";
    sandbox.sh(&format!("timeout 10 sh -c '{}'", done.replace('\'', "'\\''"))).ok();
    assert_eq!(
        sandbox.sh("container-logs web; container-wait --format '{exitStatus}' web").ok(),
        "run\nrun\nrun\n4\n"
    );
    sandbox.sh("unwind web > /dev/null").ok();
    start(&sandbox, "", "-d --restart always -- false");
    sandbox.sh("container-stop web && sleep 0.5").ok();
    assert_eq!(sandbox.sh("container-ls --format '{state}' web").ok(), "exited\n");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_killed_monitor_is_replaced_and_nothing_is_left() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d -- sh -c 'echo one; sleep 0.4; echo two; exit 9'");
    sandbox
        .sh(&format!("until container-logs web | grep -q one; do sleep 0.02; done; kill -9 $({MONITOR})"))
        .ok();
    sandbox.sh("container-start --all > /dev/null").ok();
    sandbox.sh("container-wait web > /dev/null").ok();
    assert_eq!(sandbox.sh("container-logs web").ok(), "one\ntwo\n");
    sandbox.sh("unwind web > /dev/null").ok();
    // Without another one, unwind takes it all the same.
    start(&sandbox, "", "-d -- sleep 1000");
    sandbox.sh(&format!("kill -9 $({MONITOR}); unwind web > /dev/null")).ok();
    sandbox.assert_as(&before);
}

#[test]
fn one_that_was_only_made_is_started_and_its_health_is_known() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let health = "--health-cmd 'test -e /ok' --health-interval 0.05 --health-retries 1";
    start(&sandbox, "", &format!("--create {health} -- sleep 1000"));
    assert_eq!(sandbox.sh("container-ls --format '{state}' web").ok(), "created\n");
    sandbox.sh("container-start web > /dev/null").ok();
    let until = |word: &str| {
        let found =
            format!("until container-ls --format {{health}} web | grep -qx {word}; do sleep 0.02; done");
        sandbox.sh(&format!("timeout 10 sh -c '{found}'")).ok();
    };
    until("unhealthy");
    sandbox.sh("container-exec web touch /ok").ok();
    until("healthy");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn one_who_attaches_and_reads_slowly_misses_nothing() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d -i -- sh -c 'read go; seq 200000; exit 3'");
    let slow =
        "{ (echo go; sleep 2) | container-attach web; echo ended $? >&2; } | (sleep 0.4; cat) | md5sum";
    let all = sandbox.sh("seq 200000 | md5sum").ok();
    let attached = sandbox.sh(slow);
    assert_eq!((attached.stdout.as_str(), attached.stderr.as_str()), (all.as_str(), "ended 3\n"));
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// It may happen to one that waits to be started again, too.
#[test]
fn one_that_waits_and_has_lost_its_monitor_is_started() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d --restart always -- sh -c 'test -e /once && exec sleep 1000; sleep 0.2; false'");
    let state = |word: &str| {
        let found =
            format!("until container-ls --format {{state}} web | grep -qx {word}; do sleep 0.01; done");
        sandbox.sh(&format!("timeout 10 sh -c '{found}'")).ok();
    };
    sandbox.sh("until [ \"$(container-ls --format '{restarts}' web)\" -ge 3 ]; do sleep 0.02; done").ok();
    state("running");
    let monitor = sandbox.sh(MONITOR).ok();
    state("restarting");
    let refused = sandbox.sh("container-start web").exits(1);
    assert!(refused.stderr.contains("it is about to be started again by itself"), "{}", refused.stderr);
    // That is no fault: nothing is to be done.
    sandbox.sh("container-start --all > /dev/null").ok();
    sandbox.sh(&format!("kill -9 {monitor}")).ok();
    sandbox.sh("touch $STAVE_ROOT/containers/web/upper/once; container-start --all > /dev/null").ok();
    state("running");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn ports_of_one_that_does_not_start_or_is_called_off() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let network = "| netns-bridge | veth-pair | portmap -p 10080:80";
    // It has its ports since it was made, and keeps them.
    start(&sandbox, network, "--create -- /missing");
    sandbox.sh("container-start web").exits(1);
    assert!(sandbox.sh("nft list ruleset").ok().contains("10080"));
    sandbox.sh("unwind web > /dev/null").ok();
    start(&sandbox, network, "-d --restart always -- false");
    let found = "until [ \"$(container-ls --format '{restarts} {state}' web)\" = '3 restarting' ]; do sleep 0.01; done";
    sandbox.sh(&format!("timeout 10 sh -c '{}'; container-stop web", found.replace('\'', "'\\''"))).ok();
    assert!(!sandbox.sh("nft list ruleset").ok().contains("10080"));
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn ports_are_free_when_it_has_ended() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let network = "| netns-bridge | veth-pair | portmap -p 10080:80";
    start(&sandbox, network, "-d -- sleep 1000");
    sandbox.sh("container-stop -t 0 web").ok();
    let other = "layer-apply --id other < busybox.json | union-mount | netns-bridge | veth-pair | portmap -p 10080:80 > other.json";
    sandbox.sh(other).ok();
    let refused = sandbox.sh("container-start web").exits(1);
    assert!(refused.stderr.contains("take the ports of container \"web\" again"), "{}", refused.stderr);
    sandbox.sh("unwind other > /dev/null; container-start web > /dev/null").ok();
    assert_eq!(sandbox.sh("container-ls --format '{ports}' web").ok(), "0.0.0.0:10080->80/tcp\n");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}
