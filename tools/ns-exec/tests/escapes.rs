//! Published container escapes, each tried by a new process and by one that joins. Needs root. Others are in
//! `proc.rs` (CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2025-52881), `program_file.rs` (CVE-2019-5736) and
//! `security.rs` (CVE-2021-41091, CVE-2025-31133).
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_both, both_of, compile, prepare};
use testkit::Sandbox;

/// A sandbox with static C programs in its `/run`.
fn sandbox(programs: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    for (name, text) in programs {
        compile(&sandbox, name, text);
    }
    sandbox
}

/// The nodes of `/dev` were made where a symbolic link of the image led: in a directory of the host.
#[test]
fn a_dev_that_is_a_link_receives_no_nodes() {
    let sandbox = sandbox(&[]);
    let image = "FROM scratch\nCOPY --from=busybox /bin /bin\nCOPY tree /\n";
    std::fs::write(sandbox.directory().join("Dockerfile"), image).unwrap();
    sandbox.sh("mkdir tree /run/own && ln -s /vol tree/dev").ok();
    sandbox.sh("img-build -q -t devlink . > /dev/null && img-inspect devlink > devlink.json").ok();
    prepare(&sandbox, "devlink");
    let refused = sandbox.sh("ns-exec -v /run/own:/vol -- true < ready.json").exits(125);
    assert_eq!(
        refused.stderr,
        "ns-exec: mount tmpfs on \"/dev\": it must be mounted on ordinary directory, and the image has none there\n"
    );
    assert_eq!(sandbox.sh("ls /run/own").ok(), "");
}

/// Connects to an abstract socket.
const CONNECT: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
int main(void) {
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0stave-shim"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    puts(connect(fd, (void *)&name, sizeof(sa_family_t) + 11) ? strerror(errno) : "connected");
}
"#;

/// CVE-2020-15257: a service of the host listened on an abstract socket, and accepted commands from
/// containers.
#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    let sandbox = sandbox(&[("connect", CONNECT)]);
    let listen = "import socket, time\ns = socket.socket(socket.AF_UNIX)\ns.bind(b'\\0stave-shim')\ns.listen(9)\nopen('listens', 'w')\ntime.sleep(1000)\n";
    std::fs::write(sandbox.directory().join("listen.py"), listen).unwrap();
    let wait = "timeout 10 sh -c 'until test -e listens; do sleep 0.02; done'";
    sandbox
        .sh(&format!("python3 listen.py > /dev/null 2>&1 & {wait} && test $(/run/connect) = connected"))
        .ok();
    let script = "/connect; tail -n +2 /proc/net/unix";
    assert_both(&sandbox, "-v /run/connect:/connect", script, "Connection refused\n");
    // The socket does listen: it answers with the host's network, which removes this protection.
    assert_both(&sandbox, "-v /run/connect:/connect --network host", "/connect", "connected\n");
}

/// Tells the process that listens on an abstract socket something, or takes its name (`hold`), also without listening
/// (`bind`).
const TELL: &str = r#"
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

int main(int count, char **words) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(words[2]);
    memcpy(address.sun_path + 1, words[2], length);
    length += offsetof(struct sockaddr_un, sun_path) + 1;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (strcmp(words[1], "hold") == 0 || strcmp(words[1], "bind") == 0) {
        if (bind(fd, (void *)&address, length) != 0) return 1;
        if (strcmp(words[1], "hold") == 0 && listen(fd, 100) != 0) return 1;
        puts("holds it");
        fflush(stdout);
        return pause();
    }
    struct timeval patience = {2, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (void *)&address, length) != 0) return 1;
    send(fd, words[1], strlen(words[1]), MSG_NOSIGNAL);
    /* The other side closes the connection. */
    char answer[16];
    recv(fd, answer, sizeof answer, 0);
    puts("told");
    return 0;
}
"#;

