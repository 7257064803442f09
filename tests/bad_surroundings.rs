//! What every tool does when it cannot do its work: names, ports and addresses in use, a disk that is full or
//! read-only, no root. It prints a one-line error that names the action and the object, exits with the right
//! status, leaves nothing behind and loses nothing.
#![allow(clippy::unwrap_used)]

mod stages;

use serde_json::Value;
use stages::{name, status, unwind, with_stages};
use testkit::Sandbox;

/// The document without `id` and `steps`: what earlier tools found and made, for another container.
fn of_no_container(document: &str) -> String {
    let mut value: Value = serde_json::from_str(document).unwrap();
    for member in ["id", "steps"] {
        value.as_object_mut().unwrap().remove(member);
    }
    value.to_string()
}

#[test]
fn names_and_ports_that_are_taken_stay_the_others() {
    let (sandbox, stages) = with_stages();
    let (command, ready) = stages.last().unwrap();
    sandbox.sh_with(&format!("{command} > running"), ready.as_bytes()).ok();
    for (command, document) in &stages {
        let before = sandbox.snapshot();
        let outcome = sandbox.sh_with(&format!("{command} > document"), document.as_bytes());
        assert_eq!(outcome.status, status(command, 1), "{command}");
        assert!(
            outcome.stderr.starts_with(&format!("{}: container \"web\" exists: ", name(command))),
            "{command}: {}",
            outcome.stderr
        );
        sandbox.assert_as(&before);
    }
    let before = sandbox.snapshot();
    let pipe = "img-load -q -t busybox2 busybox.tar | layer-apply --id other | union-mount | netns-bridge | veth-pair";
    let outcome = sandbox.sh(&format!("{pipe} | portmap -p 10080:80 > other.json")).exits(1);
    assert!(outcome.stderr.starts_with("portmap: "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("10080"), "{}", outcome.stderr);
    sandbox.sh("unwind < other.json").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_range_of_addresses_that_is_used_up() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    for id in ["a", "b"] {
        let pipe =
            format!("netns-bridge -n --id {id} --bridge small0 --subnet 10.9.9.0/30 | veth-pair > {id}.json");
        let status = if id == "a" { 0 } else { 1 };
        let outcome = sandbox.sh(&pipe).exits(status);
        if id == "b" {
            assert!(outcome.stderr.starts_with("veth-pair: "), "{}", outcome.stderr);
            assert!(outcome.stderr.contains("10.9.9.0/30"), "{}", outcome.stderr);
        }
    }
    sandbox.sh("unwind < b.json; unwind < a.json").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_range_of_addresses_that_another_interface_has() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("ip link add lan0 type veth && ip addr add 10.9.8.1/25 dev lan0").ok();
    let before = sandbox.snapshot();
    for subnet in ["10.9.8.0/24", "10.9.8.0/25", "10.9.8.64/26", "10.0.0.0/8"] {
        let outcome = sandbox.sh(&format!("netns-bridge -n --id a --subnet {subnet} > /dev/null")).exits(1);
        let line = format!(
            "netns-bridge: subnet {subnet} collides with 10.9.8.1/25 on interface \"lan0\"\n\
             hint: choose another with --subnet\n"
        );
        assert_eq!(outcome.stderr, line);
        sandbox.assert_as(&before);
    }
    // An address that was added later does not prevent the use of an existing bridge.
    sandbox
        .sh("netns-bridge -n --id a --subnet 10.9.9.0/24 > a.json && ip addr add 10.9.9.1/32 dev lan0")
        .ok();
    sandbox.sh("netns-bridge -n --id b --subnet 10.9.9.0/24 | unwind && unwind < a.json").ok();
    sandbox.sh("ip addr del 10.9.9.1/32 dev lan0").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_root_that_cannot_be_written_to() {
    let (sandbox, stages) = with_stages();
    unwind(&sandbox);
    let before = sandbox.snapshot();
    // Read-only for these commands only: in their own mount namespace.
    for (command, document) in &stages[..2] {
        let command = if name(command) == "layer-apply" { "layer-apply --id new" } else { command };
        let script = format!(
            "unshare --mount sh -c 'mount --bind \"$STAVE_ROOT\" \"$STAVE_ROOT\" && mount -o remount,ro,bind \"$STAVE_ROOT\" && \
             rm -rf /tmp/none && {command}' > document"
        );
        let input = match name(command) {
            "union-mount" => of_no_container(document),
            _ => document.clone(),
        };
        let outcome = sandbox.sh_with(&script, input.as_bytes());
        if name(command) == "layer-apply" {
            // The layers exist already: nothing has to be written.
            outcome.ok();
            sandbox.sh("unwind new").ok();
            continue;
        }
        assert_eq!(outcome.status, 1, "{command}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("Read-only file system"), "{command}: {}", outcome.stderr);
    }
    let load = "unshare --mount sh -c 'mount --bind \"$STAVE_ROOT\" \"$STAVE_ROOT\" && mount -o remount,ro,bind \"$STAVE_ROOT\" && \
                img-load -t new busybox.tar > document'";
    let outcome = sandbox.sh(load).exits(1);
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    sandbox.assert_as(&before);
}

#[test]
fn nothing_is_made_without_a_record() {
    let (sandbox, stages) = with_stages();
    sandbox
        .sh("mkdir run && mount -t tmpfs -o size=64k tmpfs run && dd if=/dev/zero of=run/fill bs=4k; true")
        .ok();
    let before = sandbox.snapshot();
    // union-snapshot works on the root file system of its own container only.
    for (command, document) in stages.iter().filter(|(command, _)| name(command) != "union-snapshot") {
        let command = command.replacen("--id web", "", 1).replace("10080", "10081");
        let (tool, arguments) = command.split_once(' ').unwrap_or((&command, ""));
        let script = format!("{tool} --id full --run-dir run {arguments} > document");
        let outcome = sandbox.sh_with(&script, of_no_container(document).as_bytes());
        assert_eq!(outcome.status, status(&command, 1), "{command}: {}", outcome.stderr);
        let run = sandbox.directory().canonicalize().unwrap().join("run");
        let hint = "hint: make room there, or choose another place: --run-dir DIR (STAVE_RUN)\n";
        let line =
            format!("{tool}: write record \"{}/full.json\": No space left on device\n{hint}", run.display());
        assert_eq!(outcome.stderr, line);
        assert_eq!(sandbox.sh("find run -type f -size +0 -not -name fill").ok(), "", "{command}");
        sandbox.assert_as(&before);
    }
}

#[test]
fn a_full_disk() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.directory().join("busybox.tar"), testkit::busybox()).unwrap();
    // A root of one megabyte, too small for the image.
    sandbox.sh("mkdir small && mount -t tmpfs -o size=1m tmpfs small").ok();
    let outcome = sandbox.sh("img-load --root small -t busybox busybox.tar > document").exits(1);
    assert!(outcome.stderr.starts_with("img-load: "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    assert_eq!(sandbox.sh("find small -type f -size +0 | grep -v -e index.json -e oci-layout").stdout, "");

    // A root with room for the image, but not for the unpacked layer.
    sandbox.sh("mount -o remount,size=3m small && img-load --root small -t busybox busybox.tar > image").ok();
    let outcome = sandbox.sh("layer-apply --root small < image > document").exits(1);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    assert_eq!(sandbox.sh("ls small/layers").stdout, "", "nothing half unpacked stays");

    // A full run directory: without a record, nothing is made.
    sandbox
        .sh("mkdir run && mount -t tmpfs -o size=64k tmpfs run && dd if=/dev/zero of=run/fill bs=4k; true")
        .ok();
    let before = sandbox.snapshot();
    let outcome = sandbox.sh("netns-bridge -n --id web --run-dir run > document").exits(1);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    sandbox.assert_as(&before);
    assert_eq!(sandbox.sh("find run -type f -size +0 -not -name fill").ok(), "");
}

/// Whatever an unwind could not undo for want of open files, the next one undoes.
#[test]
fn a_limit_of_open_files() {
    let sandbox = Sandbox::with_busybox();
    let pipe = "layer-apply --id web < busybox.json | union-mount | union-snapshot | netns-bridge | veth-pair | \
        portmap -p 10080:80 | ns-exec -d -- sleep 1000 > web.json";
    sandbox.sh(&format!("{pipe}; unwind web > /dev/null")).ok();
    let before = sandbox.snapshot();
    for limit in 5..15 {
        sandbox.sh(pipe).ok();
        let limited = sandbox.sh(&format!("prlimit --nofile={limit} unwind web > /dev/null"));
        assert!(limited.status == 0 || !limited.stderr.is_empty(), "{limit}: {limited:?}");
        let unwound = sandbox.sh("unwind web > /dev/null");
        assert_eq!(unwound.status, 0, "after a limit of {limit}: {unwound:?}, before: {limited:?}");
        sandbox.assert_as(&before);
    }
}

/// The step that mounted the root file system is gone, and that of its snapshot is not.
#[test]
fn a_snapshot_without_its_mount_is_unwound() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("layer-apply --id first < busybox.json | unwind > /dev/null").ok();
    let before = sandbox.snapshot();
    sandbox
        .sh("layer-apply --id web < busybox.json | union-mount | union-snapshot > web.json
        jq -c 'del(.steps[] | select(.tool == \"union-mount\")) | del(.rootfs)' $STAVE_RUN/web.json > less
        install -m 600 less $STAVE_RUN/web.json; unwind -q web > /dev/null")
        .ok();
    sandbox.sh("rm -r root/containers").ok();
    sandbox.assert_as(&before);
}

#[test]
fn without_root() {
    let (sandbox, stages) = with_stages();
    let before = sandbox.snapshot();
    // The tools must be in a directory that another user can read.
    sandbox.sh("mkdir -m 755 /run/bin").ok();
    // layer-apply does not need root for an image of the user's own. union-snapshot works on its own container's files only.
    for (command, document) in stages[1..].iter().filter(|(command, _)| name(command) != "union-snapshot") {
        let command = command.replace("10080", "10081");
        sandbox.sh(&format!("cp {}/{} /run/bin", testkit::binaries().display(), name(&command))).ok();
        let user = "setpriv --reuid 1234 --regid 1234 --clear-groups env STAVE_RUN=/run/mine/x STAVE_ROOT=/run/mine/y";
        let script = format!(
            "mkdir -m 777 /run/mine; {user} /run/bin/{command} > /dev/null; status=$?; rm -r /run/mine; exit $status"
        );
        let outcome = sandbox.sh_with(&script, of_no_container(document).as_bytes());
        assert_eq!(outcome.status, status(&command, 1), "{command}: {}", outcome.stderr);
        let lines: Vec<_> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with(&format!("{}: ", name(&command))), "{lines:?}");
        assert_eq!(
            lines[0].matches("denied").count() + lines[0].matches("permitted").count(),
            1,
            "{lines:?}"
        );
        assert!(!lines[0].contains("EPERM") && !lines[0].contains("EACCES"), "{lines:?}");
        assert!(lines[1].starts_with("hint: this needs root"), "{lines:?}");
    }
    sandbox.sh("rm -r /run/bin").ok();
    sandbox.assert_as(&before);
}

#[test]
fn an_image_of_another_store() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let elsewhere = sandbox.directory().canonicalize().unwrap().join("elsewhere");
    let hint = format!(
        "hint: the store is {elsewhere:?} (--root, STAVE_ROOT): use the store that has the image, or img-pull it into this \
         one\n"
    );
    let apply = "layer-apply --root elsewhere < busybox.json > document";
    let outcome = sandbox.sh(apply).exits(1);
    let images = elsewhere.join("images");
    let line = format!(
        "layer-apply: {images:?} is not an OCI image layout: it has no oci-layout file of version 1\n"
    );
    assert_eq!(outcome.stderr, format!("{line}{hint}"));
    assert!(!elsewhere.exists());

    // A store with other images.
    std::fs::write(
        sandbox.directory().join("other.tar"),
        testkit::rootfs(|tree| testkit::directory(tree, "x")),
    )
    .unwrap();
    sandbox.sh("img-load -q --root elsewhere -t other other.tar > /dev/null").ok();
    let outcome = sandbox.sh(apply).exits(1);
    let digest = sandbox.sh("jq -r .image.descriptor.digest busybox.json").ok();
    let line = format!("layer-apply: read the image: {} is not in the image store\n", digest.trim());
    assert_eq!(outcome.stderr, format!("{line}{hint}"));
    assert!(!elsewhere.join("layers").exists());
    sandbox.assert_as(&before);
}

#[test]
fn a_volume_that_a_read_only_root_has_no_place_for() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let mounted = "layer-apply --id web < busybox.json | union-mount --read-only > web.json; mkdir data";
    sandbox.sh(mounted).ok();
    let run = |volume: &str| sandbox.sh(&format!("ns-exec --from web.json -v {volume} -- true"));
    let line = "ns-exec: mount bind on \"/new/place\": Read-only file system\n";
    let hint = "hint: the root file system is read-only and has no \"/new/place\": `union-mount -v` makes a place for a \
                volume, and mounts it\n";
    assert_eq!(run("$PWD/data:/new/place").exits(125).stderr, format!("{line}{hint}"));
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.sh(mounted.strip_suffix("; mkdir data").unwrap()).ok();
    run("$PWD/data:/tmp").exits(0);
    sandbox.sh("unwind web > /dev/null; rmdir data").ok();
    sandbox.assert_as(&before);
}

