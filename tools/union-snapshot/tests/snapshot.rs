//! Takes snapshots of a container's root file system, and returns to them. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

/// Makes the container `web` with these flags of union-mount.
fn mounted(sandbox: &Sandbox, flags: &str) {
    sandbox.sh(&format!("layer-apply --id web < busybox.json | union-mount {flags} > web.json")).ok();
}

/// Runs a command in the container without adding a step. Returns its output.
#[track_caller]
fn run(sandbox: &Sandbox, script: &str) -> String {
    std::fs::write(sandbox.directory().join("script"), script).unwrap();
    let started = "ns-exec --document run.json -- sh -c \"$(cat script)\" < web.json";
    sandbox.sh(&format!("{started} && ns-exec --undo < run.json > web.json")).ok()
}

#[track_caller]
fn snapshot(sandbox: &Sandbox) {
    sandbox.sh("union-snapshot < web.json > next.json && mv next.json web.json").ok();
}

#[track_caller]
fn roll_back(sandbox: &Sandbox) {
    sandbox.sh("union-snapshot --undo < web.json > next.json && mv next.json web.json").ok();
}

/// Writes, takes snapshots and returns to them, in a container made with these flags.
fn goes_back_and_further_back(flags: &str) {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    mounted(&sandbox, flags);
    let mounts = || sandbox.snapshot().of("mount").len();
    let count = mounts();
    run(
        &sandbox,
        "echo one > /file; echo kept > /kept; mkdir /dir; echo a > /dir/a; chmod 711 /; rm -r /www",
    );
    snapshot(&sandbox);
    assert_eq!(mounts(), count, "a snapshot is no further mount");
    let seen = run(
        &sandbox,
        "cat /file /dir/a; stat -c %a /; test -e /www || echo gone; echo two > /file; rm -r /dir; mkdir /www",
    );
    assert_eq!(seen, "one\na\n711\ngone\n");
    snapshot(&sandbox);
    let seen = run(
        &sandbox,
        "cat /file; ls -d /dir /www 2> /dev/null; echo three > /file; mkdir /dir; echo b > /dir/b; rm /kept",
    );
    assert_eq!(seen, "two\n/www\n");
    assert_eq!(run(&sandbox, "cat /file; ls /dir; test -e /kept || echo gone"), "three\nb\ngone\n");
    sandbox
        .sh("union-snapshot --check < web.json > /dev/null && union-mount --check < web.json > /dev/null")
        .ok();
    roll_back(&sandbox);
    assert_eq!(run(&sandbox, "cat /file /kept; ls -d /dir /www 2> /dev/null; true"), "two\nkept\n/www\n");
    roll_back(&sandbox);
    assert_eq!(run(&sandbox, "cat /file /kept /dir/a; test -e /www || echo gone"), "one\nkept\na\ngone\n");
    // There is no snapshot left to return to.
    roll_back(&sandbox);
    assert_eq!(run(&sandbox, "cat /file"), "one\n");
    assert_eq!(sandbox.sh("jq -c '[.rootfs.levels, (.steps | length)]' web.json").ok(), "[null,3]\n");
    snapshot(&sandbox);
    assert_eq!(run(&sandbox, "cat /file"), "one\n");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn on_a_volatile_top() {
    goes_back_and_further_back("");
}

#[test]
fn on_a_durable_top() {
    goes_back_and_further_back("--durable");
}

#[test]
fn in_a_file_system_of_its_own() {
    goes_back_and_further_back("--size 16m");
}

#[test]
fn for_a_user_namespace() {
    goes_back_and_further_back("--userns auto");
}

#[test]
fn the_document_tells_of_it() {
    let sandbox = Sandbox::with_busybox();
    mounted(&sandbox, "");
    snapshot(&sandbox);
    snapshot(&sandbox);
    let container = sandbox.root().join("containers/web").display().to_string();
    let told = sandbox
        .sh("jq -c '[.rootfs.levels, .rootfs.upper, .rootfs.work]' web.json")
        .ok()
        .replace(&container, "C");
    assert_eq!(told, "[[\"C/upper\",\"C/levels/1/upper\"],\"C/levels/2/upper\",\"C/levels/2/work\"]\n");
    let record = sandbox.sh("cat /run/stave/web.json").json();
    assert_eq!(record, sandbox.sh("cat web.json").json());
    assert_eq!(record["steps"][3]["operations"][3].get("base"), None, "it is written once");
    roll_back(&sandbox);
    assert_eq!(
        sandbox.sh("jq -c '.rootfs.levels' web.json").ok().replace(&container, "C"),
        "[\"C/upper\"]\n"
    );
    let refused = sandbox.sh("union-mount --undo < web.json > /dev/null").exits(1);
    assert_eq!(
        refused.stderr,
        "union-mount: undo the mount: there are snapshots of it\n\
         hint: `union-snapshot --undo` undoes the newest one, and unwind everything\n"
    );
    sandbox.sh("unwind web > /dev/null").ok();
}

/// A snapshot is possible after the process and the network were made, and is undone before them.
#[test]
fn by_id_behind_other_steps() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let pipe = "layer-apply --id web < busybox.json | union-mount | netns-add | ns-exec -d -- sh -c 'echo one > /file'";
    sandbox
        .sh(&format!("{pipe} > web.json; container-wait web > /dev/null; union-snapshot web > /dev/null"))
        .ok();
    assert_eq!(
        sandbox.sh("container-ls --format {exitStatus} web").ok(),
        "0\n",
        "the record keeps what it knows"
    );
    let enter = "cat $STAVE_ROOT/containers/web/rootfs/file";
    sandbox.sh("echo two > $STAVE_ROOT/containers/web/rootfs/file; union-snapshot web > /dev/null").ok();
    sandbox
        .sh("echo three > $STAVE_ROOT/containers/web/rootfs/file; union-snapshot --undo web > /dev/null")
        .ok();
    assert_eq!(sandbox.sh(enter).ok(), "two\n");
    sandbox.sh("union-snapshot --undo web > /dev/null").ok();
    assert_eq!(sandbox.sh(enter).ok(), "one\n");
    let none = sandbox.sh("union-snapshot other > /dev/null").exits(1);
    assert_eq!(
        none.stderr,
        "union-snapshot: no container \"other\" in /run/stave\nhint: container-ls lists them\n"
    );
    sandbox
        .sh("container-start web > /dev/null; container-wait web > /dev/null; unwind web > /dev/null")
        .ok();
    sandbox.assert_as(&before);
}