/// Containers with a process beside them that Stave finds by its name.
const NAMED: &str = "layer-apply --id web < busybox.json | union-mount | netns-add | bridge-attach lan0 | name-serve | ns-exec -d -- sleep 1000 > web.json";
const RESTRICTED: &str = "layer-apply --id few < busybox.json | union-mount | netns-add | bridge-attach lan0 | egress-allow a.test | ns-exec -d -- sleep 1000 > few.json";

/// The same for Stave's own processes: a container on the host's network reaches their sockets.
#[test]
fn a_container_on_the_hosts_network_commands_no_process_of_stave() {
    let sandbox = sandbox(&[("tell", TELL)]);
    let before = sandbox.snapshot();
    sandbox.sh(&format!("{NAMED} && {RESTRICTED}")).ok();
    let evil = |flags: &str, command: &str| {
        let container =
            "layer-apply --id evil < busybox.json | union-mount | ns-exec -v /run/tell:/tell --network host";
        sandbox.sh(&format!("{container} {flags} -- {command}; unwind -q evil > /dev/null")).ok()
    };
    for flags in ["", "--pid host"] {
        for name in ["stave/names/host", "stave/egress/few"] {
            assert_eq!(evil(flags, &format!("/tell end {name}")), "told\n", "{flags} {name}");
        }
    }
    // Nor does a container of another engine, whose cgroup has another name.
    for name in ["stave/names/host", "stave/egress/few"] {
        sandbox.sh(&format!("unshare --pid --fork /run/tell end {name}")).ok();
    }
    sandbox
        .sh("name-serve --check < web.json > /dev/null && egress-allow --check < few.json > /dev/null")
        .ok();
    // Somebody who takes the name of a lock and never listens keeps nobody waiting either.
    let squats =
        "/run/tell bind stave/lock/network > squats & until grep -q holds squats; do sleep 0.02; done";
    let late = "timeout 30 netns-bridge -n --id late > /dev/null; made=$?; kill $!; unwind -q late > /dev/null; exit $made";
    sandbox.sh(&format!("{squats}; {late}")).ok();
    // A container that has the name of a lock keeps nobody waiting.
    let hold = "layer-apply --id holds < busybox.json | union-mount | ns-exec -d --log /run/log -v /run/tell:/tell --network host -- /tell hold stave/lock/network";
    sandbox
        .sh(&format!(
            "{hold} > /dev/null && timeout 10 sh -c 'until grep -q holds /run/log; do sleep 0.02; done'"
        ))
        .ok();
    sandbox.sh("timeout 60 unwind -q web few holds > /dev/null; rm /run/log").ok();
    sandbox.assert_as(&before);
}

/// Another user of the host who has the names before these processes start keeps no container from starting.
#[test]
fn a_squatter_keeps_no_process_of_stave_out() {
    let sandbox = sandbox(&[("tell", TELL)]);
    let before = sandbox.snapshot();
    for name in ["stave/names/host", "stave/egress/few"] {
        let user = "setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all sh -c";
        let squats = format!("{user} 'exec /run/tell hold {name}' > squats 2>&1 & echo $! >> squatters");
        sandbox.sh(&format!("> squats; {squats}; until grep -q holds squats; do sleep 0.02; done")).ok();
    }
    sandbox.sh(&format!("{NAMED} && {RESTRICTED}")).ok();
    let stand = "name-serve --check < web.json > /dev/null && egress-allow --check < few.json > /dev/null";
    sandbox
        .sh(&format!("{stand} && ls /run/stave-sockets/*/*names*host && stat -c %a /run/stave-sockets"))
        .ok();
    sandbox.sh("timeout 60 unwind -q web few > /dev/null && kill $(cat squatters) && test ! -e /run/stave-sockets").ok();
    sandbox.assert_as(&before);
}

