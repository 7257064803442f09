//! Containers based on snapshots of others. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

/// Makes the container `web`, with one snapshot of what a command has written to its root.
fn snapshot_of(sandbox: &Sandbox, pipe: &str, script: &str) {
    let run = format!("ns-exec --document run.json -- sh -c 'cd / && {{ {script}; }}' < web.json");
    sandbox.sh(&format!("{pipe} > web.json; {run}")).ok();
    sandbox.sh("ns-exec --undo < run.json | union-snapshot > web.json").ok();
}

const PIPE: &str = "layer-apply --id web < busybox.json | union-mount";

/// Runs a command in the root file system of a container. Returns its output.
#[track_caller]
fn at(sandbox: &Sandbox, id: &str, script: &str) -> String {
    sandbox.sh(&format!("cd $STAVE_ROOT/containers/{id}/rootfs && {{ {script}; }}")).ok()
}

#[test]
fn they_share_what_is_frozen_and_nothing_else() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    snapshot_of(&sandbox, PIPE, "echo one > file; rm -r www; chmod 711 .");
    at(&sandbox, "web", "echo later > file");
    let document = sandbox.sh("union-fork web --id try1 | tee try1.json").json();
    assert_eq!(document["rootfs"]["fork"]["container"], "web");
    assert_eq!(
        (&document["rootfs"]["fork"]["snapshot"], &document["rootfs"]["fork"]["levels"]),
        (&1.into(), &1.into())
    );
    assert_eq!(document["image"], sandbox.sh("cat web.json").json()["image"]);
    sandbox.sh("union-fork web@1 --id try2 > try2.json; union-fork web@0 --id fresh > /dev/null").ok();
    for id in ["try1", "try2"] {
        assert_eq!(at(&sandbox, id, "cat file; test -e www || echo gone; stat -c %a ."), "one\ngone\n711\n");
        at(&sandbox, id, &format!("echo {id} > file; mkdir www"));
    }
    assert_eq!(at(&sandbox, "fresh", "ls -d www; test -e file || echo none"), "www\nnone\n");
    assert_eq!(at(&sandbox, "web", "cat file"), "later\n");
    // A process of its own, in a network of its own.
    let run = "netns-add < try1.json | ns-exec --document run.json -- sh -c 'cat /file; ls /sys/class/net'";
    assert_eq!(sandbox.sh(run).ok(), "try1\nlo\n");
    sandbox.sh("union-fork --check < try2.json > /dev/null").ok();
    sandbox.sh("unwind try1 try2 fresh web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn forks_of_forks_and_their_order() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    snapshot_of(&sandbox, PIPE, "echo one > file");
    sandbox.sh("union-fork web --id a > /dev/null").ok();
    at(&sandbox, "a", "echo two > file; echo a > a");
    sandbox.sh("union-snapshot a > /dev/null; union-fork a --id b > /dev/null").ok();
    assert_eq!(at(&sandbox, "b", "cat file a"), "two\na\n");
    at(&sandbox, "b", "rm a; echo three > file");
    sandbox.sh("union-snapshot b > /dev/null; union-snapshot --undo b > /dev/null; union-snapshot --undo a > /dev/null").exits(1);
    assert_eq!(at(&sandbox, "b", "cat file; ls a 2> /dev/null; true"), "three\n");
    sandbox.sh("union-fork a@0 --id c > /dev/null").ok();
    assert_eq!(at(&sandbox, "c", "cat file"), "one\n");

    let refused = sandbox.sh("unwind web > /dev/null").exits(1);
    assert_eq!(
        refused.stderr,
        "unwind: container \"web\" has forks: a\nhint: `unwind a web` removes them, too\n"
    );
    assert_eq!(sandbox.sh("container-ls --format {id}").ok(), "a\nb\nc\nweb\n");
    for (tool, id, told) in [
        (
            "union-snapshot",
            "web",
            "undo snapshot 1 of container \"web\": container \"a\" is based on it\nhint: `unwind a` first\n",
        ),
        (
            "union-snapshot",
            "a",
            "undo snapshot 1 of container \"a\": container \"b\" is based on it\nhint: `unwind b` first\n",
        ),
    ] {
        let refused = sandbox.sh(&format!("{tool} --undo {id} > /dev/null")).exits(1);
        assert_eq!(refused.stderr, format!("{tool}: {told}"));
    }
    let refused = sandbox.sh("union-mount --undo < web.json > /dev/null").exits(1);
    assert!(
        refused.stderr.starts_with("union-mount: undo the mount: there are snapshots of it\n"),
        "{}",
        refused.stderr
    );
    // The order of the arguments does not matter.
    sandbox.sh("unwind web a b c > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn the_newest_level_can_be_taken_back_while_forks_stand_on_older_ones() {
    let sandbox = Sandbox::with_busybox();
    snapshot_of(&sandbox, PIPE, "echo one > file");
    sandbox.sh("union-fork web --id a > /dev/null").ok();
    at(&sandbox, "web", "echo two > file");
    sandbox.sh("union-snapshot web > /dev/null").ok();
    at(&sandbox, "web", "echo three > file");
    sandbox.sh("union-snapshot --undo web > /dev/null").ok();
    assert_eq!(at(&sandbox, "web", "cat file"), "two\n");
    assert_eq!(at(&sandbox, "a", "cat file"), "one\n");
    sandbox.sh("union-snapshot --undo web > /dev/null").exits(1);
    sandbox.sh("unwind a > /dev/null; union-snapshot --undo web > /dev/null").ok();
    assert_eq!(at(&sandbox, "web", "cat file"), "one\n");
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn in_every_form() {
    let erofs = "layer-apply --format erofs --id web < busybox.json | union-mount";
    for (pipe, flags) in [
        (erofs.to_owned(), ""),
        (format!("{PIPE} --size 16m"), "--size 8m"),
        (format!("{PIPE} --size 16m"), ""),
        (format!("{PIPE} --userns auto"), ""),
        (format!("{PIPE} --durable"), "--durable"),
    ] {
        let sandbox = Sandbox::with_busybox();
        let before = sandbox.snapshot();
        snapshot_of(&sandbox, &pipe, "echo one > file; rm -r www");
        sandbox.sh(&format!("union-fork web --id a {flags} > a.json")).ok();
        let run = "ns-exec --document run.json -- sh -c 'cat /file; test -e /www || echo gone; echo two > /file; cat /file' < a.json";
        assert_eq!(sandbox.sh(run).ok(), "one\ngone\ntwo\n", "{pipe} {flags}");
        sandbox.sh("ns-exec --undo < run.json > a.json; union-snapshot < a.json > next.json").ok();
        let run = "ns-exec --document run.json -- sh -c 'cat /file; echo three > /file' < next.json";
        assert_eq!(sandbox.sh(run).ok(), "two\n", "{pipe} {flags}");
        sandbox.sh("union-snapshot --undo a > /dev/null").ok();
        assert_eq!(at(&sandbox, "a", "cat file"), "two\n");
        assert_eq!(at(&sandbox, "web", "cat file"), "one\n");
        sandbox.sh("unwind a > /dev/null; unwind web > /dev/null").ok();
        sandbox.assert_as(&before);
    }
}

#[test]
fn it_stands_again_after_a_restart() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    snapshot_of(&sandbox, &format!("{PIPE} --durable --size 16m"), "echo one > file");
    sandbox.sh("union-fork web --id a --durable > a.json").ok();
    at(&sandbox, "a", "echo two > two");
    sandbox.sh("cd $STAVE_ROOT/containers; umount web/rootfs web/top a/rootfs").ok();
    // The fork comes first: it mounts what it is based on.
    sandbox.sh("union-fork --repair < a.json > /dev/null").ok();
    assert_eq!(at(&sandbox, "a", "cat file two"), "one\ntwo\n");
    sandbox.sh("union-mount --repair < web.json > /dev/null; union-snapshot --repair < $STAVE_RUN/web.json > /dev/null").ok();
    assert_eq!(at(&sandbox, "web", "cat file"), "one\n");
    sandbox.sh("unwind a web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn refused() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh(&format!("{PIPE} > web.json")).ok();
    for (arguments, told) in [
        (
            "web",
            "container \"web\" has no snapshot\nhint: `union-snapshot web` takes one; web@0 is what it was before anything was written\n",
        ),
        ("web@1", "container \"web\" has no snapshot 1\nhint: union-snapshot takes one\n"),
        ("other", "no container \"other\" in /run/stave\nhint: container-ls lists them\n"),
        (
            "web@0 --durable",
            "make a durable fork: container \"web\" is not durable, and a crash may lose its snapshot\n\
             hint: `union-mount --durable` makes one that is\n",
        ),
    ] {
        let refused = sandbox.sh(&format!("union-fork {arguments} > /dev/null")).exits(1);
        assert_eq!(refused.stderr, format!("union-fork: {told}"), "{arguments}");
    }
    let wrong = sandbox.sh("union-fork web@x").exits(2);
    assert!(wrong.stderr.contains("\"x\" is not the number of a snapshot"), "{}", wrong.stderr);
    sandbox.sh("union-snapshot web > /dev/null").ok();
    let refused = sandbox.sh("union-fork web@2 > /dev/null").exits(1);
    assert_eq!(
        refused.stderr,
        "union-fork: container \"web\" has no snapshot 2\nhint: the newest one is web@1\n"
    );
    let refused = sandbox.sh("union-fork web --id web > /dev/null").exits(1);
    assert!(refused.stderr.starts_with("union-fork: container \"web\" exists: "), "{}", refused.stderr);
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn a_document_that_cannot_be_written_leaves_nothing() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    snapshot_of(&sandbox, PIPE, "echo one > file");
    sandbox.sh("union-fork web --id a > /dev/full").exits(1);
    assert_eq!(sandbox.sh("container-ls --format {id}").ok(), "web\n");
    sandbox.sh("union-fork web --id a > a.json; union-fork --undo < a.json > b.json; union-fork --undo < b.json | jq -c '[.rootfs, .image, .steps]'").ok();
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// Forks, differences and merges of an ordinary user, on directories and on images.
#[test]
fn for_an_ordinary_user() {
    let sandbox = Sandbox::with_busybox();
    std::fs::write(sandbox.directory().join("busybox.tar"), testkit::busybox()).unwrap();
    let script = "set -e
        export STAVE_ROOT=$PWD/own STAVE_RUN=$PWD/own.run
        img-load -q -t busybox busybox.tar | layer-apply --rootless --id web | union-mount > web.json
        at() { echo $STAVE_ROOT/containers/$1/rootfs; }
        echo one > $(at web)/file; echo x > $(at web)/gone; union-snapshot web > /dev/null
        union-fork web --id a > /dev/null; union-fork web --id b > /dev/null
        echo two > $(at a)/file; rm -r $(at a)/www $(at a)/gone; mkdir $(at a)/www; echo new > $(at a)/www/new
        union-snapshot a > /dev/null; rm $(at a)/www/new; echo three > $(at a)/www/three
        cat $(at b)/file $(at web)/file
        union-diff web a | jq -c '[.path, .change]'
        union-merge a > /dev/null; union-diff web a; cat $(at web)/file; ls $(at web)/www; test ! -e $(at web)/gone
        union-merge b > /dev/null 2> said || cat said
        union-merge --undo web > /dev/null 2> said || cat said
        unwind web a b > /dev/null; ls $STAVE_ROOT/containers 2> /dev/null || echo none";
    std::fs::write(sandbox.directory().join("script"), script).unwrap();
    let said = sandbox.sh("unshare --user --map-root-user --mount sh script").ok();
    let changes = "[\"/file\",\"changed\"]\n[\"/gone\",\"removed\"]\n[\"/www/three\",\"added\"]\n";
    assert!(said.starts_with("one\none\n") && said.ends_with("\nnone\n"), "{said}");
    assert!(said.contains("two\nthree\n"), "{said}");
    assert!(changes.lines().all(|line| said.contains(line)), "{said}");
}

#[test]
fn on_images_what_a_fork_wrote_is_merged() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    snapshot_of(
        &sandbox,
        "layer-apply --format erofs --id web < busybox.json | union-mount",
        "echo one > file; rm -r www",
    );
    sandbox.sh("union-fork web --id a > /dev/null").ok();
    at(&sandbox, "a", "mkdir www; echo two > file; rm bin/ls");
    sandbox.sh("union-merge a > /dev/null").ok();
    assert_eq!(at(&sandbox, "web", "cat file; ls www; test -e bin/ls || echo gone"), "two\ngone\n");
    assert_eq!(sandbox.sh("union-diff a web").ok(), "");
    sandbox.sh("unwind web a > /dev/null").ok();
    sandbox.assert_as(&before);
}
