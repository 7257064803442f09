//! A container that has lost its monitor, and a command that was left in the background. Needs root.

mod container;

use container::{start, until, without_monitor};
use testkit::Sandbox;

#[test]
fn a_tool_that_names_a_container_gives_it_another_monitor() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d --restart on-failure -- sh -c 'echo run; exec sleep 1000'");
    for tool in [
        "container-exec web true",
        "ns-exec --join web -- true",
        "container-kill -s CONT web",
        "container-pause web && container-pause --resume web",
        "container-top web",
        "container-stats web",
        "container-logs web",
    ] {
        sandbox.sh(&without_monitor()).ok();
        sandbox.sh("flock -n /run/stave/web.monitor true").ok();
        sandbox.sh(&format!("{tool} > /dev/null")).ok();
        sandbox.sh("flock -n /run/stave/web.monitor true").exits(1);
    }
    // The new monitor applies the restart policy, too.
    let restarts = "until [ $(container-logs web | wc -l) = 2 ]; do sleep 0.02; done";
    sandbox
        .sh(&format!("kill -9 $(container-ls --format '{{pid}}' web); timeout 20 sh -c '{restarts}'"))
        .ok();
    until(&sandbox, "{state} {restarts}", "running 1");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn one_that_has_ended_without_its_monitor_is_started_again_by_its_policy() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d --restart always -- sh -c 'echo run; exec sleep 1000'");
    let pid = sandbox.sh("container-ls --format '{pid}' web").ok();
    sandbox.sh(&format!("{}; kill -9 {pid}", without_monitor())).ok();
    sandbox.sh("container-logs web").ok();
    until(&sandbox, "{state} {restarts}", "running 1");
    sandbox.sh("unwind web > /dev/null").ok();
    // Nobody restarts one that was stopped.
    start(&sandbox, "", "-d --restart always -- sleep 1000");
    sandbox.sh(&format!("{}; container-stop -t 0 web; container-logs web", without_monitor())).ok();
    assert_eq!(sandbox.sh("container-ls --format '{state}' web").ok(), "exited\n");
    sandbox.sh("flock -n /run/stave/web.monitor true; unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// A container that an earlier version started has its streams beside its record.
#[test]
fn streams_of_an_earlier_version_are_found_and_removed() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d -i -- sh -c 'read line; echo it is $line'");
    sandbox.sh(&without_monitor()).ok();
    sandbox.sh("mv /run/stave/streams/web.* /run/stave && rmdir /run/stave/streams").ok();
    sandbox.sh("ns-exec --check < web.json > /dev/null").ok();
    assert_eq!(sandbox.sh("echo 1 | timeout -s KILL 60 container-attach web").ok(), "it is 1\n");
    // Started again, it gets its own.
    sandbox.sh("container-start web > /dev/null && test -p /run/stave/streams/web.stdin").ok();
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// As with docker, a container that was never started is not waited for.
#[test]
fn one_that_was_never_started_has_the_status_zero() {
    let sandbox = Sandbox::with_busybox();
    start(&sandbox, "", "--create -- sleep 1000");
    assert_eq!(sandbox.sh("timeout 5 container-wait --format '{exitStatus}' web").ok(), "0\n");
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn the_detach_keys_leave_a_command_in_the_background() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d -- sleep 1000");
    let types = |keys: &str| {
        format!("(until container-exec web test -e /up; do sleep 0.02; done; printf '{keys}'; sleep 5)")
    };
    let command = |flags: &str| {
        format!(
            "script -qec \"container-exec -it {flags} web sh -c 'touch /up; sleep 1; seq 100000; touch /over; exec sleep 1001'\" /dev/null"
        )
    };
    // The command goes on, although nobody reads its terminal.
    let left =
        sandbox.sh(&format!("{} | timeout 60 {}; echo status $?", types("\\020\\021"), command(""))).ok();
    assert!(left.contains("detached from the command in \"web\"") && left.contains("status 0"), "{left}");
    sandbox.sh("timeout 20 sh -c 'until container-exec web test -e /over; do sleep 0.02; done'").ok();
    assert!(sandbox.sh("container-top --table web").ok().contains("sleep 1001"));
    sandbox.sh("container-exec web rm /up /over; pkill -xf 'sleep 1001'").ok();
    let other = sandbox
        .sh(&format!("{} | timeout 60 {}; echo status $?", types("x"), command("--detach-keys x")))
        .ok();
    assert!(other.contains("status 0"), "{other}");
    sandbox.sh("pkill -xf 'sleep 1001' || true; unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}
