//! The files of an image in a directory.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

/// A sandbox whose image `built` has three layers, one with a whiteout.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mkdir context dir && echo hidden > dir/below && echo one > context/one").ok();
    let text = "FROM busybox\nCOPY one /c/one\nRUN rm -r /www && chmod 4755 /c/one\n";
    std::fs::write(sandbox.directory().join("context/Dockerfile"), text).unwrap();
    sandbox.sh("img-build -q --network none -t built context > /dev/null").ok();
    sandbox
}

#[test]
fn an_image_is_shown_and_the_directory_is_as_before() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    let document = sandbox.sh("img-mount --id seen built dir").json();
    assert_eq!(document["image"]["reference"], "built:latest");
    assert_eq!(document["layers"].as_array().unwrap().len(), 3);
    assert_eq!(
        sandbox.sh("cat dir/c/one; stat -c %a dir/c/one; ls dir").ok(),
        sandbox.sh("echo one; echo 4755; img-export built | tar -t --exclude '*/*' | tr -d / | sort").ok()
    );
    sandbox
        .sh("test ! -e dir/www && test ! -e dir/below && ! touch dir/new && ! touch dir/c/one 2> /dev/null")
        .ok();
    let options = sandbox.sh("findmnt -no FSTYPE,SOURCE,OPTIONS dir").ok();
    assert!(options.starts_with("overlay stave-image:seen ro,nosuid,nodev,"), "{options}");
    assert_eq!(sandbox.sh("img-mount --check < /run/stave/seen.json | jq -r .id").ok(), "seen\n");
    // Used layers and the image of a mount stay.
    sandbox.sh("img-rm -f built > /dev/null; img-gc --grace 0s > /dev/null && cat dir/c/one").ok();
    let left = sandbox.sh("img-mount --undo dir").json();
    assert!(left.get("steps").is_none_or(|steps| steps.as_array().unwrap().is_empty()), "{left}");
    assert_eq!(sandbox.sh("cat dir/below").ok(), "hidden\n");
    assert_eq!(before.difference(&sandbox.snapshot()), "");
    assert_eq!(sandbox.sh("ls -A /run/stave/views /run/stave/*.json 2> /dev/null; true").ok(), "");
}

#[test]
fn undo_takes_only_its_own_mount() {
    let sandbox = sandbox();
    sandbox.sh("img-mount --id one built dir > one.json && img-mount --id two busybox dir > /dev/null").ok();
    assert_eq!(sandbox.sh("findmnt -no SOURCE dir | tail -n 1").ok(), "stave-image:two\n");
    let covered = sandbox.sh("unwind one").exits(1);
    assert!(covered.stderr.contains("dir\": something else is mounted over it"), "{covered:?}");
    sandbox.sh("img-mount --undo dir > /dev/null && test -e dir/c/one").ok();
    sandbox.sh("mount -t tmpfs other dir").ok();
    let covered = sandbox.sh("img-mount --undo dir").exits(1);
    assert!(covered.stderr.contains("hint: unmount that first, and then undo again"), "{covered:?}");
    sandbox.sh("umount dir && unwind < one.json && test -e dir/below").ok();
    // Somebody has unmounted it already.
    sandbox.sh("img-mount built dir > /dev/null && umount dir && img-mount --undo dir").ok();
    let missing = sandbox.sh("img-mount --undo dir").exits(1);
    assert!(
        missing.stderr.starts_with("img-mount: no image is shown in \"dir\" by a record in "),
        "{missing:?}"
    );
    sandbox.sh("img-mount --undo built dir").exits(1);
}

#[test]
fn a_killed_one_is_unwound_and_a_lost_one_repaired() {
    let sandbox = sandbox();
    sandbox.sh("img-mount --id seen built dir > seen.json && umount dir").ok();
    let missing = sandbox.sh("img-mount --check < seen.json").exits(1);
    assert!(missing.stderr.contains("missing: mount "), "{missing:?}");
    sandbox.sh("img-mount --repair < seen.json > /dev/null && test -e dir/c/one && unwind seen").ok();
    // As it is before anything is made: the record lists what would be.
    let begun = r#".steps[0].state = "begun" | .steps[0].adds = {}"#;
    sandbox.sh(&format!("jq -c '{begun}' seen.json > /run/stave/seen.json && unwind seen")).ok();
    sandbox.sh("test ! -e /run/stave/seen.json && test -e dir/below").ok();
    sandbox.sh("img-mount --id seen built dir > /dev/full").exits(1);
    sandbox.sh("test ! -e /run/stave/seen.json && test -e dir/below").ok();
}

#[test]
fn in_one_file_with_one_layer_in_a_pipe_and_by_an_ordinary_user() {
    let sandbox = sandbox();
    sandbox
        .sh("img-mount --format erofs built dir > /dev/null && test -e dir/c/one && img-mount --undo dir")
        .ok();
    sandbox.sh("img-mount busybox dir > /dev/null && test -x dir/bin/busybox && img-mount --undo dir").ok();
    sandbox.sh("echo FROM scratch > context/Dockerfile && echo LABEL a=b >> context/Dockerfile").ok();
    sandbox.sh("img-build -q -t none context > /dev/null && img-mount none dir > /dev/null").ok();
    assert_eq!(sandbox.sh("ls -A dir; img-mount --undo dir > /dev/null; ls dir").ok(), "below\n");
    assert_eq!(
        sandbox
            .sh("img-mount --id web built dir | union-mount | ns-exec -- cat /c/one && unwind -q web > /dev/null")
            .ok(),
        "one\n"
    );
    sandbox.sh("test -e dir/below").ok();
    let user = "img-mount --rootless built dir > /dev/null && cat dir/c/one && img-mount --undo dir > /dev/null && cat dir/below";
    let shown = sandbox.sh(&format!("unshare --user --map-root-user --mount sh -ec '{user}'")).ok();
    assert_eq!(shown, "one\nhidden\n");
}

#[test]
fn places_that_do_not_fit_are_refused() {
    let sandbox = sandbox();
    for (arguments, words) in [
        ("built missing", "img-mount: mount on \"missing\": No such file or directory"),
        ("built context/one", "img-mount: mount on \"context/one\": it is not a directory"),
        ("built /", "img-mount: mount on \"/\": "),
        ("built $STAVE_ROOT/images", "img-mount: mount on "),
        ("none dir", "img-mount: no image \"none\""),
    ] {
        let refused = sandbox.sh(&format!("img-mount {arguments}")).exits(1);
        assert!(refused.stderr.starts_with(words), "{refused:?}");
    }
    sandbox.sh("img-mount built").exits(2);
    assert_eq!(sandbox.sh("ls /run/stave/*.json 2> /dev/null; true").ok(), "");
}

#[test]
fn a_terminal_gets_a_line() {
    let sandbox = sandbox();
    let typed = |command: &str| sandbox.sh(&format!("script -qec '{command}' /dev/null < /dev/null"));
    let shown = typed("img-mount built dir").ok();
    assert_eq!(shown, format!("{}/dir\r\n", sandbox.directory().display()));
    assert_eq!(typed("img-mount --undo dir").ok(), "");
    let failed = typed("img-mount --undo dir").exits(1).stdout;
    assert!(failed.starts_with("img-mount: no image is shown in") && !failed.contains('{'), "{failed}");
    assert!(typed("img-mount --json built dir").ok().starts_with("{\r\n"));
}