/// CVE-2021-30465: the target of a volume became a symbolic link while it was mounted, in a directory that
/// containers share.
#[test]
fn a_volume_whose_target_moves_is_mounted_inside() {
    let sandbox = sandbox(&[]);
    sandbox.sh("mkdir -p /run/shared/x /run/source /run/stolen && echo mark > /run/source/mark && ln -s ../../../../../../../run/stolen /run/shared/link").ok();
    let volumes = "-v /run/shared:/vol -v /run/source:/vol/";
    // Without a race: the link only leads to the container's own directory.
    assert_both(
        &sandbox,
        &format!("{volumes}link"),
        "cat /run/stolen/mark; grep -c ' /run/stolen ' /proc/mounts",
        "mark\n1\n",
    );
    sandbox.sh("ls /run/stolen | wc -l | grep -qx 0").ok();
    let swap = "import ctypes\nc = ctypes.CDLL(None).renameat2\nwhile True: c(-100, b'/run/shared/x', -100, b'/run/shared/link', 2)\n";
    std::fs::write(sandbox.directory().join("swap.py"), swap).unwrap();
    sandbox.sh("python3 swap.py > /dev/null 2>&1 & echo $! > swap.pid").ok();
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..30 {
        prepare(&sandbox, "busybox");
        // If it had been mounted outside, the container could not find it.
        let script = "awk '$4 ~ \"/source$\" { print $5 }' /proc/self/mountinfo";
        std::fs::write(sandbox.directory().join("script"), script).unwrap();
        let seen =
            sandbox.sh(&format!("ns-exec {volumes}x -- sh -c \"$(cat script)\" < ready.json 2>&1")).stdout;
        places.insert(seen.lines().map(str::to_owned).collect::<Vec<_>>());
    }
    sandbox.sh("kill $(cat swap.pid)").ok();
    assert!(
        places.iter().all(|place| matches!(
            place.iter().map(String::as_str).collect::<Vec<_>>()[..],
            ["/vol/x" | "/vol/link" | "/run/stolen"]
        )),
        "{places:?}"
    );
    sandbox.sh("ls /run/stolen | wc -l | grep -qx 0 && ! grep /run/stolen /proc/mounts").ok();
}

/// Looks for a cgroup hierarchy in which it can change something.
const CGROUPS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
int main(void) {
    int flags[] = {CLONE_NEWCGROUP, CLONE_NEWUSER | CLONE_NEWCGROUP, CLONE_NEWUSER | CLONE_NEWCGROUP | CLONE_NEWNS};
    char *kinds[] = {"memory", "rdma", "none,name=stave"};
    for (int i = 0; i < 3; i++) puts(unshare(flags[i]) ? strerror(errno) : "a namespace");
    for (int i = 0; i < 3; i++) puts(mount("none", "/tmp", "cgroup", 0, kinds[i]) ? strerror(errno) : "a hierarchy");
    puts(mount(0, "/sys/fs/cgroup", 0, MS_REMOUNT | MS_BIND, 0) ? strerror(errno) : "writable");
}
"#;

/// CVE-2022-0492: a process that could mount a cgroup v1 hierarchy, if necessary in a user namespace, could
/// name a program for the host to run.
#[test]
fn no_release_agent_can_be_named() {
    let sandbox = sandbox(&[("cgroups", CGROUPS)]);
    let refused = "Operation not permitted\n".repeat(7);
    let volume = "-v /run/cgroups:/cgroups";
    assert_both(&sandbox, volume, "/cgroups", &refused);
    assert_both(&sandbox, &format!("{volume} -u 1000"), "/cgroups", &refused);
    let script = "find / -name release_agent 2>/dev/null; awk '$3 ~ \"^cgroup\" { print $3, $4 }' /proc/mounts; echo x > /sys/fs/cgroup/release_agent";
    let seen = "cgroup2 ro,nosuid,nodev,noexec,relatime\nsh: can't create /sys/fs/cgroup/release_agent: Read-only file system\n";
    assert_both(&sandbox, "", script, seen);
    // The program would find a writable hierarchy.
    let weak = both_of(&sandbox, "busybox", "", &format!("{volume} --privileged"), "/cgroups");
    assert!(weak.iter().all(|seen| seen.starts_with("a namespace\na namespace\n")), "{weak:?}");
}

