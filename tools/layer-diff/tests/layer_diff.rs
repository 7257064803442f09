//! layer-diff as a process: from overlayfs's form to OCI's, two trees, and what it refuses.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use archive::{Kind, Reader};
use assert_cmd::cargo::cargo_bin_cmd;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use serde_json::Value;

struct Work(tempfile::TempDir);

impl Work {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn directory(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.path(name)).unwrap();
        self.path(name)
    }

    /// Runs layer-diff. Returns its status, standard output and standard error.
    fn run(&self, arguments: &[&str], input: &str) -> (i32, Value, String) {
        let mut command = cargo_bin_cmd!("layer-diff");
        command
            .current_dir(self.0.path())
            .arg("--root")
            .arg(self.path("root"))
            .arg("--run-dir")
            .arg(self.path("run"));
        let output = command.args(arguments).write_stdin(input).output().unwrap();
        let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().unwrap(), json, String::from_utf8(output.stderr).unwrap())
    }

    /// The entries of the uncompressed layer for these arguments, as `kind name`.
    fn entries(&self, arguments: &[&str]) -> Vec<String> {
        let (status, _, stderr) =
            self.run(&[arguments, &["--compression", "none", "-o", "out.tar"]].concat(), "");
        assert_eq!((status, stderr.as_str()), (0, ""));
        let archive = fs::read(self.path("out.tar")).unwrap();
        let mut reader = Reader::new(&archive[..]);
        let mut found = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            let name = String::from_utf8(entry.path).unwrap();
            found.push(match entry.kind {
                Kind::HardLink => format!("{name} => {}", String::from_utf8(entry.link).unwrap()),
                Kind::Symlink => format!("{name} -> {}", String::from_utf8(entry.link).unwrap()),
                Kind::CharDevice => format!("{name} {:?}", entry.device),
                _ => name,
            });
            assert!(entry.xattrs.iter().all(|(name, _)| !name.starts_with(b"trusted.overlay.")));
        }
        found
    }
}

