//! Servers that are never silent and never finish.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod server;

use std::{
    io::Write,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use oci::Digest;
use server::{Content, gets, image, ok, partial, pull, range, serve};

/// Every read takes less time than this.
const PAUSE: Duration = Duration::from_millis(50);
const FLAGS: [&str; 7] = ["-q", "--timeout", "5", "--speed-limit", "1000", "--speed-time", "1"];

fn layer() -> Vec<u8> {
    testkit::rootfs(|tree| testkit::file(tree, "name", 0o644, &[7; 300_000]))
}

/// Sends a byte now and then, as long as the client reads.
fn drip(stream: &mut TcpStream, content: &[u8]) -> bool {
    for byte in content {
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
        thread::sleep(PAUSE);
    }
    true
}

#[test]
fn a_server_that_drips_is_given_up() {
    let digest = Digest::of(&layer());
    let blob = format!("/v2/a/b/blobs/{digest}");
    let endless_head = [b"HTTP/1.1 200 OK\r\n", &b"X: y\r\n".repeat(1000)[..]].concat();
    for (at, before, then) in [
        (&*blob, ok(&layer())[..70_000].to_vec(), vec![0; 5000]),
        (&*blob, Vec::new(), endless_head.clone()),
        ("/v2/a/b/manifests/latest", ok(&[b' '; 5000])[..100].to_vec(), vec![b' '; 5000]),
        ("/v2/a/b/manifests/latest", Vec::new(), endless_head),
        ("/v2/a/b/manifests/latest", Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".repeat(500)),
        (
            "/v2/a/b/manifests/latest",
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5000\r\n\r\n".to_vec(),
            vec![b' '; 5000],
        ),
    ] {
        let mut content = Content::new();
        image(&mut content, "latest", &[layer()]);
        let path = at.to_owned();
        let (host, _) = serve(content, move |request, _, stream| {
            request.starts_with(&format!("GET {path} "))
                && stream.write_all(&before).is_ok()
                && drip(stream, &then)
        });
        let (root, begin) = (tempfile::tempdir().unwrap(), Instant::now());
        let flags = [&FLAGS[..], &["--retries", "0"]].concat();
        let (status, error) = pull(&host, root.path(), &flags, "a/b");
        let slow = format!("img-pull: get http://HOST{at}: less than 1000 bytes a second for 1 s\n");
        let refused = format!("img-pull: get http://HOST{at}: 500 Internal Server Error\n");
        assert!(status == 1 && (error == slow || error == refused), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(60), "{at}: {:?}", begin.elapsed());
    }
}

#[test]
fn a_token_server_that_drips_is_given_up() {
    let (tokens, _) = serve(Content::new(), |_, _, stream| {
        stream.write_all(&ok(&[b' '; 5000])[..100]).is_ok() && drip(stream, &[b' '; 5000])
    });
    let server = tokens.clone();
    let (host, _) = serve(Content::new(), move |_, _, stream| {
        let head = format!(
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{server}/token\"\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).is_ok()
    });
    let root = tempfile::tempdir().unwrap();
    let flags = [&FLAGS[..], &["--retries", "0"]].concat();
    let (status, error) = pull(&host, root.path(), &flags, "a/b");
    let slow = format!("img-pull: get http://{tokens}/token: less than 1000 bytes a second for 1 s\n");
    assert_eq!((status, error), (1, slow));
}

#[test]
fn a_layer_that_dripped_goes_on_where_it_was_given_up() {
    let (content, mut blobs) = (layer(), Content::new());
    image(&mut blobs, "latest", std::slice::from_ref(&content));
    let digest = Digest::of(&content);
    let path = format!("/v2/a/b/blobs/{digest}");
    let (at, whole) = (path.clone(), content.clone());
    let (host, seen) = serve(blobs, move |request, count, stream| {
        if !request.starts_with(&format!("GET {at} ")) {
            return false;
        }
        if count == 0 {
            return stream.write_all(&ok(&whole)[..100_000]).is_ok() && drip(stream, &whole[100_000..]);
        }
        let from = range(request).unwrap();
        assert!(from > 90_000, "{from}");
        stream.write_all(&partial(&whole, from)).is_ok()
    });
    let root = tempfile::tempdir().unwrap();
    assert_eq!(pull(&host, root.path(), &FLAGS, "a/b"), (0, String::new()));
    assert_eq!(gets(&seen, &path), 2);
}

#[test]
fn whoever_wants_to_may_wait() {
    let mut content = Content::new();
    let manifest = image(&mut content, "latest", &[layer()]);
    let (host, _) = serve(content, move |request, _, stream| {
        let answer = ok(&manifest);
        let (head, body) = answer.split_at(answer.len() - 40);
        request.starts_with("GET /v2/a/b/manifests/") && stream.write_all(head).is_ok() && drip(stream, body)
    });
    for (flags, expected) in [
        (["--speed-limit", "0", "--speed-time", "1"], 0),
        (["--speed-limit", "100000", "--speed-time", "1"], 1),
    ] {
        let root = tempfile::tempdir().unwrap();
        let flags = [&["-q", "--retries", "0"], &flags[..]].concat();
        let (status, error) = pull(&host, root.path(), &flags, "a/b");
        assert_eq!(status, expected, "{error}");
    }
}
