//! A store with a small Linux, and a build context.
#![allow(dead_code, unreachable_pub)] // Each test uses its part.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    thread,
};

use assert_cmd::Command;
use oci::{Digest, Layout, spec::MediaType};
use serde_json::{Value, json};

/// `$STAVE_ROOT` and a build context.
pub struct Fixture {
    dir: tempfile::TempDir,
}

/// The output of a build.
pub struct Built {
    pub status: i32,
    pub stderr: String,
    pub document: Value,
}

impl Fixture {
    /// A store with an image `busybox`.
    pub fn new() -> Self {
        testkit::require_root();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        let fixture = Self { dir };
        fixture.load("busybox", &testkit::busybox(), json!({}));
        fixture
    }

    /// Puts an image with one uncompressed layer into the store.
    pub fn load(&self, name: &str, tar: &[u8], config: Value) {
        let layout = self.layout();
        let layer = layout.write_blob(MediaType::ImageLayer, tar).unwrap();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": config, "history": [{"created_by": "test"}],
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(tar).to_string()]},
        });
        let config = layout.write_json(MediaType::ImageConfig, &config).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [layer],
        });
        let manifest = layout.write_json(MediaType::ImageManifest, &manifest).unwrap();
        layout.tag(&name.parse().unwrap(), &manifest).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub fn layout(&self) -> Layout {
        Layout::open_or_create(self.root().join("images")).unwrap()
    }

    /// Writes a file into the context.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    /// The tool, with the fixture's directories. RUN has no network, because it would be made in the
    /// machine's own.
    pub fn command(&self) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("img-build"));
        command
            .env("STAVE_ROOT", self.root())
            .env("STAVE_RUN", self.path("run"))
            .env_remove("SOURCE_DATE_EPOCH")
            .args(["--network", "none"]);
        command
    }

    /// Builds the context as `built`, with these arguments.
    pub fn build_with(&self, dockerfile: &str, arguments: &[&str]) -> Built {
        self.write("Dockerfile", dockerfile);
        let mut command = self.command();
        let output =
            command.args(["-t", "built"]).args(arguments).arg(self.path("context")).output().unwrap();
        Built::new(output)
    }

    /// Builds the context. The build must succeed.
    pub fn build(&self, dockerfile: &str) -> Built {
        self.build_with(dockerfile, &[]).ok()
    }

    /// The final configuration of a Dockerfile.
    pub fn config(&self, dockerfile: &str) -> Value {
        self.build(dockerfile).configuration()
    }

    /// The files in an image's layers above its first `below` layers: for each layer, a map from names to
    /// `mode uid:gid content`.
    pub fn layers(&self, built: &Built, below: usize) -> Vec<BTreeMap<String, String>> {
        let layout = self.layout();
        let descriptor = layout.find("built").unwrap();
        assert_eq!(built.document["image"]["descriptor"]["digest"], descriptor.digest().to_string());
        let image = layout.image(&descriptor, None).unwrap();
        image
            .layers()
            .unwrap()
            .into_iter()
            .skip(below)
            .map(|(layer, _)| entries(layout.blob_reader(layer).unwrap()))
            .collect()
    }
}

fn entries(mut blob: impl Read) -> BTreeMap<String, String> {
    let mut content = Vec::new();
    blob.read_to_end(&mut content).unwrap();
    // Layers of a build are compressed, layers of a fixture are not.
    if content.starts_with(&[0x1f, 0x8b]) {
        let compressed = std::mem::take(&mut content);
        flate2::read::MultiGzDecoder::new(&*compressed).read_to_end(&mut content).unwrap();
    }
    let mut tar = tar::Archive::new(&*content);
    let mut found = BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let mut content = String::from_utf8_lossy(&content).into_owned();
        if let Some(target) = entry.link_name().unwrap() {
            content = format!("-> {}", target.display());
        }
        let what = format!(
            "{:o} {}:{} {content}",
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap()
        );
        found.insert(name, what.trim_end().to_owned());
    }
    found
}

impl Built {
    pub fn new(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stderr: String::from_utf8(output.stderr).unwrap(),
            document: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        }
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self
    }

    pub fn configuration(&self) -> Value {
        self.document["image"]["configuration"].clone()
    }

    /// The error: the last line on standard error that is not a hint.
    pub fn error(&self) -> &str {
        assert_eq!(self.status, 1, "{}", self.stderr);
        self.stderr.lines().rfind(|line| !line.starts_with("hint: ")).unwrap_or_default()
    }

    /// The number of steps from the cache.
    pub fn cached(&self) -> usize {
        self.stderr.matches(" ---> Using cache").count()
    }
}

/// One entry of a layer: `mode uid:gid content`.
pub fn files<const N: usize>(list: [(&str, &str); N]) -> BTreeMap<String, String> {
    list.into_iter().map(|(name, what)| (name.to_owned(), what.to_owned())).collect()
}

/// Whether a process has this text in its command line.
pub fn runs(text: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
}

/// The names in a directory. Empty if the directory is missing.
pub fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A web server that sends these heads and contents in this order. Returns the requests.
pub fn answers(all: Vec<(&'static str, Vec<u8>)>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let served = move |(head, content): (&str, Vec<u8>)| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).unwrap() > 0 {}
        let length = content.len();
        let head = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &content].concat()).unwrap();
        request.to_lowercase()
    };
    (host, thread::spawn(move || all.into_iter().map(served).collect()))
}
