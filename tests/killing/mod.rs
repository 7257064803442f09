//! Killing a tool when it is about to change something: by strace, which counts and injects.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use testkit::{Sandbox, Snapshot};

/// The system calls by which a tool changes something that outlives it. Opening a file is not among them: what was
/// created shows by the call that follows.
const CHANGES: &str = "mkdir,mkdirat,mknod,mknodat,rmdir,unlink,unlinkat,rename,renameat,renameat2,symlink,symlinkat,\
    link,linkat,ftruncate,write,pwrite64,writev,mount,umount2,fsopen,fsconfig,fsmount,move_mount,open_tree,\
    mount_setattr,pivot_root,unshare,setns,clone,clone3,fork,vfork,sendto,sendmsg,execve,kill,flock";

/// How often a tool makes each of the system calls, in that of its processes that makes most of them. `script` puts strace
/// in front of the tool.
pub(crate) fn count(sandbox: &Sandbox, script: impl Fn(&str) -> String) -> BTreeMap<String, usize> {
    sandbox.sh(&script(&format!("strace -f -qq -o trace -e signal=none -e trace={CHANGES}"))).ok();
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in sandbox.sh("cat trace").ok().lines() {
        // `1234 mkdir("…") = 0`; a call in two parts has its name and the parenthesis in the first one.
        let Some((pid, call)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, _)) = call.trim().split_once('(') else { continue };
        if CHANGES.split(',').any(|change| change == name) {
            *counts.entry((name.to_owned(), pid.to_owned())).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((name, _), count) in counts {
        let entry: &mut usize = most.entry(name).or_default();
        *entry = count.max(*entry);
    }
    most
}

/// What stands before a tool to kill it when it makes this call for the `when`th time. What runs in spite of it, a container
/// say, is left by strace after a moment, and goes on.
pub(crate) fn at(call: &str, when: usize) -> String {
    format!("timeout 1 strace -I 2 -f -qq -o /dev/null -e inject={call}:signal=SIGKILL:when={when}")
}

/// As [`Sandbox::assert_as`], saying after what.
#[track_caller]
pub(crate) fn assert_as(sandbox: &Sandbox, before: &Snapshot, context: &str) {
    let end = Instant::now() + Duration::from_secs(3);
    let mut difference = before.difference(&sandbox.snapshot());
    while !difference.is_empty() && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
        difference = before.difference(&sandbox.snapshot());
    }
    assert!(difference.is_empty(), "{context}: left behind (+) or lost (-):\n{difference}");
}
