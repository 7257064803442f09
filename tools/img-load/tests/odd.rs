//! Images with oddities that docker, skopeo and umoci load all the same.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use std::{io::Write, path::Path};

use common::{Oci, Store, layer, tar};
use oci::{Digest, Platform};
use serde_json::{Value, json};

/// A Docker archive with this configuration and layer.
fn docker(configuration: &Value, layer: &[u8]) -> Vec<u8> {
    let configuration = configuration.to_string();
    let list = json!([{"Config": "a.json", "RepoTags": ["a:1"], "Layers": ["a.tar"]}]).to_string();
    tar(&[("a.json", configuration.as_bytes()), ("a.tar", layer), ("manifest.json", list.as_bytes())])
}

fn rootfs() -> Value {
    json!({"type": "layers", "diff_ids": [Digest::of(&layer())]})
}

/// Go writes null for what is empty, and its decoder reads null as that.
#[test]
fn null_and_missing_members_of_a_configuration() {
    let odd = json!({
        "architecture": null, "history": [null],
        "config": {"Volumes": {"/x": null}, "ExposedPorts": {"80/tcp": null}, "Labels": {"a": null},
            "Env": [null, "A=b"], "Cmd": [null], "Entrypoint": null},
        "rootfs": {"diff_ids": [Digest::of(&layer())]},
    });
    let store = Store::new();
    let archive = docker(&odd, &layer());
    let found = store.loaded(&[], &archive)["configuration"].clone();
    let host = Platform::host();
    let expected = json!({
        "architecture": host.architecture, "os": host.os, "history": [{}], "rootfs": rootfs(),
        "config": {"Volumes": {"/x": {}}, "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": ""},
            "Env": ["", "A=b"], "Cmd": [""]},
    });
    assert_eq!(found, expected);
    // The blob is as it came.
    let blob = store.images().join("blobs/sha256").join(Digest::of(odd.to_string().as_bytes()).hex());
    assert_eq!(std::fs::read_to_string(blob).unwrap(), odd.to_string());
    for (wrong, said) in [
        (json!({"config": {"Env": {}}, "rootfs": rootfs()}), "config.Env is an object, not a list"),
        (json!({"os": 1, "rootfs": rootfs()}), "os is 1, not a string"),
        (json!({}), "it has no rootfs"),
    ] {
        let line = store.refused(&[], &docker(&wrong, &layer()));
        assert_eq!(line, format!("img-load: a.json in the archive: {said}"));
    }
}

/// skopeo takes an archive without its version, and entries and manifests that do not say what they are.
#[test]
fn what_a_layout_leaves_out() {
    let mut image = Oci::new("a:1");
    image.files.retain(|(name, _)| name != "oci-layout");
    image.manifest.as_object_mut().unwrap().remove("mediaType");
    for (_, content) in &mut image.files {
        if content.starts_with(b"{\"config\"") {
            let mut manifest: Value = serde_json::from_slice(content).unwrap();
            manifest.as_object_mut().unwrap().remove("schemaVersion").unwrap();
            *content = manifest.to_string().into_bytes();
        }
    }
    let (name, content) = image.files.last_mut().unwrap();
    let digest = Digest::of(content);
    *name = format!("blobs/sha256/{}", digest.hex());
    image.manifest["size"] = content.len().into();
    image.manifest["digest"] = digest.to_string().into();
    let store = Store::new();
    store.loaded(&[], &image.archive());
    assert_eq!(store.names(), ["docker.io/library/a:1"]);
}

/// Docker before 1.3 wrote one word alone, and decoders in Go take names in any letters.
#[test]
fn words_alone_and_names_in_other_letters() {
    let configuration =
        json!({"config": {"Cmd": "sh", "Entrypoint": ["a", "b"]}, "rootfs": rootfs()}).to_string();
    let list = json!([{"config": "a.json", "repoTags": ["a:1"], "LAYERS": ["a.tar"]}]).to_string();
    let archive =
        tar(&[("a.json", configuration.as_bytes()), ("a.tar", &layer()), ("manifest.json", list.as_bytes())]);
    let found = Store::new().loaded(&[], &archive)["configuration"]["config"].clone();
    assert_eq!(found, json!({"Cmd": ["sh"], "Entrypoint": ["a", "b"]}));
}