/// Reads a file that its group may not read.
const READ: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) {
    printf("%d: %s\n", getegid(), fopen("/run/group/file", "r") ? "read" : "refused");
}
"#;

/// CVE-2022-36109: a program with a set-group-ID bit dropped the primary group, because that was not a
/// supplementary group too.
#[test]
fn a_group_stays_when_a_program_changes_it() {
    let sandbox = sandbox(&[("read", READ)]);
    sandbox.sh("cd /run; mkdir group; echo x > group/file; chown 0:5 group/file; chmod 604 group/file; mv read group; chown 0:6 group/read; chmod 2755 group/read").ok();
    for user in ["5:5", "nobody:5"] {
        let flags = format!("-v /run/group:/run/group -u {user}");
        assert_both(&sandbox, &flags, "/run/group/read", "6: refused\n");
    }
    // Another group may read it.
    assert_both(&sandbox, "-v /run/group:/run/group -u 5:7", "/run/group/read", "6: read\n");
    // The caller's own groups are not passed on, even if the user has no groups.
    let groups = "grep Groups: /proc/self/status";
    for (user, expected) in
        [("5:5", "Groups:\t5 \n"), ("nobody", "Groups:\t65534 \n"), ("1000", "Groups:\t0 \n")]
    {
        let flags = format!("-u {user}");
        let seen = both_of(&sandbox, "busybox", "setpriv --groups 0,27,44", &flags, groups);
        assert_eq!(seen, [expected, expected], "{user}");
    }
}

/// CVE-2024-21626: a working directory or a program reached through a descriptor of the runtime.
#[test]
fn no_descriptor_leads_to_a_directory_of_the_host() {
    let sandbox = sandbox(&[]);
    sandbox.sh("cp /bin/busybox /run/outside-program").ok();
    // Descriptors of the caller that lead outside.
    let open = "exec 7< / 9< /run; test -x /proc/self/fd/7/run/outside-program || exit 1;";
    let list = both_of(
        &sandbox,
        "busybox",
        open,
        "",
        "for f in 0 1 2 3 4 5 6 7 8 9 10 11 12; do test -e /proc/self/fd/$f && echo $f; done; ls -l /proc/1/cwd | grep -c ' /$'",
    );
    assert_eq!(list, ["0\n1\n2\n1\n"; 2]);
    prepare(&sandbox, "busybox");
    let every = "for n in $(seq 3 24); do for up in . ../../../../../../..; do \
        run -w /proc/self/fd/$n/$up -- pwd; run -- /proc/self/fd/$n/$up/run/outside-program echo out; \
        run -- /proc/self/fd/$n/$up/outside-program echo out; done; done 2>/dev/null; \
        run -w /proc/sys -- pwd";
    // What is reached is entered, as the last shows.
    let new = sandbox.sh(&format!("{open} run() {{ ns-exec \"$@\" < ready.json; }}; {every}"));
    assert_eq!(new.stdout, "/proc/sys\n");
    prepare(&sandbox, "busybox");
    sandbox.sh("ns-exec -d -- sleep 1000 < ready.json > run.json").ok();
    let joined = sandbox.sh(&format!("{open} run() {{ ns-exec --join web \"$@\"; }}; {every}"));
    assert_eq!(joined.stdout, "/proc/sys\n");
    for directory in ["/proc/1/root", "/proc/1/cwd", "/proc/self/root", "/link"] {
        sandbox.sh("ns-exec --join web -- ln -sfn /proc/1/root/proc/1/cwd /link").ok();
        let refused = sandbox.sh(&format!("ns-exec --join web -w {directory} -- pwd")).exits(126);
        assert!(refused.stderr.starts_with("ns-exec: enter directory "), "{}", refused.stderr);
    }
    // The image's own working directory, and that of a build step.
    for directory in ["/proc/self/fd/7", "/proc/self/fd/9", "/link"] {
        let lines = format!("FROM busybox\nRUN ln -s /proc/self/fd/9 /link\nWORKDIR {directory}\n");
        std::fs::write(sandbox.directory().join("Dockerfile"), &lines).unwrap();
        sandbox.sh("img-build -q -t dir . > /dev/null && img-inspect dir > dir.json").ok();
        prepare(&sandbox, "dir");
        let refused = sandbox.sh(&format!("{open} ns-exec -- pwd < ready.json")).exits(125);
        assert!(refused.stderr.starts_with("ns-exec: enter directory "), "{}", refused.stderr);
        std::fs::write(sandbox.directory().join("Dockerfile"), lines + "RUN pwd\n").unwrap();
        let refused = sandbox.sh(&format!("{open} img-build -q -t dir .")).stderr;
        assert!(refused.contains("step 4/4: enter directory "), "{refused}");
    }
}