fn whiteout(path: &Path) {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

fn attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

#[test]
fn an_upper_directory() {
    let work = Work::new();
    let upper = work.directory("upper");
    work.directory("upper/b/deep");
    work.directory("upper/a-opaque");
    fs::write(upper.join("b/deep/file"), "x").unwrap();
    fs::hard_link(upper.join("b/deep/file"), upper.join("b/second")).unwrap();
    symlink("anywhere", upper.join("link")).unwrap();
    mknodat(
        CWD,
        upper.join("null"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    whiteout(&upper.join("b/gone"));
    attribute(&upper.join("a-opaque"), "trusted.overlay.opaque", b"y");
    attribute(&upper.join("b"), "trusted.overlay.impure", b"y");
    attribute(&upper.join("b/deep/file"), "user.kept", b"v");
    let expected = [
        "link -> anywhere",
        "null (1, 3)",
        "a-opaque/",
        "a-opaque/.wh..wh..opq",
        "b/",
        "b/.wh.gone",
        "b/second",
        "b/deep/",
        "b/deep/file => b/second",
    ];
    assert_eq!(work.entries(&["upper"]), expected);
}

/// The entry of a directory that was only copied up has all attributes, because it replaces the lower entry.
#[test]
fn attributes_of_directories_stay() {
    let work = Work::new();
    for tree in ["old/srv", "new/srv"] {
        attribute(&work.directory(tree), "user.kept", b"v");
    }
    fs::write(work.path("new/srv/file"), "").unwrap();
    attribute(&work.path("new"), "user.root", b"v");
    for (trees, count) in [(&["new"][..], 1), (&["old", "new"], 2)] {
        work.entries(trees);
        let archive = fs::read(work.path("out.tar")).unwrap();
        let (mut reader, mut found) = (Reader::new(&archive[..]), Vec::new());
        while let Some(entry) = reader.next().unwrap() {
            found.extend(entry.xattrs.into_iter().map(|(name, value)| (entry.path.clone(), name, value)));
        }
        assert_eq!(found.len(), count, "{trees:?}: {found:?}");
        assert!(found.contains(&(b"srv/".to_vec(), b"user.kept".to_vec(), b"v".to_vec())), "{found:?}");
    }
}

/// Input that is not a document is handled as by a filter.
#[test]
fn the_documents_of_others() {
    let work = Work::new();
    let failed = r#"{"stave":1,"error":{"tool":"union-mount","step":"apply","message":"m","causes":[]}}"#;
    for (input, status, said) in [
        ("", 4, "layer-diff: no document on standard input: did the previous command fail?\n"),
        (
            "7",
            4,
            "layer-diff: standard input is not a document: invalid type: integer `7`, expected a JSON object at \
             line 1 column 1\n",
        ),
        (failed, 3, ""),
    ] {
        for arguments in [&[][..], &["--explain"]] {
            let (found, json, stderr) = work.run(arguments, input);
            assert_eq!((found, stderr.as_str()), (status, said), "{input}");
            assert_eq!(json != Value::Null, status == 3, "what failed is passed on");
        }
    }
    let (status, _, stderr) = work.run(&[], r#"{"stave":1}"#);
    assert_eq!((status, stderr.as_str()), (1, "layer-diff: no `rootfs`: run union-mount first\n"));
}

#[test]
fn the_same_bytes_each_time_and_in_each_compression() {
    let work = Work::new();
    let upper = work.directory("upper");
    for at in 0..40 {
        let content: String = (0..1_000 * at).map(|n| format!("{n} ")).collect();
        fs::write(upper.join(format!("f{at}")), content).unwrap();
    }
    let mut diff_ids = Vec::new();
    for compression in ["none", "gzip", "gzip:9", "zstd"] {
        let (status, first, _) = work.run(&["upper", "--compression", compression], "");
        assert_eq!(status, 0);
        let (_, again, _) = work.run(&["upper", "--compression", compression], "");
        assert_eq!(first, again);
        let digest = first["descriptor"]["digest"].as_str().unwrap().replace(':', "/");
        let blob = fs::read(work.path("root/images/blobs").join(&digest)).unwrap();
        assert_eq!(blob.len() as u64, first["descriptor"]["size"].as_u64().unwrap());
        diff_ids.push(first["diffID"].clone());
        // Common programs can read it, too.
        let program = compression.split(':').next().unwrap();
        if program != "none" {
            let path = work.path("root/images/blobs").join(&digest);
            let output =
                Command::new(program).arg("-dc").stdin(fs::File::open(path).unwrap()).output().unwrap();
            assert_eq!(oci::Digest::of(&output.stdout).to_string(), first["diffID"].as_str().unwrap());
        }
    }
    diff_ids.dedup();
    assert_eq!(diff_ids.len(), 1);
}

/// The same sources give the same layer: files that were just written get the sources' time.
#[test]
fn source_date_epoch_makes_files_as_old_as_the_sources() {
    let digest = || {
        let work = Work::new();
        let upper = work.directory("upper");
        fs::write(upper.join("new"), "x").unwrap();
        fs::write(upper.join("old"), "x").unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(5);
        fs::File::open(upper.join("old")).unwrap().set_modified(old).unwrap();
        let mut command = cargo_bin_cmd!("layer-diff");
        command.env("SOURCE_DATE_EPOCH", "1000000000").args(["--compression", "none", "-o", "-"]).arg(&upper);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut reader = Reader::new(&output.stdout[..]);
        let mut times = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            times.push((
                String::from_utf8(entry.path).unwrap(),
                entry.mtime.seconds,
                entry.mtime.nanoseconds,
            ));
        }
        assert_eq!(times, [("new".to_owned(), 1_000_000_000, 0), ("old".to_owned(), 5, 0)]);
        oci::Digest::of(&output.stdout)
    };
    let first = digest();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(digest(), first);
    let work = Work::new();
    for text in ["soon", "1.5", "-1", "999999999999"] {
        let mut command = cargo_bin_cmd!("layer-diff");
        let output =
            command.env("SOURCE_DATE_EPOCH", text).args(["-o", "-"]).arg(work.directory(text)).output();
        let said = format!(
            "layer-diff: read SOURCE_DATE_EPOCH {text:?}: it is not a number of seconds since 1970\n"
        );
        let output = output.unwrap();
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), said));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_empty_upper_is_the_empty_archive() {
    let work = Work::new();
    work.directory("upper");
    let (status, printed, _) = work.run(&["upper"], "");
    // 1024 bytes of zeros, the usual DiffID of an empty layer.
    let empty = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!((status, printed["diffID"].as_str(), printed["entries"].as_u64()), (0, Some(empty), Some(0)));
}

#[test]
fn what_a_container_wrote() {
    let work = Work::new();
    let (upper, lower) = (work.directory("upper"), work.directory("lower"));
    fs::write(upper.join("f"), "x").unwrap();
    let document = |extra: Value| {
        let mut document = serde_json::json!({"stave": 1, "id": "c", "rootfs": {
            "path": "/m", "lower": [lower], "upper": upper, "work": "/w"}});
        document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        document.to_string()
    };
    let none = serde_json::json!({});
    let (status, printed, _) = work.run(&[], &document(none.clone()));
    assert_eq!((status, printed["entries"].as_u64()), (0, Some(1)));
    // If the container changed the root itself, the root has an entry.
    chown(&upper, Some(5), Some(5)).unwrap();
    let (_, printed, _) = work.run(&[], &document(none));
    assert_eq!(printed["entries"], 2);
    let (status, passed, stderr) =
        work.run(&[], &document(serde_json::json!({"error": {"tool": "x", "step": "y", "message": "z"}})));
    assert_eq!((status, passed["error"]["tool"].as_str(), stderr.as_str()), (3, Some("x"), ""));
    let (status, _, stderr) = work.run(&[], r#"{"stave":1}"#);
    assert_eq!((status, stderr.as_str()), (1, "layer-diff: no `rootfs`: run union-mount first\n"));
}

#[test]
fn what_no_layer_can_say() {
    for (name, attributes, message) in [
        (".wh.x", None, r#"layer-diff: "d/.wh.x": a name that starts with ".wh." is a whiteout in a layer"#),
        (
            "f",
            Some("trusted.overlay.metacopy"),
            r#"layer-diff: "d/f": overlayfs left it without its data: mount with metacopy=off"#,
        ),
        (
            "f",
            Some("trusted.overlay.redirect"),
            r#"layer-diff: "d/f": overlayfs left a redirect on it: mount with redirect_dir=off"#,
        ),
    ] {
        let work = Work::new();
        let path = work.directory("upper/d").join(name);
        fs::write(&path, "").unwrap();
        if let Some(attribute_name) = attributes {
            attribute(&path, attribute_name, b"x");
        }
        let (status, _, stderr) = work.run(&["upper", "-o", "out"], "");
        assert_eq!(
            (status, stderr.trim_end()),
            (1, &*message.replace("layer-diff: ", "layer-diff: write \"out\": "))
        );
        let left = fs::read_dir(work.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("out")));
    }
    let work = Work::new();
    let (status, _, stderr) = work.run(&["missing"], "");
    assert_eq!((status, stderr.as_str()), (1, "layer-diff: open \"missing\": No such file or directory\n"));
}

/// The layer in overlayfs's form, on top of the first tree, gives the second tree.
fn assert_layer_makes_upper(work: &Work) {
    let applied = work.directory("applied");
    let target =
        rustix::fs::open(&applied, rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY, Mode::empty())
            .unwrap();
    let target = layer::apply::Target::Directory(target);
    let below = layer::apply::Below::open(&[work.path("lower")]).unwrap();
    layer::apply::unpack(fs::File::open(work.path("out.tar")).unwrap(), target, &below, &Default::default())
        .unwrap();
    work.directory("merged");
    let script = "mount -t overlay overlay -o ro,lowerdir=applied:lower merged && for tree in upper merged; do
        (cd $tree && tar --sort=name --numeric-owner --xattrs \
            --pax-option=exthdr.name=%d/%f,delete=atime,delete=ctime -cf - *) | sha256sum; done | uniq | wc -l;";
    let output =
        Command::new("unshare").args(["-m", "sh", "-c", script]).current_dir(work.0.path()).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "1",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Two trees, their difference, and the kernel's view of the difference on top of the first.
#[test]
fn two_trees() {
    let work = Work::new();
    let lower = work.directory("lower");
    for name in
        ["same", "touched", "content", "gone", "kind", "deep/a/b/gone", "deep/a/b/same", "tree/x", "mode"]
    {
        fs::create_dir_all(lower.join(name).parent().unwrap()).unwrap();
        fs::write(lower.join(name), name).unwrap();
    }
    symlink("same", lower.join("link")).unwrap();
    assert!(
        Command::new("cp")
            .args(["-a", "lower", "upper"])
            .current_dir(work.0.path())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(work.entries(&["lower", "upper"]), [""; 0]);
    let upper = work.path("upper");
    let touch = |name: &str, reference: &str| {
        let status =
            Command::new("touch").arg("-r").arg(lower.join(reference)).arg(upper.join(name)).status();
        assert!(status.unwrap().success());
    };
    for gone in ["gone", "kind", "deep/a/b/gone"] {
        fs::remove_file(upper.join(gone)).unwrap();
    }
    fs::remove_dir_all(upper.join("tree")).unwrap();
    fs::write(upper.join("tree"), "now a file").unwrap();
    fs::create_dir(upper.join("kind")).unwrap();
    fs::write(upper.join("kind/new"), "x").unwrap();
    // With the same size and time, so that only the content differs.
    fs::write(upper.join("content"), "CONTENT").unwrap();
    touch("content", "content");
    fs::remove_file(upper.join("link")).unwrap();
    symlink("gone", upper.join("link")).unwrap();
    chown(upper.join("mode"), Some(9), None).unwrap();
    touch("deep/a/b", "deep/a/b");
    assert_eq!(
        work.entries(&["lower", "upper"]),
        [
            ".wh.gone",
            "content",
            "link -> gone",
            "mode",
            "tree",
            "deep/",
            "deep/a/",
            "deep/a/b/",
            "deep/a/b/.wh.gone",
            "kind/",
            "kind/new"
        ]
    );
    assert_layer_makes_upper(&work);
    assert!(fs::metadata(upper.join("tree")).unwrap().size() > 0);
}

#[test]
fn where_the_layer_goes() {
    let work = Work::new();
    fs::write(work.directory("upper").join("file"), "content").unwrap();
    assert_eq!(work.run(&["upper", "-o", "file.tar"], "").0, 0);
    let expected = fs::read(work.path("file.tar")).unwrap();
    let printed = |arguments: &[&str]| {
        let output =
            cargo_bin_cmd!("layer-diff").current_dir(work.0.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    // Nothing else is written to standard output.
    assert!(printed(&["upper", "-o", "-"]) == expected);
    assert!(!work.path("-").exists());
    // A file is replaced. Anything else is written to.
    assert_eq!(work.run(&["upper", "-o", "file.tar"], "").0, 0);
    let null = work.path("null");
    mknodat(CWD, &null, FileType::CharacterDevice, Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3))
        .unwrap();
    let (status, report, _) = work.run(&["upper", "-o", "null"], "");
    assert_eq!((status, &report["entries"]), (0, &Value::from(1)));
    assert!(fs::metadata(&null).unwrap().file_type().is_char_device());
    assert!(printed(&["upper", "-o", "/dev/stdout"]).starts_with(&expected));
}