/// The lists of images may be links, before or after what they lead to.
#[test]
fn a_list_that_is_a_link_is_no_root_file_system() {
    let configuration = json!({"rootfs": rootfs()}).to_string();
    let list = json!([{"Config": "x/a.json", "RepoTags": ["a:1"], "Layers": ["x/a.tar"]}]).to_string();
    let link = |archive: &mut tar::Builder<Vec<u8>>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "manifest.json", "x/m.json").unwrap();
    };
    for first in [true, false] {
        let mut archive = tar::Builder::new(Vec::new());
        if first {
            link(&mut archive);
        }
        for (name, content) in
            [("x/a.json", configuration.as_bytes()), ("x/a.tar", &layer()), ("x/m.json", list.as_bytes())]
        {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content).unwrap();
        }
        if !first {
            link(&mut archive);
        }
        let found = Store::new().loaded(&[], &archive.into_inner().unwrap());
        assert_eq!(found["configuration"]["rootfs"], rootfs(), "link first: {first}");
    }
}

/// Layers in a compression without a media type are stored uncompressed.
#[test]
fn layers_in_bzip2_and_xz() {
    let configuration = json!({"os": "linux", "architecture": "amd64", "rootfs": rootfs()});
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&layer()).unwrap();
    let bzip2 = bzip2.finish().unwrap();
    let xz = filtered("xz", &layer());
    for compressed in [&bzip2, &xz] {
        let store = Store::new();
        store.loaded(&[], &docker(&configuration, compressed));
        let blob = store.images().join("blobs/sha256").join(Digest::of(&layer()).hex());
        assert_eq!(std::fs::read(blob).unwrap(), layer());
    }
    let other = docker(&json!({"rootfs": {"diff_ids": [Digest::of(b"x")]}}), &bzip2);
    let said = format!(
        "img-load: layer \"a.tar\" in the archive has DiffID {}, the configuration says {}",
        Digest::of(&layer()),
        Digest::of(b"x")
    );
    assert_eq!(Store::new().refused(&[], &other), said);
}

