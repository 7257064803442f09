//! Differences between two images.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::path::Path;

use assert_cmd::cargo::cargo_bin_cmd;
use oci::{Digest, Layout, spec::MediaType};
use serde_json::{Value, json};

fn load(root: &Path, name: &str, tar: &[u8], config: Value) {
    let layout = Layout::open_or_create(root.join("images")).unwrap();
    let layer = layout.write_blob(MediaType::ImageLayer, tar).unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(tar).to_string()]},
    });
    let config = layout.write_json(MediaType::ImageConfig, &config).unwrap();
    let manifest = json!({"schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [layer]});
    let manifest = layout.write_json(MediaType::ImageManifest, &manifest).unwrap();
    layout.tag(&name.parse().unwrap(), &manifest).unwrap();
}

fn diff(root: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = cargo_bin_cmd!("img-diff").env("STAVE_ROOT", root).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_two_images_differ_in() {
    let dir = tempfile::tempdir().unwrap();
    let tree = |mode, content: &'static [u8], more: bool| {
        testkit::rootfs(move |tree| {
            testkit::file(tree, "same", 0o644, b"same");
            testkit::file(tree, "file", mode, content);
            testkit::symlink(tree, "link", if more { "b" } else { "a" });
            if more {
                testkit::file(tree, "more", 0o644, b"");
            }
        })
    };
    load(dir.path(), "a", &tree(0o644, b"one", false), json!({"Env": ["A=1"]}));
    load(dir.path(), "b", &tree(0o755, b"two", true), json!({"Env": ["A=2"], "User": "x"}));
    load(dir.path(), "c", &tree(0o644, b"one", false), json!({"Env": ["A=1"]}));
    let (status, text, _) = diff(dir.path(), &["a", "c"]);
    assert_eq!((status, text.trim()), (Some(0), "{\"equal\":true,\"differences\":[]}"));
    let (status, text, _) = diff(dir.path(), &["a", "b"]);
    assert_eq!(status, Some(0));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["equal"], false);
    let found: Vec<String> = report["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!("{} {} {}", one["path"].as_str().unwrap(), one["what"].as_str().unwrap(), one["layer"])
        })
        .collect();
    assert_eq!(
        found,
        [
            "config.Env[0] setting null",
            "config.User setting null",
            "file mode 0",
            "file content 0",
            "link link 0",
            "more file 0",
        ]
    );
    let (_, table, _) = diff(dir.path(), &["--table", "a", "b"]);
    assert!(table.contains("layer 0\tfile\tmode\t\"644\"\t\"755\"\n"), "{table}");
    let (status, _, error) = diff(dir.path(), &["a", "none"]);
    assert_eq!(status, Some(1));
    assert!(error.starts_with("img-diff: ") && error.contains("none"), "{error}");
}

#[test]
fn annotations_are_told_too() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path(), "a", &testkit::rootfs(|tree| testkit::file(tree, "f", 0o644, b"f")), json!({}));
    let layout = Layout::open(dir.path().join("images")).unwrap();
    let image = layout.image(&layout.find("a").unwrap(), None).unwrap();
    let mut manifest = serde_json::to_value(&image.manifest).unwrap();
    manifest["annotations"] = json!({"x": "y"});
    let manifest = layout.write_json(MediaType::ImageManifest, &manifest).unwrap();
    layout.tag(&"b".parse().unwrap(), &manifest).unwrap();
    let (_, text, _) = diff(dir.path(), &["a", "b"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        report["differences"],
        json!([{"path": "annotations.x", "what": "setting", "a": null, "b": "y"}])
    );
}
