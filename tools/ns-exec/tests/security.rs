//! What a container can do to the host, seen from inside by a new process and by one that joins. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_both, both, compile, prepare, until_logged};
use testkit::Sandbox;

fn sandbox() -> Sandbox {
    Sandbox::with_busybox()
}

#[test]
fn its_own_cgroup_is_all_that_it_sees_of_them() {
    let sandbox = sandbox();
    let top = "mkdir -p /run/top && mount -t cgroup2 none /run/top";
    sandbox.sh(top).ok();
    // The path as the container sees it, and what it can change there.
    assert_both(&sandbox, "", "grep ^0: /proc/self/cgroup", "0::/\n");
    assert_both(
        &sandbox,
        "",
        "mkdir /sys/fs/cgroup/x",
        "mkdir: can't create directory '/sys/fs/cgroup/x': Read-only file system\n",
    );
    assert_both(
        &sandbox,
        "",
        "ls /sys/fs/cgroup | grep -c cgroup.kill; grep -c cgroup /proc/mounts",
        "1\n1\n",
    );
    // The list of processes contains only the container's own.
    assert_eq!(both(&sandbox, "", "sort -n /sys/fs/cgroup/cgroup.procs | head -n 1")[0], "1\n");
    // A privileged container can mount the hierarchy, but still finds no other cgroup.
    let script = "mount -t cgroup2 none /tmp && ls -d /tmp/stave /tmp/*.slice 2>/dev/null; echo $(cat /tmp/cgroup.procs | head -n 1)";
    assert_both(&sandbox, "--privileged", script, "1\n");

    sandbox.sh("layer-apply --id web < busybox.json | union-mount | ns-exec -d -- sh -c 'sleep 1001 & sleep 1002' > web.json").ok();
    let path = sandbox.sh("jq -r '.steps[] | select(.tool == \"ns-exec\") | .operations[] | select(.op == \"cgroup-add\") | .path' web.json").ok();
    let path = path.trim();
    assert!(path.starts_with("/stave/web."), "{path}");
    sandbox.sh(&format!("for i in $(seq 100); do [ $(wc -l < /run/top{path}/cgroup.procs) = 2 ] && break; sleep 0.02; done; cat /run/top{path}/cgroup.procs")).ok();
    sandbox.sh("ns-exec --join web -d -- sleep 1003").ok();
    assert_eq!(sandbox.sh(&format!("wc -l < /run/top{path}/cgroup.procs")).ok(), "3\n");
    sandbox.sh("ns-exec --check < web.json > /dev/null").ok();
    // The supervisor is outside, and undo ends all processes inside.
    sandbox.sh("ns-exec --undo < web.json > /dev/null").ok();
    sandbox.sh(&format!("! test -e /run/top{path} && ! pgrep -xf 'sleep 100[123]' && unwind web")).ok();
}

/// Some kernels kill every process that is born out of or into a cgroup whose processes were killed once.
#[test]
fn it_starts_out_of_and_into_a_cgroup_whose_processes_were_killed() {
    let sandbox = sandbox();
    let caller = format!("/run/top/killed-{}", std::process::id());
    sandbox.sh(&format!("mkdir -p /run/top && mount -t cgroup2 none /run/top && mkdir {caller} && echo 1 > {caller}/cgroup.kill")).ok();
    let pipe =
        "layer-apply --id web < busybox.json | union-mount | ns-exec -d --pid host -- sleep 1000 > /dev/null";
    let started =
        sandbox.sh(&format!("echo $$ > {caller}/cgroup.procs; {pipe} && ns-exec --join web -- echo joined"));
    let own = "layer-apply --id own < busybox.json | union-mount | ns-exec -d -- sleep 1000 > /dev/null";
    let inside = "grep -q ':/stave/own' /proc/$(container-ls --format '{pid}' own)/cgroup && echo inside";
    let inside =
        sandbox.sh(&format!("echo $$ > {caller}/cgroup.procs; {own}; {inside}; unwind own > /dev/null"));
    // Its processes end by its cgroup, because it has no pid namespace of its own.
    let again = sandbox.sh("container-stop -t 0 web > /dev/null; container-start web > /dev/null; ns-exec --join web -- echo joined");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.sh(&format!("until rmdir {caller} 2> /dev/null; do sleep 0.02; done")).ok();
    assert_eq!((started.ok().as_str(), again.ok().as_str()), ("joined\n", "joined\n"));
    assert_eq!(inside.ok(), "inside\n");
}

