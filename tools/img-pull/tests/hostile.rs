//! Registries that lie, break off, send nothing, or redirect elsewhere.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod server;

use std::{
    fs,
    io::Write,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use oci::Digest;
use serde_json::json;
use server::{Content, Seen, configuration, descriptor, image, ok, serve};

fn layer() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn registry(lie: impl Fn(&str, usize, &mut TcpStream) -> bool + Send + Sync + 'static) -> (String, Seen) {
    let mut content = Content::new();
    image(&mut content, "latest", &[layer()]);
    serve(content, lie)
}

/// The exit status and standard error of a pull into a new store. If it fails, nothing may be left there.
fn pull(host: &str, flags: &[&str]) -> (i32, String) {
    let root = tempfile::tempdir().unwrap();
    let (status, error) =
        server::pull(host, root.path(), &[&["-q", "--timeout", "1"], flags].concat(), "a/b");
    let index = fs::read_to_string(root.path().join("images/index.json")).unwrap();
    assert_eq!(index.contains("a/b"), status == 0, "{index}");
    let blobs = fs::read_dir(root.path().join("images/blobs/sha256")).unwrap();
    for blob in blobs.flatten() {
        let content = fs::read(blob.path()).unwrap();
        assert_eq!(
            Digest::of(&content).hex(),
            blob.file_name().to_str().unwrap(),
            "a blob that nobody checked"
        );
    }
    (status, error)
}

fn head(status: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

#[test]
fn goes_on_where_the_connection_broke() {
    let content = layer();
    let digest = Digest::of(&content).to_string();
    let (host, seen) = registry(move |request, count, stream| {
        if !request.contains(&digest) {
            return false;
        }
        let from: Option<usize> = request.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("range: bytes=")?.trim_end_matches('-').parse().ok()
        });
        let from = from.unwrap_or(0);
        let size = content.len();
        let end = if count < 2 { (from + 500_000).min(size) } else { size };
        let head = match from {
            0 => head("200 OK", &format!("Content-Length: {size}\r\n")),
            _ => {
                let range = format!("Content-Range: bytes {from}-{}/{size}\r\n", size - 1);
                head("206 Partial Content", &format!("Content-Length: {}\r\n{range}", size - from))
            }
        };
        stream.write_all(&[&head, &content[from..end]].concat()).is_ok()
    });
    assert_eq!(pull(&host, &[]), (0, String::new()));
    let seen = seen.lock().unwrap().join("\n").to_ascii_lowercase();
    assert!(seen.contains("range: bytes=500000-"), "{seen}");
    assert!(seen.contains("range: bytes=1000000-"), "{seen}");
}

#[test]
fn a_busy_registry_is_asked_again() {
    let digest = Digest::of(&layer()).to_string();
    let (host, _) = registry(move |request, count, stream| {
        let busy = head("429 Too Many Requests", "Retry-After: 0\r\nContent-Length: 0\r\n");
        let broken = head("503 Service Unavailable", "Content-Length: 0\r\n");
        match (request.contains(&digest), count) {
            (true, 0) => stream.write_all(&busy).is_ok(),
            (true, 1) => stream.write_all(&broken).is_ok(),
            _ => false,
        }
    });
    assert_eq!(pull(&host, &[]), (0, String::new()));
}

/// `Retry-After` may be a date, by the registry's clock.
#[test]
fn a_busy_registry_says_until_when() {
    let digest = Digest::of(&layer()).to_string();
    let run = |headers: &'static str| {
        let digest = digest.clone();
        let (host, seen) = registry(move |request, count, stream| {
            let busy = head("429 Too Many Requests", &format!("{headers}Content-Length: 0\r\n"));
            request.contains(&digest) && count == 0 && stream.write_all(&busy).is_ok()
        });
        let begin = Instant::now();
        let (status, error) = pull(&host, &[]);
        let asked = seen.lock().unwrap().iter().filter(|request| request.contains("/blobs/")).count();
        (status, error, asked, begin.elapsed())
    };
    let past = "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    assert_eq!(run(past).0, 0);
    let in_two_seconds =
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sunday, 06-Nov-94 08:49:39 GMT\r\n";
    let (status, error, _, took) = run(in_two_seconds);
    assert_eq!((status, error), (0, String::new()));
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let (status, error, asked, _) = run("Retry-After: Tue, 31 Dec 2999 23:59:59 GMT\r\n");
    assert_eq!((status, asked), (1, 2), "the configuration, and the layer once: {error}");
    assert!(error.trim_end().ends_with(": 429 Too Many Requests"), "{error}");
}

