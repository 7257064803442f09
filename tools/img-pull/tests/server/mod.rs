//! A correct registry on loopback, except for what a test changes.

#![allow(dead_code, clippy::unwrap_used)] // Each test file uses a part of it; a broken fixture is a failed test.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use oci::Digest;
use serde_json::{Value, json};

/// The request line and headers of each request so far.
pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

/// The content of the registry: path → content.
pub(crate) type Content = BTreeMap<String, Vec<u8>>;

/// A descriptor of some content.
pub(crate) fn descriptor(kind: &str, content: &[u8]) -> Value {
    let media_type = format!("application/vnd.oci.image.{kind}");
    json!({"mediaType": media_type, "digest": Digest::of(content), "size": content.len()})
}

/// A configuration that lists these DiffIDs.
pub(crate) fn configuration(diff_ids: &[Digest]) -> Vec<u8> {
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).to_string().into_bytes()
}

/// Puts an image of plain layers into the repository `a/b`, and returns its manifest.
pub(crate) fn image(content: &mut Content, tag: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let configuration = configuration(&layers.iter().map(|layer| Digest::of(layer)).collect::<Vec<_>>());
    image_of(content, tag, configuration, layers)
}

/// Like [`image`], with this configuration.
pub(crate) fn image_of(
    content: &mut Content,
    tag: &str,
    configuration: Vec<u8>,
    layers: &[Vec<u8>],
) -> Vec<u8> {
    let list: Vec<_> = layers.iter().map(|layer| descriptor("layer.v1.tar", layer)).collect();
    let config = descriptor("config.v1+json", &configuration);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": list}).to_string().into_bytes();
    for blob in layers.iter().chain([&configuration]) {
        content.insert(format!("/v2/a/b/blobs/{}", Digest::of(blob)), blob.clone());
    }
    for name in [tag.to_owned(), Digest::of(&manifest).to_string()] {
        content.insert(format!("/v2/a/b/manifests/{name}"), manifest.clone());
    }
    manifest
}

/// An HTTP answer with this content.
pub(crate) fn ok(content: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
    [head.as_bytes(), content].concat()
}

/// Starts a registry. `meddle` gets each request, the number of earlier requests for the same path, and the
/// connection. It returns whether it has answered.
pub(crate) fn serve(
    content: Content,
    meddle: impl Fn(&str, usize, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let seen = Seen::default();
    let shared = Arc::new((content, meddle, seen.clone()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, shared) = (stream.unwrap(), shared.clone());
            thread::spawn(move || {
                let (content, meddle, seen) = &*shared;
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut request = String::new();
                // A ClientHello is not text: this registry has no TLS.
                while reader.read_line(&mut request).is_ok_and(|count| count > 2) {}
                if !request.contains("HTTP/1.1") {
                    return;
                }
                let length = request.lines().find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<u64>().ok()
                });
                std::io::copy(&mut reader.by_ref().take(length.unwrap_or(0)), &mut std::io::sink()).unwrap();
                let path = request.split(' ').nth(1).unwrap().to_owned();
                let count = {
                    let mut seen = seen.lock().unwrap();
                    let count = seen.iter().filter(|other| other.split(' ').nth(1) == Some(&path)).count();
                    seen.push(request.clone());
                    count
                };
                if meddle(&request, count, &mut stream) {
                    return;
                }
                let answer = match content.get(&path) {
                    Some(content) if request.starts_with("HEAD ") => {
                        let digest = Digest::of(content);
                        let length = content.len();
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nDocker-Content-Digest: {digest}\r\nConnection: close\r\n\r\n").into_bytes()
                    }
                    Some(content) => ok(content),
                    None if path == "/v2/" => ok(b"{}"),
                    None => {
                        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
                    }
                };
                drop(stream.write_all(&answer));
            });
        }
    });
    (host, seen)
}

/// The number of GET requests for the path.
pub(crate) fn gets(seen: &Seen, path: &str) -> usize {
    seen.lock().unwrap().iter().filter(|request| request.starts_with(&format!("GET {path} "))).count()
}

/// The exit status and standard error of a pull, with HOST in place of the host's name.
pub(crate) fn pull(host: &str, root: &std::path::Path, arguments: &[&str], name: &str) -> (i32, String) {
    let mut command = Command::new(testkit::binaries().join("img-pull"));
    let output =
        command.arg("--root").arg(root).args(arguments).arg(format!("{host}/{name}")).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), error.replace(host, "HOST"))
}

/// The first digits of a digest, as the tools print them.
pub(crate) fn short(content: &[u8]) -> String {
    Digest::of(content).hex()[..12].to_owned()
}

/// The start of the requested range. None if everything was requested.
pub(crate) fn range(request: &str) -> Option<usize> {
    let request = request.to_ascii_lowercase();
    let range = request.split("range: bytes=").nth(1)?;
    Some(range.split('-').next().unwrap().parse().unwrap())
}

/// The answer to a range request: `whole` from this offset on.
pub(crate) fn partial(whole: &[u8], from: usize) -> Vec<u8> {
    let size = whole.len();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{size}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        size - 1,
        size - from
    );
    [head.as_bytes(), &whole[from..]].concat()
}