#[test]
fn a_cgroup_that_may_not_be_made_is_no_obstacle() {
    let sandbox = sandbox();
    let script = "setpriv --reuid 1000 --regid 1000 --clear-groups unshare --user --map-root-user --mount --pid --fork \
        --mount-proc sh -c 'img-inspect busybox | layer-apply --id web --rootless | union-mount | ns-exec -- grep ^0: /proc/self/cgroup'";
    let prepare =
        "chmod 755 . && mkdir /run/u && cp -r \"$STAVE_ROOT\"/images /run/u && chown -R 1000:1000 /run/u";
    let outcome =
        sandbox.sh(&format!("{prepare} && STAVE_ROOT=/run/u STAVE_RUN=/run/u/run {script}")).exits(0);
    // The root of its cgroup namespace is its own cgroup.
    assert_eq!(outcome.stdout, "0::/\n");
    let warning = "ns-exec: warning: the container has no cgroup of its own: ";
    assert!(outcome.stderr.starts_with(warning) && outcome.stderr.lines().count() == 1, "{}", outcome.stderr);
}

#[test]
fn system_calls_that_docker_denies() {
    let sandbox = sandbox();
    assert_both(&sandbox, "", "grep Seccomp: /proc/self/status", "Seccomp:\t2\n");
    assert_both(
        &sandbox,
        "--security-opt seccomp=unconfined",
        "grep Seccomp: /proc/self/status",
        "Seccomp:\t0\n",
    );
    assert_both(&sandbox, "--privileged", "grep Seccomp: /proc/self/status", "Seccomp:\t0\n");
    assert_both(&sandbox, "", "unshare -Ur true", "unshare: unshare(0x10000000): Operation not permitted\n");
    assert_both(&sandbox, "--security-opt seccomp=unconfined", "unshare -Ur echo in", "in\n");
    assert_both(&sandbox, "--cap-add SYS_ADMIN", "unshare -Ur echo in", "in\n");
    // As another user, and where no privileges can be gained.
    for flags in ["-u 1000", "--security-opt no-new-privileges", "-u 1000 --no-new-privs", "--cap-drop ALL"] {
        assert_both(
            &sandbox,
            flags,
            "unshare -Ur true",
            "unshare: unshare(0x10000000): Operation not permitted\n",
        );
    }
    assert_both(
        &sandbox,
        "--security-opt no-new-privileges",
        "grep NoNewPrivs /proc/self/status",
        "NoNewPrivs:\t1\n",
    );
    // 32-bit programs, and programs of another architecture, cannot bypass it.
    let own = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}"#;
    std::fs::write(sandbox.directory().join("own.json"), own).unwrap();
    assert_both(
        &sandbox,
        "--security-opt seccomp=own.json",
        "mkdir /x",
        "mkdir: can't create directory '/x': Input/output error\n",
    );
}

