//! Copies files into and out of containers, by Docker's rules. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use testkit::Sandbox;

/// A host with the container `web`, which has a volume, and with files to copy.
fn host() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    let here = sandbox.directory();
    fs::create_dir_all(here.join("volume")).unwrap();
    fs::create_dir_all(here.join("tree/deep")).unwrap();
    fs::write(here.join("tree/deep/file"), "deep").unwrap();
    fs::write(here.join("file"), "content").unwrap();
    fs::set_permissions(here.join("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("file", here.join("link")).unwrap();
    let start = "layer-apply --id web < busybox.json | union-mount | ns-exec -d -v $PWD/volume:/data -- \
                 sh -c 'mkdir /dir; echo inside > /dir/inside; ln -s dir /to-dir; ln -s /etc/shadow /dir/evil; exec sleep 1000' > web.json";
    sandbox.sh(start).ok();
    sandbox.sh("until container-exec web test -L /dir/evil; do sleep 0.01; done").ok();
    sandbox
}

#[test]
fn names_are_as_with_docker() {
    let sandbox = host();
    let inside =
        |path: &str| sandbox.sh(&format!("container-exec web find {path} | sort | tr '\n' ' '")).ok();
    let copy = |arguments: &str| sandbox.sh(&format!("container-cp {arguments}"));
    // A file: to a name, over a file, into a directory.
    copy("file web:/one").ok();
    copy("tree/deep/file web:one").ok();
    copy("file web:/dir").ok();
    copy("file web:/dir/").ok();
    assert_eq!(sandbox.sh("container-exec web cat /one /dir/file").ok(), "deepcontent");
    let refused = copy("file web:/none/").exits(1);
    assert_eq!(
        refused.stderr,
        "container-cp: there is no directory \"/none/\"\nhint: without the slash, it is the name of the copy\n"
    );
    copy("file web:/none/name").exits(1);
    // A directory: to a name, into a directory, and only its content.
    copy("tree web:/new").ok();
    assert_eq!(inside("/new"), "/new /new/deep /new/deep/file ");
    copy("tree web:/new/").ok();
    assert_eq!(inside("/new/tree"), "/new/tree /new/tree/deep /new/tree/deep/file ");
    copy("tree/. web:/dir").ok();
    assert_eq!(inside("/dir/deep"), "/dir/deep /dir/deep/file ");
    let refused = copy("tree web:/one").exits(1);
    assert_eq!(refused.stderr, "container-cp: a directory cannot be copied to \"/one\": that is a file\n");
    let refused = copy("file/ web:/x").exits(1);
    assert_eq!(refused.stderr, "container-cp: open \"file/\": Not a directory\n");
    // Out of a container, and between two.
    copy("web:/dir out").ok();
    assert_eq!(fs::read_to_string(sandbox.directory().join("out/inside")).unwrap(), "inside\n");
    copy("web:/dir/inside web:/copied").ok();
    assert_eq!(sandbox.sh("container-exec web cat /copied").ok(), "inside\n");
    // Links are copied as links, except with -L. In a container, they are resolved inside the container.
    copy("link web:/link").ok();
    copy("-L link web:/followed").ok();
    assert_eq!(sandbox.sh("container-exec web readlink /link").ok(), "file\n");
    assert_eq!(sandbox.sh("container-exec web cat /followed").ok(), "content");
    copy("file web:/to-dir").ok();
    copy("web:/to-dir/inside by-link").ok();
    sandbox.sh("container-exec web rm /dir/file; container-cp file web:/to-dir; container-exec web test -f /dir/file").ok();
    copy("a b").exits(1);
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn no_link_leads_out_of_the_container_and_none_is_followed_on_the_host() {
    let sandbox = host();
    sandbox.sh("echo host > /run/secret").ok();
    sandbox.sh("container-exec web sh -c 'ln -s /run/secret /secret; ln -s ../../../../run up; mkdir /run; echo own > /run/secret'").ok();
    assert_eq!(sandbox.sh("container-cp -L web:/secret - | tar -x -O").ok(), "own\n");
    sandbox.sh("container-cp file web:/up/new; test ! -e /run/new; container-exec web test -f /run/new").ok();
    sandbox.sh("container-cp file web:/secret").ok();
    assert_eq!(sandbox.sh("cat /run/secret").ok(), "host\n");
    assert_eq!(sandbox.sh("container-exec web cat /run/secret").ok(), "content");
    // A tar may contain any names.
    sandbox.sh("mkdir -p evil/a && echo x > evil/a/b && tar -C evil -cf evil.tar --transform 's#^a/b#../../escaped#' a").ok();
    let refused = sandbox.sh("container-cp - web:/dir < evil.tar").exits(1);
    assert_eq!(
        refused.stderr,
        "container-cp: create \"../../escaped\": name with \"..\" that leads out of the root\n"
    );
    // On the host, a link in the place of a directory is not followed.
    sandbox.sh("mkdir target && ln -s /run target/deep").ok();
    let refused = sandbox.sh("container-cp tree/. web:/t && container-cp web:/t/. target").exits(1);
    assert_eq!(refused.stderr, "container-cp: create \"deep/\": a file is there, and no directory\n");
    // A file that comes out of a container has no set-user-ID or set-group-ID bit.
    sandbox.sh("container-exec web sh -c 'echo > /s; chown 1:1 /s; chmod 6755 /s; mknod /n c 1 3'; container-cp web:/s s").ok();
    let found = sandbox.directory().join("s").metadata().unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o755, 0));
    sandbox.sh("container-cp -a web:/s kept").ok();
    let found = fs::metadata(sandbox.directory().join("kept")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o755, 1));
    let left_out = sandbox.sh("container-cp web:/n n; test ! -e n");
    assert_eq!(left_out.stderr, "container-cp: warning: device \"n\" is left out\n");
    // A device with two names is left out under both.
    sandbox.sh("container-exec web sh -c 'mkdir /pair; mknod /pair/a c 1 3; ln /pair/a /pair/b'").ok();
    sandbox.sh("container-cp web:/pair pair && test -z \"$(ls pair)\"").ok();
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn owners_modes_and_what_is_mounted() {
    let sandbox = host();
    sandbox
        .sh("chown 33:34 file; chmod 4751 file; container-cp file web:/plain; container-cp -a file web:/kept")
        .ok();
    let stat = "container-exec web stat -c '%u:%g %a' /plain /kept";
    assert_eq!(sandbox.sh(stat).ok(), "0:0 751\n33:34 4751\n");
    sandbox.sh("container-cp -a web:/kept back && container-cp web:/kept mine").ok();
    assert_eq!(sandbox.sh("stat -c '%u:%g %a' back mine").ok(), "33:34 751\n0:0 751\n");
    // A file with a mount on it cannot be replaced, so it is overwritten.
    sandbox.sh("container-cp file web:/etc/hostname").ok();
    assert_eq!(sandbox.sh("container-exec web cat /etc/hostname").ok(), "content");
    assert_eq!(sandbox.sh("container-exec web find /etc -name '.container-cp*'").ok(), "");
    // An ended container still has its volumes. No other process sees these mounts.
    sandbox.sh("container-cp file web:/data/one; container-stop -t 0 web > /dev/null").ok();
    sandbox.sh("container-cp file web:/data/two && container-cp web:/data/one out && cmp file out").ok();
    assert_eq!(sandbox.sh("ls volume").ok(), "one\ntwo\n");
    assert_eq!(sandbox.sh("grep -c /data /proc/self/mountinfo").exits(1).stdout, "0\n");
    sandbox
        .sh("container-cp --no-mounts web:/. - | tar -t > list; grep -qx data/ list; ! grep data/one list")
        .ok();
    sandbox.sh("tar -C tree -c . | container-cp - web:/data && cmp tree/deep/file volume/deep/file").ok();
    sandbox.sh("unwind web > /dev/null").ok();
}

