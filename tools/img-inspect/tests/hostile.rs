//! Invalid layouts, indexes and manifests: a one-line error, and nothing lost.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use oci::Digest;
use serde_json::{Value, json};

/// A store with one image, `image`.
struct Store {
    root: tempfile::TempDir,
    index: String,
    manifest: Value,
}

impl Store {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let archive = root.path().join("a.tar");
        fs::write(&archive, testkit::rootfs(|tree| testkit::file(tree, "a", 0o644, b"a"))).unwrap();
        let loaded = tool("img-load", root.path(), &["-q", "-t", "image", archive.to_str().unwrap()]);
        assert_eq!(loaded.0, 0, "cargo build --workspace --bins: {}", loaded.1);
        let index = fs::read_to_string(root.path().join("images/index.json")).unwrap();
        let mut store = Self { root, index, manifest: Value::Null };
        let digest = store.entry()["digest"].as_str().unwrap().parse::<Digest>().unwrap();
        store.manifest = serde_json::from_slice(&fs::read(store.blob(&digest)).unwrap()).unwrap();
        store
    }

    fn images(&self) -> PathBuf {
        self.root.path().join("images")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.images().join("blobs/sha256").join(digest.hex())
    }

    fn entry(&self) -> Value {
        serde_json::from_str::<Value>(&self.index).unwrap()["manifests"][0].clone()
    }

    /// `index.json` with these members in its entry.
    fn with_entry(&self, members: &Value) -> String {
        let mut index: Value = serde_json::from_str(&self.index).unwrap();
        for (name, value) in members.as_object().unwrap() {
            index["manifests"][0][name] = value.clone();
        }
        index.to_string()
    }

    /// `index.json` with an entry for this manifest.
    fn with_manifest(&self, text: &str) -> String {
        let digest = Digest::of(text.as_bytes());
        fs::write(self.blob(&digest), text).unwrap();
        self.with_entry(&json!({"digest": digest, "size": text.len()}))
    }

    /// `index.json` with an entry for a changed copy of the store's own manifest.
    fn with_change(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut manifest = self.manifest.clone();
        change(&mut manifest);
        self.with_manifest(&manifest.to_string())
    }

    /// Asserts that every tool that needs the image gives this error. No tool may change `index.json` or
    /// remove a blob.
    #[track_caller]
    fn refused(&self, index: &str, expected: &str) {
        fs::write(self.images().join("index.json"), index).unwrap();
        let blobs = || fs::read_dir(self.images().join("blobs/sha256")).unwrap().count();
        let before = blobs();
        for arguments in [&["img-inspect", "image"][..], &["img-history", "image"]] {
            let (status, error) = tool(arguments[0], self.root.path(), &arguments[1..]);
            let first = error.lines().next().unwrap_or_default();
            assert_eq!(status, 1, "{error}");
            assert!(error.lines().skip(1).all(|line| line.starts_with("hint: ")), "{error}");
            assert!(
                first.starts_with(&format!("{}: ", arguments[0])) && first.contains(expected),
                "{error}\n{expected}"
            );
        }
        let _ = tool("img-ls", self.root.path(), &[]);
        if serde_json::from_str::<Value>(index)
            .is_ok_and(|index| index["manifests"][0]["digest"] == self.entry()["digest"])
        {
            // An unreadable image may need any blob, so nothing is removed.
            let _ = tool("img-gc", self.root.path(), &["--grace", "0"]);
        }
        assert_eq!(fs::read_to_string(self.images().join("index.json")).unwrap(), index);
        assert_eq!(blobs(), before, "{expected}");
        fs::write(self.images().join("index.json"), &self.index).unwrap();
    }
}

