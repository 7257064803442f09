//! Errors while a process is started, and who reports them. Needs root and strace.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::ready;
use serde_json::Value;
use testkit::Sandbox;

/// Runs ns-exec with one injected fault. Returns what it wrote to standard error.
#[track_caller]
fn faulty(sandbox: &Sandbox, fault: &str, arguments: &str) -> (i32, String, Value) {
    let script = format!(
        "timeout -k 1 20 strace -f -qq -o trace -e trace={call} -e inject={fault} ns-exec --document out.json {arguments} < ready.json > /dev/null",
        call = fault.split(':').next().unwrap(),
    );
    let outcome = sandbox.sh(&script);
    let document = sandbox.sh("cat out.json; rm out.json").json();
    (outcome.status, outcome.stderr, document)
}

#[test]
fn who_cannot_say_so_ends_and_does_not_wait() {
    let sandbox = ready("");
    let before = sandbox.snapshot();
    // The supervisor's pid, its report of the start, the start signal to the process. strace counts per
    // process.
    for fault in ["sendmsg:error=ENOMEM:when=1", "sendmsg:error=ENOMEM:when=2", "sendto:error=ENOMEM:when=1"]
    {
        let (status, stderr, document) = faulty(&sandbox, fault, "-d --network none -- sleep 0.5");
        sandbox.sh("grep -q INJECTED trace").ok();
        assert_eq!(status, 125, "{fault}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{fault}: {stderr}");
        assert_eq!(document["error"]["tool"], "ns-exec", "{fault}");
        sandbox.assert_as(&before);
    }
}

#[test]
fn a_process_that_is_killed_before_its_command_ran_has_not_run() {
    let sandbox = ready("");
    let before = sandbox.snapshot();
    for call in ["pivot_root", "capset", "close_range", "setsid"] {
        for detached in ["", "-d"] {
            let when = if call == "close_range" && detached == "-d" { ":when=2" } else { "" };
            let fault = format!("{call}:signal=KILL{when}");
            let (status, stderr, document) = faulty(&sandbox, &fault, &format!("{detached} -- true"));
            assert_eq!(status, 125, "{fault} {detached}: {stderr}");
            let lines: Vec<_> = stderr.lines().collect();
            assert!(lines[0].starts_with("ns-exec: start: "), "{fault} {detached}: {stderr}");
            assert!(lines[1..].iter().all(|line| line.starts_with("hint: ")), "{fault} {detached}: {stderr}");
            assert_eq!(document["error"]["tool"], "ns-exec", "{fault} {detached}: {document}");
            sandbox.assert_as(&before);
        }
    }
    let (_, stderr, _) = faulty(&sandbox, "pivot_root:signal=KILL", "-- true");
    assert_eq!(
        stderr,
        "ns-exec: start: signal 9 ended the process before its command ran\n\
         hint: the kernel sends it if the memory limit is too low\n"
    );
}

#[test]
fn a_command_that_is_killed_at_once_has_run() {
    let sandbox = ready("");
    let outcome = sandbox.sh("ns-exec -- sh -c 'kill -9 $$; exit 3' < ready.json").exits(3);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn without_a_thread_one_line_or_the_work_done_by_one() {
    let sandbox = Sandbox::with_busybox();
    let none = "strace -f -qq -o trace -e trace=clone3 -e inject=clone3:error=EAGAIN";
    std::fs::write(sandbox.directory().join("other.tar"), testkit::busybox()).unwrap();
    let loaded = sandbox.sh(&format!("{none} img-load -q -t other other.tar > other.json"));
    assert_eq!(loaded.stderr.lines().count(), usize::from(loaded.status != 0), "{}", loaded.stderr);
    for command in ["layer-apply --id web < busybox.json", "img-verify", "img-save -q -o out.tar busybox"] {
        let outcome = sandbox.sh(&format!("{none} {command} > out.json"));
        assert!(!outcome.stderr.contains("panicked"), "{command}: {}", outcome.stderr);
        assert_eq!(
            outcome.stderr.lines().count(),
            usize::from(outcome.status != 0),
            "{command}: {}",
            outcome.stderr
        );
    }
    // In a user namespace without clone3, ns-exec forks from a separate thread.
    sandbox.sh("layer-apply --id web < busybox.json | union-mount > ready.json").ok();
    sandbox.sh(&format!("{none} ns-exec -- true < ready.json")).ok();
}

#[test]
fn a_dry_run_of_a_command_that_joins_runs_nothing() {
    let sandbox = ready("");
    sandbox.sh("ns-exec -d -- sleep 1000 < ready.json > web.json").ok();
    let planned = sandbox.sh("ns-exec --join web --dry-run -- touch /made").exits(0);
    assert!(planned.stderr.starts_with("nsenter --target "), "{}", planned.stderr);
    assert!(planned.stderr.ends_with(" -- touch /made\n"), "{}", planned.stderr);
    assert_eq!(planned.stdout, "");
    sandbox.sh("ns-exec --join web -- test ! -e /made").ok();
    // Nor is a flag ignored that has no meaning for it.
    for flag in ["--cap-add SYS_ADMIN", "--cap-drop ALL"] {
        let refused = sandbox.sh(&format!("ns-exec --join web {flag} -- true")).exits(125);
        assert!(refused.stderr.contains("cannot be used with"), "{}", refused.stderr);
    }
}
