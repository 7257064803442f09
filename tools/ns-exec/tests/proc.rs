//! Published escapes through a container's `/proc`, each tried by a new process and by one that joins. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_both, both_of, prepare};
use testkit::Sandbox;

/// CVE-2019-16884: if an image had a volume on `/proc`, the runtime's protection was applied to the volume.
#[test]
fn a_volume_over_proc_takes_no_protection_away() {
    let sandbox = Sandbox::with_busybox();
    std::fs::write(
        sandbox.directory().join("Dockerfile"),
        "FROM busybox\nVOLUME /proc /proc/self/attr /proc/sys\n",
    )
    .unwrap();
    sandbox.sh("img-build -q -t vol . > /dev/null && img-inspect vol > vol.json").ok();
    // The kernel's procfs is on top, and masked as usual.
    let script = "cat /proc/interrupts /proc/keys | wc -c; echo x > /proc/sys/kernel/core_pattern; \
        test -e /proc/self/attr/exec && grep Seccomp: /proc/self/status";
    let expected = "0\nsh: can't create /proc/sys/kernel/core_pattern: Read-only file system\nSeccomp:\t2\n";
    for image in ["busybox", "vol"] {
        assert_eq!(both_of(&sandbox, image, "", "", script), [expected, expected], "{image}");
    }
    // The volumes are below it: one more mount for each.
    let mounts = |image| both_of(&sandbox, image, "", "", "grep -c ' /proc' /proc/mounts");
    let counts =
        [mounts("busybox"), mounts("vol")].map(|seen| seen.map(|n| n.trim().parse::<u32>().unwrap()));
    assert_eq!(counts[1], counts[0].map(|plain| plain + 3));
    // The script would detect a path that is not masked.
    let weak =
        both_of(&sandbox, "vol", "", "--security-opt systempaths=unconfined", "cat /proc/interrupts | wc -c");
    assert!(weak.iter().all(|seen| seen != "0\n"), "{weak:?}");
    // The host's whole procfs on top of it is masked like the container's own.
    for flags in ["-v /proc:/proc", "--mount type=bind,src=/proc,dst=/proc"] {
        assert_both(
            &sandbox,
            flags,
            "cat /proc/interrupts /proc/keys | wc -c; echo x > /proc/sys/kernel/core_pattern",
            "0\nsh: can't create /proc/sys/kernel/core_pattern: Read-only file system\n",
        );
    }
    // The same through a symbolic link in the image.
    std::fs::write(sandbox.directory().join("Dockerfile"), "FROM busybox\nRUN rm -r /tmp && ln -s / /tmp\n")
        .unwrap();
    sandbox.sh("img-build -q -t link . > /dev/null && img-inspect link > link.json").ok();
    let [new, joined] = both_of(
        &sandbox,
        "link",
        "",
        "-v /proc:/tmp/proc",
        "echo x > /proc/sys/kernel/core_pattern; wc -c < /proc/keys",
    );
    assert_eq!(new, "sh: can't create /proc/sys/kernel/core_pattern: Read-only file system\n0\n");
    assert_eq!(joined, new);
}

/// Nothing else may be mounted over the kernel's files, except those that lxcfs provides. These are runc's
/// rules.
#[test]
fn what_is_mounted_over_proc() {
    let sandbox = Sandbox::with_busybox();
    let image = "FROM busybox\nRUN rm -r /tmp && ln -s / /tmp\n";
    std::fs::write(sandbox.directory().join("Dockerfile"), image).unwrap();
    sandbox.sh("img-build -q -t link . > /dev/null && img-inspect link > link.json").ok();
    sandbox.sh("mkdir -p /run/own/net && echo mine > /run/own/file").ok();
    let whole = "only a whole procfs can be mounted on \"/proc\"";
    let inside = "it is inside of \"/proc\", where the kernel's own files stay";
    for (flags, object, cause) in [
        ("-v /run/own:/proc", "bind on \"/proc\"", whole),
        ("-v /proc/sys:/proc", "bind on \"/proc\"", whole),
        ("--mount type=bind,src=/run/own,dst=/proc", "bind on \"/proc\"", whole),
        ("--tmpfs /proc", "tmpfs on \"/proc\"", whole),
        ("-v /run/own:/tmp/proc", "bind on \"/tmp/proc\"", whole),
        ("-v /run/own:/proc/sys", "bind on \"/proc/sys\"", inside),
        ("--tmpfs /proc/irq", "tmpfs on \"/proc/irq\"", inside),
        ("-v /run/own:/tmp/proc/sys", "bind on \"/tmp/proc/sys\"", inside),
        ("-v /run/own/file:/proc/self/oom_score_adj", "bind on \"/proc/self/oom_score_adj\"", inside),
        ("-v /proc:/proc -v /run/own:/proc/sys", "bind on \"/proc/sys\"", inside),
        ("-v /run/own:/tmp/dev", "bind on \"/tmp/dev\"", "it leads to \"/dev\" of the container"),
    ] {
        prepare(&sandbox, "link");
        let refused = sandbox.sh(&format!("ns-exec {flags} -- true < ready.json")).exits(125);
        assert_eq!(refused.stderr, format!("ns-exec: mount {object}: {cause}\n"), "{flags}");
    }
    assert_eq!(sandbox.sh("ls /run/own").ok(), "file\nnet\n");
    assert_both(
        &sandbox,
        "-v /run/own/file:/proc/uptime -v /run/own/file:/proc/sys/kernel/ns_last_pid",
        "cat /proc/uptime /proc/sys/kernel/ns_last_pid; echo x > /proc/sys/kernel/core_pattern",
        "mine\nmine\nsh: can't create /proc/sys/kernel/core_pattern: Read-only file system\n",
    );
}

