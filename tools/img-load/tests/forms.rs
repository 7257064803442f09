//! Every form of an image, detected by its content.

mod common;

use std::io::Write;

use common::{Oci, Store, docker};
use serde_json::json;

#[test]
fn a_root_file_system_is_an_image_of_one_layer() {
    let plain = testkit::rootfs(|tree| {
        testkit::directory(tree, "./");
        testkit::file(tree, "./manifest.json", 0o644, b"not a list of images: it does not stand first");
    });
    let rootfs = testkit::rootfs(|tree| {
        testkit::directory(tree, "./");
        testkit::file(tree, "./bin/x", 0o755, &vec![1; 2 << 20]);
    });
    let store = Store::new();
    let image = store.loaded(&["-t", "debian"], &rootfs);
    assert_eq!(image["reference"], "debian:latest");
    assert_eq!(image["configuration"]["created"], "2001-09-09T01:46:40Z");
    let diff_id = image["configuration"]["rootfs"]["diff_ids"][0].clone();
    assert_eq!(diff_id, oci::Digest::of(&rootfs).to_string());

    // The compressed archive gives the same image.
    let mut gzip = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = gzip.stdin.take().unwrap();
    let input = rootfs.clone();
    let writer = std::thread::spawn(move || pipe.write_all(&input).unwrap());
    let gzip = gzip.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    for (compressed, layers) in
        [(gzip, ".tar+gzip"), (zstd::encode_all(&rootfs[..], 1).unwrap(), ".tar+zstd")]
    {
        let again = store.loaded(&["-t", "debian", "--platform", "linux/amd64"], &compressed);
        assert_eq!(again["configuration"], image["configuration"]);
        let digest = again["descriptor"]["digest"].as_str().unwrap();
        let manifest = store.images().join("blobs/sha256").join(&digest[7..]);
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
        assert!(manifest["layers"][0]["mediaType"].as_str().unwrap().ends_with(layers));
    }
    assert_eq!(store.names(), ["docker.io/library/debian:latest"]);
    let line = store.refused(&[], &rootfs);
    assert_eq!(line, "img-load: - is a root file system and has no name of its own");
    let line = store.refused(&["-t", "x"], &plain);
    assert!(line.contains("manifest.json in the archive: "), "{line}");
}

#[test]
fn names_come_from_the_archive_or_from_the_command() {
    let store = Store::new();
    let image = store.loaded(&[], &docker(json!(["localhost:5000/a:1", "b"]), |_| {}));
    assert_eq!(image["reference"], "localhost:5000/a:1");
    assert_eq!(store.names(), ["localhost:5000/a:1", "docker.io/library/b:latest"]);
    let image = store.loaded(&["-t", "c"], &docker(json!(null), |_| {}));
    assert_eq!(image["reference"], "c:latest");
    let image = store.loaded(&["-t", "d"], &Oci::new("docker.io/library/other:1").archive());
    assert_eq!(image["reference"], "d:latest");
    assert_eq!(image["descriptor"]["annotations"], json!(null));
    let names = store.names();
    assert!(names.contains(&"docker.io/library/d:latest".to_owned()) && names.len() == 4, "{names:?}");
    let nameless = Store::new();
    let image = nameless.loaded(&[], &docker(json!(null), |_| {}));
    assert_eq!((image["reference"].as_str(), nameless.names().len()), (None, 0));
}

#[test]
fn of_several_images_all_are_loaded_and_one_is_asked_for() {
    let several = || {
        docker(json!(["a:1"]), |list| {
            let mut other = list[0].clone();
            other["RepoTags"] = json!(["b:1"]);
            list.as_array_mut().unwrap().push(other);
        })
    };
    let store = Store::new();
    assert_eq!(
        store.refused(&["-t", "c"], &several()),
        "img-load: the archive has no image c:latest, but several others: a:1, b:1"
    );
    assert_eq!(store.loaded(&["-t", "b:1"], &several())["reference"], "b:1");
    assert_eq!(store.names().len(), 2);
    assert_eq!(store.loaded(&[], &several())["reference"], "a:1");
}

/// A tar without its end, so that another tar may follow.
fn before(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = common::tar(files);
    archive.truncate(archive.len() - 1024);
    archive
}