#[test]
fn options_that_cannot_be_followed_are_refused() {
    let sandbox = sandbox();
    prepare(&sandbox, "busybox");
    std::fs::write(sandbox.directory().join("bad.json"), "{").unwrap();
    std::fs::write(
        sandbox.directory().join("asks.json"),
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
    )
    .unwrap();
    for (option, error) in [
        (
            "seccomp=missing.json",
            "ns-exec: read seccomp profile \"missing.json\": No such file or directory\n",
        ),
        (
            "seccomp=asks.json",
            "ns-exec: seccomp policy: SCMP_ACT_NOTIFY needs a program that answers, and there is none\n",
        ),
    ] {
        let outcome = sandbox.sh(&format!("ns-exec --security-opt {option} -- true < ready.json")).exits(125);
        assert_eq!(outcome.stderr, error);
    }
    let outcome = sandbox.sh("ns-exec --security-opt seccomp=bad.json -- true < ready.json").exits(125);
    assert!(outcome.stderr.starts_with("ns-exec: read seccomp profile \"bad.json\": "), "{}", outcome.stderr);
    for option in ["apparmor=docker-default", "label=type:x", "rubbish"] {
        let outcome = sandbox.sh(&format!("ns-exec --security-opt {option} -- true < ready.json")).exits(125);
        assert_eq!(
            outcome.stderr.lines().filter(|line| !line.starts_with("hint: ")).count(),
            1,
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn no_device_but_its_own() {
    let sandbox = sandbox();
    // A block device of the host, and its kernel messages. No container may read them.
    let open = "head -c 1 /tmp/x > /dev/null";
    let make = |kind, numbers| format!("mount -t tmpfs t /tmp && mknod /tmp/x {kind} {numbers} && {open}");
    let refused = "head: /tmp/x: Operation not permitted\n";
    for (kind, numbers) in [("b", "7 0"), ("c", "1 11"), ("c", "1 1")] {
        assert_both(&sandbox, "--cap-add SYS_ADMIN", &make(kind, numbers), refused);
    }
    assert_both(&sandbox, "--cap-add SYS_ADMIN", &format!("{}; echo $?", make("c", "1 5")), "0\n");
    assert_both(&sandbox, "--privileged", &format!("{}; echo $?", make("c", "1 5")), "0\n");
    // The host's own `/dev`, without any capability.
    sandbox.sh("mkdir /run/dev && mknod /run/dev/null c 1 3 && mknod /run/dev/kmsg c 1 11").ok();
    assert_both(&sandbox, "-v /run/dev:/dev", "head -c 1 /dev/kmsg", "head: /dev/kmsg: Permission denied\n");
}

#[test]
fn masks_lie_where_the_kernels_files_are() {
    let sandbox = sandbox();
    sandbox.sh("mkdir /run/rootfs; cd /run/rootfs; mkdir bin dev sys vol elsewhere; cp /bin/busybox bin/busybox; ln -s busybox bin/sh").ok();
    let refused = |reason: &str, setup: &str, flags: &str| {
        sandbox.sh(&format!("cd /run/rootfs; {setup}")).ok();
        let outcome = sandbox.sh(&format!("ns-exec -n --id link --rootfs /run/rootfs {flags} -- /bin/busybox true; s=$?; unwind link > /dev/null 2>&1; exit $s"));
        assert_eq!(
            (outcome.status, outcome.stderr.as_str()),
            (125, format!("ns-exec: {reason}\n").as_str()),
            "{setup}"
        );
    };
    let link = "it must be mounted on ordinary directory, and the image has none there";
    refused(&format!("mount proc on \"/proc\": {link}"), "ln -s elsewhere proc", "");
    refused(&format!("mount proc on \"/proc\": {link}"), "rm proc; touch proc", "");
    refused(
        &format!("mount sysfs on \"/sys\": {link}"),
        "rm -r proc sys; mkdir proc; ln -s elsewhere sys",
        "",
    );
    // A fake null device: masked files would be readable (CVE-2025-31133).
    refused(
        "mask \"/proc/interrupts\": \"/dev/null\" of the container is not the null device",
        "rm sys; mkdir sys dev2; touch dev2/null",
        "-v /run/rootfs/dev2:/dev",
    );
    refused(
        "mask \"/proc/interrupts\": \"/dev/null\" of the container is not the null device",
        "rm dev2/null; mknod dev2/null c 1 5",
        "-v /run/rootfs/dev2:/dev",
    );
    assert_both(
        &sandbox,
        "",
        "echo x > /proc/sys/kernel/core_pattern",
        "sh: can't create /proc/sys/kernel/core_pattern: Read-only file system\n",
    );
    assert_both(
        &sandbox,
        "--security-opt systempaths=unconfined",
        "cat /proc/keys > /dev/null; grep -c proc/sys /proc/mounts",
        "0\n",
    );
}

/// Searches the session keyring for a key.
const LOOK: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    long key = syscall(SYS_keyctl, 10, -3, "user", "stave-secret", 0);
    puts(key > 0 ? "found" : strerror(errno));
}
"#;

#[test]
fn keys_of_the_host_are_not_in_it() {
    let sandbox = sandbox();
    let python = r#"
import ctypes, os, sys
call = ctypes.CDLL(None, use_errno=True).syscall
assert call(250, 1, None) > 0  # keyctl: a session keyring of its own
assert call(248, b"user", b"stave-secret", b"x", 1, -3) > 0  # add_key, to it
os.execvp("sh", ["sh", "-c", sys.argv[1]])
"#;
    std::fs::write(sandbox.directory().join("keys.py"), python).unwrap();
    compile(&sandbox, "look", LOOK);
    for (flags, seen) in [("", "Operation not permitted\n"), ("--privileged", "Required key not available\n")]
    {
        prepare(&sandbox, "busybox");
        let new = sandbox.sh(&format!(
            "python3 keys.py '/run/look; ns-exec {flags} -v /run/look:/look -- /look < ready.json'"
        ));
        assert_eq!(new.ok(), format!("found\n{seen}"));
        prepare(&sandbox, "busybox");
        sandbox.sh(&format!("ns-exec {flags} -v /run/look:/look -d -- sleep 1000 < ready.json")).ok();
        assert_eq!(sandbox.sh("python3 keys.py 'ns-exec --join web -- /look'").ok(), seen);
    }
}

/// Watches every other process for some time: its program, its descriptors, and whether it can be traced
/// under this program's name.
const WATCH: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    struct stat self, box, found;
    stat("/proc/self/exe", &self), stat("/bin/busybox", &box);
    for (time_t end = time(0) + 4; time(0) < end;) {
        DIR *all = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(all));) {
            int pid = atoi(entry->d_name);
            char path[64], text[256];
            if (pid <= 1) continue;
            snprintf(path, 64, "/proc/%d/exe", pid);
            if (!stat(path, &found) && found.st_ino != self.st_ino && found.st_ino != box.st_ino) puts("a foreign program");
            snprintf(path, 64, "/proc/%d/environ", pid);
            FILE *environ = fopen(path, "r");
            if (environ) {
                size_t length = fread(text, 1, 255, environ);
                if (memmem(text, length, "STAVE_ROOT", 10)) puts("the caller's environment");
                fclose(environ);
            }
            snprintf(path, 64, "/proc/%d/fd", pid);
            DIR *open = opendir(path);
            for (struct dirent *fd; open && (fd = readdir(open));)
                if (atoi(fd->d_name) > 2) puts("a foreign descriptor");
            if (open) closedir(open);
            if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
                snprintf(path, 64, "/proc/%d/comm", pid);
                FILE *comm = fopen(path, "r");
                if (comm && fgets(text, 256, comm) && !strncmp(text, "ns-exec", 7)) puts("a foreign process");
                if (comm) fclose(comm);
                ptrace(PTRACE_INTERRUPT, pid, 0, 0), waitpid(pid, 0, __WALL), ptrace(PTRACE_DETACH, pid, 0, 0);
            }
        }
        closedir(all);
    }
    puts("watched");
}
"#;

