//! `--device`, seen from inside by a new process and by one that joins. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_both, compile, prepare};
use testkit::Sandbox;

/// Opens each device for reading and for writing.
const OPEN: &str = "for d in $DEVICES; do (: < $d) 2>&1 && echo reads; (: >> $d) 2>&1 && echo writes; done";

#[test]
fn a_device_with_the_rights_that_were_given() {
    let sandbox = Sandbox::with_busybox();
    // The control device of loop devices, which no container may use by default. Its node has an owner and a
    // group.
    sandbox.sh("mknod -m 640 /run/loop c 10 237 && chown 33:44 /run/loop && ln -s /run/loop /run/link").ok();
    let stat = "stat -c '%t:%T %a %u:%g' /dev/loop; ";
    let denied = |verb: &str| format!("sh: can't {verb} /dev/loop: Operation not permitted\n");
    for (device, seen) in [
        ("/run/loop:/dev/loop", "a:ed 640 33:44\nreads\nwrites\n".to_owned()),
        ("/run/link:/dev/loop:rm", "a:ed 640 33:44\nreads\n".to_owned() + &denied("create")),
        ("/run/loop:/dev/loop:w", "a:ed 640 33:44\n".to_owned() + &denied("open") + "writes\n"),
    ] {
        let script = stat.to_owned() + &OPEN.replace("$DEVICES", "/dev/loop");
        assert_both(&sandbox, &format!("--device {device}"), &script, &seen);
    }
    // Outside /dev, where a second start finds the node of the first one.
    prepare(&sandbox, "busybox");
    let open = OPEN.replace("$DEVICES", "/srv/deep/loop");
    for id in ["one", "two"] {
        let run = format!(
            "ns-exec -n --id {id} --rootfs \"$STAVE_ROOT\"/containers/web/rootfs --device /run/loop:/srv/deep/loop"
        );
        assert_eq!(sandbox.sh(&format!("{run} -- sh -c '{open}'")).ok(), "reads\nwrites\n");
    }
    sandbox.sh("unwind one two > /dev/null").ok();
    // A copy that the container makes itself does not open, even if the list allows it.
    let copy = "mknod /root-made c 10 237; : < /root-made";
    assert_both(
        &sandbox,
        "--device /run/loop:/dev/loop",
        copy,
        "sh: can't open /root-made: Permission denied\n",
    );
    // It can replace a standard device, and be used together with all devices of the host.
    assert_both(&sandbox, "--device /run/loop:/dev/full", "stat -c %t:%T /dev/full", "a:ed\n");
    assert_both(&sandbox, "--privileged --device /run/loop:/dev/mine", "stat -c %t:%T /dev/mine", "a:ed\n");
}

#[test]
fn a_directory_of_devices() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mkdir -p /run/snd/by/id && mknod /run/snd/a c 1 5 && mknod /run/snd/by/id/b c 1 7 && echo no > /run/snd/file && ln -s a /run/snd/link").ok();
    assert_both(
        &sandbox,
        "--device /run/snd:/dev/sound",
        "cd /dev/sound; find . -type c | sort; find . -type f -o -type l; echo x > by/id/b",
        "./a\n./by/id/b\nsh: write error: No space left on device\n",
    );
}

#[test]
fn rules_for_devices_that_the_container_makes() {
    let sandbox = Sandbox::with_busybox();
    let make =
        format!("mknod /made c 10 237; mknod /other b 7 0; {}", OPEN.replace("$DEVICES", "/made /other"));
    let denied = |name: &str| {
        format!(
            "sh: can't open /{name}: Operation not permitted\nsh: can't create /{name}: Operation not permitted\n"
        )
    };
    assert_both(
        &sandbox,
        "--device-cgroup-rule 'c 10:* rw'",
        &make,
        &("reads\nwrites\n".to_owned() + &denied("other")),
    );
    assert_both(&sandbox, "--device-cgroup-rule 'c 11:237 rw'", &make, &(denied("made") + &denied("other")));
}

