//! The line `hint:` for each kind of failure. The operation that failed gives it, so it names the place that
//! was really written to.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod stages;

use stages::{name, status, unwind, with_stages};
use testkit::{Outcome, Sandbox, binaries};

const NO_SPACE: &str = "No space left on device";
const READ_ONLY: &str = "Read-only file system";

/// Checks for one line that ends with the reason, and for this hint.
#[track_caller]
fn says(outcome: &Outcome, status: i32, line: &str, hint: &str) {
    assert_eq!(outcome.stderr, format!("{line}\nhint: {hint}\n"));
    assert_eq!(outcome.status, status, "{line}");
}

#[test]
fn standard_output_that_is_full() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let hint = "make room where standard output goes, or send it elsewhere";
    for (command, tool) in [
        ("netns-bridge -n --id web", "netns-bridge"),
        ("layer-apply --id web < busybox.json", "layer-apply"),
        ("unwind < busybox.json", "unwind"),
    ] {
        let line = format!("{tool}: write the document to standard output: {NO_SPACE}");
        says(&sandbox.sh(&format!("{command} > /dev/full")), 1, &line, hint);
        sandbox.sh("rm -rf $STAVE_ROOT/layers").ok();
    }
    for (command, tool) in [
        ("img-ls", "img-ls"),
        ("img-ls --table", "img-ls"),
        ("container-ls", "container-ls"),
        ("container-start --all", "container-start"),
        ("container-stats --interval 1", "container-stats"),
        ("veth-pair --schema", "veth-pair"),
        ("netns-bridge -n --explain", "netns-bridge"),
    ] {
        let line = format!("{tool}: write to standard output: {NO_SPACE}");
        says(&sandbox.sh(&format!("{command} > /dev/full")), 1, &line, hint);
    }
    let run = "ns-exec -n --id web --rootfs / --document /dev/full";
    let line = format!("ns-exec: write the document to \"/dev/full\": {NO_SPACE}");
    let there = "make room there, or choose another place";
    says(&sandbox.sh(&format!("{run} -- true; s=$?; unwind -q web > /dev/null; exit $s")), 1, &line, there);
    says(
        &sandbox.sh(&format!("{run} -- sh -c 'exit 7'; s=$?; unwind -q web > /dev/null; exit $s")),
        7,
        &line,
        there,
    );
    let saved = sandbox.sh("img-save -q busybox > /dev/full");
    says(&saved, 1, &format!("img-save: write the archive: {NO_SPACE}"), hint);
    sandbox.assert_as(&before);
}

#[test]
fn a_run_directory_that_is_full_or_read_only() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir run && mount -t tmpfs -o size=64k tmpfs run").ok();
    let run = sandbox.directory().canonicalize().unwrap().join("run");
    sandbox.sh("dd if=/dev/zero of=run/fill bs=4k; true").ok();
    let before = sandbox.snapshot();
    let full = sandbox.sh("netns-bridge -n --id web --run-dir run > document");
    let line = format!("netns-bridge: write record \"{}/web.json\": {NO_SPACE}", run.display());
    says(&full, 1, &line, "make room there, or choose another place: --run-dir DIR (STAVE_RUN)");
    sandbox.sh("mount -o remount,ro run").ok();
    let sealed = sandbox.sh("netns-bridge -n --id ro --run-dir run > document");
    let line = format!("netns-bridge: open lock \"{}/locks/ro.container\": {READ_ONLY}", run.display());
    says(&sealed, 1, &line, "choose a place that can be written to: --run-dir DIR (STAVE_RUN)");
    sandbox.sh("mount -o remount,rw run").ok();
    sandbox.assert_as(&before);
}

/// Files that the user names are in neither directory.
#[test]
fn a_file_of_the_user_that_is_read_only() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("layer-apply --id web < busybox.json | union-mount > web.json; mkdir ro; mount -t tmpfs -o ro tmpfs ro").ok();
    let there = sandbox.directory().canonicalize().unwrap().join("ro");
    let before = sandbox.snapshot();
    for (flags, file) in [("-d --log ro/log", there.join("log")), ("--document ro/doc", "ro/doc".into())] {
        let outcome = sandbox.sh(&format!("ns-exec {flags} --network none -- true < web.json > document"));
        let line = format!("ns-exec: open {file:?}: {READ_ONLY}");
        says(&outcome, 125, &line, "choose a place that can be written to");
    }
    sandbox.assert_as(&before);
    sandbox.sh("unwind web > /dev/null; umount ro").ok();
}

#[test]
fn a_root_that_is_read_only() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("layer-apply --id web < busybox.json > layers.json").ok();
    let before = sandbox.snapshot();
    let container = sandbox.sh("realpath -m $STAVE_ROOT/containers/web").ok();
    let script = "unshare --mount sh -c 'mount --bind $STAVE_ROOT $STAVE_ROOT && \
                  mount -o remount,ro,bind $STAVE_ROOT && union-mount < layers.json > document'";
    let line = format!("union-mount: create directory \"{}\": {READ_ONLY}", container.trim());
    says(&sandbox.sh(script), 1, &line, "choose a place that can be written to: --root DIR (STAVE_ROOT)");
    sandbox.assert_as(&before);
}

