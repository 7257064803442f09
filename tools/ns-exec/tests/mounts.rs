//! `--mount`, seen from inside by a new process and by one that joins. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_both, prepare};
use testkit::Sandbox;

/// A directory of the host that contains another file system.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mkdir -p /run/host/sub && echo top > /run/host/file && mount -t tmpfs t /run/host/sub && echo below > /run/host/sub/file").ok();
    sandbox
}

#[test]
fn directories_and_files_of_the_host() {
    let sandbox = sandbox();
    let write = "for f in /x/new /x/sub/new; do echo $f > $f; done 2>&1; cat /x/file /x/sub/file 2>&1";
    let refused = |file: &str| format!("sh: can't create {file}: Read-only file system\n");
    let missing = "cat: can't open '/x/sub/file': No such file or directory\n";
    let bind = "--mount type=bind,source=/run/host,target=/x";
    for (flags, seen) in [
        (bind.to_owned(), "top\nbelow\n".to_owned()),
        (format!("{bind},readonly"), refused("/x/new") + &refused("/x/sub/new") + "top\nbelow\n"),
        (format!("{bind},ro=true,bind-recursive=writable"), refused("/x/new") + "top\nbelow\n"),
        (format!("{bind},bind-nonrecursive"), format!("top\n{missing}")),
        (
            format!("{bind},bind-recursive=disabled,ro"),
            refused("/x/new") + &refused("/x/sub/new") + "top\n" + missing,
        ),
    ] {
        assert_both(&sandbox, &flags, write, &seen);
        sandbox.sh("rm -f /run/host/new /run/host/sub/new; umount /run/host/sub; rm -f /run/host/sub/new; mount -t tmpfs t /run/host/sub; echo below > /run/host/sub/file").ok();
    }
    // A name with a comma, a source in the working directory, and a file that replaces the container's own.
    sandbox.sh("mkdir 'a,b' && echo comma > 'a,b/file' && echo 192.0.2.9 other > hosts").ok();
    assert_both(
        &sandbox,
        "--mount 'type=bind,\"src=./a,b\",dst=/x,ro' --mount type=bind,src=./hosts,dst=/etc/hosts",
        "cat /x/file /etc/hosts",
        "comma\n192.0.2.9 other\n",
    );
    // A mount below another comes after it. Devices in it do not open.
    sandbox.sh("mknod /run/host/kmsg c 1 11").ok();
    assert_both(
        &sandbox,
        "--mount type=tmpfs,target=/x/sub/deep --mount type=bind,src=/run/host,dst=/x",
        "grep -o ' /x[^ ]* ' /proc/mounts; head -c 1 /x/kmsg",
        " /x \n /x/sub \n /x/sub/deep \nhead: /x/kmsg: Permission denied\n",
    );
}

/// As with docker: a mount replaces a device, and the target is read by its spelling.
#[test]
fn a_file_over_a_device_and_a_target_that_goes_up() {
    let sandbox = sandbox();
    assert_both(
        &sandbox,
        "-v /run/host/file:/dev/full -v /run/host/file:/tmp/../x/../../y",
        "cat /dev/full /y",
        "top\ntop\n",
    );
}

#[test]
fn file_systems_in_memory() {
    let sandbox = sandbox();
    assert_both(
        &sandbox,
        "--mount type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=0750 --mount type=tmpfs,target=/y,ro",
        "stat -c %a /x /y; head -c 2000000 /dev/zero > /x/big; wc -c < /x/big; touch /y/new",
        "750\n1777\nhead: standard output: I/O error\n1048576\ntouch: /y/new: Read-only file system\n",
    );
    assert_both(
        &sandbox,
        "--mount type=tmpfs,target=/x",
        "grep -c ' /x tmpfs rw,nosuid,nodev,noexec' /proc/mounts",
        "1\n",
    );
}

#[test]
fn mounts_spread_as_asked() {
    let sandbox = sandbox();
    sandbox.sh("mkdir /run/spread && mount -t tmpfs t /run/spread && mount --make-shared /run/spread && mkdir /run/spread/late /run/spread/own").ok();
    for (propagation, in_container, on_host) in [("rprivate", 0, 0), ("rslave", 1, 0), ("rshared", 1, 1)] {
        prepare(&sandbox, "busybox");
        let flags = format!(
            "--cap-add SYS_ADMIN --mount type=bind,src=/run/spread,dst=/x,bind-propagation={propagation}"
        );
        sandbox.sh(&format!("ns-exec -d {flags} -- sleep 1000 < ready.json > run.json")).ok();
        sandbox.sh("mount -t tmpfs t /run/spread/late").ok();
        let seen =
            sandbox.sh("ns-exec --join web -- sh -c 'mount -t tmpfs t /x/own; grep -c /x/late /proc/mounts'");
        assert_eq!(seen.stdout, format!("{in_container}\n"), "{propagation}: {}", seen.stderr);
        let host = sandbox.sh("grep -c /run/spread/own /proc/mounts");
        assert_eq!(host.stdout, format!("{on_host}\n"), "{propagation}");
        sandbox
            .sh("unwind web > /dev/null; umount /run/spread/late; umount /run/spread/own 2> /dev/null; :")
            .ok();
    }
    prepare(&sandbox, "busybox");
    let refused = sandbox
        .sh("ns-exec --mount type=bind,src=/run/host,dst=/x,bind-propagation=shared -- true < ready.json");
    assert_eq!(
        refused.exits(125).stderr,
        "ns-exec: mount \"/run/host\": bind-propagation=shared needs a shared mount, and \"/run\" is none\n\
         hint: `mount --make-rshared /run` makes it one\n"
    );
}

#[test]
fn what_cannot_be_mounted_is_named() {
    let sandbox = sandbox();
    prepare(&sandbox, "busybox");
    for (flags, error) in [
        (
            "--mount type=bind,src=/run/missing,dst=/x",
            "ns-exec: find mount source \"/run/missing\": No such file or directory\n",
        ),
        (
            "-v /run/host:/x --mount type=tmpfs,dst=/x",
            "ns-exec: mount two things on \"/x\": only one would be seen\n",
        ),
        (
            "--mount type=volume,src=data,dst=/x",
            "ns-exec: invalid value 'type=volume,src=data,dst=/x' for '--mount <FIELD=VALUE,…>': a volume belongs to the root file system: union-mount -v NAME:/PATH mounts it\n",
        ),
    ] {
        let refused = sandbox.sh(&format!("ns-exec {flags} -- true < ready.json"));
        assert!(refused.stderr.starts_with(error), "{}", refused.stderr);
        assert_eq!(refused.status, 125);
    }
    assert_eq!(sandbox.sh("test -e /run/missing").status, 1);
    // A symbolic link in the image cannot lead outside the container.
    sandbox.sh("ln -s ../../../../run/host \"$STAVE_ROOT\"/containers/web/rootfs/link").ok();
    sandbox
        .sh("ns-exec --mount type=tmpfs,dst=/link/made -- sh -c 'echo in > /run/host/made/file' < ready.json")
        .ok();
    assert_eq!(sandbox.sh("test -e /run/host/made").status, 1);
}
