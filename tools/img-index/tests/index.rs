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
    // An index as a part: its images are added, each once.
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
    // Other programs can read the index as well.
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
    // One platform may be written in two ways, and an unknown platform is no reason to refuse.
    sandbox.sh("img-index all amd arm").ok();
    let layout = oci::Layout::open(sandbox.directory().join("root/images")).unwrap();
    let tag = |name: &str, platform: serde_json::Value, image: &str| {
        let image = layout.find(image).unwrap();
        let mut entry = serde_json::to_value(&image).unwrap();
        entry["annotations"] = json!({});
        if !platform.is_null() {
            entry["platform"] = platform;
        }
        let index =
            json!({"schemaVersion": 2, "mediaType": oci::spec::MediaType::ImageIndex, "manifests": [entry]});
        let index = layout.write_json(oci::spec::MediaType::ImageIndex, &index).unwrap();
        layout.tag(&name.parse::<oci::Reference>().unwrap().pinned(), &index).unwrap();
    };
    tag("v8", json!({"os": "linux", "architecture": "arm64", "variant": "v8"}), "old");
    let failed = sandbox.sh("img-index both arm v8").exits(1);
    assert!(failed.stderr.ends_with("another one is for the same platform: linux/arm64\n"), "{failed:?}");
    for (name, image) in [("none", "old"), ("other", "twice")] {
        tag(name, json!(null), image);
    }
    sandbox.sh("img-index both none other").ok();
    for (version, image) in [("1", "old"), ("2", "twice")] {
        tag(
            &format!("w{version}"),
            json!({"os": "windows", "architecture": "amd64", "os.version": version}),
            image,
        );
    }
    sandbox.sh("img-index both w1 w2").ok();
}
