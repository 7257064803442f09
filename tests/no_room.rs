//! The tools of the store with a store that cannot be written, and with a full disk: one line names the
//! action and the object, another says what to do, nothing is left behind and nothing is lost.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::json;
use testkit::{Outcome, Sandbox, file, rootfs};

/// Every command that writes to the store, or elsewhere with `img-save`. Each works if there is room.
const COMMANDS: [&str; 10] = [
    "img-build -q --network none -t new context",
    "img-load -q -t new new.tar",
    "img-pull -q --insecure 127.0.0.1:5000/new:latest",
    "img-pull -q --insecure --apply 127.0.0.1:5000/new:latest",
    "img-commit -q -t new < web.json",
    "layer-diff -q < web.json",
    "img-tag -q busybox new",
    "img-save -q busybox -o $STAVE_ROOT/saved.tar",
    "img-rm -q busybox",
    "img-gc -q --grace 0s",
];

/// A store with an image and with garbage, the sources of an image, a container that wrote something, and a registry.
fn ready() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    let write = |name: &str, content: &[u8]| std::fs::write(sandbox.directory().join(name), content).unwrap();
    // More than the free space in the tests, even when compressed.
    let noise: Vec<u8> =
        (0_u32..100_000).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n).to_le_bytes()).collect();
    let image = rootfs(|tree| file(tree, "noise", 0o644, &noise));
    sandbox.load("garbage", &rootfs(|tree| file(tree, "garbage", 0o644, &noise[1..])));
    sandbox.sh("img-rm -q garbage > /dev/null").ok();
    write("new.tar", &image);
    sandbox.sh("mkdir context").ok();
    write("context/Dockerfile", b"FROM busybox\nCOPY noise /noise\nRUN true\n");
    write("context/noise", &noise);
    sandbox.sh("layer-apply --id web < busybox.json | union-mount > web.json").ok();
    sandbox.sh("cp context/noise $(jq -r .rootfs.path web.json)/noise").ok();
    let registry = json!({"version": 0.1, "storage": {"filesystem": {"rootdirectory": sandbox.directory().join("data")}},
        "http": {"addr": "127.0.0.1:5000"}});
    write("registry.yml", registry.to_string().as_bytes());
    sandbox.sh("docker-registry serve registry.yml > registry.log 2>&1 &").ok();
    sandbox
        .sh("for try in $(seq 100); do grep -q ':1388 .* 0A ' /proc/net/tcp && break; sleep 0.05; done")
        .ok();
    sandbox.sh("img-load -q --root other -t new new.tar && img-push -q --root other --insecure new 127.0.0.1:5000/new:latest").ok();
    sandbox
}

/// The whole content of a store, without locks, which are empty, and without the directory where builds work.
fn store(sandbox: &Sandbox, root: &str) -> String {
    let files = format!(
        "cd {root} && find . -xdev -not -name '*lock' -not -path ./build -not -path ./cache -not -path './cache/files*' -not -path './containers/*' -printf '%y %m %p %l\\n' | sort && \
         find . -xdev -type f -not -path './cache/files/*' -not -path './containers/*' -not -name filler -exec sha256sum {{}} + | sort"
    );
    sandbox.sh(&files).ok()
}

/// Blobs whose content does not match their name.
const FALSE_BLOBS: &str = "cd full/images/blobs/sha256 && sha256sum * | while read -r sum name; do \
    test $sum = $name || echo $name; done";

/// The lines of `these` that are missing in `those`.
fn surplus<'a>(these: &'a str, those: &str) -> Vec<&'a str> {
    these.lines().filter(|line| !those.lines().any(|other| other == *line)).collect()
}

#[track_caller]
fn says(context: &str, command: &str, outcome: &Outcome, reason: &str, hints: [&str; 2]) {
    let tool = command.split(' ').next().unwrap();
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(outcome.status, 1, "{context}: {command}: {lines:?}");
    assert_eq!(lines.len(), 2, "{context}: {command}: {lines:?}");
    assert!(lines[0].starts_with(&format!("{tool}: ")) && lines[0].ends_with(reason), "{context}: {lines:?}");
    assert_eq!(lines[1], hints[usize::from(tool == "img-save")], "{context}: {command}");
}

/// The hints for a read-only and a full disk, for the store and for a file that the user named.
const READ_ONLY: [&str; 2] = [
    "hint: choose a place that can be written to: --root DIR (STAVE_ROOT)",
    "hint: choose a place that can be written to",
];
const FULL: [&str; 2] = [
    "hint: make room there; `img-gc` removes images and layers that nothing refers to",
    "hint: make room there, or choose another place",
];

#[test]
fn a_store_that_cannot_be_written_to() {
    let sandbox = ready();
    let (before, files) = (sandbox.snapshot(), store(&sandbox, "root"));
    for command in COMMANDS {
        let script = format!(
            "mount --bind $STAVE_ROOT $STAVE_ROOT && mount -o remount,ro,bind $STAVE_ROOT && {command} > document"
        );
        let outcome = sandbox.sh(&format!("unshare --mount sh -c '{script}'"));
        says("read-only", command, &outcome, "Read-only file system", READ_ONLY);
        assert!(store(&sandbox, "root") == files, "{command}");
        sandbox.assert_as(&before);
    }
}

