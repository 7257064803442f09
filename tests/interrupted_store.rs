//! Tools that write to the store are killed at every change: the store is as before or complete, and keeps
//! working.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod killing;

use std::collections::BTreeSet;

use testkit::{Sandbox, directory, file, rootfs};

/// With fixed times of files and images, every run makes the same bytes.
const EPOCH: &str = "export SOURCE_DATE_EPOCH=1000000000;";

/// Every file of the store, except its lists, which contain times, and its locks.
const FILES: &str = "cd root && find . -not -name '*lock' -not -path './images/.recent.json' -not -path './cache/files*' -printf '%y %m %p\\n'";

/// Each unpacked layer that counts as complete, with a hash of its content.
const LAYERS: &str = "cd root/layers 2> /dev/null || exit 0; for note in *.json; do test -e $note || exit 0; \
    layer=${note%.json}; echo $layer $(cd $layer && find . -printf '%p %y %m %U %s %l\\n' | sort | sha256sum); done";

/// Blobs whose content does not match their name.
const FALSE_BLOBS: &str = "cd root/images/blobs/sha256 2> /dev/null && sha256sum * 2> /dev/null | \
    while read -r sum name; do test $sum = $name || echo $name; done";

fn lines(sandbox: &Sandbox, script: &str) -> BTreeSet<String> {
    sandbox.sh(script).ok().lines().map(str::to_owned).collect()
}

/// The digest of the image `new` in the list of images. Empty if it is missing.
fn listed(sandbox: &Sandbox) -> String {
    let new = r#"select(.references | any(endswith("new:latest")))"#;
    sandbox.sh(&format!("img-ls | jq -r '.images[] | {new} | .digest'")).ok()
}

/// Runs `tool`, which makes an image whose name ends with `new`, once without a kill. Then runs it again and
/// again from the same start, and kills it just before its first, second, … call of each system call.
fn killed_at_every_change(sandbox: &Sandbox, tool: &str) {
    let script = |before: &str| format!("{EPOCH} {before} {tool} > document");
    let start = "rm -rf root && cp -a start root";
    sandbox.sh("mkdir -p root && rm -rf start && cp -a root start").ok();
    let before = sandbox.snapshot();
    let moments = killing::moments(sandbox, script);
    let whole = listed(sandbox);
    assert_ne!(whole, "");
    let (files, layers) = (lines(sandbox, FILES), lines(sandbox, LAYERS));
    assert!(moments.len() >= 10, "too few to be true: {moments:?}");
    let (mut made, mut not_made) = (0, 0);
    for moment in killing::some(moments) {
        let context = format!("{tool} killed at {moment:?}");
        sandbox.sh(start).ok();
        sandbox.sh(&script(&killing::at(&moment)));

        let listed_now = listed(sandbox);
        assert!(listed_now.is_empty() || listed_now == whole, "{context}: {listed_now}");
        match listed_now.is_empty() {
            true => not_made += 1,
            false => made += 1,
        }
        assert_eq!(sandbox.sh(FALSE_BLOBS).stdout, "", "{context}: a blob is not what its name says");
        let half: Vec<_> = lines(sandbox, LAYERS).difference(&layers).cloned().collect();
        assert!(half.is_empty(), "{context}: {half:?}");
        sandbox.sh("img-gc -q --grace 0s > /dev/null").ok();
        let mut left: Vec<_> = lines(sandbox, FILES).difference(&files).cloned().collect();
        // The next tool that unpacks an image first removes its half-unpacked layers.
        left.retain(|line| !line.contains(" ./layers/."));
        // img-gc does not sweep an unfinished store. The next tool that makes the store writes the same files
        // again.
        let is_store = sandbox.root().join("images/oci-layout").exists();
        left.retain(|line| is_store || !line.ends_with(".new"));
        assert!(left.is_empty(), "{context}: left after img-gc: {left:?}");
        killing::assert_as(sandbox, &before, &context);
        if !listed_now.is_empty() {
            sandbox.sh(&format!("img-save -q {} -o new.tar > /dev/null", listed_now.trim())).ok();
        }

        let again = sandbox.sh(&script(""));
        assert_eq!(again.status, 0, "{context}: {}", again.stderr);
        assert_eq!(listed(sandbox), whole, "{context}");
        assert_eq!(
            (lines(sandbox, FILES), lines(sandbox, LAYERS)),
            (files.clone(), layers.clone()),
            "{context}"
        );
    }
    let both = made > 0 && not_made > 0;
    assert!(both || !killing::takes_all(), "{made} runs came to their end, {not_made} did not");
}

#[test]
fn img_build_is_killed_at_every_change() {
    let sandbox = Sandbox::with_busybox();
    // The base layer is already unpacked, so that its four hundred links are not among the changes.
    sandbox.sh("layer-apply --id first < busybox.json | unwind > /dev/null").ok();
    let dockerfile = "FROM busybox\nRUN echo one > /one\nCOPY file /two\nENV three=3\nCMD [\"/bin/sh\"]\n";
    std::fs::create_dir(sandbox.directory().join("context")).unwrap();
    std::fs::write(sandbox.directory().join("context/Dockerfile"), dockerfile).unwrap();
    std::fs::write(sandbox.directory().join("context/file"), "two\n").unwrap();
    killed_at_every_change(&sandbox, "img-build -q --network none -t new context");
}