/// CVE-2025-52565: the terminal was mounted where a symbolic link of the container led, before that place was
/// protected.
#[test]
fn the_console_is_never_mounted_behind_a_link() {
    let sandbox = sandbox(&[]);
    // A prepared `/dev` with its own terminals. Only a privileged container gets this far.
    sandbox.sh("mkdir -p /run/dev/pts; cd /run/dev; echo victim > /run/victim; for d in null zero full random urandom tty; do mknod $d c 1 3; done; mount -t devpts -o newinstance,ptmxmode=666 p pts").ok();
    let start = "ns-exec -t -v /run/dev:/dev -v /run/victim:/victim";
    let mounted = "sh -c 'grep -c \" /dev/console \" /proc/mounts; cat /victim' < ready.json | tr -d '\\r'";
    for make in [
        "ln -s /proc/sys/kernel/core_pattern",
        "ln -s /victim",
        "ln -s ../../../../run/victim",
        "ln -s /none",
        "mkdir",
    ] {
        sandbox.sh(&format!("{make} /run/dev/console")).ok();
        prepare(&sandbox, "busybox");
        let refused = sandbox.sh(&format!("{start} --privileged -- true < ready.json")).exits(125);
        assert_eq!(refused.stderr, "ns-exec: mount \"/dev/console\": No such device or address\n", "{make}");
        sandbox.sh("rm -r /run/dev/console; test ! -e /none && grep -qx victim /run/victim").ok();
    }
    prepare(&sandbox, "busybox");
    assert_eq!(sandbox.sh(&format!("{start} --privileged -- {mounted}")).ok(), "1\nvictim\n");
    prepare(&sandbox, "busybox");
    let refused = sandbox.sh(&format!("{start} -- true < ready.json")).exits(125);
    assert_eq!(refused.stderr, "ns-exec: open a terminal at \"/dev/pts/ptmx\": Permission denied\n");

    // A process that joins mounts nothing. It gets a terminal of the kernel, or none.
    prepare(&sandbox, "busybox");
    sandbox.sh("ns-exec -d --privileged -v /run/victim:/victim -- sleep 1000 < ready.json > run.json").ok();
    let inside = |script: &str| sandbox.sh(&format!("ns-exec --join web -- sh -c '{script}'")).ok();
    inside("ln -s /victim /dev/console");
    sandbox.sh("ns-exec --join web -t -- sh -c 'tty > /seen' > /dev/null").ok();
    assert_eq!(
        inside("cat /seen /victim; grep -c /dev/console /proc/mounts || true"),
        "/dev/pts/0\nvictim\n0\n"
    );
    inside("mount -t tmpfs t /dev/pts");
    for make in ["ln -s /victim", "ln -s /proc/sys/kernel/core_pattern", "ln -s /dev/null", "touch"] {
        inside(&format!("{make} /dev/pts/ptmx"));
        let refused = sandbox.sh("ns-exec --join web -t -- true").exits(125);
        assert!(refused.stderr.starts_with("ns-exec: open a terminal at "), "{make}: {}", refused.stderr);
        inside("rm /dev/pts/ptmx; grep -qx victim /victim");
    }
}