#[test]
fn not_while_a_process_lives_and_end_ends_it() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let start = |flags: &str| {
        let sleep = "sh -c 'echo run >> /runs; trap \"exit 7\" TERM; while :; do sleep 0.05; done'";
        sandbox
            .sh(&format!(
                "layer-apply --id web < busybox.json | union-mount | ns-exec -d {flags} -- {sleep} > web.json"
            ))
            .ok();
        sandbox.sh("until test -s $STAVE_ROOT/containers/web/upper/runs; do sleep 0.02; done").ok();
    };
    start("");
    let pid = sandbox.sh("container-ls --format {pid} web").ok().trim().to_owned();
    let refused = sandbox.sh("union-snapshot web > /dev/null").exits(1);
    let told = format!(
        "union-snapshot: take off the root file system {:?}: process {pid} (sh) uses it\nhint: ",
        sandbox.root().join("containers/web/rootfs")
    );
    assert!(refused.stderr.starts_with(&told), "{}", refused.stderr);
    assert!(!sandbox.root().join("containers/web/levels").exists());
    sandbox.sh("union-snapshot --end web > /dev/null").ok();
    assert_eq!(sandbox.sh("container-ls --format '{state} {exitStatus}' web").ok(), "exited 7\n");
    sandbox.sh("container-start web > /dev/null; union-snapshot --undo web > /dev/null").exits(1);
    sandbox.sh("union-snapshot --undo --end web > /dev/null").ok();
    assert_eq!(
        sandbox.sh("cat $STAVE_ROOT/containers/web/upper/runs").ok(),
        "run\n",
        "the second run was discarded"
    );
    sandbox.sh("unwind web > /dev/null").ok();
    start("--restart always");
    sandbox.sh("union-snapshot --end web > /dev/null").ok();
    sandbox
        .sh("until [ \"$(cat $STAVE_ROOT/containers/web/rootfs/runs | wc -l)\" = 2 ]; do sleep 0.02; done")
        .ok();
    assert_eq!(sandbox.sh("container-ls --format '{state}' web").ok(), "running\n");
    assert_eq!(sandbox.sh("cat $STAVE_ROOT/containers/web/upper/runs").ok(), "run\n");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// What would be refused is refused before anything is ended.
