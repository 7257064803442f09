//! Containers in their own user namespace, for a new process and for one that joins. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::ready;
use testkit::{Outcome, Sandbox};

#[track_caller]
fn prepare(sandbox: &Sandbox, root: &str) {
    common::prepare_with(sandbox, "busybox", root);
}

#[track_caller]
fn both(sandbox: &Sandbox, root: &str, flags: &str, script: &str) -> [String; 2] {
    common::both_with(sandbox, "busybox", root, "", flags, script)
}

#[track_caller]
fn assert_both(sandbox: &Sandbox, root: &str, flags: &str, script: &str, expected: &str) {
    assert_eq!(both(sandbox, root, flags, script), [expected, expected], "{root} {flags}: {script}");
}

#[test]
fn its_root_is_nobody_outside_and_its_files_are_roots_on_the_disk() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let host = sandbox.sh("readlink /proc/self/ns/user").ok();
    prepare(&sandbox, "--userns 0:500000:65536");
    sandbox.sh("ns-exec -d -- sh -c 'touch /mine; chown 7:8 /mine; mkdir /etc/own; rm /bin/vi; exec sleep 1000' < ready.json > web.json").ok();
    sandbox.sh("ns-exec --join web -- mkdir -p /srv/new").ok();
    sandbox.sh("ns-exec --join web -u 33:34 -w /srv/new -d -- sleep 1001").ok();
    // From outside.
    let owner = |command: &str| {
        sandbox.sh(&format!("until pgrep -xf '{command}' > /dev/null; do sleep 0.02; done; stat -c %u:%g /proc/$(pgrep -xf '{command}')")).ok()
    };
    assert_eq!(owner("sleep 1000"), "500000:500000\n");
    assert_eq!(owner("sleep 1001"), "500033:500034\n");
    let pid = "$(jq .process.pid web.json)";
    assert_eq!(
        sandbox.sh(&format!("cat /proc/{pid}/uid_map /proc/{pid}/gid_map | tr -s ' '")).ok(),
        " 0 500000 65536\n".repeat(2)
    );
    let theirs = sandbox.sh(&format!("readlink /proc/{pid}/ns/user")).ok();
    assert_ne!(theirs, host);
    // From inside.
    let look = "stat -c '%u:%g %n' /mine /etc/own /srv/new /bin /dev /dev/null /dev/shm /dev/pts/ptmx /etc/hosts /proc/1; id -u; readlink /proc/self/ns/user";
    let seen = sandbox.sh(&format!("ns-exec --join web -- sh -c \"{look}\"")).ok();
    let root = [
        "/etc/own",
        "/srv/new",
        "/bin",
        "/dev",
        "/dev/null",
        "/dev/shm",
        "/dev/pts/ptmx",
        "/etc/hosts",
        "/proc/1",
    ];
    let root: String = root.iter().map(|name| format!("0:0 {name}\n")).collect();
    assert_eq!(seen, format!("7:8 /mine\n{root}0\n{theirs}"));
    // On the disk, where an image of the container is made from.
    let upper = "$(jq -r .rootfs.upper web.json)";
    let disk = sandbox.sh(&format!("cd {upper} && stat -c '%u:%g %F %n' mine etc/own srv/new bin/vi")).ok();
    assert_eq!(
        disk,
        "7:8 regular empty file mine\n0:0 directory etc/own\n0:0 directory srv/new\n0:0 character special file bin/vi\n"
    );
    assert_eq!(sandbox.sh("union-mount --check < web.json > /dev/null; img-commit -t new < web.json > new.json && img-inspect new | layer-apply --id second | union-mount | ns-exec -- stat -c %u:%g /mine /bin").ok(), "7:8\n0:0\n");
    sandbox.sh("unwind second web > /dev/null").ok();
    assert!(sandbox.sh("pgrep -xf 'sleep 100[01]'").status != 0);
    sandbox.assert_as(&before);
}

#[test]
fn each_container_has_other_ids_and_gives_them_back() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let start = |id: &str, flags: &str| -> Outcome {
        sandbox.sh(&format!("layer-apply --id {id} < busybox.json | union-mount --userns {flags} | ns-exec -d -- sleep 1000 > {id}.json"))
    };
    for id in ["first", "second"] {
        start(id, "auto").ok();
    }
    let ids = |id: &str| -> u32 {
        let map = sandbox.sh(&format!("cat /proc/$(jq .process.pid {id}.json)/uid_map")).ok();
        let numbers: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert_eq!((numbers[0], numbers[2]), (0, 65536));
        numbers[1]
    };
    assert!(ids("first").abs_diff(ids("second")) >= 65536);
    // The first id range depends on the container's name. If the second container has it already, the next
    // one is used.
    let taken = format!(
        "mkdir -p $STAVE_RUN/shared/ids-{} && touch $STAVE_RUN/shared/ids-{}/other",
        ids("first"),
        ids("first")
    );
    let earlier = ids("first");
    sandbox.sh("unwind first").ok();
    sandbox.sh(&taken).ok();
    start("first", "auto:size=65536").ok();
    assert_ne!(ids("first"), earlier);
    sandbox.sh(&format!("unwind first second; rm -r $STAVE_RUN/shared/ids-{earlier}; rmdir $STAVE_RUN/shared 2> /dev/null; true")).ok();
    sandbox.assert_as(&before);
}

