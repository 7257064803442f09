//! Volumes with names: what is in them, who keeps them, and what `stave` makes of Docker's words.
#![allow(clippy::unwrap_used)]

mod host;

use std::fs;

use host::Host;
use testkit::Sandbox;

/// An image whose `/srv` belongs to somebody, and has a file with two names in it.
const IMAGE: &str = "mkdir -p ctx && printf '%s\\n' 'FROM busybox' \
    'RUN --network=none mkdir -p /srv/sub && echo image > /srv/sub/a && ln /srv/sub/a /srv/b && chown 12:34 /srv && chmod 2750 /srv' \
    > ctx/Dockerfile && img-build -q -t app ctx > /dev/null";

/// A pipe that runs a command in a container `ID` with these flags of union-mount.
fn pipe(id: &str, flags: &str, command: &str) -> String {
    format!(
        "img-inspect app | layer-apply --id {id} | union-mount {flags} | ns-exec --document {id}.json -- {command}"
    )
}

fn host() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh(IMAGE).ok();
    sandbox
}

#[test]
fn the_first_container_fills_it_and_it_outlives_all() {
    let sandbox = host();
    let before = sandbox.snapshot();
    let look = "sh -c 'stat -c %a,%u:%g /data /data/b; stat -c %h /data/b; cat /data/*; echo more > /data/c'";
    let same = "sh -c 'cd /data; ls; cat c'";
    // There is no /data in the image.
    assert_eq!(sandbox.sh(&pipe("none", "-v other:/data", "ls -a /data")).ok(), ".\n..\n");
    let first = look.replace("/data", "/srv").replace("/srv/*", "/srv/b");
    assert_eq!(sandbox.sh(&pipe("one", "-v db:/srv", &first)).ok(), "2750,12:34\n644,0:0\n2\nimage\n");
    assert_eq!(sandbox.sh(&pipe("two", "-v db:/data:ro", same)).ok(), "b\nc\nsub\nmore\n");
    let read_only = sandbox.sh(&pipe("three", "-v db:/data:ro", "touch /data/x")).exits(1);
    assert!(read_only.stderr.contains("Read-only"), "{}", read_only.stderr);
    let listed = sandbox.sh("volume-ls | jq -c '.[] | [.name, .containers]'").ok();
    assert_eq!(listed, "[\"db\",[\"one\",\"three\",\"two\"]]\n[\"other\",[\"none\"]]\n");
    // A container that has ended can be started again: it keeps its volume.
    let refused = sandbox.sh("volume-rm other db").exits(1).stderr;
    assert_eq!(
        refused,
        "volume-rm: remove volume \"other\": container \"none\" uses it\nhint: unwind none\n"
    );
    assert_eq!(
        sandbox.sh("unwind one two three none > /dev/null; volume-ls --ids; volume-rm db other").ok(),
        "db\nother\n[\"db\",\"other\"]\n"
    );
    assert_eq!(sandbox.sh("volume-rm db").exits(1).stderr, "volume-rm: no volume \"db\"\n");
    sandbox.sh("volume-rm -f db").ok();
    sandbox.assert_as(&before);
}

#[test]
fn options_and_order() {
    let sandbox = host();
    sandbox.sh("mkdir -p shared/sub && echo host > shared/sub/a && echo host > shared/b").ok();
    // One volume inside of another, whatever comes first.
    let flags = "-v inner:/data/sub -v $PWD/shared:/data";
    assert_eq!(sandbox.sh(&pipe("one", flags, "sh -c 'cat /data/b; ls -A /data/sub'")).ok(), "host\n");
    // nocopy, and a volume of the container's own.
    assert_eq!(sandbox.sh(&pipe("two", "-v empty:/srv:nocopy", "ls -A /srv")).ok(), "");
    let own = pipe("three", "-v /srv", "sh -c 'cat /srv/b; stat -c %u /srv'");
    assert_eq!(sandbox.sh(&own).ok(), "image\n12\n");
    assert_eq!(sandbox.sh("volume-ls --ids").ok(), "empty\ninner\n");
    // A container with ids of its own.
    let mapped = pipe(
        "four",
        "--userns auto -v ids:/srv -v fresh:/new",
        "sh -c 'stat -c %u:%g /srv /new; touch /new/x'",
    );
    assert_eq!(sandbox.sh(&mapped).ok(), "12:34\n0:0\n");
    let wrong = sandbox.sh(&pipe("five", "-v a/b:/srv", "true")).stderr;
    assert!(
        wrong.contains("the source of a volume is an absolute path on the host, or the name of a volume"),
        "{wrong}"
    );
    sandbox.sh("unwind one two three four").ok();
    // What was plans only makes nothing.
    sandbox.sh("img-inspect app | layer-apply --id six | union-mount --dry-run -v planned:/srv 2> plan").ok();
    assert!(sandbox.sh("cat plan").ok().contains("volume-create planned"));
    assert_eq!(sandbox.sh("unwind six > /dev/null; volume-ls --ids").ok(), "empty\nfresh\nids\ninner\n");
}

