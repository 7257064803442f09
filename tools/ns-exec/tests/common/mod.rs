//! Starts containers, and compares what a new process and one that joins see in them.

#![allow(dead_code)] // Each test uses a part of it.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

/// A sandbox with `ready.json`: a document that lacks only the process.
#[track_caller]
pub(crate) fn ready(network: &str) -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh(&format!("layer-apply --id web < busybox.json | union-mount {network} > ready.json")).ok();
    sandbox
}

/// Compiles a static C program into the sandbox's `/run`.
#[track_caller]
pub(crate) fn compile(sandbox: &Sandbox, name: &str, text: &str) {
    std::fs::write(sandbox.directory().join(format!("{name}.c")), text).unwrap();
    sandbox.sh(&format!("cc -static -w -o /run/{name} {name}.c")).ok();
}

/// Makes the root file system of a new container `web`. `ready.json` lacks only the process.
#[track_caller]
pub(crate) fn prepare(sandbox: &Sandbox, image: &str) {
    prepare_with(sandbox, image, "");
}

/// As [`prepare`], with flags of union-mount.
#[track_caller]
pub(crate) fn prepare_with(sandbox: &Sandbox, image: &str, root: &str) {
    let fresh = format!("layer-apply --id web < {image}.json | union-mount {root} > ready.json");
    sandbox.sh(&format!("unwind web > /dev/null; {fresh}")).ok();
}

/// Returns what a script prints in a new container with these flags, and in a process that joins such a
/// container. Empty if the container cannot be started. `before` runs on the host, in the shell that starts
/// them.
#[track_caller]
pub(crate) fn both_of(
    sandbox: &Sandbox,
    image: &str,
    before: &str,
    flags: &str,
    script: &str,
) -> [String; 2] {
    both_with(sandbox, image, "", before, flags, script)
}

/// As [`both_of`], with the flags `root` of union-mount.
#[track_caller]
pub(crate) fn both_with(
    sandbox: &Sandbox,
    image: &str,
    root: &str,
    before: &str,
    flags: &str,
    script: &str,
) -> [String; 2] {
    std::fs::write(sandbox.directory().join("script"), script).unwrap();
    let start = format!("{before} ns-exec {flags}");
    prepare_with(sandbox, image, root);
    let new = sandbox.sh(&format!("{start} -- sh -c \"$(cat script)\" < ready.json 2>&1")).stdout;
    prepare_with(sandbox, image, root);
    sandbox.sh(&format!("{start} -d -- sleep 1000 < ready.json > run.json")).ok();
    let joined = sandbox.sh(&format!("{before} ns-exec --join web -- sh -c \"$(cat script)\" 2>&1")).stdout;
    sandbox.sh("unwind web > /dev/null").ok();
    [new, joined]
}

/// As [`both_of`], on busybox.
#[track_caller]
pub(crate) fn both(sandbox: &Sandbox, flags: &str, script: &str) -> [String; 2] {
    both_of(sandbox, "busybox", "", flags, script)
}

#[track_caller]
pub(crate) fn assert_both(sandbox: &Sandbox, flags: &str, script: &str, expected: &str) {
    assert_eq!(both(sandbox, flags, script), [expected, expected], "{flags}: {script}");
}

/// Waits until the log of the container `web` contains `word`.
#[track_caller]
pub(crate) fn until_logged(sandbox: &Sandbox, word: &str) {
    let log = "\"$(container-ls --format {log} -- web)\"";
    sandbox.sh(&format!("timeout 10 sh -c 'until grep -q {word} {log}; do sleep 0.02; done'")).ok();
}

/// Waits until the container `web` has ended.
#[track_caller]
pub(crate) fn until_exited(sandbox: &Sandbox) {
    let exited = "container-ls --format {state} -- web | grep -q exited";
    sandbox.sh(&format!("timeout 10 sh -c 'until {exited}; do sleep 0.02; done'")).ok();
}