/// An ended container looks as its process saw it, not as the host sees it.
#[test]
fn volumes_of_one_that_has_ended_have_the_rights_that_they_had() {
    let sandbox = host();
    let volumes = "-v $PWD/fixed:/fixed:ro -v $PWD/mapped:/mapped:idmap";
    sandbox.sh("mkdir fixed mapped; echo old > fixed/old").ok();
    sandbox
        .sh(&format!(
            "layer-apply --id mapped < busybox.json | union-mount --userns auto | ns-exec -d {volumes} -- sleep 1000 > mapped.json"
        ))
        .ok();
    sandbox
        .sh("layer-apply --id sealed < busybox.json | union-mount -v $PWD/volume:/data | ns-exec -d --read-only -- sleep 1000 > sealed.json")
        .ok();
    sandbox.sh("container-cp file mapped:/mapped/first && test $(stat -c %u mapped/first) = 0").ok();
    sandbox.sh("container-stop -t 0 web mapped sealed > /dev/null").ok();
    let refused = sandbox.sh("container-cp file mapped:/fixed").exits(1);
    assert_eq!(refused.stderr, "container-cp: create \"file\": Read-only file system\n");
    sandbox.sh("container-cp file mapped:/fixed/old").exits(1);
    assert_eq!(sandbox.sh("ls fixed; cat fixed/old").ok(), "old\nold\n");
    let refused = sandbox.sh("container-cp file sealed:/file").exits(1);
    assert_eq!(refused.stderr, "container-cp: create \"file\": Read-only file system\n");
    sandbox.sh("container-cp file mapped:/mapped && container-cp -a mapped:/mapped/file back").ok();
    assert_eq!(sandbox.sh("stat -c %u mapped/file back").ok(), "0\n0\n");
    // Between two of these containers, and within one.
    sandbox.sh("container-cp mapped:/mapped/file sealed:/data/two && cmp file volume/two").ok();
    sandbox.sh("container-cp web:/data/two mapped:/mapped/three && cmp file mapped/three").ok();
    sandbox.sh("container-cp mapped:/mapped/three mapped:/mapped/four && cmp file mapped/four").ok();
    // A root file system that shows its owners with the container's ids.
    sandbox.sh("mkdir -p tree && cp -a $(jq -r .rootfs.path sealed.json)/bin tree/").ok();
    sandbox.sh("ns-exec -n -d --id tree --rootfs $PWD/tree --userns auto -- sleep 1000 > tree.json").ok();
    sandbox
        .sh("container-cp file tree:/one; container-stop -t 0 tree > /dev/null; container-cp file tree:/two")
        .ok();
    assert_eq!(sandbox.sh("stat -c %u tree/one tree/two").ok(), "0\n0\n");
    sandbox.sh("container-cp -a tree:/two back && test $(stat -c %u back) = 0").ok();
    sandbox.sh("unwind web mapped sealed tree > /dev/null").ok();
}