/// Exit status and standard error.
fn tool(name: &str, root: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(testkit::binaries().join(name));
    let output = command
        .arg("--root")
        .arg(root)
        .arg("--run-dir")
        .arg(root.join("run"))
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn entries_of_the_index() {
    let store = Store::new();
    let no_descriptor = "the entry \"image\" is no descriptor: ";
    for (members, expected) in [
        (json!({"size": -1}), format!("{no_descriptor}size is -1, not a number of bytes")),
        (json!({"size": 1.5}), format!("{no_descriptor}size is 1.5, not a number of bytes")),
        (json!({"size": 2e30}), format!("{no_descriptor}size is 2e+30, not a number of bytes")),
        (json!({"digest": "sha256:../../../x"}), format!("{no_descriptor}Invalid encoded value ../../../x")),
        (json!({"size": 100_000_000}), " is 100000000 bytes of JSON: more than 4 MiB are refused".to_owned()),
        (json!({"size": 1}), ", its descriptor says 1".to_owned()),
        (
            json!({"digest": format!("md5:{}", "0".repeat(32))}),
            "is not a digest: it takes \"sha256:\" and 64 hexadecimal digits".to_owned(),
        ),
        (json!({"digest": Digest::of(b"none")}), " is not in the image store".to_owned()),
        (
            json!({"mediaType": "application/vnd.oci.image.index.v1+json"}),
            " is not an image index: it says that it is \"application/vnd.oci.image.manifest.v1+json\""
                .to_owned(),
        ),
        (
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar"}),
            " is not an image: its media type is \"application/vnd.oci.image.layer.v1.tar\"".to_owned(),
        ),
    ] {
        // A blob that only the entry named also stays, because it may be needed.
        if members.get("digest").is_none() {
            store.refused(&store.with_entry(&members), &expected);
            continue;
        }
        let index = store.with_entry(&members);
        fs::write(store.images().join("index.json"), &index).unwrap();
        let (status, error) = tool("img-inspect", store.root.path(), &["image"]);
        assert!(status == 1 && error.contains(&expected), "{error}\n{expected}");
        assert_eq!(fs::read_to_string(store.images().join("index.json")).unwrap(), index);
    }
}

#[test]
fn an_entry_that_is_no_descriptor_is_listed_and_kept() {
    let store = Store::new();
    let index = store.with_entry(&json!({"size": -1}));
    fs::write(store.images().join("index.json"), &index).unwrap();
    let mut ls = Command::new(testkit::binaries().join("img-ls"));
    let output = ls.arg("--root").arg(store.root.path()).output().unwrap();
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed["images"][0]["references"], json!(["image:latest"]));
    let problem = "its entry in index.json is no descriptor: size is -1, not a number of bytes";
    assert_eq!(listed["images"][0]["error"], problem);
    // Another name is added.
    let other = store.root.path().join("a.tar");
    assert_eq!(tool("img-load", store.root.path(), &["-q", "-t", "other", other.to_str().unwrap()]).0, 0);
    let after: Value = serde_json::from_slice(&fs::read(store.images().join("index.json")).unwrap()).unwrap();
    assert_eq!(after["manifests"][0], serde_json::from_str::<Value>(&index).unwrap()["manifests"][0]);
    assert_eq!(after["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn the_index_itself() {
    let store = Store::new();
    let twice = |name: &str, other: &str| {
        store.index.replacen(&format!("\"{name}\":"), &format!("\"{name}\":{other},\"{name}\":"), 1)
    };
    let with = |name: &str, value: Value| {
        let mut index: Value = serde_json::from_str(&store.index).unwrap();
        index[name] = value;
        index.to_string()
    };
    // Only the version tells what it is.
    let mut third: Value = serde_json::from_str(&with("schemaVersion", json!(3))).unwrap();
    third.as_object_mut().unwrap().remove("mediaType");
    for (index, expected) in [
        (twice("manifests", "[]"), "member \"manifests\" twice at line 1 column "),
        (twice("digest", "\"\""), "member \"digest\" twice at line 1 column "),
        (twice("annotations", "{}"), "member \"annotations\" twice at line 1 column "),
        (third.to_string(), "schemaVersion is 3, not 2"),
        (
            with("mediaType", json!("application/vnd.oci.image.manifest.v1+json")),
            "it says that it is \"application/vnd.oci.image.manifest.v1+json\"",
        ),
        (with("layers", json!([])), "it is an index and a manifest at once"),
        ("[".repeat(1_000_000), "recursion limit exceeded"),
        ("[]".to_owned(), "invalid type: sequence, expected a map"),
        (format!("{} {{}}", store.index), "trailing characters"),
        (" ".repeat(65 << 20), "more than 64 MiB of JSON are refused"),
    ] {
        store.refused(&index, expected);
    }
    // A truncated list is read from the copy beside it.
    for index in [&store.index[..60], ""] {
        fs::write(store.images().join("index.json"), index).unwrap();
        let (status, error) = tool("img-inspect", store.root.path(), &["image"]);
        assert_eq!(status, 0, "{error}");
    }
}

#[test]
fn layouts_of_another_version() {
    let store = Store::new();
    let file = store.images().join("oci-layout");
    for text in [
        r#"{"imageLayoutVersion":"2.0.0"}"#,
        r#"{"imageLayoutVersion":"2.0.0","imageLayoutVersion":"1.0.0"}"#,
        r#"{"imageLayoutVersion":1}"#,
        "{}",
        "1.0.0",
        &"[".repeat(1_000_000),
    ] {
        fs::write(&file, text).unwrap();
        store.refused(&store.index, "is not an OCI image layout: it has no oci-layout file of version 1");
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "nobody makes it another one");
    }
}

#[test]
fn manifests() {
    let store = Store::new();
    let set = |pointer: &'static str, value: Value| {
        store.with_change(move |manifest| {
            let (above, name) = pointer.rsplit_once('/').unwrap();
            manifest.pointer_mut(above).unwrap()[name] = value;
        })
    };
    let twice = |name: &str, other: &str| {
        let text = store.manifest.to_string();
        store.with_manifest(&text.replacen(
            &format!("\"{name}\":"),
            &format!("\"{name}\":{other},\"{name}\":"),
            1,
        ))
    };
    let layer = |kind: &str| format!("application/vnd.oci.image.{kind}");
    // Only the version tells what it is.
    let first = store.with_change(|manifest| {
        manifest.as_object_mut().unwrap().remove("mediaType");
        manifest["schemaVersion"] = json!(1);
    });
    for (index, expected) in [
        (set("/mediaType", json!(layer("index.v1+json"))), " is not an image manifest: it says that it is "),
        (first, " is not an image manifest: schemaVersion is 1, not 2"),
        (set("/manifests", json!([])), " is not an image manifest: it is an index and a manifest at once"),
        (twice("layers", "[]"), " is not an image manifest: member \"layers\" twice at line 1 column "),
        (twice("config", "{}"), " is not an image manifest: member \"config\" twice at line 1 column "),
        (
            set("/layers/0/size", json!(-5)),
            " is not an image manifest: layers[0].size is -5, not a number of bytes",
        ),
        (set("/config/size", json!(7)), ", its descriptor says 7"),
        (
            set("/config/mediaType", json!(layer("manifest.v1+json"))),
            " is not a configuration: its media type is ",
        ),
        (
            set("/layers/0/mediaType", json!("application/json")),
            " is not a layer: its media type is \"application/json\"",
        ),
        (
            set("/layers/0/mediaType", json!(layer("layer.v1.tar+gzip+encrypted"))),
            " is not a layer: its media type is \"application/vnd.oci.image.layer.v1.tar+gzip+encrypted\"",
        ),
        (store.with_manifest(&"[".repeat(1_000_000)), "recursion limit exceeded"),
        (store.with_manifest(&" ".repeat(5 << 20)), " bytes of JSON: more than 4 MiB are refused"),
        (store.with_manifest("{}"), " is not an image manifest: missing field "),
    ] {
        store.refused(&index, expected);
    }
}

#[test]
fn sizes_that_no_sum_has() {
    let store = Store::new();
    let index = store.with_change(|manifest| {
        manifest["layers"][0]["size"] = json!(u64::MAX);
    });
    fs::write(store.images().join("index.json"), index).unwrap();
    let (status, error) = tool("img-ls", store.root.path(), &["--table"]);
    assert_eq!((status, &*error), (0, ""));
}

#[test]
fn files_that_are_none() {
    let store = Store::new();
    let path = store.images().join("index.json");
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let begin = Instant::now();
    let (status, error) = tool("img-inspect", store.root.path(), &["image"]);
    assert!(status == 1 && error.contains("index.json\": not a regular file"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(60));
    // No process waited at the other end of the FIFO.
    assert!(
        fs::File::options()
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(&path)
            .is_err()
    );
}