#[test]
fn img_load_is_killed_at_every_change() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("img-tag busybox new && img-save -q new -o archive.tar && rm -r root && mkdir root").ok();
    killed_at_every_change(&sandbox, "img-load -q archive.tar");
}

/// The tools that need nothing but an image.
macro_rules! killed_with_an_image {
    ($($name:ident => $command:literal;)*) => {
        $(#[test]
        fn $name() {
            killed_at_every_change(&Sandbox::with_busybox(), $command);
        })*
    };
}

killed_with_an_image! {
    img_tag_is_killed_at_every_change => "img-tag busybox new";
    img_edit_is_killed_at_every_change => "img-edit -q --label a=b -t new busybox";
    img_convert_is_killed_at_every_change => "img-convert -q --compression zstd -t new busybox";
    img_index_is_killed_at_every_change => "img-index -q new busybox";
}

#[test]
fn img_copy_is_killed_at_every_change() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("img-copy -q store:busybox oci:layout:busybox > /dev/null && rm -r root && mkdir root").ok();
    killed_at_every_change(&sandbox, "img-copy -q oci:layout:busybox store:new");
}

#[test]
fn img_commit_is_killed_at_every_change() {
    let sandbox = Sandbox::with_busybox();
    let run =
        "ns-exec --network none --document web.json -- /bin/sh -c 'echo x > /added; rm -r /www; mkdir /www'";
    sandbox.sh(&format!("layer-apply --id web < busybox.json | union-mount | {run}")).ok();
    // The container's changes are kept without the mount, so that the store can be copied.
    sandbox.sh("umount root/containers/web/rootfs").ok();
    killed_at_every_change(&sandbox, "img-commit -q -t new < web.json");
}

#[test]
fn img_pull_is_killed_at_every_change() {
    let sandbox = Sandbox::new();
    let image = rootfs(|tree| {
        directory(tree, "etc");
        file(tree, "etc/name", 0o640, b"new\n");
        file(tree, "large", 0o644, &[7; 100_000]);
    });
    let registry =
        "version: 0.1\nhttp: {addr: \"127.0.0.1:5000\"}\nstorage: {filesystem: {rootdirectory: data}}\n";
    std::fs::write(sandbox.directory().join("registry.yml"), registry).unwrap();
    sandbox.sh("docker-registry serve registry.yml > registry.log 2>&1 &").ok();
    sandbox
        .sh("for try in $(seq 100); do socat -u OPEN:/dev/null TCP:127.0.0.1:5000 && exit; sleep 0.05; done")
        .ok();
    sandbox.sh_with("img-load -q -t localhost:5000/new - > /dev/null", &image).ok();
    sandbox.sh("img-push -q localhost:5000/new > /dev/null && rm -r root && mkdir root").ok();
    killed_at_every_change(&sandbox, "img-pull -q --apply localhost:5000/new");
}

/// Runs `tool`, which removes something from the store, once without a kill. Then again and again, killed as
/// above. What should stay is complete, and the next tool removes what is half removed.
fn removal_is_killed_at_every_change(tool: &str) {
    let sandbox = Sandbox::with_busybox();
    let gone = rootfs(|tree| file(tree, "gone", 0o644, b"x"));
    sandbox.sh_with("img-load -q -t gone - | layer-apply --id first | unwind > /dev/null", &gone).ok();
    sandbox.sh("layer-apply --id first < busybox.json | unwind > /dev/null").ok();
    if !tool.contains("img-rm") {
        sandbox.sh("img-rm -q gone > /dev/null").ok();
    }
    sandbox.sh("cp -a root start").ok();
    let script = |before: &str| format!("{before} {tool} > /dev/null");
    let moments = killing::moments(&sandbox, script);
    assert!(moments.len() >= 3, "too few to be true: {moments:?}");
    let collect = "img-gc -q --grace 0s > /dev/null";
    sandbox.sh(collect).ok();
    let whole = (lines(&sandbox, FILES), lines(&sandbox, LAYERS));
    for moment in killing::some(moments) {
        let context = format!("{tool} killed at {moment:?}");
        sandbox.sh("rm -rf root && cp -a start root").ok();
        sandbox.sh(&script(&killing::at(&moment)));
        sandbox.sh("img-save -q busybox -o busybox.tar > /dev/null").ok();
        if !sandbox.sh("img-ls | jq -r '.images[].references[]'").ok().contains("gone:latest") {
            sandbox.sh(collect).ok();
            assert_eq!((lines(&sandbox, FILES), lines(&sandbox, LAYERS)), whole, "{context}");
        } else {
            sandbox.sh("img-save -q gone -o gone.tar > /dev/null").ok();
        }
        sandbox.sh("layer-apply --id again < busybox.json | unwind > /dev/null").ok();
    }
}

#[test]
fn img_rm_is_killed_at_every_change() {
    removal_is_killed_at_every_change("img-rm -q gone");
}

#[test]
fn img_gc_is_killed_at_every_change() {
    removal_is_killed_at_every_change("img-gc -q --grace 0s");
}
