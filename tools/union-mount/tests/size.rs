//! `--size`: a container cannot write more than the limit. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::time::Duration;

use testkit::{Sandbox, wait_for};

/// Runs a script in a container with such a root file system.
fn run(sandbox: &Sandbox, flags: &str, script: &str) -> String {
    std::fs::write(sandbox.directory().join("script"), script).unwrap();
    let pipe = format!(
        "layer-apply --id web < busybox.json | union-mount {flags} | tee mounted.json |
         ns-exec --document run.json -- sh -c \"$(cat script)\" 2>&1"
    );
    sandbox.sh(&pipe).ok()
}

/// The loop devices of files below `$STAVE_ROOT`. The kernel releases a device a moment after its
/// mount.
fn loops(sandbox: &Sandbox) -> usize {
    let files = sandbox.sh("cat /sys/block/loop*/loop/backing_file 2> /dev/null").stdout;
    files.lines().filter(|file| file.starts_with(sandbox.root().to_str().unwrap())).count()
}

#[test]
fn no_more_can_be_written_than_that() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let script = "dd if=/dev/zero of=/full bs=64k; stat -c %s /full; rm /full
        echo small > /etc/small && mv /bin/ls /bin/other && rm -r /www && chown 1:1 /bin/busybox && cat /etc/small
        dd if=/dev/zero of=/etc/hosts bs=64k 2> /dev/null; stat -c %s /etc/hosts; echo > /etc/hosts
        mknod /device c 1 3; stat -c '%a %u' /";
    let said = run(&sandbox, "--size 8m", script);
    assert!(said.contains("No space left on device"), "{said}");
    // The file that the container gets from its host is in the same room.
    let sizes: Vec<u64> = said.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(sizes.len(), 2, "{said}");
    assert!(sizes.iter().all(|size| (6 << 20..=9 << 20).contains(size)), "{said}");
    assert!(said.contains("small\n") && said.ends_with("755 0\n"), "{said}");
    // The image takes as much of the host's disk as its files do; removed files take none.
    let taken = sandbox.sh("du -k $STAVE_ROOT/containers/web/top.ext4 | cut -f1").ok();
    assert!(taken.trim().parse::<u64>().unwrap() < 4096, "{taken}");
    assert_eq!(loops(&sandbox), 1);
    sandbox.sh("union-mount --check < mounted.json > /dev/null").ok();
    sandbox.sh("img-commit -q -t mine < run.json > /dev/null && img-inspect mine > mine.json && unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
    wait_for("the end of the loop device", Duration::from_secs(60), || loops(&sandbox) == 0);
    let again = "layer-apply --id two < mine.json | union-mount --size 1m | ns-exec --document /dev/null --";
    let seen = sandbox.sh(&format!("{again} sh -c 'cat /etc/small; test -e /www || echo gone'")).ok();
    assert_eq!(seen, "small\ngone\n");
    sandbox.sh("unwind two > /dev/null").ok();
}

#[test]
fn a_durable_one_is_there_after_a_restart() {
    let sandbox = Sandbox::with_busybox();
    run(&sandbox, "--size 8m --durable", "echo kept > /kept");
    sandbox.sh("ns-exec --undo < run.json > mounted.json").ok();
    // As after a restart: nothing is mounted.
    let containers = "cd $STAVE_ROOT/containers/web";
    sandbox.sh(&format!("({containers}; umount rootfs top)")).ok();
    sandbox.sh("union-mount --check < mounted.json > /dev/null").exits(1);
    sandbox.sh("union-mount --repair < mounted.json > /dev/null").ok();
    let seen = sandbox.sh("ns-exec --document /dev/null -- cat /kept < mounted.json").ok();
    assert_eq!(seen, "kept\n");
    sandbox.sh("unwind web > /dev/null").ok();
    wait_for("the end of the loop device", Duration::from_secs(60), || loops(&sandbox) == 0);
}

#[test]
fn explained_and_refused() {
    let sandbox = Sandbox::with_busybox();
    let lines = sandbox.sh("layer-apply --id web < busybox.json | union-mount --size 1g --explain").ok();
    for line in [
        "mke2fs -t ext4 -m 0 -i 4096 -O '^has_journal' $C/top.ext4 1048576k",
        "mount -t ext4 -o loop,nodev,nosuid,discard,nobarrier $C/top.ext4 $C/top",
        "install -d -m 0755 -o 0 -g 0 $C/top/upper",
    ] {
        let line = line.replace("$C", sandbox.root().join("containers/web").to_str().unwrap());
        assert!(lines.lines().any(|found| found == line), "{line}: {lines}");
    }
    for (size, why) in [("1k", "at least 1m"), ("9t", "at most 8t"), ("x", "a number")] {
        let outcome = sandbox.sh(&format!("union-mount --size {size} < busybox.json")).exits(2);
        assert!(outcome.stderr.contains(why), "{outcome:?}");
    }
    sandbox.sh("union-mount --size 1g --read-only < busybox.json").exits(2);
    std::fs::write(sandbox.directory().join("busybox.tar"), testkit::busybox()).unwrap();
    let user = "unshare --user --map-root-user --mount sh -c 'export STAVE_ROOT=/tmp/$$ STAVE_RUN=/tmp/$$.run
        img-load -q -t busybox busybox.tar | layer-apply --id own | union-mount --size 1m > /dev/null; rm -r /tmp/$$*'";
    let outcome = sandbox.sh(user);
    assert!(
        outcome.stderr.starts_with(
            "union-mount: limit the root file system to 1048576 bytes: it is a file system of its own"
        ),
        "{outcome:?}"
    );
}
