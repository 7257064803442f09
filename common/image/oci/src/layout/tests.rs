use std::{
    io::{Read, Write},
    time::Duration,
};

use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use super::*;
use crate::{Platform, Reference};

fn layout() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(dir.path().join("images")).unwrap();
    (dir, layout)
}

/// An image without layers; the author makes it unique.
fn image(layout: &Layout, author: &str, architecture: &str) -> Descriptor {
    let configuration = json!({"architecture": architecture, "os": "linux", "author": author,
        "rootfs": {"type": "layers", "diff_ids": []}});
    let config = layout.write_json(MediaType::ImageConfig, &configuration).unwrap();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
    layout.write_json(MediaType::ImageManifest, &manifest).unwrap()
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn files(layout: &Layout) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(layout.path())
        .unwrap()
        .chain(fs::read_dir(layout.path().join("blobs/sha256")).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // The note that this process writes.
        .filter(|name| !name.starts_with(".writing-"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_blob_is_there_once_or_not_at_all() {
    let (_dir, layout) = layout();
    let before = files(&layout);
    let mut dropped = layout.writer().unwrap();
    dropped.write_all(b"half").unwrap();
    drop(dropped);
    let promised = Descriptor::new(MediaType::ImageLayer, 4, Digest::of(b"blob"));
    let mut wrong = layout.writer_of(&promised).unwrap();
    wrong.write_all(b"bloc").unwrap();
    let problem = wrong.commit().unwrap_err().to_string();
    assert_eq!(problem, format!("content of {} has digest {}", Digest::of(b"blob"), Digest::of(b"bloc")));
    let mut long = layout.writer_of(&promised).unwrap();
    let problem = long.write_all(b"blobs").unwrap_err().to_string();
    assert_eq!(
        problem,
        format!("content of {} has more than 4 bytes, its descriptor says 4", Digest::of(b"blob"))
    );
    drop(long);
    let mut short = layout.writer_of(&promised).unwrap();
    short.write_all(b"blo").unwrap();
    let problem = short.commit().unwrap_err().to_string();
    assert_eq!(problem, format!("content of {} has 3 bytes, its descriptor says 4", Digest::of(b"blob")));
    assert_eq!(files(&layout), before);

    for _ in 0..2 {
        let mut writer = layout.writer_of(&promised).unwrap();
        writer.write_all(b"blob").unwrap();
        assert_eq!(writer.commit_as(MediaType::ImageLayer).unwrap(), promised);
    }
    assert_eq!(files(&layout).len(), before.len() + 1);
    assert_eq!(layout.read_blob(&promised).unwrap(), b"blob");

    // A blob that a power cut truncated is noticed, and the next writer repairs it.
    fs::write(layout.blob_path(&Digest::of(b"blob")), b"bl").unwrap();
    let problem = layout.read_blob(&promised).unwrap_err().to_string();
    let damaged = "has 2 bytes, its descriptor says 4: the image store is damaged";
    assert_eq!(problem, format!("content of {} {damaged}", Digest::of(b"blob")));
    layout.write_blob(MediaType::ImageLayer, b"blob").unwrap();
    assert_eq!(layout.read_blob(&promised).unwrap(), b"blob");

    // Other content of the same size is noticed at the end, not before.
    fs::write(layout.blob_path(&Digest::of(b"blob")), b"blot").unwrap();
    let mut reader = layout.blob_reader(&promised).unwrap();
    let mut four = [0; 4];
    reader.read_exact(&mut four).unwrap();
    assert!(reader.finish().unwrap_err().to_string().contains("has digest"));
}

#[test]
fn names_and_ids_lead_to_the_image() {
    let (_dir, layout) = layout();
    let (one, two) = (image(&layout, "one", "amd64"), image(&layout, "two", "amd64"));
    layout.tag(&name("debian"), &one).unwrap();
    layout.tag(&name("debian:12"), &one).unwrap();
    layout.tag(&name("localhost:5000/app"), &two).unwrap();
    let id = layout.image(&two, None).unwrap().id().unwrap();
    let digest_of = |text: &str| layout.resolve(text).unwrap().map(|found| found.digest().clone());
    let manifest = two.digest().to_string();
    for text in [
        "localhost:5000/app",
        "localhost:5000/app:latest",
        &format!("localhost:5000/app@{manifest}"),
        id.hex(),
        id.short(),
        &id.to_string(),
        &manifest,
        &manifest[7..20],
    ] {
        assert_eq!(digest_of(text).as_ref(), Some(two.digest()), "{text}");
    }
    assert_eq!(digest_of("docker.io/library/debian:12").as_ref(), Some(one.digest()));
    for text in ["debian:11", "app", "ffffffffffff", &format!("debian@{manifest}")] {
        assert_eq!(digest_of(text), None, "{text}");
    }
    assert_eq!(layout.find("nope").unwrap_err().to_string(), "no image \"nope\" in the image store");
    assert!(layout.resolve("NOPE").is_err());

    // The name moves, and is removed.
    layout.tag(&name("debian"), &two).unwrap();
    assert_eq!(digest_of("debian").as_ref(), Some(two.digest()));
    assert!(layout.untag(&name("debian")).unwrap());
    assert!(!layout.untag(&name("debian")).unwrap());
    assert_eq!(digest_of("debian"), None);
    assert_eq!(layout.list().unwrap().len(), 2);
}

#[test]
fn what_others_wrote_is_understood_and_kept() {
    let (_dir, layout) = layout();
    let one = image(&layout, "one", "amd64");
    let entry = |annotations: serde_json::Value| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": one.digest(),
            "size": one.size(), "annotations": annotations, "theirs": [1.50]})
    };
    let index = json!({"schemaVersion": 2, "theirs": {"z": 1, "a": 2}, "manifests": [
        entry(json!({REF_NAME: "short"})),
        entry(json!({REF_NAME: "latest", CONTAINERD_NAME: "docker.io/library/debian:latest"})),
        entry(json!({REF_NAME: "umoci:tag", CONTAINERD_NAME: "docker.io/library/old:latest"})),
        entry(json!({"other": "x"})),
        {"no": "descriptor"},
    ]});
    let path = layout.path().join("index.json");
    fs::write(&path, index.to_string()).unwrap();
    let names: Vec<_> =
        layout.list().unwrap().into_iter().map(|e| e.reference.map(|r| r.to_string())).collect();
    let expected = ["short:latest", "debian:latest", "umoci:tag"].map(|name| Some(name.to_owned()));
    assert_eq!(names, [&expected[..], &[None]].concat());

    layout.tag(&name("new"), &one).unwrap();
    layout.untag(&name("short")).unwrap();
    let after: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(after["theirs"].to_string(), r#"{"z":1,"a":2}"#);
    assert_eq!(after["manifests"][0]["theirs"].to_string(), "[1.5]");
    assert_eq!(after["manifests"][2], json!({"no": "descriptor"}), "the nameless one got its name");
    assert_eq!(after["manifests"][3]["annotations"][REF_NAME], "docker.io/library/new:latest");
}

/// An index of images for these architectures.
fn index(layout: &Layout, architectures: &[&str]) -> Descriptor {
    let child = |architecture: &&str| {
        let child = image(layout, "me", architecture);
        json!({"mediaType": child.media_type(), "digest": child.digest(), "size": child.size(),
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let children: Vec<_> = architectures.iter().map(child).collect();
    let index = json!({"schemaVersion": 2, "manifests": children});
    layout.write_json(MediaType::ImageIndex, &index).unwrap()
}

/// An id names the same one image on every machine, whatever else is in the index.
#[test]
fn an_id_in_an_index_is_of_one_image() {
    let (_dir, layout) = layout();
    let index = index(&layout, &["amd64", "arm64", "s390x"]);
    layout.tag(&name("multi"), &index).unwrap();
    for architecture in ["amd64", "arm64", "s390x"] {
        let one = layout.image(&index, Some(&format!("linux/{architecture}").parse().unwrap())).unwrap();
        let id = one.id().unwrap();
        for text in [id.short(), &id.to_string(), one.descriptor.digest().as_ref()] {
            let found = layout.find(text).unwrap();
            assert_eq!(found.digest(), one.descriptor.digest(), "{text}");
            assert_eq!(layout.image(&found, None).unwrap().id().unwrap(), id);
            // The listed entry is the whole index.
            let listed = vec![layout.list().unwrap()[0].descriptor.clone()];
            let expected = Found { name: None, entries: listed, image: found };
            assert_eq!(layout.find_listed(text).unwrap(), expected);
        }
    }
    assert_eq!(layout.find("multi").unwrap().digest(), index.digest());
    // The image may also have its own name.
    let arm = layout.image(&index, Some(&"linux/arm64".parse().unwrap())).unwrap();
    layout.tag(&name("arm"), &arm.descriptor).unwrap();
    assert_eq!(layout.find_listed(arm.id().unwrap().short()).unwrap().entries.len(), 2);
    assert_eq!(layout.find(index.digest().as_ref()).unwrap().digest(), index.digest());
}

/// As after `img-pull --platform`: the image in the store is the one meant.
#[test]
fn an_index_with_an_image_for_another_machine_alone() {
    let (_dir, layout) = layout();
    let host = Platform::host().to_string().replace("linux/", "");
    let index = index(&layout, &[&host, "s390x"]);
    layout.tag(&name("multi"), &index).unwrap();
    let own = layout.image(&index, None).unwrap();
    assert_eq!(own.platform(), Platform::host());
    let missing = Digest::try_from(own.descriptor.digest()).unwrap();
    fs::remove_file(layout.blob_path(&missing)).unwrap();
    assert_eq!(layout.image(&index, None).unwrap().platform().to_string(), "linux/s390x");
    assert!(
        matches!(layout.image(&index, Some(&Platform::host())), Err(Error::NoBlob(digest)) if digest == missing)
    );
    assert_eq!(layout.summaries().unwrap()[0].platform.as_deref(), Some("linux/s390x"));
}

#[test]
fn the_platform_decides_in_an_index() {
    let (_dir, layout) = layout();
    let index = index(&layout, &["amd64", "arm64", "arm"]);
    let chosen = |platform: &str| {
        let platform: Platform = platform.parse().unwrap();
        layout.image(&index, Some(&platform)).map(|image| image.platform().to_string())
    };
    for (asked, given) in
        [("linux/arm64/v8", "linux/arm64"), ("linux/armhf", "linux/arm/v7"), ("linux/x86_64", "linux/amd64")]
    {
        assert_eq!(chosen(asked).unwrap(), given);
    }
    assert_eq!(
        chosen("linux/s390x").unwrap_err().to_string(),
        format!(
            "{} has no image for linux/s390x: it has linux/amd64, linux/arm64, linux/arm/v7",
            index.digest()
        )
    );
    assert_eq!(layout.image(&index, None).unwrap().platform(), Platform::host());
    let single = image(&layout, "me", "s390x");
    assert!(layout.image(&single, None).is_ok(), "an image of one platform is what was asked for");
    assert!(layout.image(&single, Some(&Platform::host())).is_err());
}

#[test]
fn json_that_is_too_large_or_too_deep_is_refused() {
    let (_dir, layout) = layout();
    let large = Descriptor::new(MediaType::ImageManifest, 100 << 20, Digest::of(b"x"));
    assert_eq!(
        layout.image(&large, None).unwrap_err().to_string(),
        format!("{} is 104857600 bytes of JSON: more than 4 MiB are refused", Digest::of(b"x"))
    );
    let deep = "[".repeat(1 << 20);
    let deep = layout.write_blob(MediaType::ImageManifest, deep.as_bytes()).unwrap();
    assert!(layout.image(&deep, None).unwrap_err().to_string().contains("recursion limit exceeded"));
    let looped = Descriptor::new(MediaType::ImageIndex, 5, Digest::of(b"x"));
    assert_eq!(
        layout.image(&looped, None).unwrap_err().to_string(),
        format!("{} is not in the image store", Digest::of(b"x"))
    );
}

#[test]
fn writers_in_parallel_lose_nothing() {
    let (_dir, layout) = layout();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let layout = &layout;
            scope.spawn(move || {
                for number in 0..25 {
                    let image = image(layout, &format!("{}", number % 3), "amd64");
                    layout.tag(&name(&format!("t{thread}:{number}")), &image).unwrap();
                }
            });
        }
    });
    assert_eq!(layout.list().unwrap().len(), 100);
}

#[test]
fn only_a_layout_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let error = Layout::open(dir.path()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{:?} is not an OCI image layout: it has no oci-layout file of version 1", dir.path())
    );
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(Layout::open_or_create(dir.path()).is_err(), "a later version is left alone");
}

/// img-gc may have run between the lookup of an image and the naming.
#[test]
fn what_is_gone_gets_no_name() {
    let (_dir, layout) = layout();
    let (whole, half) = (image(&layout, "whole", "amd64"), image(&layout, "half", "amd64"));
    let config = layout.manifest(&half).unwrap().config().clone();
    let config = Digest::try_from(config.digest()).unwrap();
    fs::remove_file(layout.blob_path(&config)).unwrap();
    let missing = format!("{config} is not in the image store");
    assert_eq!(layout.tag(&name("half"), &half).unwrap_err().to_string(), missing);
    assert_eq!(layout.name(&half, &[]).unwrap_err().to_string(), missing);
    assert_eq!(layout.list().unwrap(), []);
    layout.tag(&name("whole"), &whole).unwrap();
    let manifest = Digest::try_from(whole.digest()).unwrap();
    fs::remove_file(layout.blob_path(&manifest)).unwrap();
    assert!(matches!(layout.tag(&name("again"), &whole), Err(Error::NoBlob(_))));
}

#[test]
fn an_image_goes_unless_it_has_got_another_name() {
    let (_dir, layout) = layout();
    let image = image(&layout, "a", "amd64");
    let digest = Digest::try_from(image.digest()).unwrap();
    layout.tag(&name("one"), &image).unwrap();
    layout.tag(&name("two"), &image).unwrap();
    let remove = |known: &[Reference]| {
        let mut edit = layout.edit().unwrap();
        let others = edit.remove(&digest, Some(known));
        edit.commit().unwrap();
        others
    };
    assert_eq!(remove(&[name("one")]), [name("two")]);
    assert_eq!(layout.list().unwrap().len(), 2);
    assert_eq!(remove(&[name("two"), name("one")]), []);
    assert_eq!(layout.list().unwrap(), []);
}

/// A writer that finds its blob in the store relies on it from then on. img-gc goes by the blob's age.
#[test]
fn a_blob_that_is_written_again_is_young() {
    let (_dir, layout) = layout();
    let blob = layout.write_blob(MediaType::ImageConfig, b"{}").unwrap();
    let path = layout.blob_path(&Digest::try_from(blob.digest()).unwrap());
    let old = fs::metadata(&path).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    layout.write_blob(MediaType::ImageConfig, b"{}").unwrap();
    assert!(fs::metadata(&path).unwrap().modified().unwrap() > old);
}

/// A power cut during a command may leave a blob of the right size that holds zeros.
#[test]
fn a_blob_that_no_image_has_is_read_before_it_is_used_again() {
    let (dir, layout) = layout();
    let content = b"a layer";
    let layer = layout.write_blob(MediaType::ImageLayer, content).unwrap();
    let path = layout.blob_path(&Digest::of(content));
    let anew = || Layout::open(dir.path().join("images")).unwrap();
    let write = |layout: &Layout| {
        let mut writer = layout.writer().unwrap();
        writer.write_all(content).unwrap();
        writer.commit().unwrap();
    };
    fs::write(&path, [0; 7]).unwrap();
    assert!(layout.has_sound_blob(&layer).unwrap(), "who has written it need not read it");
    assert!(!anew().has_sound_blob(&layer).unwrap());
    write(&anew());
    assert_eq!(fs::read(&path).unwrap(), content);
    assert!(anew().has_sound_blob(&layer).unwrap());
    fs::write(&path, [0; 7]).unwrap();
    anew().write_blob(MediaType::ImageLayer, content).unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);

    let configuration = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(content)]}});
    let config = layout.write_json(MediaType::ImageConfig, &configuration).unwrap();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let image = layout.write_json(MediaType::ImageManifest, &manifest).unwrap();
    fs::write(&path, [0; 7]).unwrap();
    let problem = anew().tag(&name("false"), &image).unwrap_err().to_string();
    assert!(problem.ends_with(": the image store is damaged"), "{problem}");
    write(&anew());
    anew().tag(&name("right"), &image).unwrap();
    // A list names only blobs that have reached the disk, so they are not read again.
    let inode = |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&path);
    write(&anew());
    assert_eq!(inode(&path), before);
    assert!(anew().has_sound_blob(&layer).unwrap());
}