/// CVE-2025-52881: what the runtime wrote below `/proc`, for itself and for the kernel, went to files that
/// the container chose.
#[test]
fn a_proc_that_lies_receives_nothing() {
    let sandbox = Sandbox::with_busybox();
    // A new network namespace has this value of the machine's.
    sandbox.sh("echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    sandbox.sh("mkdir -p /run/own/self/attr /run/own/sys/net/ipv4; cd /run/own; echo victim > /run/victim; for f in self/attr/exec self/attr/current self/oom_score_adj self/setgroups self/uid_map; do echo own > $f; done; ln -s ../../../../victim sys/net/ipv4/ip_forward").ok();
    let untouched = "cat /run/victim; cd /run/own && cat self/*_adj self/attr/* self/setgroups self/uid_map | sort -u; test -L sys/net/ipv4/ip_forward";
    let set = "--sysctl net.ipv4.ip_forward=1 --oom-score-adj 7";
    for volumes in ["-v /run/own:/proc", "-v /run/own/sys:/proc/sys -v /run/victim:/victim"] {
        prepare(&sandbox, "busybox");
        let refused = sandbox.sh(&format!("ns-exec -d {set} {volumes} -- true < ready.json")).exits(125);
        assert!(refused.stderr.starts_with("ns-exec: mount bind on \"/proc"), "{}", refused.stderr);
        assert_eq!(sandbox.sh("cat /proc/sys/net/ipv4/ip_forward").ok(), "0\n");
        assert_eq!(sandbox.sh(untouched).ok(), "victim\nown\n", "{volumes}");
    }
    // The file is writable: the same write by hand works.
    sandbox.sh("echo 1 > /run/own/sys/net/ipv4/ip_forward && grep -qx 1 /run/victim").ok();
}

/// What a process that joins sees of itself, in a procfs that the container has mounted for that.
const ITSELF: &str =
    "cat /kernel/self/oom_score_adj; grep -E '^(Uid|Groups|Cap|NoNewPrivs|Seccomp:)' /kernel/self/status";

/// The same for a process that joins: the container's root has covered `/proc` meanwhile, with files and with links.
#[test]
fn a_proc_that_lies_later_receives_nothing() {
    let sandbox = Sandbox::with_busybox();
    let files = "self/attr/exec self/attr/current self/attr/apparmor/exec self/oom_score_adj self/setgroups \
        self/uid_map self/gid_map self/loginuid self/coredump_filter thread-self/attr/exec \
        thread-self/attr/current sys/kernel/core_pattern sysrq-trigger";
    let cover =
        "mount -t tmpfs t /proc && cd /proc && mkdir -p self/attr/apparmor thread-self/attr sys/kernel";
    let ways = ["", "-u 5:5", "--no-new-privs", "--privileged", "-t"];
    for make in ["echo own >", "ln -s /victim"] {
        prepare(&sandbox, "busybox");
        sandbox
            .sh("ns-exec -d --cap-add SYS_ADMIN --oom-score-adj 7 -- sleep 1000 < ready.json > run.json")
            .ok();
        let inside = |flags: &str, script: &str| {
            std::fs::write(sandbox.directory().join("script"), script).unwrap();
            sandbox.sh(&format!("ns-exec --join web {flags} -- sh -c \"$(cat script)\"")).ok()
        };
        inside("", "echo victim > /victim; chmod 666 /victim; mkdir /kernel && mount -t proc p /kernel");
        let before = ways.map(|flags| inside(flags, ITSELF));
        assert!(before[1].starts_with("7\nUid:\t5\t5\t5\t5\nGroups:\t5 \n"), "{}", before[1]);
        inside("", &format!("{cover} && for f in {files}; do {make} $f; done"));
        assert_eq!(ways.map(|flags| inside(flags, ITSELF)), before, "{make}");
        let lies = format!("cd /proc && cat {files} | sort -u; cat /victim");
        let whole = if make.starts_with("echo") { "own\nvictim\n" } else { "victim\nvictim\n" };
        assert_eq!(inside("", &lies), whole, "{make}");
        // What is written by hand arrives.
        let last = inside("", "echo 1 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj");
        assert_eq!(last, "1\n", "{make}");
    }
}

/// CVE-2025-31133: the runtime took a file of the container for the null device. Masks by such a file are refused
/// (`security.rs`). A process that joins opens nothing there, whatever the container's root has made of it.
#[test]
fn a_null_device_that_is_none_gives_and_receives_nothing() {
    let sandbox = Sandbox::with_busybox();
    prepare(&sandbox, "busybox");
    sandbox.sh("ns-exec -d --cap-add SYS_ADMIN -- sleep 1000 < ready.json > run.json").ok();
    let inside = |script: &str| sandbox.sh(&format!("ns-exec --join web -- sh -c '{script}'")).ok();
    inside("echo victim > /victim && umount -l /dev/null && rm /dev/null && ln -s /victim /dev/null");
    assert_eq!(inside("cat /dev/null; stat -L -c %t:%T /proc/self/fd/0"), "victim\n1:3\n");
    // This is the host's device then, which it cannot change.
    let refused = inside("chmod 666 /proc/self/fd/0 2>&1 | sed s/.*:.//");
    assert_eq!(refused, "Read-only file system\n");
    sandbox.sh("ns-exec --join web -d -- sh -c 'echo lost; cat > /copy; touch /done'").ok();
    inside("until test -e /done; do sleep 0.02; done");
    assert_eq!(inside("cat /victim /copy /proc/interrupts /proc/keys"), "victim\n");
}

/// Prints `kernel` for each place with a procfs, and what is not protected there. Enters each place first, because others
/// exchange them meanwhile, and runs no program: busybox looks for its own in `/proc`.
const LOOK: &str = "for d in /proc /link /vol/p; do (
    cd $d 2>/dev/null && [ -e self/status ] || exit
    echo kernel
    (: >> sys/kernel/core_pattern) 2>/dev/null && echo writable
    read -r line < interrupts && echo readable); done; true";

