//! Layers that registries may not distribute: they are fetched from the URLs in their descriptors, and not
//! pushed.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod server;

use std::{io::Write, process::Command};

use oci::Digest;
use serde_json::{Value, json};
use server::{Content, gets, image, ok, pull, serve};

/// An image in `a/b` whose only layer is available only at `url`.
fn foreign(content: &mut Content, layer: &[u8], url: &str) {
    let manifest = image(content, "1", &[layer.to_vec()]);
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar");
    manifest["layers"][0]["urls"] = json!([url]);
    let manifest = manifest.to_string().into_bytes();
    for name in ["1".to_owned(), Digest::of(&manifest).to_string()] {
        content.insert(format!("/v2/a/b/manifests/{name}"), manifest.clone());
    }
    content.remove(&format!("/v2/a/b/blobs/{}", Digest::of(layer)));
}

#[test]
fn what_the_registry_does_not_have_is_fetched_from_where_it_is() {
    let layer = testkit::rootfs(|tree| testkit::file(tree, "base", 0o644, b"windows"));
    let (elsewhere, seen) = serve(Content::from([("/layer?x=1".to_owned(), layer.clone())]), |_, _, _| false);
    let mut content = Content::new();
    foreign(&mut content, &layer, &format!("http://{elsewhere}/layer?x=1"));
    let (host, _) = serve(content.clone(), |_, _, _| false);
    let root = tempfile::tempdir().unwrap();
    let (status, lines) = pull(&host, root.path(), &["-q"], "a/b:1");
    assert_eq!((status, lines.as_str()), (0, ""));
    let blob = root.path().join("images/blobs/sha256").join(Digest::of(&layer).hex());
    assert_eq!(std::fs::read(blob).unwrap(), layer);
    assert_eq!(gets(&seen, "/layer?x=1"), 1);

    // The layer is not sent to another registry, because the manifest gives its URL there, too.
    let (other, seen) = serve(Content::new(), |request, _, stream| {
        let answer: Vec<u8> = match request.split(' ').next().unwrap() {
            "POST" => b"HTTP/1.1 202 Accepted\r\nLocation: /upload\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            "PUT" => b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            _ => return false,
        };
        stream.write_all(&answer).is_ok()
    });
    let push = Command::new(testkit::binaries().join("img-push"))
        .args(["-q", "--root"])
        .arg(root.path())
        .args([format!("{host}/a/b:1"), format!("{other}/a/b:1")])
        .output()
        .unwrap();
    assert!(push.status.success(), "{}", String::from_utf8_lossy(&push.stderr));
    let seen = seen.lock().unwrap();
    let uploads: Vec<_> = seen.iter().filter(|request| request.starts_with("PUT /upload")).collect();
    assert_eq!(uploads.len(), 1, "the configuration alone: {uploads:?}");
    assert!(!uploads[0].contains(Digest::of(&layer).hex()), "{uploads:?}");
}

#[test]
fn what_comes_from_elsewhere_is_checked() {
    let layer = testkit::rootfs(|tree| testkit::file(tree, "base", 0o644, b"windows"));
    let mut wrong = layer.clone();
    wrong[600] ^= 1;
    let (elsewhere, _) = serve(Content::new(), move |_, _, stream| stream.write_all(&ok(&wrong)).is_ok());
    for (url, message) in [
        (format!("http://{elsewhere}/layer"), format!("content of {} has digest", Digest::of(&layer))),
        ("file:///etc/passwd".to_owned(), "is not http or https".to_owned()),
    ] {
        let mut content = Content::new();
        foreign(&mut content, &layer, &url);
        let (host, _) = serve(content, |_, _, _| false);
        let root = tempfile::tempdir().unwrap();
        let (status, lines) = pull(&host, root.path(), &["-q"], "a/b:1");
        assert_eq!(status, 1, "{lines}");
        assert!(lines.contains(&message), "{lines}");
        assert!(!root.path().join("images/blobs/sha256").join(Digest::of(&layer).hex()).exists());
    }
}
