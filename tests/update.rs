//! `container-update`: other limits and another restart policy for a container that runs. Needs root.

mod container;

use container::{start, until};
use serde_json::json;
use testkit::Sandbox;

/// A limit of the container `web`, in whichever hierarchy it is: the first of these files that exists.
#[track_caller]
fn limit(sandbox: &Sandbox, files: &str) -> String {
    let group = "$(jq -r '.steps[].operations[] | select(.op == \"cgroup-add\") | .path' /run/stave/web.json | head -n 1)";
    let find = format!(
        "for file in {files}; do for top in /sys/fs/cgroup /sys/fs/cgroup/*; do
             test ! -e $top{group}/$file || {{ cat $top{group}/$file; exit; }}
         done; done"
    );
    sandbox.sh(&find).ok().trim().to_owned()
}

const MEMORY: &str = "memory.limit_in_bytes memory.max";

#[test]
fn limits_hold_at_once_and_after_the_next_start() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    for pipe in ["| cgroup-limit --pids 50", ""] {
        // The child was forked before the change.
        start(&sandbox, pipe, "-d -- sh -c 'sleep 1000 & exec sleep 1001'");
        sandbox.sh("until [ $(container-top web | jq length) = 2 ]; do sleep 0.02; done").ok();
        assert_eq!(sandbox.sh("container-update --pids 40 --memory 64m web --format '{id}'").ok(), "web\n");
        let both = |sandbox: &Sandbox| (limit(sandbox, "pids.max"), limit(sandbox, MEMORY));
        assert_eq!(both(&sandbox), ("40".to_owned(), "67108864".to_owned()));
        let count = "container-top web --format '{pid}' | while read pid; do
            grep -E ':(.*,)?memory(,.*)?:|^0::' /proc/$pid/cgroup; done | grep -c '/stave/web[.]'";
        let hierarchies = sandbox.sh("grep -cE ':(.*,)?memory(,.*)?:|^0::' /proc/self/cgroup").ok();
        let expected = 2 * hierarchies.trim().parse::<u32>().unwrap_or_default();
        assert_eq!(sandbox.sh(count).ok().trim(), expected.to_string());
        let shown = sandbox.sh("container-ls web").json();
        assert_eq!(shown[0]["limits"]["pids"]["limit"], json!(40), "{shown}");
        // The document is older than the change: it would put the earlier limits into the record.
        let old = sandbox.sh("portmap -p 8080:80 < web.json > /dev/null").exits(1);
        assert!(old.stderr.contains("lists other steps than this document"), "{}", old.stderr);
        sandbox.sh("container-update --pids 30 web; container-stop -t 0 web; container-start web").ok();
        assert_eq!(both(&sandbox), ("30".to_owned(), "67108864".to_owned()));
        sandbox.sh("container-update --memory 0 web").ok();
        assert_ne!(limit(&sandbox, MEMORY), "67108864");
        sandbox.sh("unwind --strict web > /dev/null").ok();
        sandbox.assert_as(&before);
    }
}

#[test]
fn a_limit_that_is_refused_changes_nothing() {
    let sandbox = Sandbox::with_busybox();
    start(&sandbox, "| cgroup-limit --memory 64m", "-d -- sleep 1000");
    let record = || sandbox.sh("jq -S . /run/stave/web.json").ok();
    let before = record();
    let refused = sandbox.sh("container-update --memory 100m --pids 99999999999 web").exits(1);
    assert!(refused.stderr.starts_with("container-update: "), "{}", refused.stderr);
    let before_all = before.clone();
    assert_eq!((record(), limit(&sandbox, MEMORY).as_str()), (before, "67108864"));
    // Neither does one beside a limit that the container did not have.
    let pids = limit(&sandbox, "pids.max");
    sandbox.sh("container-update --cpus 0.5 --pids 99999999999 web").exits(1);
    assert_eq!((record(), limit(&sandbox, "pids.max")), (before_all, pids));
    let small = sandbox.sh("container-update -m 5m web").exits(1);
    assert_eq!(small.stderr, "container-update: limit the memory to 5242880 bytes: it is at least 6m\n");
    let nothing = sandbox.sh("container-update web").exits(1);
    assert!(nothing.stderr.starts_with("container-update: no change: name a limit or --restart\n"));
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn the_restart_policy_counts_from_now_on() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d -- sleep 1000");
    let kill = "kill -9 $(container-ls --format '{pid}' web)";
    sandbox.sh(&format!("container-update --restart always web; {kill}")).ok();
    until(&sandbox, "{state} {restarts}", "running 1");
    sandbox.sh(&format!("container-update --restart no web; {kill}")).ok();
    until(&sandbox, "{state} {restarts}", "exited 1");
    // A restart that is due is called off.
    sandbox.sh("unwind web > /dev/null").ok();
    start(&sandbox, "", "-d --restart always -- false");
    until(&sandbox, "{restarts} {state}", "4 restarting");
    sandbox.sh("container-update --restart no web").ok();
    until(&sandbox, "{state}", "exited");
    sandbox.sh("timeout 20 sh -c 'until flock -n /run/stave/web.monitor true; do sleep 0.02; done'").ok();
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}
