//! What an ordinary user can do with a container, and the errors for the rest (docs/rootless.md). Needs root,
//! to become that user.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::{Outcome, Sandbox};

/// A host with an ordinary user. The user's image `busybox` is in `/run/u`.
fn host() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    let prepare =
        "chmod 755 . && mkdir /run/u && cp -r \"$STAVE_ROOT\"/images /run/u && chown -R 1000:1000 /run/u";
    sandbox.sh(prepare).ok();
    sandbox
}

/// Runs the pipe as root of a user namespace with only the user's id, and undoes it. `limit` is a stage
/// before ns-exec.
#[track_caller]
fn as_user(sandbox: &Sandbox, union: &str, limit: &str, flags: &str, script: &str) -> Outcome {
    let pipe = format!(
        "img-inspect busybox | layer-apply --id web --rootless | union-mount {union} {limit} | ns-exec {flags} -- sh -c \"{script}\""
    );
    let all = format!("{pipe}; status=$?; unwind web > /dev/null || exit 99; exit $status");
    std::fs::write(sandbox.directory().join("pipe"), all).unwrap();
    sandbox.sh("STAVE_ROOT=/run/u STAVE_RUN=/run/u/run setpriv --reuid 1000 --regid 1000 --clear-groups \
         unshare --user --map-root-user --mount --pid --fork --mount-proc sh pipe")
}

/// Lines on standard error, without the warning that every such container causes.
fn told(outcome: &Outcome) -> Vec<&str> {
    outcome.stderr.lines().filter(|line| !line.contains("no cgroup of its own: create")).collect()
}

#[test]
fn what_works() {
    let sandbox = host();
    let name = sandbox.sh("hostname").ok();
    for (flags, script, expected) in [
        ("", "id -u", "0\n"),
        ("--uts host", "hostname", name.as_str()),
        ("--cgroupns host", "test -e /sys/fs/cgroup/cgroup.procs && echo seen", "seen\n"),
        ("--ipc shareable --shm-size 1m", "df -k /dev/shm | grep -o ' 1024 ' | head -n 1", " 1024 \n"),
        ("--ulimit nofile=100 --oom-score-adj 500", "ulimit -n; cat /proc/self/oom_score_adj", "100\n500\n"),
        ("--sysctl net.core.somaxconn=9", "cat /proc/sys/net/core/somaxconn", "9\n"),
        (
            "--tmpfs /t:size=1m --read-only",
            "touch /t/x; (touch /x) 2>&1",
            "touch: /x: Read-only file system\n",
        ),
        ("--cap-drop ALL --no-new-privs", "grep CapPrm /proc/self/status", "CapPrm:\t0000000000000000\n"),
    ] {
        let outcome = as_user(&sandbox, "", "", flags, script);
        assert_eq!((outcome.stdout.as_str(), told(&outcome)), (expected, vec![]), "{flags}: {outcome:?}");
    }
}

#[test]
fn what_does_not_is_said_in_a_line() {
    let sandbox = host();
    // Works with a warning.
    for (flags, warning) in [
        (
            "--ipc host",
            "mount mqueue: the kernel refuses it, because the ipc namespace is another user's; /dev/mqueue stays as it is in the image",
        ),
        ("--oom-score-adj -500", "write -500 to \"/proc/self/oom_score_adj\": Permission denied"),
    ] {
        let outcome = as_user(&sandbox, "", "", flags, "echo ran");
        assert_eq!(outcome.stdout, "ran\n", "{flags}: {outcome:?}");
        assert_eq!(told(&outcome), [format!("ns-exec: warning: {warning}")], "{flags}");
    }
    // Fails. Nothing is left, or else `unwind` would have failed.
    for (union, limit, flags, error) in [
        (
            "",
            "",
            "--pid host",
            "ns-exec: share a pid namespace: the container has no cgroup of its own, so its processes cannot be told from others",
        ),
        (
            "--userns auto",
            "",
            "",
            "union-mount: make a user namespace for the container: only root of the machine maps other ids, and this is a user namespace",
        ),
    ] {
        let outcome = as_user(&sandbox, union, limit, flags, "echo ran");
        assert_eq!(
            (outcome.stdout.as_str(), told(&outcome)),
            ("", vec![error]),
            "{union} {flags}: {outcome:?}"
        );
    }
    for (limit, flags, hint) in [
        ("", "--sandbox", "hint: --sandbox limits by cgroups, and only root of the machine may make them"),
        (
            "| cgroup-limit --pids 9",
            "",
            "hint: only root of the machine may make cgroups; without cgroup-limit, nothing is limited",
        ),
        (
            "| cgroup-limit --memory 64m",
            "",
            "hint: only root of the machine may make cgroups; without cgroup-limit, nothing is limited",
        ),
    ] {
        let outcome = as_user(&sandbox, "", limit, flags, "echo ran");
        // The message names the hierarchy, or the cgroup that the machine has.
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert_eq!(
            (outcome.stdout.as_str(), lines.len(), lines.last()),
            ("", 2, Some(&hint)),
            "{limit} {flags}: {outcome:?}"
        );
    }
}