/// Which request is answered wrongly.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Layer,
    Configuration,
    Manifest,
}

/// Answers `at` with these bytes, followed by `then` again and again, or by nothing.
fn refused(at: At, answer: Vec<u8>, then: Option<Vec<u8>>) -> String {
    let layer = Digest::of(&layer()).to_string();
    let (host, _) = registry(move |request, _, stream| {
        let asked = match request {
            request if request.contains("/manifests/") => At::Manifest,
            request if request.contains(&layer) => At::Layer,
            request if request.contains("/blobs/") => At::Configuration,
            _ => return false,
        };
        if asked != at {
            return false;
        }
        drop(stream.write_all(&answer));
        match &then {
            Some(more) if more.is_empty() => {}
            Some(more) => while stream.write_all(more).is_ok() {},
            None => thread::sleep(Duration::from_secs(120)),
        }
        true
    });
    let begin = Instant::now();
    let (status, error) = pull(&host, &["--retries", "0"]);
    assert_eq!((status, error.lines().count()), (1, 1), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(60), "{error}");
    error.trim_end().to_owned()
}

/// A redirection.
fn to(location: &str) -> Vec<u8> {
    head("307 Temporary Redirect", &format!("Location: {location}\r\nContent-Length: 0\r\n"))
}

/// A chunk of an answer without a length.
fn chunked(content: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", content.len()).as_bytes(), content, b"\r\n"].concat()
}

#[test]
fn layers_that_registries_must_not_send() {
    let content = layer();
    let (digest, size) = (Digest::of(&content), content.len());
    let zeros = vec![0; size];
    let blob = format!("img-pull: get http://HOST/v2/a/b/blobs/{digest}");
    let more =
        format!("img-pull: content of {digest} has more than {size} bytes, its descriptor says {size}");
    let end = || Some(Vec::new());
    let endless = head("200 OK", "Transfer-Encoding: chunked\r\n");
    for (answer, then, expected) in [
        (ok(&zeros), end(), format!("img-pull: content of {digest} has digest {}", Digest::of(&zeros))),
        (ok(&vec![0; size + 1]), end(), more.clone()),
        (endless.clone(), Some(chunked(&zeros)), more.clone()),
        (head("200 OK", ""), Some(zeros.clone()), more),
        (
            ok(&content[..1000]),
            end(),
            format!("img-pull: content of {digest} has 1000 bytes, its descriptor says {size}"),
        ),
        (
            [endless, chunked(&content[..1000]), b"0\r\n\r\n".to_vec()].concat(),
            end(),
            format!("img-pull: content of {digest} has 1000 bytes, its descriptor says {size}"),
        ),
        (Vec::new(), None, format!("{blob}: no answer for 1 s")),
        (ok(&content)[..10_000].to_vec(), None, format!("{blob}: no answer for 1 s")),
        (ok(&content)[..10_000].to_vec(), end(), format!("{blob}: the connection broke")),
        (Vec::new(), end(), format!("{blob}: the connection broke")),
        (
            to("file:///etc/passwd"),
            end(),
            format!("{blob}: redirected: scheme \"file\" is not http or https"),
        ),
        (to("gopher://x/y"), end(), format!("{blob}: redirected: scheme \"gopher\" is not http or https")),
        (to("/v2/a/b/blobs/x"), end(), "img-pull: get http://HOST/v2/a/b/blobs/x: 404 Not Found".to_owned()),
        (to(&format!("/v2/a/b/blobs/{digest}")), end(), format!("{blob}: more than 10 redirections")),
        (head("302 Found", "Content-Length: 0\r\n"), end(), format!("{blob}: an answer without Location")),
        (head("204 No Content", ""), end(), format!("{blob}: answered 204 No Content")),
        (
            head(
                "206 Partial Content",
                &format!("Content-Length: {}\r\nContent-Range: bytes 7-8/9\r\n", size),
            ),
            end(),
            format!("{blob}: asked for bytes from 0 on, got \"bytes 7-8/9\""),
        ),
        (
            b"HTTP/1.1 200 OK\r\nX: ".to_vec(),
            Some(vec![b'x'; 1 << 20]),
            format!("{blob}: its headers have more than 64 KiB"),
        ),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), end(), format!("{blob}: the server does not speak HTTP")),
    ] {
        let error = refused(At::Layer, answer, then);
        assert!(
            error == expected || expected.ends_with("HTTP") && error.starts_with(&expected),
            "{error}\n{expected}"
        );
    }
}

