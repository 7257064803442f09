//! One image for several platforms.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::json;
use testkit::Sandbox;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir context && echo a > context/a").ok();
    std::fs::write(
        sandbox.directory().join("context/Dockerfile"),
        "FROM scratch\nARG TARGETPLATFORM\nCOPY a /$TARGETPLATFORM\n",
    )
    .unwrap();
    for (name, platform) in
        [("amd", "linux/amd64"), ("arm", "linux/arm64"), ("old", "linux/arm/v7"), ("twice", "linux/arm/v7")]
    {
        sandbox
            .sh(&format!(
                "img-build -q --platform {platform} --label of={name} -t {name} context > /dev/null"
            ))
            .ok();
    }
    sandbox
}

#[test]
fn it_has_an_image_for_each_platform() {
    let sandbox = sandbox();
    let made = sandbox.sh("img-index --annotation a=b all amd arm").json();
    assert_eq!(made["reference"], "all:latest");
    assert_eq!(made["manifests"][1]["platform"], json!({"architecture": "arm64", "os": "linux"}));
    // An index as a part: its images, each once.
    let more = sandbox.sh("img-index all all old arm").json();
    let platforms: Vec<_> = more["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["platform"]["variant"].clone())
        .collect();
    assert_eq!(platforms, [json!(null), json!(null), json!("v7")]);
    for (platform, label) in [("linux/amd64", "amd"), ("linux/arm64", "arm"), ("linux/arm/v7", "old")] {
        let image = sandbox.sh(&format!("img-inspect --platform {platform} all")).json();
        assert_eq!(image["image"]["configuration"]["config"]["Labels"]["of"], label);
    }
    sandbox.sh("img-verify > /dev/null").ok();
    // Others read it as well.
    let raw = sandbox.sh("skopeo inspect --raw oci:$STAVE_ROOT/images:docker.io/library/all:latest").json();
    assert_eq!(raw["manifests"].as_array().unwrap().len(), 3);
}

#[test]
fn two_for_one_platform_are_refused() {
    let sandbox = sandbox();
    let failed = sandbox.sh("img-index both old twice").exits(1);
    assert_eq!(
        failed.stderr,
        "img-index: add image \"twice\": another one is for the same platform: linux/arm/v7\n"
    );
    sandbox.sh("img-inspect both > /dev/null").exits(1);
}
