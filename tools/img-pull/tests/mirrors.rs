//! Mirrors that send wrong bytes: the next source is asked from the start, and nothing of the wrong bytes is
//! left.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod server;

use std::{collections::BTreeSet, fs, io::Write, path::Path};

use oci::Digest;
use server::{Content, Seen, configuration, gets, image, image_of, ok, partial, pull, range, serve, short};

fn layer(name: &str) -> Vec<u8> {
    testkit::rootfs(|tree| {
        testkit::file(tree, name, 0o644, &vec![name.as_bytes()[0]; 300_000]);
        testkit::file(tree, "same", 0o644, b"right");
    })
}

/// Everything in the layers' directories: `<digest>/<name>`.
fn unpacked(root: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for layer in fs::read_dir(root.join("layers")).unwrap().flatten() {
        let hex = layer.file_name().into_string().unwrap();
        if hex.starts_with('.') && hex != ".lock" {
            panic!("{hex} is left");
        }
        for entry in fs::read_dir(layer.path()).into_iter().flatten().flatten() {
            names.insert(format!("{hex}/{}", entry.file_name().to_str().unwrap()));
        }
    }
    names
}

/// A server that has the image, and sends `wrong` if the layer is requested from its start.
fn liar(content: &Content, layer: &[u8], wrong: Vec<u8>) -> (String, Seen) {
    let path = format!("GET /v2/a/b/blobs/{} ", Digest::of(layer));
    serve(content.clone(), move |request, _, stream| {
        request.starts_with(&path) && stream.write_all(&wrong).is_ok()
    })
}

#[test]
fn wrong_bytes_of_a_mirror_are_replaced() {
    let (one, two) = (layer("1"), layer("2"));
    let mut content = Content::new();
    image(&mut content, "latest", &[one.clone(), two.clone()]);
    let path = format!("/v2/a/b/blobs/{}", Digest::of(&two));
    // An archive of the same size with a file that must not be left, one with a wrong end, and one that is
    // not an archive.
    let mut other = layer("3");
    other.resize(two.len(), 0);
    let mut late = two.clone();
    let at = late.len() - 5000;
    late[at] ^= 1;
    let garbage: Vec<u8> = (0..two.len()).map(|i| (i * 7) as u8).collect();
    let found = |bytes: &[u8]| format!("content of {} has digest {}", Digest::of(&two), Digest::of(bytes));
    let size = two.len();
    let sized = |found: &str| {
        format!("content of {} has {found} bytes, its descriptor says {size}", Digest::of(&two))
    };
    let chunked = |bytes: &[u8]| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        [format!("{head}{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n0\r\n\r\n"].concat()
    };
    for (wrong, why) in [
        (ok(&other), found(&other)),
        (ok(&late), found(&late)),
        (ok(&garbage), found(&garbage)),
        (chunked(&other[..100_000]), sized("100000")),
        (chunked(&[&other[..], b"more"].concat()), sized(&format!("more than {size}"))),
    ] {
        for apply in [false, true] {
            let (mirror, seen_mirror) = liar(&content, &two, wrong.clone());
            let (second, seen_second) = liar(&content, &two, ok(&other));
            let (host, seen) = serve(content.clone(), |_, _, _| false);
            let root = tempfile::tempdir().unwrap();
            let flags = ["-j", "1", "--mirror", &mirror, "--mirror", &second, "--apply"];
            let (status, lines) = pull(&host, root.path(), &flags[..if apply { 7 } else { 6 }], "a/b");
            assert_eq!(status, 0, "{lines}");
            for (mirror, why) in [(&mirror, &why), (&second, &found(&other))] {
                assert!(lines.contains(&format!("mirror {mirror} skipped: {why}\n")), "{lines}");
            }
            for layer in [&one, &two] {
                assert_eq!(lines.matches(&format!("{}: Pull complete", short(layer))).count(), 1, "{lines}");
            }
            assert_eq!([gets(&seen_mirror, &path), gets(&seen_second, &path), gets(&seen, &path)], [1, 1, 1]);
            assert!(!seen.lock().unwrap().join("").to_ascii_lowercase().contains("range:"), "from its start");
            if apply {
                let of = |layer: &[u8], name: &str| format!("{}/{name}", Digest::of(layer).hex());
                let expected = [of(&one, "1"), of(&one, "same"), of(&two, "2"), of(&two, "same")];
                assert_eq!(unpacked(root.path()), BTreeSet::from(expected));
            }
        }
    }
}

#[test]
fn the_rest_of_what_a_mirror_began_is_not_blamed() {
    // The mirror sends wrong bytes and breaks off. The registry's correct rest does not match them.
    let one = layer("1");
    let mut content = Content::new();
    image(&mut content, "latest", std::slice::from_ref(&one));
    let (mirror, _) = liar(&content, &one, ok(&vec![9; one.len()])[..200_000].to_vec());
    let (path, whole) = (format!("GET /v2/a/b/blobs/{} ", Digest::of(&one)), one.clone());
    let (host, seen) = serve(content, move |request, _, stream| {
        let Some(from) = range(request).filter(|_| request.starts_with(&path)) else { return false };
        stream.write_all(&partial(&whole, from)).is_ok()
    });
    let root = tempfile::tempdir().unwrap();
    let flags = ["-q", "--retries", "0", "--apply", "--mirror", &mirror];
    assert_eq!(pull(&host, root.path(), &flags, "a/b"), (0, String::new()));
    assert_eq!(gets(&seen, &format!("/v2/a/b/blobs/{}", Digest::of(&one))), 2, "its end, and then all of it");
    assert_eq!(unpacked(root.path()).len(), 2);
}

#[test]
fn what_is_wrong_everywhere_ends_the_pull() {
    let one = layer("1");
    let mut content = Content::new();
    image(&mut content, "latest", std::slice::from_ref(&one));
    let garbage: Vec<u8> = (0..one.len()).map(|i| (i * 7) as u8).collect();
    let (mirror, _) = liar(&content, &one, ok(&garbage));
    let (host, _) = liar(&content, &one, ok(&garbage));
    for apply in [&[][..], &["--apply"]] {
        let root = tempfile::tempdir().unwrap();
        let flags = [&["-q", "--mirror", &mirror], apply].concat();
        let (status, error) = pull(&host, root.path(), &flags, "a/b");
        assert_eq!((status, error.lines().count()), (1, 1), "{error}");
        if !apply.is_empty() {
            assert_eq!(unpacked(root.path()), BTreeSet::new());
        }
        assert!(!fs::read_to_string(root.path().join("images/index.json")).unwrap().contains("a/b"));
    }
    // If a layer has the right bytes but cannot be used, no other source is asked.
    let mut content = Content::new();
    image_of(&mut content, "latest", configuration(&[Digest::of(&garbage)]), std::slice::from_ref(&garbage));
    let (mirror, _) = serve(content.clone(), |_, _, _| false);
    let (host, seen) = serve(content, |_, _, _| false);
    let root = tempfile::tempdir().unwrap();
    let (status, error) = pull(&host, root.path(), &["-q", "--apply", "--mirror", &mirror], "a/b");
    assert_eq!((status, error.lines().count()), (1, 1), "{error}");
    assert!(error.starts_with(&format!("img-pull: layer {}: ", Digest::of(&garbage))), "{error}");
    assert_eq!(gets(&seen, &format!("/v2/a/b/blobs/{}", Digest::of(&garbage))), 0);
}