/// The first member's name does not decide. The lists do, near the beginning or far from it.
#[test]
fn lists_of_images_may_stand_anywhere() {
    for first in [vec![1], vec![1; 3 << 20]] {
        for archive in [docker(json!(["x:1"]), |_| {}), Oci::new("x:1").archive()] {
            let odd = [before(&[(".DS_Store", &first)]), archive].concat();
            let zstd = zstd::encode_all(&odd[..], 1).unwrap();
            for input in [odd, zstd] {
                let store = Store::new();
                assert_eq!(store.loaded(&[], &input)["reference"], "x:1");
                assert_eq!(store.names(), ["docker.io/library/x:1"]);
            }
        }
    }
    // A web application has its own manifest.json, and is a root file system.
    let web = common::tar(&[("app/x", b"x"), ("manifest.json", br#"{"name": "app"}"#)]);
    assert_eq!(Store::new().loaded(&["-t", "web"], &web)["reference"], "web:latest");
    let line = Store::new().refused(&[], &web);
    assert_eq!(line, "img-load: - is a root file system and has no name of its own");
}

/// Docker 25.0.0 writes an index with `null` for images saved by id, and its own list.
#[test]
fn an_index_without_images_beside_a_list_of_docker_s() {
    let layer = common::layer();
    let configuration = common::configuration(&[oci::Digest::of(&layer)]);
    let name = |content: &[u8]| format!("blobs/sha256/{}", oci::Digest::of(content).hex());
    let list = json!([{"Config": name(&configuration), "RepoTags": null, "Layers": [name(&layer)]}]);
    let archive = common::tar(&[
        (&name(&layer), &layer),
        (&name(&configuration), &configuration),
        ("index.json", br#"{"schemaVersion":2,"manifests":null}"#),
        ("manifest.json", list.to_string().as_bytes()),
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
    ]);
    assert_eq!(Store::new().loaded(&["-t", "x"], &archive)["reference"], "x:latest");
}

/// Artifacts of `oras copy -r` and cosign beside an image, and a configuration as Docker 1.10 pushed it.
#[test]
fn artifacts_beside_an_image_and_an_odd_configuration() {
    let manifest_of = |archive: &mut Oci, change: &dyn Fn(&mut serde_json::Value)| {
        let own = archive.manifest["digest"].as_str().unwrap()[7..].to_owned();
        let (_, content) = archive.files.iter().find(|(name, _)| name.ends_with(&own)).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(content).unwrap();
        change(&mut manifest);
        let content = manifest.to_string().into_bytes();
        let digest = oci::Digest::of(&content);
        let mut entry = archive.manifest.clone();
        (entry["digest"], entry["size"]) = (json!(digest), json!(content.len()));
        archive.files.push((format!("blobs/sha256/{}", digest.hex()), content));
        entry
    };
    let mut archive = Oci::new("x:1");
    let empty = b"{}".to_vec();
    let digest = oci::Digest::of(&empty);
    archive.files.push((format!("blobs/sha256/{}", digest.hex()), empty));
    let mut artifact = manifest_of(&mut archive, &|manifest| {
        manifest["config"] =
            json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": 2});
    });
    artifact["annotations"] = json!(null);
    let entries = json!([artifact, archive.manifest.clone()]);
    let store = Store::new();
    assert_eq!(store.loaded(&[], &archive.with_index(entries))["reference"], "x:1");
    assert_eq!(store.names().len(), 1);

    let mut archive = Oci::new("x:1");
    let old = manifest_of(&mut archive, &|manifest| {
        manifest["config"]["mediaType"] = json!("application/octet-stream");
    });
    assert_eq!(Store::new().loaded(&[], &archive.with_index(json!([old])))["reference"], "x:1");
}

#[test]
fn an_index_needs_only_the_image_that_is_wanted() {
    let archive = || {
        let archive = Oci::new("x");
        let mut here = archive.manifest.clone();
        here["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let there = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7,
            "digest": oci::Digest::of(b"not with us"), "platform": {"os": "linux", "architecture": "arm64"}});
        let index = json!({"schemaVersion": 2, "manifests": [there, here]}).to_string().into_bytes();
        let digest = oci::Digest::of(&index);
        let entry = json!([{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest,
            "size": index.len(), "annotations": {oci::layout::REF_NAME: "multi:1"}}]);
        let mut archive = archive;
        archive.files.push((format!("blobs/sha256/{}", digest.hex()), index));
        archive.with_index(entry)
    };
    let store = Store::new();
    let image = store.loaded(&["--platform", "linux/amd64"], &archive());
    assert_eq!(image["reference"], "multi:1");
    assert_eq!(image["descriptor"]["platform"]["architecture"], "amd64");
    let line = store.refused(&["--platform", "linux/arm64"], &archive());
    assert!(line.ends_with("which is not in it"), "{line}");
    let line = store.refused(&["--platform", "linux/s390x"], &archive());
    assert!(line.ends_with("has no image for linux/s390x: it has linux/arm64, linux/amd64"), "{line}");
}
