//! One image, by all of its names and ids.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::{Sandbox, file, rootfs};

/// Names that no image has, or that none can have. `app` is the digest of another image.
#[track_caller]
fn others_are_refused(sandbox: &Sandbox, app: &str) {
    for (name, says) in [
        (
            "debian:12",
            "no image \"debian:12\" in the image store\nhint: img-ls lists the images; img-pull fetches one from a registry",
        ),
        (&*format!("debian@{app}"), "no image "),
        ("Debian", "\"Debian\" cannot be the name of an image: it must be lower case"),
        (
            "../debian",
            "\"../debian\" cannot be the name of an image: \"..\" is not a registry's host and port",
        ),
        ("", "\"\" cannot be the name of an image: it is empty"),
        (&"f".repeat(64), "no image "),
    ] {
        let outcome = sandbox.sh(&format!("img-inspect '{name}'")).exits(1);
        assert!(outcome.stderr.starts_with(&format!("img-inspect: {says}")), "{name}: {}", outcome.stderr);
    }
}

#[test]
fn names_and_ids_in_all_forms() {
    let sandbox = Sandbox::new();
    for (name, content) in [("debian", "a"), ("localhost:5000/team/app:1.0", "b")] {
        sandbox.load("document", &rootfs(|tree| file(tree, "etc/name", 0o644, content.as_bytes())));
        sandbox.sh(&format!("img-tag document {name} > /dev/null && img-rm -q document > /dev/null")).ok();
    }
    sandbox.sh("img-tag debian localhost/other:tag > /dev/null").ok();
    let found = |name: &str| {
        let found = sandbox.sh(&format!("img-inspect '{name}' | jq -r .image.descriptor.digest"));
        found.ok().trim().to_owned()
    };
    let (debian, app) = (found("debian"), found("localhost:5000/team/app:1.0"));
    assert!(debian.starts_with("sha256:") && app.starts_with("sha256:") && debian != app);
    let id = sandbox.sh("img-history debian").json()["id"].as_str().unwrap().to_owned();
    let hex = id.strip_prefix("sha256:").unwrap();
    for name in [
        "debian:latest",
        "library/debian",
        "docker.io/debian",
        "docker.io/library/debian:latest",
        "index.docker.io/library/debian",
        "localhost/other:tag",
        &format!("debian@{debian}"),
        &format!("debian:latest@{debian}"),
        &format!("docker.io/library/debian@{debian}"),
        &format!("localhost/other@{debian}"),
        &id,
        hex,
        &hex[..12],
        &hex[..4],
        &format!("sha256:{}", &hex[..12]),
        &debian,
        &debian[7..],
        &debian[7..19],
    ] {
        assert_eq!(found(name), debian, "{name}");
    }
    for name in [&*format!("localhost:5000/team/app@{app}"), &app, &app[7..19]] {
        assert_eq!(found(name), app, "{name}");
    }
    others_are_refused(&sandbox, &app);
    // The list has each image once, with all its names.
    let list = sandbox.sh("img-ls | jq -c '[.images[].references]'").ok();
    assert_eq!(list.trim(), r#"[["debian:latest","localhost/other:tag"],["localhost:5000/team/app:1.0"]]"#);
}

#[test]
fn the_first_digits_of_several_ids_are_ambiguous() {
    let sandbox = Sandbox::new();
    sandbox
        .sh("for n in $(seq 40); do mkdir -p t$n && echo $n > t$n/f && tar -C t$n -cf t.tar f && img-load -q -t n:$n t.tar > /dev/null; done")
        .ok();
    let ambiguous =
        sandbox.sh("for c in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do img-inspect $c > /dev/null; done; :").stderr;
    assert!(ambiguous.contains("\" is the beginning of more than one image's id\n"), "{ambiguous}");
}