#[test]
fn capabilities_and_devices_still_hold() {
    let sandbox = Sandbox::with_busybox();
    let root = "--userns auto";
    let caps = "grep -h Cap /proc/self/status | tr -d '\\t' | tr '\\n' ' '";
    let plain = both(&sandbox, "", "", caps);
    assert_eq!(both(&sandbox, root, "", caps), plain, "the sets are Docker's");
    assert_both(
        &sandbox,
        root,
        "--cap-drop ALL",
        "grep CapPrm /proc/self/status",
        "CapPrm:\t0000000000000000\n",
    );
    assert_both(
        &sandbox,
        root,
        "",
        "grep Seccomp: /proc/self/status; grep -c . /proc/self/cgroup > /dev/null && grep ^0: /proc/self/cgroup",
        "Seccomp:\t2\n0::/\n",
    );
    assert_both(
        &sandbox,
        root,
        "",
        "mknod /x c 1 3 2>&1; echo x > /dev/null && head -c 1 /dev/zero | wc -c",
        "mknod: /x: Operation not permitted\n1\n",
    );
    assert_both(&sandbox, root, "--init", "id -u; stat -c %u /proc/1", "0\n0\n");
    assert_both(
        &sandbox,
        root,
        "--device /dev/full:/dev/other:rw",
        "echo x > /dev/other",
        "sh: write error: No space left on device\n",
    );
    // With all capabilities over its own ids, but none over the host.
    let flags = "--cap-add ALL --security-opt seccomp=unconfined";
    assert_both(
        &sandbox,
        root,
        flags,
        "umount /proc/keys 2>&1; mount -t tmpfs none /tmp 2>&1; hostname x 2>&1; (echo x > /proc/sys/kernel/core_pattern) 2>&1",
        "umount: can't unmount /proc/keys: Operation not permitted\nmount: permission denied (are you root?)\n\
         hostname: sethostname: Operation not permitted\nsh: can't create /proc/sys/kernel/core_pattern: Read-only file system\n",
    );
}