/// What a program makes of `input`.
fn filtered(program: &str, input: &[u8]) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let output = std::process::Command::new(program).arg("-c").stdin(file).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// The layout is at fault, and not the store.
#[test]
fn a_directory_that_does_not_hold_what_it_says() {
    let store = Store::new();
    let directory = store.dir.path().join("layout");
    let spoilt = |size: Option<u64>, content: Option<&[u8]>| {
        let mut archive = Oci::new("x:1");
        if let Some(size) = size {
            archive.manifest["size"] = json!(size);
        }
        if let Some(content) = content {
            archive.files[0].1 = content.to_vec();
        }
        let index = json!({"schemaVersion": 2, "manifests": [archive.manifest]}).to_string();
        archive.files.push(("index.json".to_owned(), index.into_bytes()));
        write(&directory, &archive.files);
        let mut command = assert_cmd::cargo::cargo_bin_cmd!("img-load");
        let output =
            command.arg(&directory).arg("--root").arg(store.dir.path().join("root")).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let digest = Oci::new("x:1").manifest["digest"].as_str().unwrap().to_owned();
    let wrong_size = format!(
        "img-load: content of {digest} has 340 bytes, its descriptor says 1: the layout {directory:?} is damaged\n"
    );
    assert_eq!(spoilt(Some(1), None), wrong_size);
    let other = vec![7; layer().len()];
    let wrong_content = format!(
        "img-load: content of {} has digest {}: the layout {directory:?} is damaged\n",
        Digest::of(&layer()),
        Digest::of(&other)
    );
    assert_eq!(spoilt(None, Some(&other)), wrong_content);
    assert_eq!(spoilt(None, Some(&layer())), "Loaded image: x:1\n");
    // The store has the image now.
    assert_eq!(spoilt(Some(1), None), wrong_size);
}

fn write(directory: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// The entries of an index that are no descriptors do not spoil the others.
#[test]
fn entries_of_an_index() {
    let good = Oci::new("x:1").manifest;
    let with = |change: Value| {
        let mut entry = good.clone();
        entry.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        entry
    };
    let named = json!({oci::layout::REF_NAME: "x:1", "a": null});
    for harmless in [
        with(json!({"platform": {}})),
        with(json!({"platform": {"os": "linux"}})),
        with(json!({"annotations": named})),
        with(json!({"urls": [null], "platform": null, "data": null})),
    ] {
        let store = Store::new();
        store.loaded(&[], &Oci::new("").with_index(json!([harmless])));
        assert_eq!(store.names(), ["docker.io/library/x:1"], "{harmless}");
    }
    for (bad, said) in [
        (with(json!({"size": "340"})), "size is a string, not a number of bytes"),
        (with(json!({"size": -1})), "size is -1, not a number of bytes"),
        (with(json!({"size": null})), "missing field `size`"),
        (with(json!({"digest": "sha256:1"})), "Invalid digest length 1 expected 64"),
        (Value::Null, "missing field `digest`"),
    ] {
        let store = Store::new();
        let line = store.refused(&[], &Oci::new("").with_index(json!([bad])));
        assert_eq!(
            line,
            format!("img-load: index.json in the archive: an entry is not a descriptor: {said}")
        );
        store.loaded(&[], &Oci::new("").with_index(json!([bad, good])));
        assert_eq!(store.names(), ["docker.io/library/x:1"], "{bad}");
        // In an index below, and in a directory.
        let store = Store::new();
        let directory = store.dir.path().join("layout");
        let mut archive = Oci::new("");
        let index = json!({"schemaVersion": 2, "manifests": [bad, good]}).to_string();
        let digest = Digest::of(index.as_bytes());
        archive.files.push((format!("blobs/sha256/{}", digest.hex()), index.clone().into_bytes()));
        let entry = json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest,
            "size": index.len()});
        let index = json!({"schemaVersion": 2, "manifests": [bad, entry]}).to_string();
        archive.files.push(("index.json".to_owned(), index.into_bytes()));
        write(&directory, &archive.files);
        let load = || {
            let mut command = assert_cmd::cargo::cargo_bin_cmd!("img-load");
            command.arg(&directory).arg("--root").arg(store.dir.path().join("root")).output().unwrap()
        };
        let output = load();
        assert!(output.status.success(), "{bad}: {}", String::from_utf8_lossy(&output.stderr));
        let index = json!({"schemaVersion": 2, "manifests": [bad]}).to_string();
        std::fs::write(directory.join("index.json"), index).unwrap();
        let output = load();
        let expected =
            format!("{}: an entry is not a descriptor: {said}\n", directory.join("index.json").display());
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("img-load: {expected}"));
    }
}

/// `tar c DIRECTORY` puts one directory before everything.
#[test]
fn an_archive_below_one_directory() {
    let configuration = json!({"rootfs": rootfs()}).to_string();
    let list = json!([{"Config": "a.json", "RepoTags": ["a:1"], "Layers": ["a.tar"]}]).to_string();
    let members =
        [("a.json", configuration.as_bytes()), ("a.tar", &layer()[..]), ("manifest.json", list.as_bytes())];
    let below = |directory: &str| {
        let named: Vec<_> =
            members.iter().map(|(name, content)| (format!("{directory}/{name}"), *content)).collect();
        tar(&named.iter().map(|(name, content)| (name.as_str(), *content)).collect::<Vec<_>>())
    };
    let store = Store::new();
    let found = store.loaded(&["-t", "x"], &below("d"));
    assert_eq!(found["configuration"]["rootfs"], rootfs());
    let mut oci = Oci::new("a:1");
    let index = json!({"schemaVersion": 2, "manifests": [oci.manifest.clone()]}).to_string();
    oci.files.push(("index.json".to_owned(), index.into_bytes()));
    let files: Vec<_> =
        oci.files.iter().map(|(name, content)| (format!("out/{name}"), &content[..])).collect();
    let archive = tar(&files.iter().map(|(name, content)| (name.as_str(), *content)).collect::<Vec<_>>());
    assert_eq!(store.loaded(&[], &archive)["reference"], "a:1");
    // The directory of an unpacked archive.
    for (name, content) in members {
        std::fs::create_dir_all(store.dir.path().join("unpacked")).unwrap();
        std::fs::write(store.dir.path().join("unpacked").join(name), content).unwrap();
    }
    assert_eq!(from_directory(&store, "unpacked"), "Loaded image: a:1\n");
    // A root file system may have a directory with such a name in it.
    let other = [(&members[2].0, &b"[1, 2]"[..])].map(|(name, content)| (format!("app/{name}"), content));
    let web = tar(&other.iter().map(|(name, content)| (name.as_str(), *content)).collect::<Vec<_>>());
    assert_eq!(store.loaded(&["-t", "web"], &web)["reference"], "web:latest");
    let two = [("bin/x", &b"x"[..]), ("d/manifest.json", list.as_bytes())];
    assert_eq!(store.loaded(&["-t", "two"], &tar(&two))["reference"], "two:latest");
}

