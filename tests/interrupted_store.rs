//! Tools that fill the store, killed at every change: the store is as it was or whole, and goes on working.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod killing;

use std::collections::BTreeSet;

use testkit::Sandbox;

/// With these times of files and images every run makes the same bytes.
const EPOCH: &str = "export SOURCE_DATE_EPOCH=1000000000;";

/// Every file of the store but its lists, whose content tells when something was written, and what is in the store's locks.
const FILES: &str =
    "cd root && find . -not -name '*lock' -not -path './images/.recent.json' -printf '%y %m %p\\n'";

/// Each unpacked layer that counts as whole, with a fingerprint of all that is in it.
const LAYERS: &str = "cd root/layers 2> /dev/null || exit 0; for note in *.json; do test -e $note || exit 0; \
    layer=${note%.json}; echo $layer $(cd $layer && find . -printf '%p %y %m %U %s %l\\n' | sort | sha256sum); done";

/// Blobs whose content is not what their name says.
const FALSE_BLOBS: &str = "cd root/images/blobs/sha256 2> /dev/null && sha256sum * 2> /dev/null | \
    while read -r sum name; do test $sum = $name || echo $name; done";

fn lines(sandbox: &Sandbox, script: &str) -> BTreeSet<String> {
    sandbox.sh(script).ok().lines().map(str::to_owned).collect()
}

/// The image `new` as the list of images has it; empty if it is not there.
fn listed(sandbox: &Sandbox) -> String {
    sandbox.sh("img-ls | jq -r '.images[] | select(.references == [\"new:latest\"]) | .digest'").ok()
}

/// Runs `tool`, which makes the image `new`, once in peace; then again and again from the same start, killed each time when
/// it is about to make its first, second, … of each system call.
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
    for moment in moments {
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
        // Half a layer that an image has goes with whoever unpacks it next.
        left.retain(|line| !line.contains(" ./layers/."));
        // What is no store yet is not swept; whoever makes it writes the same files anew.
        let is_store = sandbox.root().join("images/oci-layout").exists();
        left.retain(|line| is_store || !line.ends_with(".new"));
        assert!(left.is_empty(), "{context}: left after img-gc: {left:?}");
        killing::assert_as(sandbox, &before, &context);
        if !listed_now.is_empty() {
            sandbox.sh("img-save -q new -o new.tar > /dev/null").ok();
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
    assert!(made > 0 && not_made > 0, "{made} runs came to their end, {not_made} did not");
}

#[test]
fn img_build_is_killed_at_every_change() {
    let sandbox = Sandbox::with_busybox();
    // The layer that it is built on stands, so that its four hundred links are not among the changes.
    sandbox.sh("layer-apply --id first < busybox.json | unwind > /dev/null").ok();
    let dockerfile = "FROM busybox\nRUN echo one > /one\nCOPY file /two\nENV three=3\nCMD [\"/bin/sh\"]\n";
    std::fs::create_dir(sandbox.directory().join("context")).unwrap();
    std::fs::write(sandbox.directory().join("context/Dockerfile"), dockerfile).unwrap();
    std::fs::write(sandbox.directory().join("context/file"), "two\n").unwrap();
    killed_at_every_change(&sandbox, "img-build -q -t new context");
}

#[test]
fn img_load_is_killed_at_every_change() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("img-tag busybox new && img-save -q new -o archive.tar && rm -r root && mkdir root").ok();
    killed_at_every_change(&sandbox, "img-load -q archive.tar");
}