#[test]
fn nothing_of_a_joining_process_can_be_had() {
    let sandbox = sandbox();
    compile(&sandbox, "watch", WATCH);
    for flags in ["--cap-add SYS_PTRACE", "--privileged"] {
        prepare(&sandbox, "busybox");
        sandbox.sh(&format!("ns-exec -d {flags} -v /run/watch:/watch -- /watch < ready.json")).ok();
        sandbox.sh("for i in $(seq 40); do timeout 2 ns-exec --join web -- true || break; done").ok();
        until_logged(&sandbox, "watched");
        assert_eq!(
            sandbox.sh("sort -u \"$(container-ls --format {log} -- web)\"; unwind web > /dev/null").ok(),
            "watched\n"
        );
    }
}

#[test]
fn who_joins_goes_where_the_container_was_started() {
    let sandbox = sandbox();
    prepare(&sandbox, "busybox");
    // The first process has moved into its own namespaces, with a fake `/proc`.
    let first = "unshare -Urm sh -c 'mount -t tmpfs t /proc && mkdir /proc/self && echo deny > /proc/self/setgroups && echo gone && exec sleep 1000'";
    std::fs::write(sandbox.directory().join("first"), first).unwrap();
    sandbox
        .sh("ns-exec -d --security-opt seccomp=unconfined -- sh -c \"exec $(cat first)\" < ready.json")
        .ok();
    until_logged(&sandbox, "gone");
    let joined = sandbox.sh("setpriv --groups 0,27,44 ns-exec --join web -u 5:5 -- sh -c 'id; test -e /proc/1/status && echo true; readlink /proc/self/ns/user'");
    let own = sandbox.sh("readlink /proc/self/ns/user").ok();
    assert_eq!(joined.ok(), format!("uid=5 gid=5 groups=5\ntrue\n{own}"));
}

