//! Merges the writes of a fork into its container. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

#[track_caller]
fn at(sandbox: &Sandbox, id: &str, script: &str) -> String {
    sandbox.sh(&format!("cd $STAVE_ROOT/containers/{id}/rootfs && {{ {script}; }}")).ok()
}

/// Makes the container `web` with this snapshot, and the fork `a` of it.
fn forked(sandbox: &Sandbox, flags: &str) {
    sandbox.sh(&format!("layer-apply --id web < busybox.json | union-mount {flags} > web.json")).ok();
    at(sandbox, "web", "echo one > file; mkdir d; echo x > d/x; echo k > kept");
    sandbox.sh("union-snapshot web > /dev/null; union-fork web --id a > a.json").ok();
}

#[test]
fn what_a_fork_wrote_is_the_other_ones_and_can_be_taken_back() {
    for flags in ["", "--size 16m", "--durable"] {
        let sandbox = Sandbox::with_busybox();
        let before = sandbox.snapshot();
        forked(&sandbox, flags);
        at(&sandbox, "a", "echo two > file; rm -r d www; mkdir www; echo new > www/new; chmod 711 .");
        sandbox.sh("union-snapshot a > /dev/null").ok();
        at(&sandbox, "a", "echo three > file; rm kept; ln file hard; mkdir d; echo y > d/y");
        let look = "cat file hard www/new d/*; stat -c '%a %h' . hard; ls kept 2> /dev/null; true";
        let theirs = at(&sandbox, "a", look);
        sandbox.sh("union-merge a > web.json").ok();
        assert_eq!(at(&sandbox, "web", look), theirs, "{flags}");
        assert_eq!(sandbox.sh("union-diff a web").ok(), "");
        assert_eq!(at(&sandbox, "a", look), theirs, "the fork stays as it is");
        sandbox.sh("union-merge --check a > /dev/null").ok();
        // The container can be used from there on.
        sandbox.sh("unwind a > /dev/null").ok();
        at(&sandbox, "web", "echo four > file");
        let refused = sandbox.sh("union-snapshot --undo web > /dev/null").exits(1);
        assert_eq!(
            refused.stderr,
            "union-snapshot: undo snapshot 1: a fork was merged after it\nhint: `union-merge --undo` undoes the merge\n"
        );
        sandbox.sh("union-snapshot web > /dev/null").ok();
        sandbox.sh("union-merge --undo < /run/stave/web.json > /dev/null").exits(1);
        sandbox
            .sh("union-snapshot --undo web > /dev/null; union-merge --undo < /run/stave/web.json > web.json")
            .ok();
        assert_eq!(at(&sandbox, "web", "cat file d/x kept; ls -d www"), "one\nx\nk\nwww\n");
        sandbox.sh("union-snapshot --undo web > /dev/null").ok();
        assert_eq!(at(&sandbox, "web", "cat file"), "one\n");
        sandbox.sh("unwind web > /dev/null").ok();
        sandbox.assert_as(&before);
    }
}