#[test]
fn in_a_user_namespace_the_node_of_the_host() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.directory().join("busybox.tar"), testkit::busybox()).unwrap();
    sandbox.sh("mkdir rootfs && tar -xf busybox.tar -C rootfs").ok();
    let run = "unshare -Urmpf --mount-proc ns-exec -n --rootfs $PWD/rootfs";
    let seen = sandbox.sh(&format!("{run} --device /dev/full:/dev/mine -- sh -c 'echo x > /dev/mine' 2>&1"));
    assert!(seen.stdout.ends_with("sh: write error: No space left on device\n"), "{}", seen.stdout);
    let refused = sandbox.sh(&format!("{run} --device-cgroup-rule 'c 1:* r' -- true")).exits(125);
    let error = "ns-exec: add to the list of devices: only root of the machine gives a container one, in a cgroup of its own\n";
    assert!(refused.stderr.ends_with(error), "{}", refused.stderr);
}

#[test]
fn what_is_no_device_is_refused() {
    let sandbox = Sandbox::with_busybox();
    prepare(&sandbox, "busybox");
    sandbox.sh("mkdir /run/empty").ok();
    for (flags, error) in [
        ("--device /run/missing", "find device \"/run/missing\": No such file or directory"),
        (
            "--device /run/empty",
            "find device \"/run/empty\": it is neither a device nor a directory with devices",
        ),
        (
            "--device /etc/passwd",
            "find device \"/etc/passwd\": it is neither a device nor a directory with devices",
        ),
        ("--device /dev/full -v /run/empty:/dev", "make devices in \"/dev\": it is a directory of the host"),
    ] {
        let refused = sandbox.sh(&format!("ns-exec {flags} -- true < ready.json")).exits(125);
        assert_eq!(refused.stderr, format!("ns-exec: {error}\n"));
    }
}

/// Takes the programs for devices off the container's cgroup, with the command as it is, and with other bits above the 32
/// that the kernel looks at.
const DETACH: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static union bpf_attr of;
static long bpf(long command) { return syscall(SYS_bpf, command, &of, sizeof of); }
int main(void) {
    unsigned ids[64];
    int cgroup = open("/sys/fs/cgroup", O_RDONLY);
    of.query.target_fd = cgroup, of.query.attach_type = BPF_CGROUP_DEVICE;
    of.query.prog_ids = (long)ids, of.query.prog_cnt = 64;
    if (bpf(BPF_PROG_QUERY) || of.query.prog_cnt != 1) return puts("it sees no program"), 1;
    memset(&of, 0, sizeof of);
    of.prog_id = ids[0];
    int program = bpf(BPF_PROG_GET_FD_BY_ID);
    for (long high = 0; high < 2; high++) {
        memset(&of, 0, sizeof of);
        of.target_fd = cgroup, of.attach_bpf_fd = program, of.attach_type = BPF_CGROUP_DEVICE;
        errno = 0;
        bpf(BPF_PROG_DETACH | high << 32);
        puts(strerror(errno));
    }
}
"#;

#[test]
fn a_container_does_not_take_off_its_list() {
    let sandbox = Sandbox::with_busybox();
    compile(&sandbox, "detach", DETACH);
    let script =
        "mount -t tmpfs none /tmp && mknod /tmp/loop c 10 237; /detach; true < /tmp/loop && echo open";
    let flags = "-v /run/detach:/detach --cap-add SYS_ADMIN";
    let refused = "Operation not permitted\n";
    assert_both(&sandbox, flags, script, &format!("{refused}{refused}sh: can't open /tmp/loop: {refused}"));
    // One that has the capability for such programs by name may do as it likes.
    let taken = "Success\nNo such file or directory\nopen\n";
    assert_both(&sandbox, &format!("{flags} --cap-add BPF"), script, taken);
}