#[test]
fn limits_and_streams_still_hold() {
    let sandbox = Sandbox::with_busybox();
    let root = "--userns auto";
    // The document's cgroup with its limits.
    let bomb = "ns-exec -- sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 2 & done; echo over'";
    let limited = "layer-apply --id web < busybox.json | union-mount --userns auto | cgroup-limit --pids 5";
    let said = sandbox.sh(&format!("{limited} | {bomb}; unwind web > /dev/null"));
    assert!(said.stderr.contains("can't fork"), "{said:?}");
    // Its standard output can be opened, and a terminal too.
    prepare(&sandbox, root);
    assert_eq!(
        sandbox.sh("ns-exec -- sh -c 'echo out > /dev/stdout' < ready.json > out; cat out").ok(),
        "out\n"
    );
    prepare(&sandbox, root);
    assert_eq!(
        sandbox.sh("ns-exec -u 1000 -- sh -c 'echo out > /dev/stdout' < ready.json | cat").ok(),
        "out\n"
    );
    prepare(&sandbox, root);
    let terminal = "script -qec \"ns-exec -t --from ready.json -- sh -c 'stat -c %u:%t \\$(readlink /proc/self/fd/0); echo t > /dev/tty'\" /dev/null < /dev/null | tr -d '\\r'";
    // script(1) shows the end of its input as ^@.
    assert_eq!(sandbox.sh(terminal).ok().replace("^@", ""), "0:88\nt\n");
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn volumes_show_their_owners_if_they_are_asked_to() {
    let sandbox = Sandbox::with_busybox();
    sandbox
        .sh("mkdir -p host && touch host/roots host/users && chown 1000:1000 host/users && chmod 777 host")
        .ok();
    let root = "--userns 0:500000:65536";
    let look = "stat -c %u:%g /data/roots /data/users";
    assert_both(&sandbox, root, "-v $PWD/host:/data", look, "65534:65534\n65534:65534\n");
    assert_both(&sandbox, root, "-v $PWD/host:/data:idmap", look, "0:0\n1000:1000\n");
    assert_both(&sandbox, &format!("{root} -v $PWD/host:/data:ro,idmap"), "", look, "0:0\n1000:1000\n");
    assert_both(&sandbox, root, "-v $PWD/host:/data:idmap -u 33", "touch /data/new", "");
    assert_eq!(sandbox.sh("stat -c %u:%g host/new; rm host/new").ok(), "33:0\n");
    assert_both(&sandbox, root, "--tmpfs /t:uid=5,gid=6", "stat -c %u:%g /t", "5:6\n");
    // A volume declared by the image belongs to the container's root.
    sandbox.sh("printf 'FROM busybox\\nRUN mkdir /vol && touch /vol/x && chown 7 /vol/x\\nVOLUME /vol\\n' > Dockerfile && img-build -t vol . > vol.json").ok();
    let volume =
        "layer-apply --id web < vol.json | union-mount --userns auto | ns-exec -- stat -c %u /vol /vol/x";
    assert_eq!(sandbox.sh(&format!("{volume}; unwind web > /dev/null")).ok(), "0\n7\n");
}

#[test]
fn a_directory_of_its_own_and_layers_as_images() {
    let sandbox = ready("");
    // Here the upper directory is a whole root file system: busybox copied to a tmpfs.
    sandbox.sh("mkdir tree && cp -a $(jq -r .rootfs.path ready.json)/. tree/ && unwind web > /dev/null").ok();
    let look = "sh -c 'id -u; stat -c %u /bin; touch /made; stat -c %u /made'";
    let run = format!("ns-exec -n --id web --rootfs $PWD/tree --userns auto -- {look}");
    assert_eq!(
        sandbox.sh(&format!("{run}; unwind web > /dev/null; stat -c %u tree/made; rm tree/made")).ok(),
        "0\n0\n0\n0\n"
    );
    let erofs = "layer-apply --format erofs --id web < busybox.json | union-mount --userns auto | ns-exec -- stat -c %u /bin";
    assert_eq!(sandbox.sh(&format!("{erofs}; unwind web > /dev/null")).ok(), "0\n");
    let read_only = "layer-apply --id web < busybox.json | union-mount --read-only --userns auto | ns-exec -- sh -c 'id -u; touch /x' 2>&1";
    assert_eq!(
        sandbox.sh(&format!("{read_only}; unwind web > /dev/null")).ok(),
        "0\ntouch: /x: Read-only file system\n"
    );
    let sized = "layer-apply --id web < busybox.json | union-mount --size 8m --userns auto | ns-exec -- sh -c 'touch /x; stat -c %u /x; df -m / | grep -c web'";
    assert_eq!(sandbox.sh(&format!("{sized}; unwind web > /dev/null")).ok(), "0\n1\n");
    let durable = "layer-apply --id web < busybox.json | union-mount --durable --userns auto | ns-exec -- touch /x && unwind web > /dev/null";
    sandbox.sh(durable).ok();
    sandbox.sh("layer-apply --id web < busybox.json | union-mount --userns host | ns-exec --userns host -- cat /proc/self/uid_map && unwind web > /dev/null").ok();
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let sandbox = Sandbox::with_busybox();
    for (root, flags, message) in [
        ("", "--userns auto", "ns-exec: the root file system was not made for a user namespace"),
        (
            "--userns auto",
            "--userns host",
            "ns-exec: --userns names another user namespace than the root file system was made for",
        ),
        (
            "--userns 0:500000:10",
            "--userns 0:500000:11",
            "ns-exec: --userns names another user namespace than the root file system was made for",
        ),
        (
            "--userns auto:size=100",
            "-u 100",
            "ns-exec: become user 100: it has no mapping in the container's user namespace",
        ),
        (
            "--userns auto:size=100",
            "-u 1:100",
            "ns-exec: become group 100: it has no mapping in the container's user namespace",
        ),
        (
            "--userns auto",
            "--privileged",
            "ns-exec: --privileged gives rights over the machine, which a user namespace takes away: leave out one of them",
        ),
        (
            "",
            "-v /etc:/data:idmap",
            "ns-exec: map owners of volume \"/etc\": the container has no user namespace of its own: --userns",
        ),
        ("--userns auto", "-v /proc:/data:idmap", "ns-exec: map owners of \"/data\": Invalid argument"),
    ] {
        prepare(&sandbox, root);
        let refused = sandbox.sh(&format!("ns-exec {flags} -- true < ready.json")).exits(125);
        assert_eq!(refused.stderr.lines().next(), Some(message), "{root} {flags}");
    }
    sandbox.sh("unwind web > /dev/null").ok();
    for (flags, message) in [
        (
            "--userns keep-id",
            "union-mount: invalid value 'keep-id' for '--userns <host|auto[:size=N]|CONTAINER:HOST:SIZE,…>': it is host, auto, auto:size=N or CONTAINER:HOST:SIZE[,…]",
        ),
        (
            "-v /etc:/data:idmap",
            "union-mount: map owners of volume \"/etc\": the container has no user namespace of its own: --userns",
        ),
    ] {
        let refused =
            sandbox.sh(&format!("layer-apply --id web < busybox.json | union-mount {flags} > out.json"));
        assert_eq!(refused.stderr.lines().next(), Some(message), "{flags}");
        sandbox.sh("unwind web 2> /dev/null; true").ok();
    }
    let nested = "layer-apply --id web < busybox.json > layers.json; unshare --user --map-root-user --mount union-mount --userns auto < layers.json > out.json";
    let refused = sandbox.sh(nested);
    assert!(refused.stderr.contains("only root of the machine maps other ids"), "{refused:?}");
}
