//! The shared parts of img-load's tests: a private store, and handmade archives.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part of it.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{fs, path::PathBuf, process::Output};

use assert_cmd::cargo::cargo_bin_cmd;
use oci::{Digest, json};
use serde_json::{Value, json as value};
use tempfile::TempDir;

/// A store that is removed with the test.
pub struct Store {
    pub dir: TempDir,
}

impl Store {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn images(&self) -> PathBuf {
        self.dir.path().join("root/images")
    }

    /// Runs img-load on an input.
    pub fn load(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = cargo_bin_cmd!("img-load");
        command.args(arguments).arg("-").arg("--root").arg(self.dir.path().join("root"));
        command.arg("--run-dir").arg(self.dir.path().join("run")).write_stdin(input).output().unwrap()
    }

    /// Runs img-load, which must succeed. Returns the member `image`.
    pub fn loaded(&self, arguments: &[&str], input: &[u8]) -> Value {
        let output = self.load(arguments, input);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["image"].clone()
    }

    /// Runs img-load, which must fail and leave nothing. Returns its first line on standard error.
    pub fn refused(&self, arguments: &[&str], input: &[u8]) -> String {
        let before = self.files();
        let output = self.load(arguments, input);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["error"]["tool"], "img-load");
        assert_eq!(self.files(), before, "something was left behind");
        errors.lines().next().unwrap_or_default().to_owned()
    }

    pub fn names(&self) -> Vec<String> {
        let index = fs::read(self.images().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let name = |entry: &Value| entry["annotations"][oci::layout::REF_NAME].as_str().map(str::to_owned);
        index["manifests"].as_array().unwrap().iter().filter_map(name).collect()
    }

    /// Everything in the store, except for the files of an empty layout.
    fn files(&self) -> Vec<PathBuf> {
        let read =
            |path: PathBuf| fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = read(self.images().join("blobs/sha256")).chain(read(self.images())).collect();
        files.retain(|path| {
            !["oci-layout", "index.json", "blobs", ".lock"].iter().any(|known| path.ends_with(known))
        });
        files.sort();
        files
    }
}

/// A tar of files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    testkit::rootfs(|tree| {
        for (path, content) in files {
            // Written by hand, because the tar crate refuses some of these names.
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tree.append(&header, *content).unwrap();
        }
    })
}

pub fn layer() -> Vec<u8> {
    tar(&[("file", b"content")])
}

pub fn configuration(diff_ids: &[Digest]) -> Vec<u8> {
    let rootfs = value!({"type": "layers", "diff_ids": diff_ids});
    json::to_vec(&value!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs})).unwrap()
}

/// The members of an OCI archive with one image, named `name`.
pub struct Oci {
    pub files: Vec<(String, Vec<u8>)>,
    pub manifest: Value,
}

impl Oci {
    pub fn new(name: &str) -> Self {
        let layer = layer();
        let configuration = configuration(&[Digest::of(&layer)]);
        let mut files = Vec::new();
        let mut blob = |media_type: &str, content: Vec<u8>| {
            let digest = Digest::of(&content);
            let size = content.len();
            files.push((format!("blobs/sha256/{}", digest.hex()), content));
            value!({"mediaType": media_type, "digest": digest, "size": size})
        };
        let layer = blob("application/vnd.oci.image.layer.v1.tar", layer);
        let config = blob("application/vnd.oci.image.config.v1+json", configuration);
        let manifest = value!({"schemaVersion": 2, "config": config, "layers": [layer]});
        let mut manifest =
            blob("application/vnd.oci.image.manifest.v1+json", json::to_vec(&manifest).unwrap());
        manifest["annotations"] = value!({ oci::layout::REF_NAME: name });
        files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        Self { files, manifest }
    }

    pub fn with_index(mut self, manifests: Value) -> Vec<u8> {
        let index = value!({"schemaVersion": 2, "manifests": manifests});
        self.files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        let files: Vec<_> = self.files.iter().map(|(name, content)| (name.as_str(), &content[..])).collect();
        tar(&files)
    }

    pub fn archive(self) -> Vec<u8> {
        let manifests = value!([self.manifest]);
        self.with_index(manifests)
    }
}

/// A Docker archive with one layer and these names. `change` may damage it.
pub fn docker(names: Value, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let layer = layer();
    let configuration = configuration(&[Digest::of(&layer)]);
    let hex = Digest::of(&configuration).hex().to_owned();
    let mut list =
        value!([{"Config": format!("{hex}.json"), "RepoTags": names, "Layers": ["abc/layer.tar"]}]);
    change(&mut list);
    let list = list.to_string();
    let config = format!("{hex}.json");
    tar(&[(&config, &configuration), ("abc/layer.tar", &layer), ("manifest.json", list.as_bytes())])
}