#[test]
fn variables_of_the_kernel_that_are_read_only() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let script = "unshare --mount sh -c 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && \
                  netns-bridge -n --id web > document'";
    let outcome = sandbox.sh(script);
    let (line, hint) = outcome.stderr.split_once('\n').unwrap();
    assert!(line.starts_with("netns-bridge: ") && line.ends_with(READ_ONLY), "{line}");
    assert_eq!(
        hint,
        "hint: /proc/sys is read-only here, as in a container: run it on the host, or in a privileged container\n"
    );
    assert_eq!(outcome.status, 1);
    sandbox.assert_as(&before);
}

#[test]
fn a_user_who_is_not_root() {
    let (sandbox, stages) = with_stages();
    let before = sandbox.snapshot();
    let root = "this needs root: try it with sudo";
    let namespace =
        "this needs root, or a user namespace: run the pipe in `unshare --user --map-root-user --mount`";
    sandbox.sh("mkdir -m 755 /run/bin").ok();
    // union-snapshot works on the files of its own container only.
    for (command, document) in stages[1..].iter().filter(|(command, _)| name(command) != "union-snapshot") {
        let mut value: serde_json::Value = serde_json::from_str(document).unwrap();
        for member in ["id", "steps"] {
            value.as_object_mut().unwrap().remove(member);
        }
        sandbox.sh(&format!("cp {}/{} /run/bin", binaries().display(), name(command))).ok();
        let user = "setpriv --reuid 1234 --regid 1234 --clear-groups env STAVE_RUN=/run/mine/x STAVE_ROOT=/run/mine/y";
        let script = format!(
            "mkdir -m 777 /run/mine; {user} /run/bin/{command} > /dev/null; s=$?; rm -r /run/mine; exit $s"
        );
        let outcome = sandbox.sh_with(&script, value.to_string().as_bytes());
        // For ns-exec a user namespace is not enough: the container's root file system belongs to root.
        let hint = if name(command) == "union-mount" { namespace } else { root };
        let line = outcome.stderr.lines().next().unwrap_or_default().to_owned();
        assert!(line.starts_with(&format!("{}: ", name(command))), "{line}");
        says(&outcome, status(command, 1), &line, hint);
    }
    // On a root file system of the user's own, only a namespace is missing.
    let own = r#"{"stave":1,"rootfs":{"path":"/run/mine/rootfs","lower":[]}}"#;
    let script = "mkdir -m 777 /run/mine; mkdir /run/mine/rootfs; setpriv --reuid 1234 --regid 1234 --clear-groups \
                  env STAVE_RUN=/run/mine/x STAVE_ROOT=/run/mine/y /run/bin/ns-exec --network none -- /x; \
                  s=$?; rm -r /run/mine; exit $s";
    let outcome = sandbox.sh_with(script, own.as_bytes());
    says(&outcome, 125, "ns-exec: enter pid namespace: Operation not permitted", namespace);
    sandbox.sh("rm -r /run/bin").ok();
    sandbox.assert_as(&before);
    unwind(&sandbox);
}

/// The tools that need a network say the same, and what they name helps.
#[test]
fn a_container_without_a_network() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-add -n --id db > db.json; netns-add -n --id web > web.json").ok();
    for tool in ["egress-allow a.example", "name-serve", "portmap -p 10080:80"] {
        let line = format!(
            "{}: no `networks`: run bridge-attach, macvlan-attach, ipvlan-attach or veth-pair first\n",
            name(tool)
        );
        assert_eq!(sandbox.sh(&format!("{tool} < web.json > document")).exits(1).stderr, line);
    }
    sandbox.sh("bridge-attach < web.json > joined.json").ok();
    let hint =
        "a link needs a container in a network: bridge-attach, or netns-bridge and veth-pair, join one";
    let link = "link-hosts --link db < joined.json > document";
    says(&sandbox.sh(link), 1, "link-hosts: container \"db\" has no address", hint);
    sandbox.sh(&format!("bridge-attach < db.json > joined_too.json && {link}")).ok();
    sandbox.sh("unwind web db > /dev/null").ok();
}

/// Root would not help with a command that cannot be executed.
#[test]
fn a_command_that_cannot_be_executed_has_no_hint() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("layer-apply --id web < busybox.json | union-mount > web.json").ok();
    let outcome = sandbox.sh("ns-exec --from web.json -- /etc/passwd");
    assert_eq!(outcome.stderr, "ns-exec: execute \"/etc/passwd\": Permission denied\n");
    assert_eq!(outcome.status, 126);
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn the_first_command_on_a_fresh_machine() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    for tool in ["img-inspect", "img-rm", "img-history", "img-push", "img-save -o file", "img-verify"] {
        let outcome = sandbox.sh(&format!("{tool} nosuch"));
        let name = tool.split(' ').next().unwrap();
        assert_eq!(outcome.status, 1, "{tool}");
        let first = outcome.stderr.lines().next().unwrap();
        assert_eq!(first, format!("{name}: no image \"nosuch\" in the image store"));
    }
    let stave = testkit::repository().join("scripts/stave");
    let run = sandbox.sh(&format!("{} run --pull never --rm --network none nosuch true", stave.display()));
    let line = "img-inspect: no image \"nosuch\" in the image store";
    says(&run, 125, line, "img-ls lists the images; img-pull fetches one from a registry");
    assert_eq!(sandbox.sh("img-ls && img-verify").status, 0, "nothing is wrong with it");
    sandbox.assert_as(&before);
}
