//! The pipe for an ordinary user, who is root only in a user namespace.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A broken fixture is a failed test.

mod user;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use archive::Kind;
use oci::Digest;
use serde_json::{Value, json};
use testkit::{binaries, busybox};

use user::*;

#[test]
fn a_pipe_runs_and_leaves_nothing() {
    let home = Home::new();
    home.image(&plain());
    let inside = "id -u; ls /opaque; ls /data; ls /gone; mv /opaque /moved && echo x > /moved/x && ls /moved; \
                  head -c 3 /dev/zero | wc -c; echo y > /data/y; exit 7";
    let said = home.namespace(
        Ids::Own,
        &format!(
            "{PIPE} | ns-exec -- sh -c '{inside}'; echo status $?; unwind web | jq -c .steps; ls -A run root"
        ),
    );
    let (stdout, stderr) = (String::from_utf8(said.stdout).unwrap(), without_cgroup(&said.stderr));
    let expected =
        "0\nnew\nseed\nnew\nx\n3\nstatus 7\n[]\nroot:\nimages\nlayers\nmount-points\n\nrun:\nlocks\n";
    assert_eq!(stdout, expected, "{stderr}");
    assert_eq!(stderr, "ls: /gone: No such file or directory\n");
    for name in home.layers() {
        let note = fs::read(home.path("root/layers").join(format!("{name}.json"))).unwrap();
        let note: Value = serde_json::from_slice(&note).unwrap();
        let mapping = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
        assert_eq!(note["namespace"], json!({"uidMappings": mapping, "gidMappings": mapping}));
    }
}

#[test]
fn a_container_outlives_its_shell_and_goes_from_outside() {
    let home = Home::new();
    home.image(&plain());
    let script =
        format!("{PIPE} | ns-exec -d -- sleep 1000 | jq .process.pid; ns-exec --join web -- cat /data/seed");
    let pid = home.says(Ids::Own, &script);
    let process = Path::new("/proc").join(pid.trim());
    assert_eq!(fs::metadata(&process).unwrap().uid(), USER);
    // Outside the namespace, because its mounts disappear with its last process.
    home.says(Ids::Outside, "unwind web > /dev/null");
    assert!(!process.exists());
    assert!(!home.path("root/containers").exists());
}

#[test]
fn outside_of_a_namespace_it_says_what_to_do() {
    let home = Home::new();
    home.image(&[owned()]);
    let failed = home.namespace(Ids::Outside, "img-load -q image.tar | layer-apply | union-mount");
    let stderr = String::from_utf8(failed.stderr).unwrap();
    let hint = "hint: this needs root, or a user namespace: run the pipe in `unshare --user --map-root-user --mount`\n";
    assert_eq!(failed.status.code(), Some(3));
    assert!(
        stderr.ends_with(&format!("entry \"suid\": set the owner: Operation not permitted\n{hint}")),
        "{stderr}"
    );
    assert_eq!(home.layers(), [""; 0]);
}

#[test]
fn owners_without_a_mapping_and_devices() {
    let home = Home::new();
    home.image(&[owned()]);
    let digest = Digest::of(&owned());
    let load = "img-load -q image.tar > image.json; ";
    let failed = home.namespace(Ids::Own, &format!("{load} layer-apply < image.json > /dev/null"));
    assert_eq!(
        (failed.status.code(), String::from_utf8(failed.stderr).unwrap()),
        (
            Some(1),
            format!(
                "layer-apply: layer {digest}: entry \"suid\": owner 8:12 has no mapping in this user namespace\n\
                 hint: use subordinate ids (`unshare --map-auto`) for more owners, or `layer-apply \
                 --rootless`\n"
            )
        )
    );
    assert_eq!(home.layers(), [""; 0]);

    let apply = "layer-apply --rootless < image.json | jq -r '.layers[0].directory'";
    let directory = PathBuf::from(home.says(Ids::Own, apply).trim());
    let look = |name: &str| {
        let found = fs::symlink_metadata(directory.join(name)).unwrap();
        (found.mode(), found.uid(), found.gid())
    };
    // A program gets only the privileges that the layer gives it.
    assert_eq!(look("suid"), (0o100755, USER, USER));
    assert_eq!(look("shadow"), (0o100640, USER, USER));
    assert_eq!(look("home"), (0o040750, USER, USER));
    assert_eq!(look("home/null"), (0o100666, USER, USER));
    // A layer that was unpacked with `--rootless` is not used without it.
    let failed = home.namespace(Ids::Own, "layer-apply < image.json > /dev/null");
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(PathBuf::from(home.says(Ids::Own, apply).trim()), directory);
}

