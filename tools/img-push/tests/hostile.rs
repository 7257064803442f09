//! Pushes to registries that lie, refuse, do not answer, or redirect elsewhere.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

#[path = "../../img-pull/tests/server/mod.rs"]
mod server;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use oci::Digest;
use serde_json::json;
use server::{Content, Seen, serve};
use tempfile::TempDir;

/// A store with the image `x`, which has one layer.
fn store() -> (TempDir, Digest) {
    let root = tempfile::tempdir().unwrap();
    let archive = testkit::rootfs(|tree| testkit::file(tree, "etc/name", 0o644, &vec![7; 100_000]));
    let file = root.path().join("x.tar");
    fs::write(&file, &archive).unwrap();
    let load = testkit::binaries().join("img-load");
    let status =
        Command::new(load).args(["-q", "-t", "x", "--root"]).arg(root.path()).arg(&file).output().unwrap();
    assert!(status.status.success(), "cargo build --workspace first");
    (root, Digest::of(&archive))
}

fn registry(lie: impl Fn(&str, usize, &mut TcpStream) -> bool + Send + Sync + 'static) -> (String, Seen) {
    serve(Content::new(), move |request, count, stream| {
        if lie(request, count, stream) {
            return true;
        }
        let answer = match request.split(' ').next().unwrap() {
            "POST" => head("202 Accepted", "Location: /v2/a/b/blobs/uploads/1?state=x\r\n"),
            "PUT" => head("201 Created", ""),
            _ => return false,
        };
        stream.write_all(&answer).is_ok()
    })
}

fn head(status: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

fn push(host: &str, root: &TempDir, flags: &[&str]) -> (i32, String) {
    let mut command = Command::new(testkit::binaries().join("img-push"));
    command.arg("--root").arg(root.path()).arg("-q").args(flags);
    if !flags.contains(&"--timeout") {
        command.args(["--timeout", "1"]);
    }
    let output = command.arg("x").arg(format!("{host}/a/b")).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), error.trim_end().replace(host, "HOST"))
}