fn from_directory(store: &Store, name: &str) -> String {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("img-load");
    let output = command.arg(store.dir.path().join(name)).arg("--root").arg(store.dir.path().join("root"));
    String::from_utf8(output.output().unwrap().stderr).unwrap()
}

/// `skopeo copy … dir:DIRECTORY`, which is also `podman save --format docker-dir`.
#[test]
fn the_directory_transport_of_skopeo() {
    let store = Store::new();
    let place = store.dir.path().join("image");
    std::fs::create_dir(&place).unwrap();
    let image = Oci::new("x");
    let own = image.manifest["digest"].as_str().unwrap()[7..].to_owned();
    let mut members = vec![("version".to_owned(), b"Directory Transport Version: 1.1\n".to_vec())];
    for (name, content) in image.files {
        let Some(hex) = name.strip_prefix("blobs/sha256/") else { continue };
        members.push((if hex == own { "manifest.json" } else { hex }.to_owned(), content));
    }
    for (name, content) in &members {
        std::fs::write(place.join(name), content).unwrap();
    }
    let loaded = from_directory(&store, "image");
    assert!(loaded.starts_with("Loaded image ID: sha256:"), "{loaded}");
    let archive =
        tar(&members.iter().map(|(name, content)| (name.as_str(), &content[..])).collect::<Vec<_>>());
    let found = store.loaded(&["-t", "x"], &archive);
    assert_eq!(found["descriptor"]["digest"], format!("sha256:{own}"));
    // A blob that is missing is no image.
    std::fs::remove_file(place.join(&members.last().unwrap().0)).unwrap();
    let other = Store::new();
    std::fs::rename(&place, other.dir.path().join("image")).unwrap();
    let refused = from_directory(&other, "image");
    assert!(refused.starts_with("img-load: "), "{refused}");
}

