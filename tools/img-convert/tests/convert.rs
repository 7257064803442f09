//! Converts images. skopeo reads the result; its `oci:` reads manifests in the OCI's form only.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::Value;
use testkit::Sandbox;

/// A sandbox with an image of two layers, as `one`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    let text = "FROM busybox\nCOPY Dockerfile /\nENV A=1\n";
    sandbox.sh("mkdir context").ok();
    std::fs::write(sandbox.directory().join("context/Dockerfile"), text).unwrap();
    sandbox.sh("img-build -q --network none --annotation x=y -t one context > /dev/null").ok();
    sandbox
}

fn manifest(sandbox: &Sandbox, name: &str) -> Value {
    let digest = sandbox.sh(&format!("img-inspect {name} | jq -r .image.descriptor.digest | tr : /")).ok();
    sandbox.sh(&format!("cat $STAVE_ROOT/images/blobs/{}", digest.trim())).json()
}

fn types(manifest: &Value) -> Vec<&str> {
    manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap()).collect()
}

/// Everything that a conversion keeps.
fn kept(sandbox: &Sandbox, name: &str) -> (String, Value) {
    let files = sandbox.sh(&format!("img-export {name} | tar -tv --full-time | sort")).ok();
    let image = sandbox.sh(&format!("img-inspect {name}")).json();
    (files, image["image"]["configuration"].clone())
}