#[test]
fn paths_that_are_missing() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    for (command, line) in [
        ("img-load -t x missing.tar", "img-load: read missing.tar: No such file or directory"),
        ("img-build -t x missing", "img-build: open build context \"missing\": No such file or directory"),
    ] {
        let outcome = sandbox.sh(&format!("{command} > document; echo $? >&2"));
        let mut lines = outcome.stderr.lines();
        assert_eq!(lines.next(), Some(line));
        assert_eq!(lines.last(), Some("1"));
    }
    sandbox.assert_as(&before);
}

/// A daemon has no umask by the book. What root makes and believes is root's all the same.
#[test]
fn others_cannot_write_what_root_goes_by() {
    let sandbox = Sandbox::with_busybox();
    let pipe = "umask 000; img-inspect busybox | layer-apply --id web | union-mount | netns-bridge | veth-pair | portmap -p 8080:80 \
        | ns-exec -d -- sleep 1000 > /dev/null; network-create lan > /dev/null; volume-create v > /dev/null";
    sandbox.sh(pipe).ok();
    let open = "find root /run/stave ! -type l ! -type s -perm /022 ! -path '*/rootfs/*' ! -path '*/upper/*' ! -path '*/layers/*' \
        ! -path '*/mount-points/*' ! -path '*/shm*' ! -path '*/lower/*'";
    assert_eq!(sandbox.sh(open).ok(), "");
    // Everything with files of containers, builds and images is closed to other users.
    sandbox.sh("mkdir context; printf 'FROM busybox\\nRUN --mount=type=cache,target=/c touch /c/x\\n' > context/Dockerfile; \
        umask 000; chmod 755 root/cache 2> /dev/null; img-build -q --network none context > /dev/null").ok();
    assert_eq!(
        sandbox.sh("find root -mindepth 1 -maxdepth 1 -type d -perm /077 -printf '%f\\n' | sort").ok(),
        "mount-points\nnetworks\n"
    );
    sandbox.sh("unwind web > /dev/null; network-rm lan > /dev/null").ok();
    // What others may have written is not believed.
    sandbox.sh("netns-add -n --id bad > /dev/null").ok();
    for (spoil, mend, said) in [
        ("chown 65534 /run/stave/bad.json", "chown 0 /run/stave/bad.json", "it belongs to user 65534"),
        ("chmod o+w /run/stave/bad.json", "chmod 600 /run/stave/bad.json", "others may write to it"),
        ("chmod 777 /run/stave", "chmod 755 /run/stave", "others may write to it (mode 0777)"),
        ("chmod 777 root", "chmod 755 root", "others may write to it (mode 0777)"),
        ("chown 65534 /run/stave", "chown 0 /run/stave", "it belongs to user 65534"),
        // With the sticky bit, they may add what is not there yet.
        (
            "chmod 1777 root; mkdir root/build; chown 65534 root/build",
            "chmod 755 root; rmdir root/build",
            "root/build\": it belongs to user 65534",
        ),
    ] {
        sandbox.sh(spoil).ok();
        let refused = sandbox.sh("unwind bad").exits(1).stderr;
        assert!(refused.contains(said), "{spoil}: {refused}");
        sandbox.sh(mend).ok();
    }
    // A variable that is set to nothing is not set.
    sandbox.sh("STAVE_RUN= unwind bad > /dev/null").ok();
}