#[test]
fn what_registries_must_not_answer() {
    let (root, layer) = store();
    let uploads = "img-push: post http://HOST/v2/a/b/blobs/uploads/";
    let put = "img-push: put http://HOST/v2/a/b/blobs/uploads/1";
    let manifest = "img-push: put http://HOST/v2/a/b/manifests/latest";
    let other = Digest::of(b"other");
    let stored = head("201 Created", &format!("Docker-Content-Digest: {other}\r\n"));
    let full = b"HTTP/1.1 507 Insufficient Storage\r\nConnection: close\r\n\r\n\
        {\"errors\":[{\"code\":\"X\",\"message\":\"no\\u001b[31m space\\nleft\"}]}";
    for (at, answer, expected) in [
        ("POST ", head("202 Accepted", ""), format!("{uploads}: an answer without Location")),
        (
            "POST ",
            head("202 Accepted", "Location: file:///etc/passwd\r\n"),
            format!("{uploads}: redirected: scheme \"file\" is not http or https"),
        ),
        ("POST ", head("200 OK", ""), format!("{uploads}: answered 200 OK")),
        ("POST ", Vec::new(), format!("{uploads}: no answer for 1 s")),
        ("PUT /v2/a/b/blobs/", Vec::new(), format!("{put}: no answer for 1 s")),
        ("PUT /v2/a/b/blobs/", head("302 Found", "Location: /x\r\n"), format!("{put}: answered 302 Found")),
        ("PUT /v2/a/b/blobs/", full.to_vec(), format!("{put}: 507 Insufficient Storage: no [31m space left")),
        (
            "HEAD ",
            head("500 Internal Server Error", ""),
            format!("img-push: head http://HOST/v2/a/b/blobs/{layer}: 500 Internal Server Error"),
        ),
        ("PUT /v2/a/b/manifests/", stored, format!("{manifest}: stored as {other} instead of MANIFEST")),
        (
            "PUT /v2/a/b/manifests/",
            head("413 Payload Too Large", ""),
            format!("{manifest}: 413 Payload Too Large"),
        ),
    ] {
        let (host, _) = registry(move |request, _, stream| {
            let lie = request.starts_with(at);
            match answer.is_empty() {
                true if lie => thread::sleep(Duration::from_secs(20)),
                _ if lie => drop(stream.write_all(&answer)),
                _ => {}
            }
            lie
        });
        let (status, error) = push(&host, &root, &["--retries", "0", "--jobs", "1"]);
        assert_eq!((status, error.lines().count()), (1, 1), "{error}");
        let expected = expected.split("MANIFEST").next().unwrap();
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
}

#[test]
fn sent_again_after_it_broke_and_not_when_it_is_there() {
    let (root, layer) = store();
    let digest = layer.to_string();
    let named = AtomicBool::new(false);
    let (host, seen) = registry(move |request, count, stream| {
        // The first time, the registry says that the manifest is damaged.
        if request.starts_with("PUT /v2/a/b/manifests/") && !named.swap(true, Ordering::Relaxed) {
            let body = r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#;
            let length = body.len();
            let damaged = format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            return stream.write_all(damaged.as_bytes()).is_ok();
        }
        // The registry has the configuration. The first upload of the layer breaks, the second one is refused.
        if request.starts_with("HEAD ") && !request.contains(&digest) {
            return stream.write_all(&head("200 OK", "")).is_ok();
        }
        let upload = request.starts_with("PUT /v2/a/b/blobs/");
        let busy = head("503 Service Unavailable", "Retry-After: 0\r\n");
        upload && (count == 0 || (count == 1 && stream.write_all(&busy).is_ok()))
    });
    assert_eq!(push(&host, &root, &[]), (0, String::new()));
    let seen = seen.lock().unwrap();
    let uploads = seen.iter().filter(|request| request.starts_with("PUT /v2/a/b/blobs/"));
    assert!(uploads.clone().all(|request| request.contains(&layer.to_string()[7..])));
    assert_eq!(uploads.count(), 3);
    let manifests = seen.iter().filter(|request| request.contains("/manifests/")).count();
    assert_eq!(manifests, 2, "named at the end, and once more");
    assert!(seen.last().unwrap().starts_with("PUT /v2/a/b/manifests/latest "));
}

/// A registry that moved: the same requests go to its new address, without the password for the old one.
#[test]
fn sent_on_to_where_a_registry_moved() {
    for status in ["307 Temporary Redirect", "308 Permanent Redirect"] {
        let (root, layer) = store();
        let (new, seen) = registry(|_, _, _| false);
        let to = new.clone();
        let (old, _) = serve(Content::new(), move |request, _, stream| {
            let path = request.split(' ').nth(1).unwrap();
            let moved = head(status, &format!("Location: http://{to}{path}\r\n"));
            path != "/v2/" && stream.write_all(&moved).is_ok()
        });
        let file = root.path().join("auth.json");
        fs::write(&file, json!({"auths": {&old: {"auth": "dTpw"}}}).to_string()).unwrap();
        assert_eq!(push(&old, &root, &["--authfile", file.to_str().unwrap()]), (0, String::new()));
        let seen = seen.lock().unwrap();
        assert!(!seen.join("").to_ascii_lowercase().contains("authorization"));
        let sent = |request: &String| request.starts_with("PUT /v2/a/b/blobs/uploads/1?state=x&digest=");
        assert_eq!(seen.iter().filter(|request| sent(request)).count(), 2, "{layer} and the configuration");
        assert!(seen.last().unwrap().starts_with("PUT /v2/a/b/manifests/latest "));
    }
}

/// A registry may store a manifest under a digest with another algorithm (distribution keeps sha256 for what
/// is pushed to a tag).
#[test]
fn stored_under_a_digest_of_another_algorithm() {
    let (root, _) = store();
    let list: serde_json::Value =
        serde_json::from_slice(&fs::read(root.path().join("images/index.json")).unwrap()).unwrap();
    let digest = list["manifests"][0]["digest"].as_str().unwrap();
    let manifest = fs::read(root.path().join("images/blobs").join(digest.replace(':', "/"))).unwrap();
    let right = Digest::by(oci::digest::Algorithm::Sha512, &manifest);
    let wrong = Digest::by(oci::digest::Algorithm::Sha512, b"other");
    for (stored, is_right) in [(right, true), (wrong, false)] {
        let answer = head("201 Created", &format!("Docker-Content-Digest: {stored}\r\n"));
        let (host, _) = registry(move |request, _, stream| {
            request.starts_with("PUT /v2/a/b/manifests/") && stream.write_all(&answer).is_ok()
        });
        let (status, error) = push(&host, &root, &[]);
        assert_eq!(status == 0, is_right, "{error}");
        assert_eq!(error.contains(&format!(": stored as {stored} instead of sha512:")), !is_right, "{error}");
    }
}

#[test]
fn another_digest_is_told_before_anything_is_sent() {
    let (root, layer) = store();
    let (host, seen) = registry(|_, _, _| false);
    let output = Command::new(testkit::binaries().join("img-push"))
        .arg("--root")
        .arg(root.path())
        .args(["-q", "x", &format!("{host}/a/b@{layer}")])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = format!("img-push: push {host}/a/b@{layer}: the image has digest sha256:");
    assert_eq!(output.status.code(), Some(1));
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.ends_with("\nhint: push it under a tag, or under its own digest\n"), "{error}");
    assert_eq!(*seen.lock().unwrap(), [""; 0]);
}