#[test]
fn layers_get_another_compression() {
    let sandbox = sandbox();
    let before = kept(&sandbox, "one");
    let first = manifest(&sandbox, "one");
    for (compression, kind) in [
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("none", "application/vnd.oci.image.layer.v1.tar"),
        ("zstd:9", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("gzip:6", "application/vnd.oci.image.layer.v1.tar+gzip"),
    ] {
        sandbox.sh(&format!("img-convert --compression {compression} -t two one > /dev/null")).ok();
        let two = manifest(&sandbox, "two");
        assert_eq!(types(&two), [kind, kind], "{compression}");
        assert_eq!(kept(&sandbox, "two"), before, "{compression}");
        assert_eq!(two["config"]["digest"], first["config"]["digest"], "the id stays");
        assert_eq!(two["annotations"], first["annotations"]);
        sandbox
            .sh("skopeo copy -q oci:$STAVE_ROOT/images:docker.io/library/two:latest dir:copy && rm -r copy")
            .ok();
    }
    // What is compressed so already is not written again, and the same conversion gives the same image.
    sandbox.sh("img-convert --compression gzip -t same one > /dev/null").ok();
    assert_eq!(manifest(&sandbox, "same")["layers"][1], first["layers"][1]);
}

#[test]
fn manifests_get_another_form() {
    let sandbox = sandbox();
    let before = kept(&sandbox, "one");
    let first = manifest(&sandbox, "one");
    let noted = sandbox.sh("img-convert --compression gzip --format docker -t two one > /dev/null").exits(0);
    assert!(
        noted.stderr.contains("img-convert: 1 annotations are left out: Docker's manifests have none"),
        "{noted:?}"
    );
    let two = manifest(&sandbox, "two");
    assert_eq!(two["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(two["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    assert_eq!(types(&two), ["application/vnd.docker.image.rootfs.diff.tar.gzip"; 2]);
    assert_eq!(two["config"]["digest"], first["config"]["digest"]);
    assert_eq!(kept(&sandbox, "two"), before);
    // The archive of docker save, which skopeo reads.
    sandbox.sh("img-save two -o two.tar && skopeo inspect docker-archive:two.tar > /dev/null").ok();
    sandbox.sh("img-convert --format oci -t three two > /dev/null").ok();
    let three = manifest(&sandbox, "three");
    assert_eq!(three["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(types(&three), ["application/vnd.oci.image.layer.v1.tar+gzip"; 2]);
    // Only the compression: the form stays.
    sandbox.sh("img-convert --compression none -t four two > /dev/null").ok();
    assert_eq!(types(&manifest(&sandbox, "four")), ["application/vnd.docker.image.rootfs.diff.tar"; 2]);
    let failed =
        sandbox.sh("img-convert --compression zstd --format docker -t five one > /dev/null").exits(1);
    assert!(
        failed
            .stderr
            .starts_with("img-convert: write manifest: Docker's form has no media type for layer sha256:"),
        "{failed:?}"
    );
    sandbox.sh("img-inspect five > /dev/null").exits(1);
}

#[test]
fn wrong_usage_and_damage() {
    let sandbox = sandbox();
    for wrong in ["one", "--compression xz one", "--format v1 one", "--compression gzip:13 one"] {
        sandbox.sh(&format!("img-convert {wrong}")).exits(2);
    }
    let missing = sandbox.sh("img-convert --format docker missing > /dev/null").exits(1);
    assert!(missing.stderr.contains("missing"), "{missing:?}");
    let explained = sandbox.sh("img-convert --explain --compression zstd --format docker -t two one").ok();
    assert!(
        explained
            .contains("skopeo copy --format v2s2 --dest-compress-format zstd --dest-compress-level 3 oci:"),
        "{explained}"
    );
    let layer = manifest(&sandbox, "one")["layers"][1]["digest"].as_str().unwrap().replace(':', "/");
    sandbox
        .sh(&format!(
            "printf x | dd of=$STAVE_ROOT/images/blobs/{layer} bs=1 seek=40 conv=notrunc status=none"
        ))
        .ok();
    let damaged = sandbox.sh("img-convert --compression zstd -t two one > /dev/null").exits(1);
    assert_eq!(damaged.stderr.lines().filter(|line| !line.starts_with("hint: ")).count(), 1, "{damaged:?}");
    sandbox.sh("img-inspect two > /dev/null").exits(1);
}

#[test]
fn a_name_does_not_lose_platforms() {
    let sandbox = sandbox();
    let build = "img-build -q --network none -t arm --platform linux/arm64 -f - context > /dev/null";
    sandbox
        .sh(&format!(
            "printf 'FROM scratch\\nCOPY Dockerfile /\\n' | {build} && img-index both one arm > /dev/null"
        ))
        .ok();
    let before = sandbox.sh("cat $STAVE_ROOT/images/index.json").ok();
    for command in ["img-convert --format docker both -t both", "img-edit both --label a=b -t other -t both"]
    {
        let tool = command.split(' ').next().unwrap();
        let error = format!(
            "{tool}: both:latest names an image for 2 platforms, and the new image is for one\n\
             hint: give it another name, or say which platform is to stay: --platform\n"
        );
        assert_eq!(sandbox.sh(command).exits(1).stderr, error);
        assert_eq!(sandbox.sh("cat $STAVE_ROOT/images/index.json").ok(), before);
    }
    sandbox.sh("img-convert --format docker both -t three > /dev/null").ok();
    sandbox.sh("img-convert --format docker both -t both --platform linux/arm64 > /dev/null").ok();
    sandbox.sh("img-edit both --label a=b -t both > /dev/null").ok();
    assert_eq!(sandbox.sh("img-inspect both | jq -r .image.configuration.architecture").ok(), "arm64\n");
}

/// Layers may be named by another digest, and a foreign layer belongs to somebody else.
#[test]
fn other_digests_and_foreign_layers() {
    let sandbox = sandbox();
    let script = r#"
        images=$STAVE_ROOT/images
        blob() { cp $1 $images/blobs/sha256/$(sha256sum $1 | cut -d ' ' -f 1); }
        part() { printf '{"mediaType":"%s","digest":"sha256:%s","size":%s%s}' $1 $(sha256sum $2 | cut -d ' ' -f 1) $(stat -c %s $2) "$3"; }
        tar -cf own.tar context && gzip -kf own.tar
        printf '{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha512:%s","sha256:%s"]}}'             $(sha512sum own.tar | cut -d ' ' -f 1) $(sha256sum own.tar | cut -d ' ' -f 1) > config.json
        printf '{"schemaVersion":2,"config":%s,"layers":[%s,%s]}'             "$(part application/vnd.oci.image.config.v1+json config.json)"             "$(part application/vnd.oci.image.layer.v1.tar+gzip own.tar.gz)"             "$(part application/vnd.oci.image.layer.nondistributable.v1.tar+gzip own.tar.gz ',"urls":["https://h/x"]')" > manifest.json
        for file in own.tar.gz config.json manifest.json; do blob $file; done
        entry=$(part application/vnd.oci.image.manifest.v1+json manifest.json             ',"annotations":{"org.opencontainers.image.ref.name":"docker.io/library/odd:latest"}')
        jq -c ".manifests += [$entry]" $images/index.json > new.json && cp new.json $images/index.json
    "#;
    sandbox.sh(script).ok();
    let noted = sandbox.sh("img-convert --compression zstd -t two odd > /dev/null").exits(0).stderr;
    assert!(noted.contains("stays as it is: it must not be distributed"), "{noted}");
    let two = manifest(&sandbox, "two");
    let kinds = ["v1.tar+zstd", "nondistributable.v1.tar+gzip"];
    assert_eq!(types(&two), kinds.map(|kind| format!("application/vnd.oci.image.layer.{kind}")));
    assert_eq!(two["layers"][1]["urls"][0], "https://h/x");
    // What is damaged is said to be so, and not that the stream is corrupt.
    sandbox
        .sh("blob=$STAVE_ROOT/images/blobs/sha256/$(sha256sum own.tar.gz | cut -d ' ' -f 1)
            printf x | dd of=$blob bs=1 seek=40 conv=notrunc status=none")
        .ok();
    let damaged = sandbox.sh("img-convert --compression none -t three odd > /dev/null").exits(1).stderr;
    assert!(damaged.contains("the image store is damaged"), "{damaged}");
}