#[test]
fn a_job_that_is_refused_ends_nothing() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    sandbox.sh("mkdir data").ok();
    let make = |flags: &str| {
        let pipe = format!("layer-apply --id web < busybox.json | union-mount {flags} | tee mounted.json");
        sandbox.sh(&format!("{pipe} | ns-exec -d -- sleep 1000 > web.json")).ok();
    };
    let state = || sandbox.sh("container-ls --format '{state} {pid}' web").ok();
    make("--read-only -v $PWD/data:/data");
    let running = state();
    let refused = sandbox.sh("union-snapshot --end web > /dev/null").exits(1);
    assert!(refused.stderr.ends_with("its root file system is read-only\n"), "{}", refused.stderr);
    assert_eq!(state(), running);
    sandbox.sh("unwind web > /dev/null").ok();
    make("");
    let running = state();
    sandbox.sh("union-snapshot --undo --end web > /dev/null").ok();
    assert_eq!(state(), running, "there is no snapshot to return to");
    // Its record lists more than this document.
    sandbox.sh("union-snapshot --end < mounted.json > /dev/null").exits(1);
    assert_eq!(state(), running);
    sandbox.sh("union-snapshot --end web > /dev/null; union-fork web --id fork > /dev/null").ok();
    sandbox.sh("container-start web > /dev/null").ok();
    let running = state();
    assert!(running.starts_with("running "), "{running}");
    let refused = sandbox.sh("union-snapshot --undo --end web > /dev/null").exits(1);
    assert!(refused.stderr.contains("container \"fork\" is based on it\n"), "{}", refused.stderr);
    assert_eq!(state(), running);
    sandbox.sh("unwind fork web > /dev/null; rmdir data").ok();
    sandbox.assert_as(&before);
}

/// A shell of the host in the root file system is not ours to end.
#[test]
fn not_while_the_host_works_in_it() {
    let sandbox = Sandbox::with_busybox();
    mounted(&sandbox, "-v /run:/srv");
    let held = "cd $STAVE_ROOT/containers/web/rootfs && union-snapshot --end web > /dev/null";
    let refused = sandbox.sh(held).exits(1);
    assert!(refused.stderr.contains(" (sh) uses it\n"), "{}", refused.stderr);
    sandbox.sh("union-mount --check < web.json > /dev/null").ok();
    let open = "exec 3> $STAVE_ROOT/containers/web/rootfs/open && union-snapshot web > /dev/null";
    sandbox.sh(open).exits(1);
    snapshot(&sandbox);
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn volumes_stay_as_they_are() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    sandbox.sh("mkdir data && echo host > data/file").ok();
    mounted(&sandbox, "-v $PWD/data:/data -v $PWD/data/file:/one/file:ro");
    run(&sandbox, "echo new > /data/new; echo x > /file");
    snapshot(&sandbox);
    assert_eq!(
        run(
            &sandbox,
            "cat /data/new /one/file; echo changed > /data/new; rm /file; (echo y > /one/file) 2> /dev/null || echo refused"
        ),
        "new\nhost\nrefused\n"
    );
    sandbox.sh("union-mount --check < web.json > /dev/null").ok();
    roll_back(&sandbox);
    assert_eq!(run(&sandbox, "cat /data/new /file /one/file"), "changed\nx\nhost\n");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.sh("rm -r data").ok();
    sandbox.assert_as(&before);
}

/// What a restart of the machine takes away, but for mounts: the records, and the id of the boot.
const RESTART: &str = "rm -f /run/stave/web.json; cat /proc/sys/kernel/random/uuid > boot
    umount /proc/sys/kernel/random/boot_id 2> /dev/null; mount --bind boot /proc/sys/kernel/random/boot_id";

/// The id of the boot is again that of the machine.
const RESTARTED: &str = "umount /proc/sys/kernel/random/boot_id; rm boot";

