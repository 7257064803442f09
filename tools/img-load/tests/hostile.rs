//! Archives with invalid content: a one-line error names it, and nothing is left in the store.

mod common;

use common::{Oci, Store, configuration, docker, layer, tar};
use oci::Digest;
use serde_json::json;

#[test]
fn docker_archives() {
    let store = Store::new();
    let digest = Digest::of(&layer());
    for (spoil, problem) in [
        (
            json!({"Layers": ["../../etc/passwd"]}),
            "manifest.json names \"../../etc/passwd\", which is not in the archive".to_owned(),
        ),
        (
            json!({"Config": "/etc/passwd"}),
            "manifest.json names \"/etc/passwd\", which is not in the archive".to_owned(),
        ),
        (json!({"Layers": []}), "layers, 1 DiffIDs in the configuration".to_owned()),
        (
            json!({"Layers": ["manifest.json"]}),
            format!(
                "layer \"manifest.json\" in the archive has DiffID FOUND, the configuration says {digest}"
            ),
        ),
        (
            json!({"RepoTags": ["../x"]}),
            "\"../x\" cannot be the name of an image: \"..\" is not a registry's host and port".to_owned(),
        ),
        (json!({"Config": 1}), "manifest.json in the archive: invalid type: integer `1`".to_owned()),
        (json!({"Config": "abc/layer.tar"}), "abc/layer.tar in the archive: expected ident".to_owned()),
    ] {
        let archive = docker(json!(["x:1"]), |list| {
            let changes = spoil.as_object().unwrap().clone();
            list[0].as_object_mut().unwrap().extend(changes);
        });
        let line = store.refused(&[], &archive);
        for part in problem.split("FOUND") {
            assert!(line.starts_with("img-load: ") && line.contains(part), "{line}\n{problem}");
        }
    }
    assert_eq!(
        store.refused(&[], &docker(json!(["x"]), |list| *list = json!([]))),
        "img-load: the archive holds no image"
    );
    let looped = testkit::rootfs(|tree| {
        testkit::file(tree, "manifest.json", 0o644, br#"[{"Config":"a","Layers":[]}]"#);
        testkit::symlink(tree, "a", "b");
        testkit::symlink(tree, "b", "/a");
    });
    assert_eq!(
        store.refused(&["-t", "x"], &looped),
        "img-load: manifest.json names \"a\", which is not in the archive"
    );
    assert_eq!(
        store.refused(&["-t", "x"], &tar(&[("0.json", b"{}")])),
        "img-load: the archive lists no images: it has neither manifest.json nor oci-layout and index.json"
    );
}

#[test]
fn oci_archives() {
    let store = Store::new();
    let missing = Digest::of(b"missing");
    let mut archive = Oci::new("x");
    archive.files.retain(|(name, _)| !name.ends_with(Digest::of(&layer()).hex()));
    assert_eq!(
        store.refused(&[], &archive.archive()),
        format!("img-load: the archive names {}, which is not in it", Digest::of(&layer()))
    );
    let archive = Oci::new("x");
    let mut entry = archive.manifest.clone();
    entry["digest"] = json!(missing);
    assert_eq!(
        store.refused(&[], &archive.with_index(json!([entry]))),
        format!("img-load: the archive names {missing}, which is not in it")
    );
    for (size, problem) in
        [(1, "has 340 bytes, its descriptor says 1"), (100 << 20, "more than 4 MiB are refused")]
    {
        let archive = Oci::new("x");
        let mut entry = archive.manifest.clone();
        entry["size"] = json!(size);
        let line = store.refused(&[], &archive.with_index(json!([entry])));
        assert!(line.ends_with(problem), "{line}");
    }
    for content in [&b"other"[..], &vec![0; 1 << 20]] {
        let mut archive = Oci::new("x");
        archive.files[0].1 = content.to_vec();
        let line = store.refused(&[], &archive.archive());
        let expected = Digest::of(&layer());
        assert_eq!(line, format!("img-load: content of {expected} has digest {}", Digest::of(content)));
    }
    let mut archive = Oci::new("x");
    archive.files[0].0 = "blobs/sha256/../../../etc/x".to_owned();
    // A member's name is a key and not a path: the content identifies the blob.
    Store::new().loaded(&[], &archive.archive());
    assert!(!std::path::Path::new("/etc/x").exists());
    let deep = "[".repeat(100_000);
    let archive =
        tar(&[("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#), ("index.json", deep.as_bytes())]);
    let line = store.refused(&[], &archive);
    assert!(line.starts_with("img-load: index.json in the archive: recursion limit exceeded"), "{line}");
    let md5 = json!([{"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
        "digest": "md5:d41d8cd98f00b204e9800998ecf8427e"}]);
    assert_eq!(
        store.refused(&[], &Oci::new("x").with_index(md5)),
        "img-load: \"md5:d41d8cd98f00b204e9800998ecf8427e\" is not a digest: it takes \"sha256:\" and 64 hexadecimal \
         digits, or \"sha512:\" and 128"
    );
}

#[test]
fn bombs() {
    let store = Store::new();
    let zeros = vec![0; 100 << 20];
    let rootfs = testkit::rootfs(|tree| testkit::file(tree, "bin/zeros", 0o644, &zeros));
    let archive = tar(&[("0.tar", &zeros[..])]);
    let bzip2 = |data: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        std::io::Write::write_all(&mut encoder, data).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
    let ratio = "img-load: read standard input: unpacked size exceeds 999 times the compressed size";
    for blob in [zstd(&rootfs), zstd(&archive), bzip2(&rootfs)] {
        assert_eq!(store.refused(&["-t", "x", "--max-ratio", "999"], &blob), ratio);
        let arguments = ["-t", "x", "--max-size", "80M"];
        let line = store.refused(&arguments, &blob);
        assert_eq!(line, "img-load: read standard input: unpacked size exceeds 83886080 bytes");
    }
    // Zeros alone are no bomb: see `archive::Limits::FREE`.
    Store::new().loaded(&["-t", "x"], &zstd(&rootfs));
}

#[test]
fn damaged_streams() {
    let store = Store::new();
    let whole = docker(json!(["x"]), |_| {});
    assert_eq!(
        store.refused(&[], &whole[..whole.len() / 2]),
        "img-load: read standard input: archive ends in the middle of an entry"
    );
    let mut compressed = zstd::encode_all(&whole[..], 3).unwrap();
    compressed.extend(zstd::encode_all(&b"what follows the tar"[..], 3).unwrap());
    compressed.truncate(compressed.len() - 5);
    assert!(store.refused(&[], &compressed).starts_with("img-load: read standard input: "));
    for (input, problem) in [
        (
            &b"neither of them"[..],
            "standard input is neither an archive of images nor a tar of a root file system",
        ),
        (b"", "standard input is neither an archive of images nor a tar of a root file system"),
    ] {
        assert_eq!(store.refused(&["-t", "x"], input), format!("img-load: {problem}"));
    }
    // A root file system that is truncated after the part by which its form is detected.
    let rootfs = testkit::rootfs(|tree| testkit::file(tree, "bin/large", 0o755, &vec![7; 3 << 20]));
    assert_eq!(
        store.refused(&["-t", "x"], &rootfs[..2 << 20]),
        "img-load: read standard input: archive ends in the middle of an entry"
    );
    let mut huge = tar::Header::new_ustar();
    huge.set_path("bin/x").unwrap();
    huge.as_mut_bytes()[124..136].copy_from_slice(&[0xff; 12]);
    huge.set_cksum();
    assert!(store.refused(&["-t", "x"], huge.as_bytes()).contains("standard input is neither"));
    assert!(configuration(&[]).len() > 2);
}