/// CVE-2019-19921 and CVE-2023-27561: `/proc` became a link into a directory of another container while the masks were
/// laid, or afterwards.
#[test]
fn a_proc_that_moves_stays_masked() {
    let sandbox = Sandbox::with_busybox();
    std::fs::write(sandbox.directory().join("script"), LOOK).unwrap();
    sandbox
        .sh("cd /run && mkdir -p rootfs/bin rootfs/dev rootfs/sys rootfs/proc && cd rootfs
            cp /bin/busybox bin && for a in sh sleep; do ln -s busybox bin/$a; done; ln -s vol/p link
            mkdir -p vol/p && cd vol/p && mkdir -p acpi asound bus fs irq scsi sys/kernel self/attr
            for f in interrupts kcore keys latency_stats timer_list sysrq-trigger; do : > $f; done
            for f in self/attr/exec self/attr/current self/oom_score_adj self/setgroups; do echo own > $f; done")
        .ok();
    let swap = "import ctypes, time\nc = ctypes.CDLL(None).renameat2\n\
        while True: c(-100, b'/run/rootfs/proc', -100, b'/run/rootfs/link', 2); time.sleep(0.0005)\n";
    std::fs::write(sandbox.directory().join("swap.py"), swap).unwrap();
    let new = |flags: &str| {
        let start =
            format!("ns-exec -n --id new --rootfs /run/rootfs {flags} -- /bin/sh -c \"$(cat script)\"");
        sandbox.sh(&format!("{start}; s=$?; unwind -q new > /dev/null; exit $s"))
    };
    assert_eq!(new("").ok(), "kernel\n");
    // The script finds what is not masked.
    assert_eq!(new("--security-opt systempaths=unconfined").ok(), "kernel\nwritable\nreadable\n");
    sandbox.sh("ns-exec -n --id web --rootfs /run/rootfs -d -- /bin/sleep 1000 > run.json").ok();

    sandbox.sh("python3 swap.py > /dev/null 2>&1 & echo $! > swap.pid").ok();
    let (mut started, mut refused, mut joined) = (0, 0, 0);
    for _ in 0..100 {
        let outcome = new("");
        match outcome.status {
            0 => started += 1,
            _ => refused += 1,
        }
        assert!(outcome.stdout.lines().all(|line| line == "kernel"), "{}", outcome.stdout);
        assert!(outcome.stderr.lines().count() <= 1, "{}", outcome.stderr);
        let seen = sandbox.sh("ns-exec --join web -- /bin/sh -c \"$(cat script)\"").ok();
        joined += seen.lines().filter(|line| *line == "kernel").count();
        assert!(seen.lines().all(|line| line == "kernel"), "{seen}");
    }
    sandbox.sh("kill $(cat swap.pid)").ok();
    assert!(
        started > 0 && refused > 0 && joined > 0,
        "{started} started, {refused} refused, {joined} joined"
    );
    let written =
        "find /run/rootfs/vol -type f -size +0 | wc -l; cat $(find /run/rootfs/vol -type f) | sort -u";
    assert_eq!(sandbox.sh(written).ok(), "4\nown\n");
}