/// The power is cut while the first snapshot is taken: the record that survives knows nothing of it.
#[test]
fn a_power_cut_during_a_snapshot_leaves_the_container_as_it_was() {
    let sandbox = Sandbox::with_busybox();
    for flags in ["--durable", "--durable --size 16m", "--durable --userns auto"] {
        let before = sandbox.snapshot();
        mounted(&sandbox, flags);
        let root = "$STAVE_ROOT/containers/web";
        let top = if flags.contains("size") { "rootfs top" } else { "rootfs" };
        run(&sandbox, "echo one > /file");
        sandbox.sh(&format!("cp {root}/record.json kept; cp web.json old.json")).ok();
        snapshot(&sandbox);
        let cut = format!(
            "mv kept {root}/record.json; mv old.json web.json; cd {root} && umount {top} && cd - > /dev/null; {RESTART}"
        );
        sandbox.sh(&cut).ok();
        sandbox.sh("union-mount --repair < web.json > next.json && mv next.json web.json").ok();
        run(&sandbox, "echo two >> /file");
        sandbox.sh(&format!("! ls -d {root}/levels/1 2> /dev/null")).ok();
        snapshot(&sandbox);
        run(&sandbox, "echo three > /file");
        roll_back(&sandbox);
        assert_eq!(run(&sandbox, "cat /file"), "one\ntwo\n", "{flags}");
        sandbox.sh(&format!("unwind web > /dev/null; {RESTARTED}")).ok();
        sandbox.assert_as(&before);
    }
}

#[test]
fn it_stands_again_after_a_restart() {
    let sandbox = Sandbox::with_busybox();
    for (flags, mounted_on) in
        [("--durable", "rootfs"), ("--durable --size 16m", "rootfs top"), ("", "rootfs")]
    {
        let before = sandbox.snapshot();
        mounted(&sandbox, flags);
        run(&sandbox, "echo one > /file");
        snapshot(&sandbox);
        run(&sandbox, "echo two > /file");
        snapshot(&sandbox);
        run(&sandbox, "echo three > /file");
        sandbox.sh(&format!("cd $STAVE_ROOT/containers/web && umount {mounted_on}")).ok();
        // What is on a volatile top is lost with a restart. Without one it can be mounted again.
        let restarts = flags.contains("--durable");
        if restarts {
            sandbox.sh(RESTART).ok();
        }
        let missing = sandbox.sh("union-snapshot --check < web.json > /dev/null").exits(1);
        assert!(missing.stderr.contains("missing: snapshot 1 on "), "{}", missing.stderr);
        // Nothing writes to a frozen directory before the levels are mounted again.
        sandbox.sh("union-mount --repair < web.json > /dev/null").ok();
        sandbox.sh("echo x > $STAVE_ROOT/containers/web/rootfs/x").exits(2);
        sandbox.sh("union-snapshot --repair < web.json > next.json && mv next.json web.json").ok();
        sandbox.sh("union-snapshot --check < web.json > /dev/null").ok();
        assert_eq!(run(&sandbox, "cat /file"), "three\n");
        roll_back(&sandbox);
        roll_back(&sandbox);
        assert_eq!(run(&sandbox, "cat /file"), "one\n", "{flags}");
        sandbox.sh("unwind web > /dev/null").ok();
        if restarts {
            sandbox.sh(RESTARTED).ok();
        }
        sandbox.assert_as(&before);
    }
}

#[test]
fn layers_in_images_and_many_levels() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    sandbox.sh("layer-apply --format erofs --id web < busybox.json | union-mount > web.json").ok();
    for level in 0..40 {
        run(&sandbox, &format!("echo {level} > /f{level}; echo {level} > /last"));
        snapshot(&sandbox);
    }
    assert_eq!(run(&sandbox, "ls / | grep -c '^f[0-9]'; cat /last /f0"), "40\n39\n0\n");
    sandbox.sh("union-snapshot --undo --steps 30 < web.json > next.json && mv next.json web.json").ok();
    assert_eq!(run(&sandbox, "ls / | grep -c '^f[0-9]'; cat /last"), "11\n10\n");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// Takes 40 snapshots of `web`. Each has a file of its own, and none of the one before.
const FORTY: &str = "root=$STAVE_ROOT/containers/web/rootfs; for n in $(seq 40); do
        echo $n > $root/f$n; echo $n > $root/last; rm -f $root/f$((n - 1)); union-snapshot web > /dev/null || exit 1
    done";

/// Waits until the levels 0 to 15 are merged.
const MERGED: &str = "until ls -d $STAVE_ROOT/containers/web/runs/0 $STAVE_ROOT/containers/web/top/runs/0 2> /dev/null | grep -q .; do
        sleep 0.02
    done";