/// What stands beside an image does not spoil it.
#[test]
fn what_is_no_image_beside_one() {
    let entry = |archive: &mut Oci, media_type: &str, name: &str, content: &Value| {
        let content = content.to_string().into_bytes();
        let digest = Digest::of(&content);
        let size = content.len();
        archive.files.push((format!("blobs/sha256/{}", digest.hex()), content));
        json!({"mediaType": media_type, "digest": digest, "size": size, "annotations": {oci::layout::REF_NAME: name}})
    };
    let (index, manifest) =
        ("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json");
    let mut archive = Oci::new("v1:1");
    let image: Value = archive
        .files
        .iter()
        .find_map(|(_, content)| {
            serde_json::from_slice(content).ok().filter(|it: &Value| it["layers"].is_array())
        })
        .unwrap();
    let empty =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": Digest::of(b"{}")});
    archive.files.push((format!("blobs/sha256/{}", Digest::of(b"{}").hex()), b"{}".to_vec()));
    let artifact = json!({"schemaVersion": 2, "config": empty, "layers": [empty]});
    let artifact = entry(&mut archive, manifest, "artifact", &artifact);
    // Its content is in the descriptors, and nowhere else.
    let inline =
        json!({"mediaType": "application/x", "size": 2, "digest": Digest::of(b"[]"), "data": "W10="});
    let inline =
        json!({"schemaVersion": 2, "artifactType": "application/x", "config": inline, "layers": [inline]});
    let mut inline = entry(&mut archive, manifest, "inline", &inline);
    inline["annotations"] = json!(null);
    // The list of referrers under a tag.
    let referrers = json!({"schemaVersion": 2, "manifests": [artifact]});
    let referrers = entry(&mut archive, index, "sha256-0", &referrers);
    // cosign save.
    let mut signature = image.clone();
    signature["layers"][0]["mediaType"] = json!("application/vnd.dev.cosign.simplesigning.v1+json");
    let signature = entry(&mut archive, manifest, "sha256-0.sig", &signature);
    // A shared layout may have lost a manifest.
    let mut gone = archive.manifest.clone();
    gone["digest"] = json!(Digest::of(b"elsewhere"));
    gone["annotations"] = json!({oci::layout::REF_NAME: "gone:1"});
    let entries = json!([gone, referrers, signature, inline, archive.manifest.clone()]);
    let archive = archive.with_index(entries);
    for arguments in [&[][..], &["-t", "x"]] {
        let store = Store::new();
        let output = store.load(arguments, &archive);
        let errors = String::from_utf8(output.stderr).unwrap();
        let name = if arguments.is_empty() { "v1:1" } else { "x:latest" };
        let left_out = "img-load: gone:1 is in the list of images, but not in the input: left out\n";
        assert_eq!(errors, format!("{left_out}Loaded image: {name}\n"));
        assert_eq!(store.names().len(), 1);
    }
}

/// An archive that says so could pass for the image that somebody means by the digest.
#[test]
fn a_name_with_the_digest_of_another_image_is_none() {
    let pinned = format!("a@sha256:{}", "a".repeat(64));
    let store = Store::new();
    let found = store.loaded(&[], &common::docker(json!([pinned]), |_| {}));
    assert_eq!((&found["reference"], store.names().len()), (&Value::Null, 0));
    let found = store.loaded(&[], &common::docker(json!([pinned, "a:1"]), |_| {}));
    assert_eq!((&found["reference"], store.names().len()), (&json!("a:1"), 1));
    let mut archive = Oci::new("a:1");
    archive.manifest["annotations"] = json!({oci::layout::REF_NAME: pinned});
    let entries = json!([archive.manifest.clone()]);
    let store = Store::new();
    assert_eq!(store.loaded(&[], &archive.with_index(entries))["reference"], Value::Null);
    let refused = store.load(&["-t", &pinned], &common::docker(json!(["a:1"]), |_| {}));
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(errors.starts_with(&format!("img-load: give the name {pinned} to sha256:")), "{errors}");
    assert!(errors.ends_with(": it has another digest\n"), "{errors}");
}

/// Go leaves out what is empty, and takes null for a name.
#[test]
fn a_configuration_without_a_type_and_names_that_are_none() {
    let mut archive = Oci::new("a:1");
    let own = archive.manifest["digest"].as_str().unwrap()[7..].to_owned();
    let (name, content) = archive.files.iter_mut().find(|(name, _)| name.ends_with(&own)).unwrap();
    let mut manifest: Value = serde_json::from_slice(content).unwrap();
    manifest["config"].as_object_mut().unwrap().remove("mediaType").unwrap();
    *content = manifest.to_string().into_bytes();
    let digest = Digest::of(content);
    (archive.manifest["digest"], archive.manifest["size"]) = (json!(digest), json!(content.len()));
    *name = format!("blobs/sha256/{}", digest.hex());
    assert_eq!(Store::new().loaded(&[], &archive.archive())["reference"], "a:1");
    for names in [json!([null]), json!([""])] {
        let store = Store::new();
        let found = store.loaded(&[], &common::docker(names, |_| {}));
        assert_eq!((&found["reference"], store.names().len()), (&Value::Null, 0));
    }
}