/// Replacing a file would remove what is mounted on it in another process's mount namespace.
#[test]
fn what_is_mounted_in_a_container_that_runs_stays_mounted() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("echo old > conf; echo new > file; ln -s file link; mkfifo fifo").ok();
    let start = "layer-apply --id web < busybox.json | union-mount | ns-exec -d -v $PWD/conf:/conf -- sleep 1000 > web.json";
    sandbox.sh(start).ok();
    sandbox.sh("container-exec web sh -c 'mkdir /dir; echo own > /dir/.container-cp.part'").ok();
    let is_mounted = || {
        sandbox.sh("container-exec web grep -c ' /conf ' /proc/self/mountinfo").ok();
    };
    is_mounted();
    sandbox.sh("container-cp file web:/conf").ok();
    is_mounted();
    assert_eq!(sandbox.sh("cat conf; container-exec web cat /conf").ok(), "new\nnew\n");
    for other in ["link", "fifo"] {
        let refused = sandbox.sh(&format!("container-cp {other} web:/conf")).exits(1);
        assert_eq!(refused.stderr, "container-cp: replace \"conf\": something is mounted there\n");
        is_mounted();
    }
    // A file whose name looks like a temporary name is an ordinary file.
    sandbox.sh("container-cp file web:/dir").ok();
    assert_eq!(sandbox.sh("container-exec web cat /dir/.container-cp.part /dir/file").ok(), "own\nnew\n");
    assert_eq!(sandbox.sh("container-exec web find / -xdev -name '.container-cp.?????*'").ok(), "");
    sandbox.sh("unwind web > /dev/null").ok();
}

/// Files of procfs have the size 0 and a content: the copy was empty.
#[test]
fn a_file_that_tells_no_size_is_read_to_its_end() {
    let sandbox = host();
    sandbox.sh("container-cp web:/proc/version version && test -s version && cmp version /proc/version").ok();
    sandbox.sh("container-exec web touch /empty && container-cp web:/empty . && test -f empty && ! test -s empty").ok();
}

/// The program of an ordinary user of a container must not become one of its root, or of another container's.
#[test]
fn a_program_that_changes_its_owner_runs_as_nobody_else() {
    let sandbox = host();
    sandbox
        .sh("container-exec web sh -c 'echo > /evil; chown 7:7 /evil; chmod 6755 /evil; mkdir /d; chown 7:0 /d; chmod 3777 /d;
             echo > /own; chmod 4755 /own; mkdir /t /a /i'")
        .ok();
    let copies =
        "container-cp web:/evil web:/t/evil; container-cp web:/d web:/t/d; container-cp web:/own web:/t/own;
        container-cp web:/evil - | container-cp - web:/i; container-cp -a web:/evil web:/a/evil";
    sandbox.sh(copies).ok();
    assert_eq!(
        sandbox.sh("container-exec web stat -c '%n %a %u:%g' /t/evil /t/d /t/own /i/evil /a/evil").ok(),
        "/t/evil 755 0:0\n/t/d 1777 0:0\n/t/own 4755 0:0\n/i/evil 755 0:0\n/a/evil 6755 7:7\n"
    );
}

/// A container decides how deep its directories are.
#[test]
fn a_deep_directory_is_no_crash() {
    let sandbox = host();
    let make = "i=0; mkdir /deep; cd /deep; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done";
    sandbox.sh(&format!("container-exec web sh -c '{make}'")).ok();
    let copied = sandbox.sh("ulimit -n 1024; container-cp web:/deep - > /dev/null").exits(1);
    assert!(copied.stderr.contains("Too many open files"), "{}", copied.stderr);
    sandbox.sh("ulimit -n 4096 && container-cp web:/deep - | tar -t | wc -l | grep -qx 1501").ok();
}

/// The file has no name until it is complete.
#[test]
fn nothing_is_left_of_a_copy_that_is_killed() {
    let sandbox = host();
    sandbox.sh("head -c 3000000 /dev/urandom > big; tar -cf big.tar big").ok();
    for signal in ["TERM", "KILL"] {
        sandbox
            .sh(&format!(
                "rm -f feed; mkfifo feed; exec 3<>feed; container-cp - web:/dir < feed & P=$!
                 head -c 1000000 big.tar >&3; until ls -l /proc/$P/fd | grep -q '/dir/#.*(deleted)'; do sleep 0.02; done
                 kill -{signal} $P; wait $P || true"
            ))
            .ok();
        assert_eq!(sandbox.sh("container-exec web ls -A /dir").ok(), "evil\ninside\n", "{signal}");
    }
}