#[test]
fn passwords_stay_at_home() {
    let (root, _) = store();
    let (elsewhere, seen_elsewhere) =
        serve(Content::new(), |_, _, stream| stream.write_all(&head("201 Created", "")).is_ok());
    let (host, seen) = registry(move |request, _, stream| {
        if !request.to_ascii_lowercase().contains("authorization: basic dtpw") {
            return stream
                .write_all(&head("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n"))
                .is_ok();
        }
        let to = head("202 Accepted", &format!("Location: http://{elsewhere}/x?signature=1\r\n"));
        request.starts_with("POST ") && stream.write_all(&to).is_ok()
    });
    let file = root.path().join("auth.json");
    fs::write(&file, json!({"auths": {&host: {"auth": "dTpw"}}}).to_string()).unwrap();
    assert_eq!(push(&host, &root, &["--authfile", file.to_str().unwrap()]), (0, String::new()));
    assert!(seen.lock().unwrap().join("").to_ascii_lowercase().contains("authorization:"));
    let elsewhere = seen_elsewhere.lock().unwrap().join("").to_ascii_lowercase();
    assert!(
        elsewhere.contains("put /x?signature=1&digest=") && !elsewhere.contains("authorization"),
        "{elsewhere}"
    );
}

#[test]
fn a_registry_that_hardly_reads_is_given_up() {
    let (root, _) = store();
    // More than fits into the sockets' buffers, and incompressible.
    let file = root.path().join("large.tar");
    let content: Vec<u8> =
        (0..6_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(&file, testkit::rootfs(|tree| testkit::file(tree, "large", 0o644, &content))).unwrap();
    let load = testkit::binaries().join("img-load");
    let loaded = Command::new(load).args(["-q", "-t", "x", "--root"]).arg(root.path()).arg(&file).output();
    assert!(loaded.unwrap().status.success());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut request = vec![0; 64 << 10];
                let count = stream.read(&mut request).unwrap();
                let answer = match &request[..count.min(4)] {
                    b"POST" => head("202 Accepted", "Location: /v2/a/b/blobs/uploads/1\r\n"),
                    b"HEAD" => head("404 Not Found", ""),
                    b"GET " => head("200 OK", ""),
                    b"PUT " => {
                        while stream.read(&mut request).is_ok_and(|count| count > 0) {
                            thread::sleep(Duration::from_millis(100));
                        }
                        return;
                    }
                    _ => return,
                };
                drop(stream.write_all(&answer));
            });
        }
    });
    let begin = Instant::now();
    let flags =
        ["--timeout", "120", "--speed-limit", "20000000", "--speed-time", "1", "--retries", "0", "-j", "1"];
    let (status, error) = push(&host, &root, &flags);
    let slow = "img-push: put http://HOST/v2/a/b/blobs/uploads/1: less than 20000000 bytes a second for 1 s";
    assert_eq!((status, &*error), (1, slow));
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}