#[test]
fn no_other_user_reaches_its_files() {
    let sandbox = sandbox();
    sandbox.sh("chmod 755 . && mkdir root/layers && chmod 755 root/layers").ok();
    sandbox
        .sh("layer-apply --id web < busybox.json | union-mount | ns-exec -d -- sleep 1000 > web.json")
        .ok();
    let places = "cd \"$STAVE_ROOT\" && ls -d layers/*/bin/busybox containers/web/upper containers/web/etc/hosts containers/web/rootfs/bin/busybox";
    assert_eq!(sandbox.sh(places).ok().lines().count(), 4);
    let other = format!("setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '{places}' 2>/dev/null");
    assert_eq!(sandbox.sh(&other).stdout, "");
    sandbox.sh("printf 'FROM busybox\\nRUN chmod 4755 /bin/busybox\\n' > Dockerfile; img-build -q -t x . > /dev/null").ok();
    assert_eq!(
        sandbox.sh("cd \"$STAVE_ROOT\" && stat -c %a layers build containers").ok(),
        "700\n700\n700\n"
    );
}

/// The container's user owns its streams, and decides who may open them.
#[test]
fn no_other_user_reaches_its_streams() {
    let sandbox = sandbox();
    sandbox.sh("chmod 755 . /run /run/stave").ok();
    let open = "chmod 777 /proc/self/fd/0 /proc/self/fd/1 && chown 1000 /proc/self/fd/2";
    for (flags, before) in [("-u 1000", "true"), ("", open)] {
        prepare(&sandbox, "busybox");
        sandbox
            .sh(&format!(
                "ns-exec -d -i {flags} -- sh -c '{before}; echo began; exec sh' < ready.json > web.json"
            ))
            .ok();
        until_logged(&sandbox, "began");
        let streams = sandbox.sh("find /run/stave -type p | sort").ok();
        assert_eq!(streams.lines().count(), 3, "{streams}");
        for stream in streams.lines() {
            let tries = format!("cat {stream} & echo echo forged > {stream} || cat < /run/stave/web.json");
            let other = "setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all timeout 2 sh -c";
            assert_eq!(sandbox.sh(&format!("{other} '{tries}' 2> /dev/null")).stdout, "", "{flags} {stream}");
        }
        let root = "echo 'echo for; echo root' > /run/stave/streams/web.stdin";
        sandbox.sh(root).ok();
        until_logged(&sandbox, "root");
        let log = sandbox.sh("cat \"$(container-ls --format {log} -- web)\"").ok();
        assert_eq!(log, "began\nfor\nroot\n");
        sandbox.sh("unwind web > /dev/null").ok();
        assert_eq!(sandbox.sh("ls /run/stave | grep -v locks").stdout, "");
    }
}

