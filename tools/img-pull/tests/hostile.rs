//! Registries that lie, break off, say nothing or send elsewhere.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use assert_cmd::cargo::cargo_bin_cmd;
use oci::Digest;
use serde_json::json;

/// Request line and headers of each request so far.
type Seen = Arc<Mutex<Vec<String>>>;

struct Image {
    layer: Vec<u8>,
    configuration: Vec<u8>,
    manifest: Vec<u8>,
}

fn image() -> Image {
    let layer: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let configuration = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}});
    let configuration = configuration.to_string().into_bytes();
    let blob = |kind: &str, content: &[u8]| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": Digest::of(content), "size": content.len()})
    };
    let manifest = json!({"schemaVersion": 2, "config": blob("config.v1+json", &configuration),
        "layers": [blob("layer.v1.tar", &layer)]});
    Image { layer, configuration, manifest: manifest.to_string().into_bytes() }
}

fn ok(content: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
    [head.as_bytes(), content].concat()
}

/// A registry with [`image`], but for what `lie` answers; `Some(vec![])` says nothing for ever.
fn registry(lie: impl Fn(&str, usize) -> Option<Vec<u8>> + Send + 'static) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let seen = Seen::default();
    let requests = seen.clone();
    thread::spawn(move || {
        let image = image();
        let mut silent: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut request = String::new();
            // A ClientHello is no text: this registry has no TLS.
            while reader.read_line(&mut request).is_ok_and(|count| count > 2) {}
            if !request.contains("HTTP/1.1") {
                continue;
            }
            let layer = Digest::of(&image.layer).to_string();
            let mut requests = requests.lock().unwrap();
            let count = requests.iter().filter(|other| other.contains(&layer)).count();
            requests.push(request.clone());
            drop(requests);
            let answer = lie(&request, count).unwrap_or_else(|| match &request {
                request if request.contains(&layer) => ok(&image.layer),
                request if request.contains("/blobs/") => ok(&image.configuration),
                request if request.contains("/manifests/") => ok(&image.manifest),
                _ => ok(b"{}"),
            });
            match answer.is_empty() {
                true => silent.push(stream),
                false => drop(stream.write_all(&answer)),
            }
        }
    });
    (host, seen)
}

/// The exit status and standard error of a pull, without the lines of progress.
fn pull(host: &str, flags: &[&str]) -> (i32, String) {
    let root = tempfile::tempdir().unwrap();
    let mut command = cargo_bin_cmd!("img-pull");
    command.args(["-q", "--root"]).arg(root.path()).args(["--timeout", "1"]).args(flags);
    let output = command.arg(format!("{host}/a/b")).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), error.replace(host, "HOST"))
}

fn layer() -> (String, Vec<u8>) {
    let layer = image().layer;
    (Digest::of(&layer).to_string(), layer)
}

#[test]
fn goes_on_where_the_connection_broke() {
    let (digest, content) = layer();
    let (host, seen) = registry(move |request, count| {
        if !request.contains(&digest) {
            return None;
        }
        let from: Option<usize> = request.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("range: bytes=")?.trim_end_matches('-').parse().ok()
        });
        let from = from.unwrap_or(0);
        let (size, end) =
            (content.len(), if count < 2 { (from + 500_000).min(content.len()) } else { content.len() });
        let head = match from {
            0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"),
            _ => format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{size}\r\n\r\n",
                size - from,
                size - 1
            ),
        };
        Some([head.as_bytes(), &content[from..end]].concat())
    });
    assert_eq!(pull(&host, &[]), (0, String::new()));
    let seen = seen.lock().unwrap().join("\n").to_ascii_lowercase();
    assert!(seen.contains("range: bytes=500000-"), "{seen}");
    assert!(seen.contains("range: bytes=1000000-"), "{seen}");
}

#[test]
fn a_busy_registry_is_asked_again() {
    let (digest, _) = layer();
    let (host, _) = registry(move |request, count| {
        let busy = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
        let broken = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        match (request.contains(&digest), count) {
            (true, 0) => Some(busy.into()),
            (true, 1) => Some(broken.into()),
            _ => None,
        }
    });
    assert_eq!(pull(&host, &[]), (0, String::new()));
}

#[test]
fn what_registries_must_not_send() {
    let (digest, content) = layer();
    let size = content.len();
    let wrong = Digest::of(&vec![0; size]);
    let blob = format!("img-pull: get http://HOST/v2/a/b/blobs/{digest}");
    let manifest = "img-pull: get http://HOST/v2/a/b/manifests/latest";
    let cases: Vec<(bool, Vec<u8>, String)> = vec![
        (true, ok(&vec![0; size]), format!("img-pull: content of {digest} has digest {wrong}")),
        (
            true,
            ok(&vec![0; size + 1]),
            format!("img-pull: content of {digest} has more than {size} bytes, its descriptor says {size}"),
        ),
        (
            true,
            ok(&content[..1000]),
            format!("img-pull: content of {digest} has 1000 bytes, its descriptor says {size}"),
        ),
        (true, Vec::new(), format!("{blob}: no answer for 1 s")),
        (
            true,
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
            format!("{blob}: sent elsewhere: scheme \"file\" is not http or https"),
        ),
        (
            true,
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /v2/loop\r\nContent-Length: 0\r\n\r\n".to_vec(),
            String::new(),
        ),
        (
            false,
            b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n".to_vec(),
            format!("{manifest}: more than 4096 KiB are refused"),
        ),
        (
            false,
            ok("[".repeat(1_000_000).as_bytes()),
            format!("{manifest}: not a manifest: recursion limit exceeded at line 1 column 128"),
        ),
        (false, Vec::new(), format!("{manifest}: no answer for 1 s")),
    ];
    for (at_layer, answer, expected) in cases {
        let digest = digest.clone();
        let (host, _) = registry(move |request, _| {
            let at = if at_layer { request.contains(&digest) } else { request.contains("/manifests/") };
            at.then(|| answer.clone())
        });
        let (status, error) = pull(&host, &["--retries", "0"]);
        assert_eq!(status, 1, "{expected}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(expected.is_empty() || error.trim_end() == expected, "{error}\n{expected}");
    }
}

#[test]
fn passwords_stay_at_home() {
    let (digest, content) = layer();
    let (elsewhere, seen_elsewhere) = registry(move |_, _| Some(ok(&content)));
    let (host, seen) = registry(move |request, _| {
        let at = request.to_ascii_lowercase().contains("authorization: basic dtpw");
        if !at && request.contains("/manifests/") {
            let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
            return Some(head.into());
        }
        let to = format!("HTTP/1.1 302 Found\r\nLocation: http://{elsewhere}/x\r\nContent-Length: 0\r\n\r\n");
        request.contains(&digest).then(|| to.into_bytes())
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    std::fs::write(&file, json!({"auths": {&host: {"auth": "dTpw"}}}).to_string()).unwrap();
    assert_eq!(pull(&host, &["--authfile", file.to_str().unwrap()]), (0, String::new()));
    assert!(seen.lock().unwrap().join("").to_ascii_lowercase().contains("authorization:"));
    let elsewhere = seen_elsewhere.lock().unwrap().join("").to_ascii_lowercase();
    assert!(!elsewhere.is_empty() && !elsewhere.contains("authorization"), "{elsewhere}");
}
