//! Content inside of descriptors (OCI image-spec, descriptor.md, `data`).

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod server;

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use oci::Digest;
use serde_json::{Value, json};
use server::{Content, configuration, descriptor, gets, ok, pull, serve};

fn base64(content: &[u8]) -> String {
    let mut child = Command::new("base64")
        .args(["--wrap", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// A descriptor that has its content, or other bytes, in `data`.
fn with_data(kind: &str, content: &[u8], data: &[u8]) -> Value {
    let mut descriptor = descriptor(kind, content);
    descriptor["data"] = json!(base64(data));
    descriptor
}

/// An index in the repository `a/b` whose manifest, configuration and layer are only in descriptors, which have
/// `of(content)` as their data.
struct Images {
    content: Content,
    blobs: [Vec<u8>; 3],
    index: Vec<u8>,
}

impl Images {
    fn new(of: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let layer = testkit::rootfs(|tree| testkit::file(tree, "base", 0o644, b"small"));
        let configuration = configuration(&[Digest::of(&layer)]);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": with_data("config.v1+json", &configuration, &of(&configuration)),
            "layers": [with_data("layer.v1.tar", &layer, &of(&layer))],
        });
        let manifest = manifest.to_string().into_bytes();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [with_data("manifest.v1+json", &manifest, &of(&manifest))],
        });
        let index = index.to_string().into_bytes();
        let content = Content::from([("/v2/a/b/manifests/1".to_owned(), index.clone())]);
        Self { content, blobs: [layer, configuration, manifest], index }
    }

    /// Where a registry has the blobs.
    fn places(&self) -> [(String, Vec<u8>); 3] {
        let place = |kind: &str, at: usize| {
            let blob = &self.blobs[at];
            (format!("/v2/a/b/{kind}/{}", Digest::of(blob)), blob.clone())
        };
        [place("blobs", 0), place("blobs", 1), place("manifests", 2)]
    }
}

fn stored(root: &std::path::Path, blob: &[u8]) -> Vec<u8> {
    fs::read(root.join("images/blobs/sha256").join(Digest::of(blob).hex())).unwrap()
}

#[test]
fn what_descriptors_have_is_not_asked_for() {
    let images = Images::new(<[u8]>::to_vec);
    let (host, seen) = serve(images.content.clone(), |_, _, _| false);
    let root = tempfile::tempdir().unwrap();
    assert_eq!(pull(&host, root.path(), &["-q", "--all-platforms"], "a/b:1"), (0, String::new()));
    for blob in images.blobs.iter().chain([&images.index]) {
        assert_eq!(stored(root.path(), blob), *blob, "as the registry has it, with the data");
    }
    for (place, _) in images.places() {
        assert_eq!(gets(&seen, &place), 0, "{place}");
    }
}

#[test]
fn data_that_is_not_the_content_is_not_used() {
    // One byte is another; one is missing; one is too many.
    let other = |content: &[u8]| [&content[..content.len() - 1], b"?"].concat();
    let shorter = |content: &[u8]| content[..content.len() - 1].to_vec();
    let longer = |content: &[u8]| [content, b" "].concat();
    for images in [Images::new(other), Images::new(shorter), Images::new(longer)] {
        let places = images.places();
        let asked = places.clone();
        let (host, seen) = serve(images.content.clone(), move |request, _, stream| {
            let found = asked.iter().find(|(place, _)| request.starts_with(&format!("GET {place} ")));
            found.is_some_and(|(_, blob)| stream.write_all(&ok(blob)).is_ok())
        });
        let root = tempfile::tempdir().unwrap();
        assert_eq!(pull(&host, root.path(), &["-q", "--all-platforms"], "a/b:1"), (0, String::new()));
        for (place, blob) in places {
            assert_eq!((stored(root.path(), &blob), gets(&seen, &place)), (blob, 1), "{place}");
        }
        // Without another place, there is no such image.
        let (host, _) = serve(images.content, |_, _, _| false);
        let root = tempfile::tempdir().unwrap();
        let (status, error) = pull(&host, root.path(), &["-q", "--all-platforms"], "a/b:1");
        assert!(status == 1 && error.ends_with("404 Not Found\n"), "{error}");
    }
}
