//! A store with an image of handmade layers, and layer-apply run on it.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unreachable_pub, missing_docs)]

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use archive::{Entry, Kind, Writer};
use assert_cmd::{Command, cargo::cargo_bin_cmd};
use oci::{
    Digest, Layout,
    spec::{Descriptor, MediaType},
};
use serde_json::{Value, json};

/// `$STAVE_ROOT` and `$STAVE_RUN` of one test.
pub struct Store {
    pub dir: tempfile::TempDir,
    pub layout: Layout,
}

/// The outcome of a run.
pub struct Run {
    pub status: i32,
    pub stderr: String,
    pub document: Value,
}

pub fn require_root() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
}

impl Store {
    pub fn new() -> Self {
        require_root();
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(dir.path().join("root/images")).unwrap();
        Self { dir, layout }
    }

    pub fn layers(&self) -> PathBuf {
        self.dir.path().join("root/layers")
    }

    /// The document of an image with these blobs. The DiffIDs are those of `archives`.
    pub fn image(&self, blobs: &[(&[u8], &[u8])]) -> Value {
        let descriptors: Vec<Descriptor> = blobs
            .iter()
            .map(|(blob, _)| self.layout.write_blob(MediaType::ImageLayerGzip, blob).unwrap())
            .collect();
        let diff_ids: Vec<String> =
            blobs.iter().map(|(_, archive)| Digest::of(archive).to_string()).collect();
        self.image_of(&descriptors, &diff_ids)
    }

    pub fn image_of(&self, layers: &[Descriptor], diff_ids: &[String]) -> Value {
        let configuration = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.layout.write_json(MediaType::ImageConfig, &configuration).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(),
            "config": config, "layers": layers,
        });
        let manifest = self.layout.write_json(MediaType::ImageManifest, &manifest).unwrap();
        json!({"stave": 1, "image": {"reference": "t", "descriptor": manifest, "configuration": configuration}})
    }

    pub fn command(&self) -> Command {
        let mut command = cargo_bin_cmd!("layer-apply");
        command.arg("--root").arg(self.dir.path().join("root"));
        command.arg("--run-dir").arg(self.dir.path().join("run"));
        command
    }

    pub fn run(&self, document: &Value, arguments: &[&str]) -> Run {
        let output = self.command().args(arguments).write_stdin(document.to_string()).output().unwrap();
        Run {
            status: output.status.code().unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            document: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        }
    }

    /// Applies plain archives, lowest first, which must succeed. Returns their directories.
    pub fn apply(&self, archives: &[Vec<u8>]) -> Vec<PathBuf> {
        let blobs: Vec<(&[u8], &[u8])> =
            archives.iter().map(|archive| (&archive[..], &archive[..])).collect();
        let run = self.run(&self.image(&blobs), &[]);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        run.directories()
    }

    /// Applies plain archives, of which the last one must be refused. Returns the text after the layer's
    /// name.
    pub fn refuse(&self, archives: &[Vec<u8>], arguments: &[&str]) -> String {
        let blobs: Vec<(&[u8], &[u8])> =
            archives.iter().map(|archive| (&archive[..], &archive[..])).collect();
        self.refuse_blobs(&blobs, arguments)
    }

    pub fn refuse_blobs(&self, blobs: &[(&[u8], &[u8])], arguments: &[&str]) -> String {
        let run = self.run(&self.image(blobs), arguments);
        assert_eq!(run.status, 1, "{}", run.stderr);
        let digest = Digest::of(blobs.last().unwrap().0);
        let start = format!("layer-apply: layer {digest}: ");
        let line = run.stderr.lines().next().unwrap_or_default();
        let message = line.strip_prefix(&start).unwrap_or_else(|| panic!("{line}")).to_owned();
        assert!(run.document["error"].is_object());
        // Nothing is left of the layer: neither its directory nor its note.
        let hex = Digest::of(blobs.last().unwrap().1).hex().to_owned();
        for entry in fs::read_dir(self.layers()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains(&hex), "{name}");
        }
        message
    }
}

/// Applies plain archives in a private store, like [`Store::apply`].
pub fn apply(archives: &[Vec<u8>]) -> Applied {
    let store = Store::new();
    let directories = store.apply(archives);
    Applied { _store: store, directories }
}

/// The directories of layers, and their store.
pub struct Applied {
    _store: Store,
    directories: Vec<PathBuf>,
}

impl std::ops::Index<usize> for Applied {
    type Output = PathBuf;
    fn index(&self, at: usize) -> &PathBuf {
        &self.directories[at]
    }
}

impl Run {
    pub fn directories(&self) -> Vec<PathBuf> {
        let layers = self.document["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["directory"].as_str().unwrap().into()).collect()
    }
}

/// An archive of entries, each with its data.
pub fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.entry(entry).unwrap();
        writer.data(data).unwrap();
    }
    writer.finish().unwrap()
}

/// An archive from short forms: `name/` is a directory, `name` a file with its own name as content, `name ->
/// target` a symbolic link, `name => target` a hard link.
pub fn tar(names: &[&str]) -> Vec<u8> {
    let entries: Vec<(Entry, &[u8])> = names.iter().map(|name| short(name)).collect();
    archive(&entries)
}

fn short(name: &str) -> (Entry, &[u8]) {
    let link = |kind, (name, target): (&str, &str)| Entry {
        link: target.into(),
        mode: 0o777,
        ..Entry::new(kind, name)
    };
    if let Some(parts) = name.split_once(" -> ") {
        return (link(Kind::Symlink, parts), b"");
    }
    if let Some(parts) = name.split_once(" => ") {
        return (link(Kind::HardLink, parts), b"");
    }
    if name.ends_with('/') {
        return (directory(name), b"");
    }
    let data = if name.rsplit('/').next().is_some_and(|last| last.starts_with(".wh.")) { "" } else { name };
    file(name, data.as_bytes())
}

pub fn directory(name: &str) -> Entry {
    Entry { mode: 0o755, ..Entry::new(Kind::Directory, name) }
}

pub fn file<'a>(name: &str, data: &'a [u8]) -> (Entry, &'a [u8]) {
    let size = data.len() as u64;
    (Entry { mode: 0o644, size, stored: size, ..Entry::new(Kind::File, name) }, data)
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Everything below a directory: `a/` is a directory, `a` a file, `a -> x` a link, `a (wh)` a whiteout, `a/
/// (opaque)` an opaque directory.
pub fn list(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

fn walk(root: &Path, at: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let status = fs::symlink_metadata(&path).unwrap();
        let kind = status.file_type();
        if kind.is_dir() {
            walk(root, &path, found);
        }
        found.push(if kind.is_dir() {
            format!("{name}/{}", if is_opaque(&path) { " (opaque)" } else { "" })
        } else if kind.is_symlink() {
            format!("{name} -> {}", fs::read_link(&path).unwrap().to_str().unwrap())
        } else if status.mode() & 0o170000 == 0o020000 && status.rdev() == 0 {
            format!("{name} (wh)")
        } else {
            name
        });
    }
}

pub fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 4];
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..])
        .is_ok_and(|length| value[..length] == *b"y")
}
