//! The device list on a kernel that accepts no BPF program for it. Needs root, and cgroup version 1 with the
//! controller devices.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{both_of, compile, prepare};
use testkit::Sandbox;

/// Runs a command for which bpf(2) fails, as under another engine's seccomp policy. With the first argument
/// "mount", fsopen(2) fails too.
const WITHOUT: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int count, char **words) {
    int mount = strcmp(words[1], "mount") == 0;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mount ? SYS_fsopen : SYS_bpf, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 99;
    execvp(words[2], words + 2);
    return 98;
}"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    compile(&sandbox, "without", WITHOUT);
    sandbox
}

/// The version 1 cgroups whose names begin with `prefix`: those of containers or of build steps. Tests share
/// the hierarchy.
fn left(sandbox: &Sandbox, prefix: &str) -> String {
    sandbox.sh(&format!("find /sys/fs/cgroup/devices/stave -name '{prefix}*' 2> /dev/null")).stdout
}

#[test]
fn version_1_limits_devices_where_no_program_can() {
    let sandbox = sandbox();
    let script = "mount -t tmpfs none /tmp && mknod /tmp/kmsg c 1 11 && true < /tmp/kmsg; true < /dev/null && echo null";
    let expected = "sh: can't open /tmp/kmsg: Operation not permitted\nnull\n";
    for before in ["", "/run/without bpf"] {
        let seen = both_of(&sandbox, "busybox", before, "--cap-add SYS_ADMIN", script);
        assert_eq!(seen, [expected, expected], "{before:?}");
    }
    prepare(&sandbox, "busybox");
    let planned = sandbox.sh("/run/without bpf ns-exec --explain -- true < ready.json").ok();
    assert!(planned.contains("echo 'c 136:* rwm' > /sys/fs/cgroup/devices/stave/web."), "{planned}");
    sandbox.sh("cgroup-limit --pids 9 < ready.json > limited.json").ok();
    sandbox.sh("/run/without bpf ns-exec -d -- sleep 1000 < limited.json > run.json").ok();
    assert_eq!(left(&sandbox, "web.").lines().count(), 1);
    sandbox.sh("unwind web > /dev/null").ok();
    assert_eq!(left(&sandbox, "web."), "");
}

#[test]
fn steps_of_a_build_too() {
    let sandbox = sandbox();
    let text = "FROM busybox\nRUN ! head -c 1 /dev/kmsg && mknod /kmsg c 1 11 && ! true < /kmsg && true < /dev/null\n";
    std::fs::write(sandbox.directory().join("Dockerfile"), text).unwrap();
    sandbox.sh("/run/without bpf img-build -q --no-cache -t other . > /dev/null").ok();
    assert_eq!(left(&sandbox, "_step-"), "");
    // A cgroup left by a killed build.
    sandbox.sh("mkdir -p /sys/fs/cgroup/devices/stave/_step-test").ok();
    sandbox.sh("/run/without bpf img-build -q --no-cache -t other . > /dev/null").ok();
    assert_eq!(left(&sandbox, "_step-"), "");
}

#[test]
fn without_either_a_container_is_refused() {
    let sandbox = sandbox();
    prepare(&sandbox, "busybox");
    let outcome = sandbox.sh("/run/without mount ns-exec -- true < ready.json > /dev/null").exits(125);
    assert_eq!(
        outcome.stderr,
        "ns-exec: limit devices: bpf(2) takes no program for a cgroup, and version 1 has no list: mount cgroup devices: \
         Operation not permitted\nhint: `--privileged` starts the container without a list\n"
    );
    sandbox.sh("/run/without bpf ns-exec --privileged -- true < ready.json > /dev/null").ok();
    sandbox.sh("unwind web > /dev/null").ok();
}