#[test]
fn old_levels_are_merged_and_every_snapshot_can_be_returned_to() {
    for flags in ["", "--durable", "--size 64m"] {
        let sandbox = Sandbox::with_busybox();
        let before = sandbox.snapshot();
        mounted(&sandbox, flags);
        let at = |script: &str| {
            sandbox.sh(&format!("cd $STAVE_ROOT/containers/web/rootfs && {{ {script}; }}")).ok()
        };
        sandbox.sh(&format!("{FORTY}; {MERGED}")).ok();
        let look = "ls | grep '^f[0-9]'; cat last";
        assert_eq!(at(look), "f40\n40\n");
        sandbox.sh("union-snapshot web > /dev/null").ok();
        let uses = "grep -F 'stave:web@41' /proc/self/mountinfo | grep -c '/runs/0[:,]'";
        assert_eq!(sandbox.sh(uses).ok(), "1\n", "{flags}");
        assert_eq!(at(look), "f40\n40\n");
        sandbox.sh("union-fork web@35 --id a > /dev/null").ok();
        let fork = sandbox.sh(&format!("cd $STAVE_ROOT/containers/a/rootfs && {{ {look}; }}")).ok();
        assert_eq!(fork, "f35\n35\n", "{flags}");
        sandbox.sh("unwind a > /dev/null").ok();
        for (steps, number) in [(1, 40), (5, 35), (15, 20), (10, 10), (9, 1), (1, 0)] {
            sandbox.sh(&format!("union-snapshot --undo --steps {steps} web > /dev/null")).ok();
            // Level N is what was written after snapshot N.
            let last = number + 1;
            assert_eq!(
                at(look),
                if number == 40 { "f40\n40\n".to_owned() } else { format!("f{last}\n{last}\n") }
            );
        }
        sandbox.sh("! ls -d $STAVE_ROOT/containers/web/runs/0 $STAVE_ROOT/containers/web/top/runs/0 2> /dev/null | grep .").ok();
        sandbox.sh("unwind web > /dev/null").ok();
        sandbox.assert_as(&before);
    }
}

#[test]
fn for_an_ordinary_user() {
    let sandbox = Sandbox::with_busybox();
    std::fs::write(sandbox.directory().join("busybox.tar"), testkit::busybox()).unwrap();
    let script = "set -e
        export STAVE_ROOT=$PWD/own STAVE_RUN=$PWD/own.run
        img-load -q -t busybox busybox.tar | layer-apply --rootless --id web | union-mount > web.json
        root=$STAVE_ROOT/containers/web/rootfs
        echo one > $root/file; rm -r $root/www; union-snapshot web > /dev/null
        echo two > $root/file; mkdir $root/www; union-snapshot web > /dev/null
        cat $root/file; echo three > $root/file
        union-snapshot --undo web > /dev/null; cat $root/file; ls $root/www
        union-snapshot --undo web > /dev/null; cat $root/file; test ! -e $root/www
        union-snapshot web > /dev/null; unwind web > /dev/null; ls $STAVE_ROOT/containers 2> /dev/null || echo none";
    std::fs::write(sandbox.directory().join("script"), script).unwrap();
    let said = sandbox.sh("unshare --user --map-root-user --mount sh script").ok();
    assert_eq!(said, "two\ntwo\none\nnone\n");
}

#[test]
fn refused_and_explained() {
    let sandbox = Sandbox::with_busybox();
    mounted(&sandbox, "--read-only");
    let refused = sandbox.sh("union-snapshot < web.json > /dev/null").exits(1);
    assert_eq!(
        refused.stderr,
        "union-snapshot: take a snapshot of container \"web\": its root file system is read-only\n"
    );
    sandbox.sh("unwind web > /dev/null").ok();
    let none = sandbox.sh("union-snapshot -n --id web > /dev/null").exits(1);
    assert_eq!(none.stderr, "union-snapshot: no `rootfs`: run union-mount first\n");
    let planned = sandbox.sh("layer-apply --dry-run --id web < busybox.json 2> /dev/null | union-mount 2> /dev/null | union-snapshot > plan.json").ok();
    assert_eq!(planned, "");
    mounted(&sandbox, "");
    let lines = sandbox.sh("union-snapshot --explain < web.json").ok();
    let root = sandbox.root().display().to_string();
    let lines: Vec<String> = lines.lines().map(|line| line.replace(&root, "R")).collect();
    assert_eq!(
        lines[..4],
        [
            "install -d -m 0700 R/containers/web/levels/1",
            "install -d -m 0755 R/containers/web/levels/1/upper",
            "install -d -m 0700 R/containers/web/levels/1/work",
            "umount R/containers/web/rootfs",
        ]
    );
    assert!(
        lines[4].starts_with("mount -t overlay stave:web@1 -o lowerdir=R/containers/web/upper:R/layers/"),
        "{lines:?}"
    );
    sandbox.sh("unwind web > /dev/null").ok();
}