#[test]
fn subordinate_ids_are_owners() {
    let home = Home::new();
    let mut entries = vec![entry(Kind::File, "suid", 0o6755, (8, 12))];
    entries.push(entry(Kind::Directory, "home/", 0o2750, (1000, 1000)));
    home.image(&[busybox(), archive(&entries)]);
    let script = format!(
        "{PIPE} | ns-exec -u 1000:1000 -- sh -c 'id -u; stat -c %u:%g:%a /suid /home; touch /home/x'"
    );
    assert_eq!(home.says(Ids::Subordinate, &script), "1000\n8:12:6755\n1000:1000:2750\n");
    let directory = home.path("root/layers").join(
        home.layers()
            .into_iter()
            .find(|name| home.path("root/layers").join(name).join("suid").exists())
            .unwrap(),
    );
    let found = fs::metadata(directory.join("suid")).unwrap();
    assert_eq!((found.uid(), found.gid()), (SUBORDINATE + 7, SUBORDINATE + 11));
    home.says(Ids::Subordinate, "unwind web > /dev/null");
    assert!(!home.path("root/containers").exists());
}

#[test]
fn a_layer_is_never_taken_for_that_of_another_namespace() {
    let home = Home::new();
    home.image(&plain());
    let apply = "img-load -q image.tar | layer-apply | jq -c '[.layers[].directory]'";
    let own: Vec<PathBuf> = serde_json::from_str(&home.says(Ids::Own, apply)).unwrap();
    let subordinate: Vec<PathBuf> = serde_json::from_str(&home.says(Ids::Subordinate, apply)).unwrap();
    let output = Command::new("sh")
        .args(["-c", apply])
        .current_dir(home.0.path())
        .env("STAVE_ROOT", home.path("root"))
        .env("STAVE_RUN", home.path("run-of-root"))
        .env("PATH", format!("{}:{}", binaries().display(), std::env::var("PATH").unwrap()))
        .output()
        .unwrap();
    let root: Vec<PathBuf> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((own.len(), subordinate.len(), root.len()), (3, 3, 3));
    for at in 0..3 {
        assert!(own[at] != subordinate[at] && own[at] != root[at] && subordinate[at] != root[at]);
    }
    let opaque = |layers: &[PathBuf]| {
        let marks = ["trusted.overlay.opaque", "user.overlay.opaque"];
        marks.map(|name| rustix::fs::lgetxattr(layers[2].join("opaque"), name, &mut [0_u8; 8][..]).is_ok())
    };
    assert_eq!(
        [opaque(&own), opaque(&subordinate), opaque(&root)],
        [[false, true], [false, true], [true, false]]
    );
    // Each user finds their own layer again.
    assert_eq!(serde_json::from_str::<Vec<PathBuf>>(&home.says(Ids::Own, apply)).unwrap(), own);
    assert_eq!(
        serde_json::from_str::<Vec<PathBuf>>(&home.says(Ids::Subordinate, apply)).unwrap(),
        subordinate
    );
}

const DOCKERFILE: &str = "FROM scratch\nADD base.tar /\nCOPY a /b/a\n\
    RUN mkdir -p /d/x && rm /b/a && echo \"$(id -u)\" > /f && chmod 4755 /f\n\
    RUN rm -rf /d && mkdir /d && echo y > /d/y\nCMD [\"sh\", \"-c\", \"ls /b /d; cat /f\"]\n";

