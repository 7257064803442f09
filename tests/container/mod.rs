//! A container `web` with busybox, and its monitor.

#![allow(dead_code)] // Each test uses a part of it.

use testkit::Sandbox;

/// The monitor of the container `web`.
pub(crate) const MONITOR: &str = "awk '/PPid/ {print $2}' /proc/$(container-ls --format '{pid}' web)/status";

/// Waits until container-ls prints these words for the container `web` with this format.
#[track_caller]
pub(crate) fn until(sandbox: &Sandbox, format: &str, words: &str) {
    let found =
        format!("until [ \"$(container-ls --format '{format}' web)\" = '{words}' ]; do sleep 0.01; done");
    sandbox.sh(&format!("timeout 20 sh -c '{}'", found.replace('\'', "'\\''"))).ok();
}

/// Makes and starts the container. `pipe` has more tools, `flags` are those of ns-exec.
pub(crate) fn start(sandbox: &Sandbox, pipe: &str, flags: &str) {
    sandbox
        .sh(&format!("layer-apply --id web < busybox.json | union-mount {pipe} | ns-exec {flags} > web.json"))
        .ok();
}

/// The script kills the monitor of `web`, and waits until it has ended. A later monitor is not the parent of the
/// process, but it holds the lock.
pub(crate) fn without_monitor() -> String {
    "for fd in /proc/[0-9]*/fd/*; do
         [ \"$(readlink $fd)\" != /run/stave/web.monitor ] || monitor=$(echo $fd | cut -d / -f 3)
     done; kill -9 $monitor; until flock -n /run/stave/web.monitor true; do sleep 0.01; done"
        .to_owned()
}
