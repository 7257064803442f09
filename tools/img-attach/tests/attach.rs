//! Attaches files to an image in a registry that keeps no lists of referrers.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::json;
use testkit::{Sandbox, rootfs};

#[test]
fn files_are_attached_and_listed() {
    let sandbox = Sandbox::new();
    sandbox.start_registry(5000, "data", json!({}));
    let archive = rootfs(|tree| testkit::file(tree, "etc/name", 0o644, b"a"));
    let load = "img-load -q -t a - > /dev/null && img-push -q a localhost:5000/lib/a:1 > /dev/null";
    sandbox.sh_with(load, &archive).ok();
    sandbox.sh("echo '{}' > a.spdx.json; echo notes > notes.txt").ok();
    let attach =
        "img-attach -q --artifact-type application/spdx+json --annotation by=test localhost:5000/lib/a:1";
    let attached = sandbox.sh(&format!("{attach} a.spdx.json:application/spdx+json notes.txt")).json();
    let digest = sandbox.sh("img-digest localhost:5000/lib/a:1").json()["digest"].clone();
    assert_eq!(attached["subject"], format!("localhost:5000/lib/a@{}", digest.as_str().unwrap()));
    let found =
        sandbox.sh("img-referrers --artifact-type application/spdx+json localhost:5000/lib/a:1").json();
    let referrers = found["referrers"].as_array().unwrap();
    assert_eq!(referrers.len(), 1, "{found}");
    assert_eq!(
        (&referrers[0]["digest"], &referrers[0]["annotations"]["by"]),
        (&attached["digest"], &json!("test"))
    );
    // A second one is added to the list.
    sandbox.sh("img-attach -q --artifact-type text/x.mark localhost:5000/lib/a:1 > /dev/null").ok();
    let all = sandbox.sh("img-referrers localhost:5000/lib/a:1").json();
    assert_eq!(all["referrers"].as_array().unwrap().len(), 2, "{all}");
    // The files can be had back.
    let reference = attached["reference"].as_str().unwrap();
    sandbox.sh(&format!("img-copy -q {reference} oci:back > /dev/null")).ok();
    sandbox.sh("cmp notes.txt back/blobs/sha256/$(sha256sum notes.txt | cut -d ' ' -f 1)").ok();
    let manifest = sandbox
        .sh(&format!("cat back/blobs/{}", attached["digest"].as_str().unwrap().replace(':', "/")))
        .json();
    let layer = |number: usize| {
        let layer = &manifest["layers"][number];
        [layer["mediaType"].clone(), layer["annotations"]["org.opencontainers.image.title"].clone()]
    };
    assert_eq!(layer(0), [json!("application/spdx+json"), json!("a.spdx.json")]);
    assert_eq!(layer(1), [json!("application/octet-stream"), json!("notes.txt")]);

    let missing = sandbox.sh(&format!("{attach} none.txt")).exits(1).stderr;
    assert_eq!(missing, "img-attach: read \"none.txt\": No such file or directory\n");
    let none = sandbox.sh("img-attach --artifact-type a/b localhost:5000/lib/none:1").exits(1).stderr;
    assert!(none.contains("404 Not Found"), "{none}");
    sandbox.sh("img-attach --artifact-type sbom localhost:5000/lib/a:1").exits(2);
}