#[test]
fn when_both_have_changed_nothing_is() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    forked(&sandbox, "");
    at(&sandbox, "a", "echo two > file; echo two > d/x; echo a > a");
    at(&sandbox, "web", "echo other > file; rm d/x; echo b > b");
    let refused = sandbox.sh("union-merge a > after.json").exits(1);
    let hint = "hint: `union-diff web@1 web` and `union-diff web@1 a` list the changes\n";
    assert_eq!(
        refused.stderr,
        format!("union-merge: merge \"a\" into \"web\": both have changed since web@1: /d/x, /file\n{hint}")
    );
    assert_eq!(sandbox.sh("jq -r '.error.tool, .id' after.json").ok(), "union-merge\nweb\n");
    assert_eq!(at(&sandbox, "web", "cat file b; ls d"), "other\nb\n");
    // A new snapshot counts as a change too.
    sandbox.sh("union-snapshot --undo web > /dev/null").exits(1);
    at(&sandbox, "web", "echo one > file; echo x > d/x");
    let refused = sandbox.sh("union-merge a > /dev/null").exits(1);
    assert_eq!(
        refused.stderr,
        format!(
            "union-merge: merge \"a\" into \"web\": \"web\" has changed since web@1, at other paths\n{hint}"
        )
    );
    let none = sandbox.sh("union-merge web > /dev/null").exits(1);
    assert_eq!(none.stderr, "union-merge: merge \"web\" into \"web\": it is no fork\n");
    let none = sandbox.sh("union-merge other > /dev/null").exits(1);
    assert!(none.stderr.starts_with("union-merge: no container \"other\" in "), "{}", none.stderr);
    sandbox.sh("ns-exec -d -- sleep 1000 < a.json > /dev/null").ok();
    let refused = sandbox.sh("union-merge a > /dev/null").exits(1);
    assert!(refused.stderr.contains(" (sleep) still writes to it\nhint: "), "{}", refused.stderr);
    // Nor while the host works in it.
    sandbox.sh("container-stop -t 0 a > /dev/null").ok();
    let refused = sandbox.sh("cd $STAVE_ROOT/containers/a/rootfs && union-merge a > /dev/null").exits(1);
    assert!(refused.stderr.contains(" (sh) still writes to it\nhint: "), "{}", refused.stderr);
    sandbox.sh("unwind web a > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// Another tool that works with the fork has its record locked.
#[test]
fn the_fork_is_not_changed_by_another_tool_meanwhile() {
    let sandbox = Sandbox::with_busybox();
    forked(&sandbox, "");
    at(&sandbox, "a", "echo two > file");
    let waits = "flock /run/stave/locks/a.container timeout 2.3 union-merge a > /dev/null";
    let told = sandbox.sh(waits).exits(124).stderr;
    let lock = "union-merge: waits for lock \"/run/stave/locks/a.container\", which process ";
    assert!(told.starts_with(lock) && told.ends_with(" (flock) has\n"), "{told}");
    sandbox.sh("union-merge a > /dev/null").ok();
    assert_eq!(at(&sandbox, "web", "cat file"), "two\n");
    sandbox.sh("unwind web a > /dev/null").ok();
}

/// The power is cut while a fork is merged: the record that survives knows nothing of it.
#[test]
fn a_power_cut_during_a_merge_leaves_the_container_as_it_was() {
    let sandbox = Sandbox::with_busybox();
    let restart = "rm /run/stave/web.json; cat /proc/sys/kernel/random/uuid > boot
        mount --bind boot /proc/sys/kernel/random/boot_id";
    for snapshot in [0, 1] {
        let place = if snapshot == 0 { "." } else { "levels/1" };
        for cut in ["mv upper merged && mv before upper", "mv upper merged", "true"] {
            let before = sandbox.snapshot();
            sandbox.sh("layer-apply --id web < busybox.json | union-mount --durable > web.json").ok();
            if snapshot == 1 {
                sandbox.sh("union-snapshot web > web.json").ok();
            }
            sandbox.sh(&format!("union-fork web@{snapshot} --id a > /dev/null")).ok();
            at(&sandbox, "a", "echo two > file");
            sandbox.sh("cp $STAVE_ROOT/containers/web/record.json kept; union-merge a > /dev/null; unwind a > /dev/null").ok();
            let cut = format!(
                "mv kept $STAVE_ROOT/containers/web/record.json
                (cd $STAVE_ROOT/containers/web && umount rootfs && cd {place} && {cut}) && {restart}"
            );
            sandbox.sh(&cut).ok();
            sandbox.sh("union-mount --repair < web.json > next.json").ok();
            if snapshot == 1 {
                sandbox.sh("union-snapshot --repair < next.json > /dev/null").ok();
            }
            let left =
                at(&sandbox, "web", &format!("ls -d file ../{place}/merged ../{place}/before; ls www"));
            assert_eq!(left, "index.html\n", "{cut}");
            sandbox.sh("unwind web > /dev/null; umount /proc/sys/kernel/random/boot_id; rm boot").ok();
            sandbox.assert_as(&before);
        }
    }
}

#[test]
fn on_the_beginning_of_a_container_with_volumes() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    sandbox.sh("mkdir data; layer-apply --id web < busybox.json | union-mount -v $PWD/data:/data/deep > web.json").ok();
    sandbox.sh("union-fork web@0 --id a > /dev/null").ok();
    at(&sandbox, "a", "mkdir data; echo own > data/file; echo two > file");
    sandbox.sh("union-merge a > web.json").ok();
    assert_eq!(
        at(&sandbox, "web", "cat file data/file; mountpoint data/deep"),
        "two\nown\ndata/deep is a mountpoint\n"
    );
    sandbox.sh("union-mount --check < web.json > /dev/null").ok();
    sandbox.sh("unwind web a > /dev/null; rmdir data").ok();
    sandbox.assert_as(&before);
}

/// What a layer cannot hold, or would hold in another form.
#[test]
fn holes_sockets_pipes_and_attributes_stay_what_they_are() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    forked(&sandbox, "");
    at(
        &sandbox,
        "a",
        "truncate -s 1G sparse; printf x | dd of=sparse bs=1 seek=500000000 conv=notrunc 2> /dev/null
         socat UNIX-LISTEN:socket,unlink-close=0 /dev/null & pid=$!
         until test -S socket; do sleep 0.02; done; kill $pid; wait $pid || true
         mkfifo -m 666 pipe; ln -s /nowhere link; setfattr -n user.note -v x file; chmod 4711 file; : > .wh.odd
         touch -d 2001-02-03 d; echo new > passing",
    );
    sandbox.sh("union-snapshot a > /dev/null").ok();
    at(&sandbox, "a", "rm passing");
    let look = "stat -c '%n %F %a %s %Y' sparse socket pipe link file d .wh.odd; test $(du -k sparse | cut -f 1) -lt 1000
        tail -c +500000001 sparse | head -c 1; getfattr --only-values -n user.note file";
    let theirs = at(&sandbox, "a", look);
    sandbox.sh("union-merge a > /dev/null").ok();
    assert_eq!(at(&sandbox, "web", look), theirs);
    assert!(theirs.contains("socket socket ") && theirs.ends_with("xx"), "{theirs}");
    sandbox.sh("test ! -e $STAVE_ROOT/containers/web/levels/1/upper/passing; ! ls -l $STAVE_ROOT/containers/web/levels/1/upper | grep passing").ok();
    // The fork goes on writing to its own files.
    at(&sandbox, "a", "echo other >> file");
    assert_eq!(at(&sandbox, "web", "cat file"), "one\n");
    sandbox.sh("unwind a web > /dev/null").ok();
    sandbox.assert_as(&before);
}
