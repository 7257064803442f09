//! Kills a tool just before it changes something. strace counts the calls and injects the kill.

#![allow(dead_code)] // Each test uses a part of it.

use std::collections::{BTreeMap, BTreeSet};

use testkit::{Sandbox, Snapshot};

/// The system calls by which a tool changes something that outlives it. Opening a file counts if it creates
/// the file.
const CHANGES: &str = "mkdir,mkdirat,mknod,mknodat,rmdir,unlink,unlinkat,rename,renameat,renameat2,symlink,symlinkat,\
    link,linkat,ftruncate,write,pwrite64,writev,mount,umount2,fsopen,fsconfig,fsmount,move_mount,open_tree,\
    mount_setattr,pivot_root,unshare,setns,clone,clone3,fork,vfork,sendto,sendmsg,execve,kill,flock,bpf,open,openat,openat2";

/// The system call at which a tool is killed: its name, and its number among the calls with that name in its
/// process.
pub(crate) type Moment = (String, usize);

/// The moments just before a tool changes something, in all its processes. `script` puts strace before the
/// tool.
pub(crate) fn moments(sandbox: &Sandbox, script: impl Fn(&str) -> String) -> BTreeSet<Moment> {
    calls(sandbox, CHANGES, script)
        .into_iter()
        .filter(|(moment, arguments)| {
            !["open", "openat", "openat2"].contains(&moment.0.as_str()) || arguments.contains("O_CREAT")
        })
        .map(|(moment, _)| moment)
        .collect()
}

/// The moments at which the tool is killed: each fifth, or all with `scripts/test --all`.
pub(crate) fn some(moments: BTreeSet<Moment>) -> impl Iterator<Item = Moment> {
    let step = if takes_all() { 1 } else { 5 };
    eprintln!("{} of {} moments to kill at", moments.len().div_ceil(step), moments.len());
    moments.into_iter().step_by(step)
}

/// Whether the tool is killed at all moments.
pub(crate) fn takes_all() -> bool {
    std::env::var_os("STAVE_TEST_ALL").is_some()
}

/// Every call with one of these names that the tool makes in all its processes, with its arguments.
pub(crate) fn calls(
    sandbox: &Sandbox,
    names: &str,
    script: impl Fn(&str) -> String,
) -> Vec<(Moment, String)> {
    sandbox.sh(&script(&format!("strace -f -qq -o trace -e signal=none -e trace={names}"))).ok();
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in sandbox.sh("cat trace").ok().lines() {
        // `1234 mkdir("…") = 0`; a split call has its name and the parenthesis in the first part.
        let Some((pid, call)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, arguments)) = call.trim().split_once('(') else { continue };
        if !names.split(',').any(|change| change == name) {
            continue;
        }
        let count = counts.entry((name.to_owned(), pid.to_owned())).or_default();
        *count += 1;
        calls.push(((name.to_owned(), *count), arguments.to_owned()));
    }
    calls
}

/// A prefix that kills a tool at this moment. If something keeps running, such as a container, strace leaves
/// it after a second.
pub(crate) fn at((call, when): &Moment) -> String {
    format!("timeout 1 strace -I 2 -f -qq -o /dev/null -e inject={call}:signal=SIGKILL:when={when}")
}

/// Like [`Sandbox::assert_as`], with the moment in the message.
#[track_caller]
pub(crate) fn assert_as(sandbox: &Sandbox, before: &Snapshot, context: &str) {
    let difference = sandbox.difference(before);
    assert!(difference.is_empty(), "{context}: left behind (+) or lost (-):\n{difference}");
}

/// Runs `script` once in peace, and then again and again. Each time its tool is killed just before another change.
/// `ready` comes before each run, and `after` after it, with what was run in words. Returns the number of changes.
pub(crate) fn killed(
    sandbox: &Sandbox,
    ready: &str,
    script: &dyn Fn(&str) -> String,
    after: &dyn Fn(&str),
) -> usize {
    killed_as_in(sandbox, ready, script, script, after)
}

/// Like [`killed`], but the run in peace is another script: strace stays until the last process of it has ended.
pub(crate) fn killed_as_in(
    sandbox: &Sandbox,
    ready: &str,
    in_peace: &dyn Fn(&str) -> String,
    script: &dyn Fn(&str) -> String,
    after: &dyn Fn(&str),
) -> usize {
    sandbox.sh(ready).ok();
    let moments = moments(sandbox, in_peace);
    after(&format!("{} in peace", script("")));
    // Even a layer-apply that finds its work done makes its claim.
    assert!(moments.len() >= 4, "too few to be true: {moments:?}");
    let count = moments.len();
    for moment in some(moments) {
        sandbox.sh(ready).ok();
        sandbox.sh(&script(&at(&moment)));
        after(&format!("{} killed at {moment:?}", script("")));
    }
    count
}

/// Unwinds containers, after which everything is as it is now.
pub(crate) fn unwound(sandbox: &Sandbox, ids: &str) -> impl Fn(&str) {
    let before = sandbox.snapshot();
    move |context| {
        let unwound = sandbox.sh(&format!("unwind {ids}"));
        assert_eq!(unwound.status, 0, "{context}: {}", unwound.stderr);
        assert_as(sandbox, &before, context);
    }
}
