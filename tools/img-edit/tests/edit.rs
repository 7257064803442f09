//! Makes images from other images.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::json;
use testkit::Sandbox;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mkdir context && echo a > context/a").ok();
    sandbox
}

fn build(sandbox: &Sandbox, name: &str, text: &str) {
    std::fs::write(sandbox.directory().join("context/Dockerfile"), text).unwrap();
    sandbox.sh(&format!("img-build -q --network none -t {name} context > /dev/null")).ok();
}

#[test]
fn settings_change_and_the_image_before_stays() {
    let sandbox = sandbox();
    build(&sandbox, "one", "FROM busybox\nLABEL gone=1 kept=2\nENV A=1\nCMD [\"old\"]\n");
    let before = sandbox.sh("img-inspect one | jq .image.descriptor.digest").ok();
    let flags =
        "--change 'ENV A=2 B=$A' --change 'CMD [\"new\"]' --label new=3 --label gone --annotation x=y";
    let document = sandbox.sh(&format!("img-edit {flags} -t two -t three one")).json();
    let config = &document["image"]["configuration"]["config"];
    assert_eq!(config["Labels"], json!({"kept": "2", "new": "3"}));
    assert_eq!(config["Cmd"], json!(["new"]));
    assert!(config["Env"].as_array().unwrap().contains(&json!("B=1")), "{config}");
    assert_eq!(sandbox.sh("img-inspect one | jq .image.descriptor.digest").ok(), before);
    let of_name = sandbox.sh("img-inspect three").json();
    assert_eq!(of_name["image"]["descriptor"]["digest"], document["image"]["descriptor"]["digest"]);
    let digest =
        document["image"]["descriptor"]["digest"].as_str().unwrap().split_once(':').unwrap().1.to_owned();
    assert_eq!(
        sandbox.sh(&format!("jq -r .annotations.x $STAVE_ROOT/images/blobs/sha256/{digest}")).ok(),
        "y\n"
    );
    // The same edit gives the same image.
    assert_eq!(
        sandbox.sh(&format!("img-edit {flags} one")).json()["image"]["descriptor"],
        document["image"]["descriptor"]
    );
}

#[test]
fn archives_become_layers_and_all_layers_one() {
    let sandbox = sandbox();
    build(&sandbox, "one", "FROM busybox\nCOPY a /a\nRUN rm /a && echo b > /b\n");
    sandbox.sh("mkdir new && echo c > new/c && tar -C new -cf plain.tar c && gzip -k plain.tar && zstd -q plain.tar && xz -k plain.tar").ok();
    for archive in ["plain.tar", "plain.tar.gz", "plain.tar.zst"] {
        sandbox.sh(&format!("img-edit --append {archive} -t more one > /dev/null")).ok();
        let listed = sandbox.sh("img-export more | tar -t | sort").ok();
        assert!(listed.lines().any(|name| name == "c") && listed.lines().any(|name| name == "b"), "{listed}");
    }
    let files = |name: &str| sandbox.sh(&format!("img-export {name} | tar -tv --full-time | sort")).ok();
    let before = files("more");
    let flat = sandbox.sh("img-edit --flatten -t flat more").json();
    assert_eq!(flat["image"]["configuration"]["rootfs"]["diff_ids"].as_array().unwrap().len(), 1);
    assert_eq!(files("flat"), before);
    // A file that is no archive changes nothing.
    sandbox.sh("echo no archive, but longer than nothing > bad; head -c 3000 plain.tar.gz > cut").ok();
    for (archive, problem) in [
        ("bad", "append layer \"bad\""),
        ("missing", "No such file"),
        ("plain.tar.xz", "a layer is plain, or compressed with gzip or zstd"),
    ] {
        let failed = sandbox.sh(&format!("img-edit --append {archive} -t wrong one > /dev/null")).exits(1);
        assert!(failed.stderr.contains(problem), "{failed:?}");
        sandbox.sh("img-inspect wrong > /dev/null").exits(1);
    }
}

#[test]
fn it_stands_on_another_base() {
    let sandbox = sandbox();
    build(&sandbox, "old", "FROM busybox\nRUN echo old > /base\n");
    build(&sandbox, "new", "FROM busybox\nRUN echo new > /base\nENV NEW=1\n");
    build(&sandbox, "app", "FROM old\nRUN echo app > /app\nCMD [\"app\"]\n");
    let rebased = sandbox.sh("img-edit --rebase old new -t rebased app").json();
    assert_eq!(rebased["image"]["configuration"]["config"]["Cmd"], json!(["app"]));
    sandbox.sh("mkdir x && img-export rebased | tar -x -C x").ok();
    assert_eq!(sandbox.sh("cat x/base x/app").ok(), "new\napp\n");
    let history = rebased["image"]["configuration"]["history"].as_array().unwrap();
    let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(layers, rebased["image"]["configuration"]["rootfs"]["diff_ids"].as_array().unwrap().len());
    // A base of bazel or nix has no history.
    let bare = r#"b=$STAVE_ROOT/images/blobs/sha256; d=bare/blobs/sha256; mkdir -p $d; cp $b/* $d
        put() { cp $1 $d/$(sha256sum < $1 | cut -c-64); }
        m=$(img-inspect new | jq -r .image.descriptor.digest | cut -d: -f2); c=$(jq -r .config.digest $b/$m | cut -d: -f2)
        jq -c 'del(.history)' $b/$c > c.json; put c.json
        jq -c --arg d sha256:$(sha256sum < c.json | cut -c-64) --argjson s $(stat -c %s c.json) \
            '.config.digest = $d | .config.size = $s' $b/$m > m.json; put m.json
        jq -c --arg d sha256:$(sha256sum < m.json | cut -c-64) --argjson s $(stat -c %s m.json) \
            '{schemaVersion: 2, manifests: [{mediaType, digest: $d, size: $s}]}' m.json > bare/index.json
        echo '{"imageLayoutVersion":"1.0.0"}' > bare/oci-layout; tar -C bare -c . | img-load -q -t bare > /dev/null"#;
    sandbox.sh(bare).ok();
    let rebased = sandbox.sh("img-edit --rebase old bare -t rebased app").json();
    let history = rebased["image"]["configuration"]["history"].as_array().unwrap();
    let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(layers, rebased["image"]["configuration"]["rootfs"]["diff_ids"].as_array().unwrap().len());
    let failed = sandbox.sh("img-edit --rebase new old -t wrong app > /dev/null").exits(1);
    assert_eq!(failed.stderr, "img-edit: the image is not based on the old base: its lowest layers differ\n");
}