#[test]
fn an_artifact_is_no_image() {
    let (_dir, layout) = layout();
    let of = |media_type: &str, configuration: serde_json::Value| {
        let config = layout.write_json(MediaType::from(media_type), &configuration).unwrap();
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
        let manifest = layout.write_json(MediaType::ImageManifest, &manifest).unwrap();
        layout.image(&manifest, None).map(|image| image.configuration).map_err(|error| error.to_string())
    };
    for media_type in ["application/vnd.oci.empty.v1+json", "application/vnd.cncf.helm.config.v1+json"] {
        let problem = of(media_type, json!({})).unwrap_err();
        assert!(
            problem.ends_with(&format!(" is not an image: its media type is {media_type:?}")),
            "{problem}"
        );
    }
    let problem = of("application/vnd.oci.image.config.v1+json", json!({})).unwrap_err();
    assert!(problem.contains("is not an image configuration: "), "{problem}");
    let configuration =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    of("application/octet-stream", configuration).unwrap();
}

/// Somebody else's directory may hold anything.
#[test]
fn what_is_no_note_is_not_waited_for() {
    let (_dir, layout) = layout();
    for name in [".writing-1-1.lock", ".lock"] {
        let path = layout.path().join(name);
        let _ = fs::remove_file(&path);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        match name {
            ".lock" => assert!(layout.lock().unwrap_err().to_string().contains("open lock")),
            _ => assert!(layout.writers(true).unwrap().iter().all(|writer| writer.path != path)),
        }
    }
}