#[test]
fn a_build_is_the_same_as_that_of_root() {
    let home = Home::new();
    fs::create_dir(home.path("context")).unwrap();
    fs::write(home.path("context/base.tar"), busybox()).unwrap();
    fs::write(home.path("context/a"), "a").unwrap();
    fs::write(home.path("context/Dockerfile"), DOCKERFILE).unwrap();
    let build = "SOURCE_DATE_EPOCH=1000000000 img-build -q -t t context";
    let digest = format!("{build} | jq -r .image.descriptor.digest");
    let own = home.says(Ids::Own, &digest);
    assert_eq!(home.says(Ids::Subordinate, &digest), own);
    let by_root = Command::new("sh")
        .args(["-c", &digest])
        .current_dir(home.0.path())
        .env("STAVE_ROOT", home.path("root-of-root"))
        .env("STAVE_RUN", home.path("run-of-root"))
        .env("PATH", format!("{}:{}", binaries().display(), std::env::var("PATH").unwrap()))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(by_root.stdout).unwrap(), own);
    // Everything exists: nothing is built or unpacked twice.
    let before = home.layers();
    let run = format!("{build} | layer-apply | union-mount | ns-exec");
    assert_eq!(home.says(Ids::Own, &run), "/b:\n\n/d:\ny\n0\n");
    assert_eq!(home.layers(), before);
    assert_eq!(fs::read_dir(home.path("root/build")).unwrap().count(), 0);
}

#[test]
fn a_build_on_owners_without_a_mapping() {
    let home = Home::new();
    home.image(&[busybox(), owned()]);
    fs::create_dir(home.path("context")).unwrap();
    let build = "img-load -q image.tar > /dev/null; img-build -q -t u -f Dockerfile context";
    fs::write(home.path("Dockerfile"), "FROM t\nRUN stat -c %u:%g:%a /suid /shadow > /seen\n").unwrap();
    let failed = home.namespace(Ids::Own, &format!("{build} > /dev/null"));
    let stderr = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        stderr.ends_with(
            ": entry \"suid\": owner 8:12 has no mapping in this user namespace\nhint: use subordinate ids \
             (`unshare --map-auto`) for more owners, or `img-build --rootless`\n"
        ) && stderr.lines().count() == 2,
        "{stderr}"
    );
    let seen = "layer-apply --rootless | jq -r '.layers[-1].directory' | sed 's,$,/seen,' | xargs cat";
    assert_eq!(home.says(Ids::Own, &format!("{build} --rootless | {seen}")), "0:0:755\n0:0:640\n");
    // A build step that sees the right owners is a different step.
    let apply = seen.replace(" --rootless", "");
    let failed = home.namespace(Ids::Own, &format!("{build} | {apply}"));
    assert!(String::from_utf8(failed.stderr).unwrap().contains("has no mapping"), "not from the cache");
}

#[test]
fn build_steps_with_owners_without_a_mapping() {
    let home = Home::new();
    home.image(&[busybox()]);
    fs::create_dir(home.path("context")).unwrap();
    fs::write(home.path("context/owned.tar"), owned()).unwrap();
    let build = "img-load -q image.tar > /dev/null; img-build --network none -q -t u -f Dockerfile context";
    let hint =
        "hint: use subordinate ids (`unshare --map-auto`) for more owners, or `img-build --rootless`\n";
    for (step, problem, owner, seen, expected) in [
        (
            "ADD owned.tar /o/",
            "ADD failed: change owner of \"o/suid\"",
            "8:12",
            "/o/suid /o/shadow /o/home /o/home/null",
            "0:0:755:regular empty file 0:0:640:regular empty file 0:0:750:directory 0:0:666:regular empty file",
        ),
        (
            "COPY --chown=33:34 owned.tar /n/f",
            "COPY failed: change owner of \"n\"",
            "33:34",
            "/n /n/f",
            "0:0:755:directory 0:0:644:regular file",
        ),
        (
            "USER 33\nWORKDIR /w\nUSER 0",
            "create working directory \"/w\": change owner of \"w\"",
            "33:33",
            "/w",
            "0:0:755:directory",
        ),
        (
            "RUN --mount=type=cache,target=/c,uid=33,gid=0 stat -c %u /c > /s",
            "mount \"type=cache,target=/c,uid=33,gid=0\"",
            "33:0",
            "/s",
            "0:0:644:regular file",
        ),
    ] {
        fs::write(
            home.path("Dockerfile"),
            format!("FROM t\n{step}\nRUN stat -c %u:%g:%a:%F {seen} | xargs > /seen\n"),
        )
        .unwrap();
        let failed = home.namespace(Ids::Own, &format!("{build} > /dev/null"));
        let stderr = without_cgroup(&failed.stderr);
        let error = format!(": {problem}: owner {owner} has no mapping in this user namespace\n{hint}");
        assert!(failed.status.code() == Some(1) && stderr.ends_with(&error), "{step}: {stderr}");
        let read = "layer-apply --rootless | jq -r '.layers[-1].directory' | sed 's,$,/seen,' | xargs cat";
        let said = home.says(Ids::Own, &format!("{build} --rootless | {read}"));
        assert_eq!(said.trim(), expected, "{step}");
    }
}

