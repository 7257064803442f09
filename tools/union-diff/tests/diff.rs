//! Differences between containers and snapshots. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

/// The container `web`, with two snapshots, and a fork of each.
fn fixture(layers: &str) -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh(&format!("{layers} --id web < busybox.json | union-mount > /dev/null")).ok();
    let write = |id: &str, script: &str| {
        sandbox.sh(&format!("cd $STAVE_ROOT/containers/{id}/rootfs && {{ {script}; }}")).ok();
    };
    write("web", "mkdir d; printf 'a\nb\nc\n' > d/text; echo gone > gone; ln -s one link; touch run");
    sandbox.sh("union-snapshot web > /dev/null").ok();
    write(
        "web",
        "printf 'a\nB\nc\n' > d/text; rm gone; ln -sf two link; chmod 755 run; printf 'x\\0y' > bytes; mkdir new",
    );
    sandbox.sh("union-snapshot web > /dev/null; union-fork web@1 --id a > /dev/null; union-fork web@1 --id b > /dev/null").ok();
    write("a", "rm -r d; mkdir d; echo other > d/other; rm -r www; chown 7 run");
    write("b", "rm gone; echo file > gone; mkfifo pipe");
    sandbox
}

#[test]
fn paths_as_lines() {
    for layers in ["layer-apply", "layer-apply --format erofs"] {
        let sandbox = fixture(layers);
        let diff = |of: &str| {
            sandbox.sh(&format!("union-diff {of} | jq -r '[.path, .change, .kind, (.what // [] | join(\",\"))] | join(\" \")'")).ok()
        };
        assert_eq!(
            diff("web@1 web@2"),
            "/bytes added file \n/gone removed file \n/link changed symlink target\n/new added directory \n\
             /run changed file mode\n/d/text changed file content\n"
        );
        assert_eq!(diff("web web@2") + &diff("a@0 web@1") + &diff("a a"), "");
        assert_eq!(
            diff("web@2 web@1"),
            "/bytes removed file \n/gone added file \n/link changed symlink target\n/new removed directory \n\
             /run changed file mode\n/d/text changed file content\n"
        );
        assert_eq!(
            diff("a b"),
            "/gone changed file content\n/pipe added fifo \n/run changed file owner\n/www added directory \n\
             /d/other removed file \n/d/text added file \n/www/index.html added file \n"
        );
        assert_eq!(
            diff("web@0 a"),
            "/d added directory \n/gone added file \n/link added symlink \n/run added file \n/www removed directory \n/d/other added file \n\
             /www/index.html removed file \n"
        );
        sandbox.sh("unwind a b web > /dev/null").ok();
    }
}

/// With the patch, git turns A into B.
#[test]
fn a_patch_is_what_git_applies() {
    let sandbox = fixture("layer-apply");
    let patch = sandbox.sh("union-diff --patch web@1 web@2").ok();
    let expected = "diff --git a/bytes b/bytes\nnew file mode 100644\nBinary files /dev/null and b/bytes differ\n\
        diff --git a/gone b/gone\ndeleted file mode 100644\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n\
        diff --git a/link b/link\n--- a/link\n+++ b/link\n@@ -1 +1 @@\n-one\n\\ No newline at end of file\n+two\n\\ No newline at end of file\n\
        diff --git a/run b/run\nold mode 100644\nnew mode 100755\n\
        diff --git a/d/text b/d/text\n--- a/d/text\n+++ b/d/text\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n";
    assert_eq!(patch, expected);
    let applied = "mkdir one && cp -a $STAVE_ROOT/containers/web/upper/. one && cd one && git init -q . &&
        union-diff --patch web@1 web@2 | sed '1,3d' | git apply && cat d/text && readlink link && stat -c %a run && ls gone";
    let outcome = sandbox.sh(applied);
    assert_eq!(outcome.stdout, "a\nB\nc\ntwo\n755\n", "{}", outcome.stderr);
    assert_eq!(
        sandbox.sh("union-diff --patch web@1 b").ok(),
        "diff --git a/gone b/gone\n--- a/gone\n+++ b/gone\n@@ -1 +1 @@\n-gone\n+file\n# not in this patch: pipe\n"
    );
    sandbox.sh("union-diff --patch web@1 web@2 | head -n 1; union-diff web@0 web | true").ok();
    let missing = sandbox.sh("union-diff web@1 web@3").exits(1);
    assert_eq!(
        missing.stderr,
        "union-diff: container \"web\" has no snapshot 3\nhint: the newest one is web@2\n"
    );
    sandbox.sh("union-diff web other").exits(1);
    sandbox.sh("union-diff web").exits(2);
    sandbox.sh("unwind a b web > /dev/null").ok();
}