#[test]
fn a_full_disk() {
    let sandbox = ready();
    sandbox.sh("mkdir full && mount -t tmpfs -o size=64m tmpfs full").ok();
    let before = sandbox.snapshot();
    for free in [0, 16, 100] {
        for command in COMMANDS {
            let context = format!("{free} KiB free");
            sandbox.sh("rm -rf full/* && cp -a root/images root/layers root/mount-points full").ok();
            sandbox
                .sh(&format!(
                    "dd if=/dev/zero of=full/filler bs=4k 2> /dev/null; truncate -s -{free}k full/filler"
                ))
                .ok();
            let files = store(&sandbox, "full");
            let script = format!("export STAVE_ROOT=$PWD/full; {command} > document");
            let outcome = sandbox.sh(&script);
            if command.starts_with("img-gc") {
                // img-gc is the remedy.
                outcome.ok();
                assert!(store(&sandbox, "full").len() < files.len(), "{context}");
                continue;
            }
            // A list of names is small, and may replace the copy of the list.
            if ["img-tag", "img-rm"].iter().any(|tool| command.starts_with(tool)) {
                outcome.ok();
                continue;
            }
            says(&context, command, &outcome, "No space left on device", FULL);
            let after = store(&sandbox, "full");
            let left = surplus(&after, &files);
            // Complete blobs stay for the next attempt, until img-gc.
            let blobs = left.iter().filter(|line| line.contains("./images/blobs/sha256/"));
            assert!(
                blobs.count() == left.len() && (left.is_empty() || command.starts_with("img-pull")),
                "{context}: {command}: {left:?}"
            );
            assert_eq!(surplus(&files, &after), [""; 0], "{context}: {command}: lost");
            assert_eq!(sandbox.sh(FALSE_BLOBS).ok(), "", "{context}: {command}");
            sandbox.assert_as(&before);
            sandbox.sh(&format!("rm full/filler && {script}")).ok();
        }
    }
}

/// A sandbox with a small run directory, which `fill` fills except for some pages.
fn small_run_directory() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mount -t tmpfs -o size=256k tmpfs $STAVE_RUN; layer-apply --id first < busybox.json | unwind > /dev/null").ok();
    sandbox
}

fn fill(sandbox: &Sandbox, free: usize) {
    let script = format!(
        "cd $STAVE_RUN; dd if=/dev/zero of=filler bs=4k 2> /dev/null; truncate -s -$((4 * {free}))k filler
         test {free} -gt 0 || ! head -c 1 /dev/zero > probe; rm -f probe"
    );
    sandbox.sh(&script).ok();
}

const CONTAINER: &str = "layer-apply --id web < busybox.json | union-mount | netns-bridge | veth-pair | portmap -p 10080:80 | \
    ns-exec -d -- sleep 1000 > web.json";

/// A record that becomes shorter has room.
#[test]
fn a_full_run_directory_keeps_no_container_from_its_end() {
    let sandbox = small_run_directory();
    let before = sandbox.snapshot();
    let tools = ["ns-exec", "portmap", "veth-pair", "netns-bridge", "union-mount", "layer-apply", "img-load"];
    let one_by_one = tools.map(|tool| format!("{tool} --undo")).join(" | ");
    let in_files = tools.map(|tool| format!("{tool} --undo < web.json > x && mv x web.json")).join(" && ");
    for undo in ["unwind web", "unwind < web.json", &format!("cat web.json | {one_by_one}"), &in_files] {
        sandbox.sh(CONTAINER).ok();
        fill(&sandbox, 0);
        let undone = sandbox.sh(&format!("{undo} > undone"));
        assert_eq!((undone.status, undone.stderr.as_str()), (0, ""), "{undo}");
        sandbox.sh("rm $STAVE_RUN/filler").ok();
        sandbox.assert_as(&before);
    }
}

/// The run directory becomes full while the container is made, or afterwards.
#[test]
fn what_a_full_run_directory_stopped_is_taken_back_in_it() {
    let sandbox = small_run_directory();
    let before = sandbox.snapshot();
    let (mut made, mut stopped) = (0, 0);
    for free in [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24] {
        fill(&sandbox, free);
        let outcome = sandbox.sh(CONTAINER);
        if outcome.status == 0 {
            made += 1;
        } else {
            stopped += 1;
            let lines: Vec<_> = outcome.stderr.lines().collect();
            assert!(lines[0].ends_with(": No space left on device"), "{free} pages free: {outcome:?}");
            assert!(lines.len() == 2 && lines[1].starts_with("hint: make room there"), "{outcome:?}");
        }
        sandbox.sh("rm $STAVE_RUN/filler").ok();
        fill(&sandbox, 0);
        let unwound = sandbox.sh("unwind -q web > undone");
        assert_eq!((unwound.status, unwound.stderr.as_str()), (0, ""), "{free} pages were free");
        sandbox.sh("rm $STAVE_RUN/filler").ok();
        sandbox.assert_as(&before);
    }
    assert!(made > 0 && stopped > 0, "{made} made, {stopped} stopped");
}

/// A small limit of file sizes (RLIMIT_FSIZE) is like a full disk, and ends no tool in its work.
#[test]
fn a_limit_of_file_sizes() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let pipe = "layer-apply --id web < busybox.json | union-mount | ns-exec -d -- sleep 1000";
    let refused = sandbox.sh(&format!("(ulimit -f 0; {pipe}) > /dev/null"));
    assert!(refused.status == 1 || refused.status == 125, "{}: {}", refused.status, refused.stderr);
    assert!(refused.stderr.contains("File too large"), "{}", refused.stderr);
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
    sandbox.sh(&format!("{pipe} > /dev/null")).ok();
    let refused = sandbox.sh("(ulimit -f 0; img-tag busybox other)").exits(1);
    assert!(refused.stderr.contains("File too large"), "{}", refused.stderr);
    // A command gets the default of the signal back.
    let ended = sandbox.sh("ns-exec --join web -- sh -c 'ulimit -f 0; sh -c \"echo > /x\"; echo $?'").ok();
    assert_eq!(ended, "153\n");
    sandbox.sh("(ulimit -f 0; unwind web > /dev/null)").ok();
    sandbox.assert_as(&before);
}