/// Whoever publishes an index must not stop the collection of those who pull it.
#[test]
fn an_index_with_odd_children_does_not_stop_the_collection() {
    let (_dir, layout) = layout();
    let good = image(&layout, "good", "amd64");
    let mut odd = vec![serde_json::to_value(&good).unwrap(); 200];
    let other = image(&layout, "other", "amd64");
    for size in [other.size() + 1, 1 << 40] {
        let mut child = other.clone();
        child.set_size(size);
        odd.push(serde_json::to_value(child).unwrap());
    }
    let list =
        layout.write_json(MediaType::ImageIndex, &json!({"schemaVersion": 2, "manifests": 1})).unwrap();
    odd.push(serde_json::to_value(&list).unwrap());
    let mut index = json!({"schemaVersion": 2, "manifests": odd});
    // Each level multiplies the manifests by 300.
    for _ in 0..2 {
        let level = layout.write_json(MediaType::ImageIndex, &index).unwrap();
        index = json!({"schemaVersion": 2, "manifests": vec![serde_json::to_value(&level).unwrap(); 300]});
    }
    let index = layout.write_json(MediaType::ImageIndex, &index).unwrap();
    layout.tag(&name("odd"), &index).unwrap();
    let garbage = || layout.garbage::<super::Error>(|_| Ok(()), Duration::ZERO, true);
    assert!(garbage().unwrap().blobs.is_empty());
    // Damaged content may have mentioned anything.
    let path = layout.blob_path(&Digest::try_from(other.digest()).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] = b' ';
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    assert!(matches!(garbage().unwrap_err(), super::Error::Unknown { .. }));
}
