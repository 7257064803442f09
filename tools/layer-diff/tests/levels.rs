//! What a container wrote in several levels, as one layer. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

/// Everything of a tree: kinds, modes, owners, targets and contents.
fn tree(sandbox: &Sandbox, root: &str) -> String {
    let facts =
        "find . -mindepth 1 -printf '%P %y %m %U:%G %l\\n' | sort; find . -type f | sort | xargs -r cksum";
    sandbox.sh(&format!("cd {root} && {{ {facts}; }}")).ok()
}

/// What is written in one level after the other, in the root of the container.
const LEVELS: [&str; 4] = [
    "mkdir -p a/deep b c d; echo 1 > a/deep/x; echo 1 > b/x; echo 1 > c/x; echo 1 > f; rm -r www; ln f g; rm etc/passwd; mkfifo p",
    "rm -r a; echo 2 > a; rm -r b; mkdir b; echo 2 > b/y; rm f; mkdir www; echo 2 > www/new; chmod 700 c; ln -s /x link; rm p",
    "rm a; mkdir a; echo 3 > a/z; rm c/x; echo 3 > c/w; rm -r d; echo 3 > d; rm -r www; echo 3 > etc/passwd; chown 7:8 g",
    "rm -r b; rm d; mkdir -p d/e; echo 4 > d/e/f; mkdir www; echo 4 > g; rm link; mkdir link; rm -r tmp; mkdir tmp; chmod 711 tmp",
];

/// The container `web` with these levels: a snapshot behind each.
fn with_levels() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("layer-apply --id web < busybox.json | union-mount > web.json").ok();
    for (number, script) in (1..).zip(LEVELS) {
        let run = format!("ns-exec --document run.json -- sh -c 'cd / && {{ {script}; }}' < web.json");
        sandbox.sh(&run).ok();
        sandbox.sh("ns-exec --undo < run.json > web.json").ok();
        sandbox.sh(&format!("cp -a $STAVE_ROOT/containers/web/rootfs saved.{number}")).ok();
        sandbox.sh("union-snapshot < web.json > next.json && mv next.json web.json").ok();
    }
    sandbox
}

/// An image of each level has the files that the container had.
#[test]
fn an_image_of_any_of_them_has_what_the_container_had() {
    let sandbox = with_levels();
    for number in 1..=LEVELS.len() {
        sandbox.sh(&format!("img-commit -q -t level web@{number} > level.json")).ok();
        sandbox.sh("img-inspect level | layer-apply --id again | union-mount > again.json").ok();
        let seen = tree(&sandbox, "$STAVE_ROOT/containers/again/rootfs");
        // What the mount points are made of is in each.
        assert_eq!(seen, tree(&sandbox, &format!("saved.{number}")), "level {number}");
        sandbox.sh("unwind again > /dev/null").ok();
    }
    // Without a number, and from the document: the same as the newest, as nothing was written since.
    let digests = ["img-commit -q web@4", "img-commit -q web", "img-commit -q < web.json"].map(|commit| {
        sandbox
            .sh(&format!("SOURCE_DATE_EPOCH=1 {commit} | jq -r '.image.configuration.rootfs.diff_ids[-1]'"))
            .ok()
    });
    assert!(digests[0] == digests[1] && digests[1] == digests[2], "{digests:?}");
    sandbox.sh("img-commit -q web@0 | jq -e '.image.configuration.rootfs.diff_ids | length == 1'").ok();
    let missing = sandbox.sh("img-commit -q web@5 > /dev/null").exits(1);
    assert_eq!(
        missing.stderr,
        "img-commit: container \"web\" has no snapshot 5\nhint: the newest one is web@4\n"
    );
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn all_of_them_or_one_alone() {
    let sandbox = with_levels();
    let list = |of: &str| sandbox.sh(&format!("layer-diff --list {of}")).ok();
    assert_eq!(list("< web.json"), list("--container web"));
    assert_eq!(list("--container web@4"), list("--container web"));
    let alone = "C /a\nD /f\nA /link\nD /p\nC /b\nA /b/y\nC /c\nA /www\nA /www/new\n";
    assert_eq!(list("--container web@2 --alone"), alone);
    assert_eq!(list("--container web --alone"), "");
    assert_eq!(list("--container web@0"), "");
    // What was made and removed again is not told.
    let all = list("--container web@4");
    for line in ["A /a", "A /a/z", "A /d/e/f", "C /tmp", "A /g", "C /www"] {
        assert!(all.lines().any(|found| found == line), "{line} is not in\n{all}");
    }
    assert!(!all.contains("/b") && !all.contains(" /p") && !all.contains(" /f\n"), "{all}");
    sandbox.sh("layer-diff --container web@2 upper").exits(2);
    sandbox.sh("unwind web > /dev/null").ok();
}