#[test]
fn ten_redirections_are_followed_and_no_more() {
    for (redirections, status) in [(10, 0), (11, 1)] {
        let blob = format!("/v2/a/b/blobs/{}", Digest::of(&layer()));
        let (host, seen) = registry(move |request, _, stream| {
            let path = request.split(' ').nth(1).unwrap();
            let (path, count) = path.split_once('?').unwrap_or((path, "0"));
            let count: usize = count.parse().unwrap();
            if path != blob {
                return false;
            }
            let next = format!("Location: {path}?{}\r\nContent-Length: 0\r\n", count + 1);
            let answer = match count == redirections {
                true => ok(&layer()),
                false => head("307 Temporary Redirect", &next),
            };
            stream.write_all(&answer).is_ok()
        });
        let (found, error) = pull(&host, &[]);
        assert_eq!(found, status, "{redirections}: {error}");
        let digest = Digest::of(&layer()).to_string();
        let asked = seen.lock().unwrap().iter().filter(|request| request.contains(&digest)).count();
        assert_eq!(asked, 11);
    }
}

/// An answer to the request for a manifest, the bytes that follow it (None for a connection that stays open),
/// and the error.
type Case = (Vec<u8>, Option<Vec<u8>>, String);

fn assert_manifests_refused<const N: usize>(cases: [Case; N]) {
    for (answer, then, expected) in cases {
        let error = refused(At::Manifest, answer, then);
        let exact = expected.starts_with("img-pull: ");
        assert!(if exact { error == expected } else { error.contains(&expected) }, "{error}\n{expected}");
    }
}

#[test]
fn answers_that_are_no_manifests() {
    let manifest = "img-pull: get http://HOST/v2/a/b/manifests/latest";
    let end = || Some(Vec::new());
    let text = |value: serde_json::Value| ok(value.to_string().as_bytes());
    let digest = Digest::of(b"another one");
    assert_manifests_refused([
        (
            head("200 OK", "Content-Length: 100000000\r\n"),
            end(),
            format!("{manifest}: it has more than 4096 KiB"),
        ),
        (head("200 OK", ""), Some(vec![b' '; 1 << 20]), format!("{manifest}: it has more than 4096 KiB")),
        (
            ok("[".repeat(1_000_000).as_bytes()),
            end(),
            format!("{manifest}: not a manifest: recursion limit exceeded at line 1 column 128"),
        ),
        (
            text(json!({"config": {}, "layers": [], "manifests": []})),
            end(),
            format!("{manifest}: not a manifest: it is an index too"),
        ),
        (
            head("200 OK", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0"),
            Some(b"X: y\r\n".repeat(10_000)),
            format!("{manifest}: more than 4 MiB that are not content"),
        ),
        (
            Vec::new(),
            Some(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000)),
            format!("{manifest}: its headers have more than 64 KiB"),
        ),
        (ok(b"<html>"), end(), format!("{manifest}: not a manifest: expected value at line 1 column 1")),
        (ok(b""), end(), format!("{manifest}: not a manifest: EOF while parsing a value at line 1 column 0")),
        (Vec::new(), None, format!("{manifest}: no answer for 1 s")),
        (head("200 OK", "Content-Length: 100\r\n"), None, format!("{manifest}: no answer for 1 s")),
        (
            head("200 OK", &format!("Content-Length: 2\r\nDocker-Content-Digest: {digest}\r\n{}", "\r\n{}")),
            end(),
            format!("img-pull: content of {digest} has digest {}", Digest::of(b"{}")),
        ),
    ]);
}

#[test]
fn manifests_that_registries_must_not_send() {
    let end = || Some(Vec::new());
    let text = |value: serde_json::Value| ok(value.to_string().as_bytes());
    let config = configuration(&[Digest::of(&layer())]);
    let config_digest = Digest::of(&config);
    let of = |config: serde_json::Value| {
        text(json!({"schemaVersion": 2, "config": config, "layers": [descriptor("layer.v1.tar", &layer())]}))
    };
    let mut huge = descriptor("config.v1+json", &config);
    huge["size"] = json!(100_000_000);
    let mut short = huge.clone();
    short["size"] = json!(config.len() - 1);
    let mut outside = huge.clone();
    outside["digest"] = json!("sha256:../../../../etc/passwd");
    let mut negative = huge.clone();
    negative["size"] = json!(-1);
    let nested = |bytes: &[u8]| {
        let list = json!([{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": Digest::of(bytes),
            "size": 100_000_000}]);
        text(json!({"schemaVersion": 2, "manifests": list}))
    };
    let too_large = |digest: &Digest| {
        format!("img-pull: {digest} is 100000000 bytes of JSON: more than 4 MiB are refused")
    };
    assert_manifests_refused([
        (of(huge), end(), too_large(&config_digest)),
        (nested(b"x"), end(), too_large(&Digest::of(b"x"))),
        (
            of(short),
            end(),
            format!(
                "img-pull: content of {config_digest} has more than {} bytes, its descriptor says {}",
                config.len() - 1,
                config.len() - 1
            ),
        ),
        (
            of(outside),
            end(),
            "is not an image manifest: Invalid encoded value ../../../../etc/passwd".to_owned(),
        ),
        (
            of(negative),
            end(),
            "is not an image manifest: config.size is -1, not a number of bytes".to_owned(),
        ),
    ]);
}