/// An init container chooses who owns a volume. A later one, whose image has nothing in this place, leaves it so.
#[test]
fn who_owns_an_empty_volume() {
    let sandbox = host();
    sandbox.sh(&pipe("init", "-v db:/data", "chown 1000 /data")).ok();
    assert_eq!(sandbox.sh(&pipe("one", "-v db:/data", "stat -c %u /data")).ok(), "1000\n");
    assert_eq!(sandbox.sh(&pipe("two", "--userns auto -v db:/data", "stat -c %u /data")).ok(), "65534\n");
    sandbox
        .sh("echo > root/volumes/db/volume.json && volume-ls --ids && unwind init one two && volume-rm db")
        .ok();
}

#[test]
fn what_was_interrupted_is_finished() {
    let sandbox = host();
    sandbox.sh("volume-create --label owner=me db").ok();
    let volume = sandbox.root().join("volumes/db");
    // The files were copied, and one of them was moved already.
    fs::create_dir(volume.join("filled")).unwrap();
    fs::write(volume.join("data/one"), "1").unwrap();
    fs::write(volume.join("filled/two"), "2").unwrap();
    assert_eq!(sandbox.sh(&pipe("web", "-v db:/srv", "ls /srv")).ok(), "one\ntwo\n");
    assert!(!volume.join("filled").exists());
    // The claim of a container whose directory is gone does not count.
    fs::write(volume.join("users/lost"), "").unwrap();
    assert_eq!(sandbox.sh("volume-ls | jq -c '.[0].containers'").ok(), "[\"web\"]\n");
    sandbox.sh("unwind web && volume-rm db").ok();
    // What a removal left goes with the next one, and what a creation left with the next creation.
    for left in [".db.removed", ".db.new"] {
        fs::create_dir_all(sandbox.root().join("volumes").join(left).join("data/x")).unwrap();
    }
    assert_eq!(sandbox.sh("volume-ls --ids").ok(), "");
    sandbox.sh("volume-create db && volume-rm db").ok();
}

#[test]
fn many_at_the_same_instant_see_all_files() {
    let sandbox = host();
    let one = pipe("c$i", "-v db:/srv", "cat /srv/sub/a");
    assert_eq!(sandbox.sh(&format!("for i in 1 2 3 4 5 6; do {one} & done; wait")).ok(), "image\n".repeat(6));
    assert_eq!(
        sandbox.sh("volume-ls --size | jq -c '.[] | [.name, .size, (.containers | length)]'").ok(),
        "[\"db\",6,6]\n"
    );
    sandbox.sh("unwind c1 c2 c3 c4 c5 c6").ok();
}

#[test]
fn in_dockers_words() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("volume create --label owner=me db", "db");
    host.prints("volume create db", "db");
    host.prints("run --rm -v db:/data busybox sh -c 'echo kept > /data/a'", "");
    host.prints("run --rm --mount type=volume,src=db,dst=/data,readonly busybox cat /data/a", "kept");
    host.prints("run --rm --mount source=db,target=/data busybox cat /data/a", "kept");
    host.prints("run -d --name web -v /own -v db:/data:ro -v ./made:/b busybox sleep 1000", "web");
    assert!(host.0.directory().join("made").is_dir(), "a missing directory of the host is made");
    let mounts = "inspect -f '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}};{{end}}' web";
    host.prints(mounts, "volume db /data false;bind  /b true;volume  /own true;");
    host.prints("volume ls -q", "db");
    host.prints("volume ls --format '{{.Driver}} {{.Name}} {{.Labels}}'", "local db owner=me");
    host.prints("volume ls -q -f dangling=true", "");
    host.prints("volume inspect -f '{{.Name}}' db", "db");
    host.fails("volume rm db", 1, "volume-rm: remove volume \"db\": container \"web\" uses it");
    host.fails("volume prune", 2, "stave: every volume has a name, and prune removes those only with -a");
    host.prints("volume prune -af", "");
    host.prints("rm -fv web", "web");
    host.prints("volume prune -af --filter label=owner=you", "");
    host.prints("volume prune -af --filter label=owner=me", "db");
    host.fails(
        "run --mount type=volume,src=/srv,dst=/x busybox true",
        125,
        "stave: --mount: the source of a volume is a name, and a directory of the host has type=bind: /srv",
    );
    host.fails(
        "run --mount src=db,dst=/x,volume-driver=nfs busybox true",
        125,
        "stave: --mount type=volume takes source, target, readonly and volume-nocopy: volume-driver=nfs",
    );
    host.0.sh("rmdir made").ok();
    host.0.assert_as(&before);
}

/// Its relative path must not become one from the root of the host.
#[test]
fn a_volume_of_a_directory_that_is_gone() {
    let host = Host::new();
    let run = "mkdir gone && cd gone && rmdir ../gone && ../stave run --rm -v .:/x busybox ls /x";
    let refused = host.0.sh(run).exits(125);
    assert!(refused.stderr.contains("stave: -v .:/x: the current directory is gone"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
}