#[test]
fn values_of_variables_are_in_no_command_line_that_stays() {
    let sandbox = sandbox();
    sandbox.sh("printf 'TOKEN=of-file\\n' > file; layer-apply --id web < busybox.json | union-mount > ready.json").ok();
    sandbox.sh("ns-exec -d -e PASSWORD=of-flag --env-file file -- sleep 1000 < ready.json > web.json").ok();
    let supervisor = "P=$(jq .process.pid web.json); S=$(awk '/PPid/ { print $2 }' /proc/$P/status); tr '\\0' ' ' < /proc/$S/cmdline; tr '\\0' '\\n' < /proc/$S/environ | grep -c =";
    assert_eq!(
        sandbox.sh(supervisor).stdout.trim_end_matches(' ').split_whitespace().collect::<Vec<_>>(),
        ["ns-exec", "0"]
    );
    let seen = sandbox.sh("ns-exec --join web -- sh -c 'echo $PASSWORD $TOKEN'").ok();
    assert_eq!(seen, "of-flag of-file\n");
    sandbox.sh("printf 'A=a\\nb\\0B=\\0' > list").ok();
    assert_eq!(sandbox.sh("ns-exec --join web --env-list list -- sh -c 'echo \"$A-$B-\"'").ok(), "a\nb--\n");
    let refused = sandbox.sh("echo bad name=1 > file; ns-exec --join web --env-file file -- true").exits(125);
    assert_eq!(refused.stderr, "ns-exec: read \"file\": line 1: the name \"bad name\" contains a blank\n");
}

#[test]
fn what_it_writes_to_the_hosts_files_is_limited_and_on_the_disk() {
    let sandbox = sandbox();
    prepare(&sandbox, "busybox");
    let fill = "head -c 40000000 /dev/zero; head -c 1000000 /dev/zero > /etc/hosts; echo end; sleep 1000";
    sandbox.sh(&format!("ns-exec -d -- sh -c '{fill}' < ready.json > web.json")).ok();
    sandbox.sh("L=$(jq -r .process.log web.json); timeout 10 sh -c \"until tail -c 5 '$L' | grep -q end; do sleep 0.05; done\"").ok();
    let sizes = "cd \"$STAVE_ROOT\"/containers/web; expr $(cat log log.1 | wc -c) '<' 17000000; du -sk /run/stave | awk '{ print $1 < 200 }'";
    assert_eq!(sandbox.sh(sizes).ok(), "1\n1\n");
    prepare(&sandbox, "busybox");
    let refused = sandbox.sh("ns-exec --read-only -- sh -c 'for f in hosts hostname resolv.conf; do echo x >> /etc/$f; done' < ready.json 2>&1");
    assert_eq!(refused.stdout.matches("Read-only file system").count(), 3, "{}", refused.stdout);
}

#[test]
fn a_file_as_standard_output_opens_for_every_user() {
    let sandbox = sandbox();
    prepare(&sandbox, "busybox");
    let script = "echo out > /dev/stdout; echo err > /dev/stderr; seq 20000; exit 7";
    sandbox.sh(&format!("ns-exec -u 1000 -- sh -c '{script}' < ready.json > seen 2>&1")).exits(7);
    let seen = sandbox.sh("stat -c '%u %a' seen; head -n 3 seen; tail -n 1 seen; wc -l < seen").ok();
    assert_eq!(seen, "0 644\nout\nerr\n1\n20000\n20002\n");
}