#[test]
fn configurations_that_registries_must_not_send() {
    for (content, expected) in [
        ("[".repeat(1_000_000).into_bytes(), "recursion limit exceeded"),
        (
            format!("{{\"a\":{}1{}}}", "[".repeat(5000), "]".repeat(5000)).into_bytes(),
            "recursion limit exceeded",
        ),
        (configuration(&[]), "1 layers in the manifest, 0 in the configuration"),
        (configuration(&vec![Digest::of(b""); 2]), "1 layers in the manifest, 2 in the configuration"),
        (br#"{"rootfs": 1}"#.to_vec(), "rootfs is 1, not an object"),
    ] {
        let mut store = Content::new();
        server::image_of(&mut store, "latest", content, &[layer()]);
        let (host, seen) = serve(store, |_, _, _| false);
        let (status, error) = pull(&host, &["--retries", "0"]);
        assert_eq!((status, error.lines().count()), (1, 1), "{error}");
        assert!(error.contains(expected), "{error}");
        let layers = server::gets(&seen, &format!("/v2/a/b/blobs/{}", Digest::of(&layer())));
        assert_eq!(layers, 0, "no layer is fetched for it");
    }
    assert!(
        refused(At::Configuration, ok(b"{}"), Some(Vec::new()))
            .contains(" has 2 bytes, its descriptor says ")
    );
    assert!(refused(At::Configuration, Vec::new(), None).ends_with(": no answer for 1 s"));
}

#[test]
fn indexes_without_end() {
    // Each index names the next one, six levels deep.
    let mut content = Content::new();
    let mut inner = image(&mut content, "inner", &[layer()]);
    let mut kind = "manifest.v1+json";
    for _ in 0..6 {
        let list = [descriptor(kind, &inner)];
        inner = json!({"schemaVersion": 2, "manifests": list}).to_string().into_bytes();
        kind = "index.v1+json";
        content.insert(format!("/v2/a/b/manifests/{}", Digest::of(&inner)), inner.clone());
    }
    content.insert("/v2/a/b/manifests/latest".to_owned(), inner);
    let (host, _) = serve(content, |_, _, _| false);
    let (status, error) = pull(&host, &[]);
    assert_eq!(status, 1);
    assert!(
        error.ends_with(" is not an image: its media type is \"application/vnd.oci.image.index.v1+json\"\n"),
        "{error}"
    );
}

#[test]
fn passwords_stay_at_home() {
    let content = layer();
    let digest = Digest::of(&content).to_string();
    let (elsewhere, seen_elsewhere) =
        serve(Content::new(), move |_, _, stream| stream.write_all(&ok(&content)).is_ok());
    let (host, seen) = registry(move |request, _, stream| {
        let at = request.to_ascii_lowercase().contains("authorization: basic dtpw");
        if !at && request.contains("/manifests/") {
            let headers = "WWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n";
            return stream.write_all(&head("401 Unauthorized", headers)).is_ok();
        }
        let to = head("302 Found", &format!("Location: http://{elsewhere}/x\r\nContent-Length: 0\r\n"));
        request.contains(&digest) && stream.write_all(&to).is_ok()
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    fs::write(&file, json!({"auths": {&host: {"auth": "dTpw"}}}).to_string()).unwrap();
    assert_eq!(pull(&host, &["--authfile", file.to_str().unwrap()]), (0, String::new()));
    assert!(seen.lock().unwrap().join("").to_ascii_lowercase().contains("authorization:"));
    let elsewhere = seen_elsewhere.lock().unwrap().join("").to_ascii_lowercase();
    assert!(!elsewhere.is_empty() && !elsewhere.contains("authorization"), "{elsewhere}");
}