#[test]
fn a_build_outside_of_a_namespace_says_what_to_do() {
    let home = Home::new();
    fs::create_dir(home.path("context")).unwrap();
    fs::write(home.path("context/Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let failed = home.namespace(Ids::Outside, "img-build -q context > /dev/null");
    let stderr = String::from_utf8(failed.stderr).unwrap();
    let hint = "hint: this needs root, or a user namespace: run the pipe in `unshare --user --map-root-user --mount`\n";
    assert!(failed.status.code() == Some(1) && stderr.ends_with(hint), "{stderr}");
}

/// The server of the registry tests. Here it only has to serve one image.
#[path = "../tools/img-pull/tests/server/mod.rs"]
mod server;

#[test]
fn pulled_and_unpacked_at_once() {
    let home = Home::new();
    let mut content = server::Content::new();
    server::image(&mut content, "latest", &[busybox(), owned()]);
    let (host, _) = server::serve(content, |_, _, _| false);
    let pull = format!("img-pull -q --apply {host}/a/b");
    let failed = home.namespace(Ids::Own, &pull);
    assert_eq!(
        (failed.status.code(), String::from_utf8(failed.stderr).unwrap()),
        (
            Some(1),
            format!(
                "img-pull: layer {}: entry \"suid\": owner 8:12 has no mapping in this user namespace\n\
                 hint: use subordinate ids (`unshare --map-auto`) for more owners, or `--rootless`\n",
                Digest::of(&owned())
            )
        )
    );
    let near = home.says(Ids::Own, &format!("{pull} --rootless > image.json; ls root/layers/*/shadow"));
    let shadow = fs::metadata(home.path(near.trim())).unwrap();
    assert_eq!((shadow.mode(), shadow.uid(), shadow.gid()), (0o100640, USER, USER));
    // layer-apply with the same flag unpacks the same layer and finds it: nothing is unpacked twice.
    let before = home.layers();
    let script = "layer-apply --rootless --id web < image.json | union-mount | ns-exec -- stat -c %u:%g:%a /suid /shadow";
    assert_eq!(home.says(Ids::Own, script), "0:0:755\n0:0:640\n");
    assert_eq!(home.layers(), before);
    // Devices are rejected on request, or because the namespace cannot have them.
    for (flag, expected) in
        [("--no-devices", "device nodes are not allowed"), ("", "a user namespace has no device nodes")]
    {
        let failed = home.namespace(Ids::Subordinate, &format!("{pull} {flag} > /dev/null"));
        let stderr = String::from_utf8(failed.stderr).unwrap();
        assert!(failed.status.code() == Some(1) && stderr.contains(expected), "{flag}: {stderr}");
    }
}

#[test]
fn how_layers_are_unpacked_concerns_nobody_who_does_not_unpack_them() {
    let home = Home::new();
    let failed = home.namespace(Ids::Outside, "img-pull --rootless localhost:1/x");
    let stderr = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(2));
    assert!(stderr.contains("--apply"), "{stderr}");
}
