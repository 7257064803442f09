//! The store of unpacked layers: work is done once, which layers are trusted, and dependencies on lower
//! layers.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use archive::Entry;
use common::{Store, archive, directory, file, list, tar};
use oci::Digest;

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

fn note(directory: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(directory.with_added_extension("json")).unwrap()).unwrap()
}

fn change(directory: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut value = note(directory);
    change(&mut value);
    fs::write(directory.with_added_extension("json"), value.to_string()).unwrap();
}

/// A command that runs the tool on this store.
fn layer_apply(store: &Store) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layer-apply"));
    for (flag, directory) in [("--root", "root"), ("--run-dir", "run")] {
        command.arg(flag).arg(store.dir.path().join(directory));
    }
    command
}

#[test]
fn what_stands_is_not_unpacked_again() {
    let store = Store::new();
    let layers = [tar(&["a/", "a/b"]), tar(&["a/c"])];
    let first = store.apply(&layers);
    let inodes: Vec<_> = first.iter().map(|path| inode(path)).collect();
    // The blobs are not even opened.
    for layer in &layers {
        fs::remove_file(store.layout.blob_path(&Digest::of(layer))).unwrap();
    }
    let blobs: Vec<(&[u8], &[u8])> = layers.iter().map(|layer| (&layer[..], &layer[..])).collect();
    let document = store.image(&blobs);
    for layer in &layers {
        fs::remove_file(store.layout.blob_path(&Digest::of(layer))).unwrap();
    }
    let run = store.run(&document, &[]);
    assert_eq!((run.status, run.directories()), (0, first.clone()));
    assert_eq!(first.iter().map(|path| inode(path)).collect::<Vec<_>>(), inodes);
}

#[test]
fn two_at_once_do_the_work_once() {
    let store = Store::new();
    let data = vec![7; 4 << 20];
    let layer = archive(&[file("big", &data)]);
    let document = store.image(&[(&layer, &layer)]).to_string();
    let children: Vec<_> = (0..8)
        .map(|_| {
            let mut child = layer_apply(&store)
                .arg("-v")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), document.as_bytes()).unwrap();
            child
        })
        .collect();
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let unpacked =
        |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).contains("unpacked");
    assert!(outputs.iter().all(|output| output.status.success()));
    assert_eq!(outputs.iter().filter(|output| unpacked(output)).count(), 1);
    let mut names: Vec<_> = fs::read_dir(store.layers())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let hex = Digest::of(&layer).hex().to_owned();
    assert_eq!(names, [".lock", &hex, &format!("{hex}.json")]);
}

#[test]
fn a_layer_of_another_boot_counts_only_once_it_was_synced() {
    let store = Store::new();
    let layers = [tar(&["a", "b"])];
    let directory = store.apply(&layers).remove(0);
    let before = inode(&directory);
    assert_eq!(note(&directory)["synced"], false);
    // The state after a power cut: the note exists, but files are missing.
    fs::remove_file(directory.join("b")).unwrap();
    change(&directory, |note| note["bootID"] = "another".into());
    store.apply(&layers);
    assert_ne!(inode(&directory), before);
    assert_eq!(list(&directory), ["a", "b"]);
    // After a while the layer is synced when it is used. From then on it is trusted after any restart.
    let old = fs::FileTimes::new().set_modified(std::time::SystemTime::now() - Duration::from_secs(600));
    fs::File::open(directory.with_added_extension("json")).unwrap().set_times(old).unwrap();
    store.apply(&layers);
    assert_eq!(note(&directory)["synced"], true);
    let before = inode(&directory);
    change(&directory, |note| note["bootID"] = "another".into());
    store.apply(&layers);
    assert_eq!(inode(&directory), before);
}

#[test]
fn what_was_left_half_done_is_done_again() {
    let store = Store::new();
    let layers = [tar(&["a", "b"])];
    let hex = Digest::of(&layers[0]).hex().to_owned();
    let place = store.layers().join(&hex);
    // After a kill while unpacking, and after one between the rename and the note.
    fs::create_dir_all(store.layers().join(format!(".{hex}.part/x/y"))).unwrap();
    fs::create_dir_all(place.join("stale")).unwrap();
    assert_eq!(list(&store.apply(&layers)[0]), ["a", "b"]);
    // A note that is empty, broken, or of another layer.
    for text in ["", "{", r#"{"diffID":"sha256:00","bootID":"x","synced":true}"#] {
        fs::write(place.with_added_extension("json"), text).unwrap();
        fs::write(place.join("stale"), "").unwrap();
        assert_eq!(list(&store.apply(&layers)[0]), ["a", "b"], "{text}");
    }
    assert!(!store.layers().join(format!(".{hex}.part")).exists());
}

#[test]
fn a_killed_unpacking_leaves_nothing_that_counts() {
    let store = Store::new();
    let data = vec![7; 300 << 20];
    let layer = archive(&[file("big", &data)]);
    let document = store.image(&[(&layer, &layer)]).to_string();
    let hex = Digest::of(&layer).hex().to_owned();
    let (place, part) = (store.layers().join(&hex), store.layers().join(format!(".{hex}.part")));
    let mut child = layer_apply(&store).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), document.as_bytes()).unwrap();
    while !part.exists() {
        assert!(!place.exists(), "it was too fast to be killed");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.exists(), "it was too fast to be killed");
    assert_eq!(fs::metadata(store.apply(&[layer])[0].join("big")).unwrap().len(), 300 << 20);
    assert!(!part.exists());
}

#[test]
fn a_layer_on_other_layers() {
    let store = Store::new();
    let base = |mode| archive(&[(Entry { mode, ..directory("etc/") }, &b""[..])]);
    let top = tar(&["etc/f"]);
    let mode = |path: &Path| fs::metadata(path.join("etc")).unwrap().mode() & 0o7777;
    let first = store.apply(&[base(0o700), top.clone()]).remove(1);
    let second = store.apply(&[base(0o750), top.clone()]).remove(1);
    assert_eq!((mode(&first), mode(&second)), (0o700, 0o750));
    assert_ne!(first, second);
    // Both stay and are found again.
    assert_eq!(store.apply(&[base(0o700), top.clone()])[1], first);
    assert_eq!(store.apply(&[base(0o750), top.clone()])[1], second);
    // Another lower layer with the same content: the directory is shared.
    let other = archive(&[(Entry { mode: 0o700, ..directory("etc/") }, b""), file("other", b"x")]);
    assert_eq!(store.apply(&[other, top])[1], first);
    // A layer that lists all its parents is the same on all lower layers.
    let whole = tar(&["./", "etc/", "etc/g"]);
    let first = store.apply(&[base(0o700), whole.clone()]).remove(1);
    assert_eq!(store.apply(&[base(0o750), whole])[1], first);
}

#[test]
fn undo_leaves_the_layers_and_check_sees_them() {
    let store = Store::new();
    let layer = tar(&["a"]);
    let document = store.image(&[(&layer, &layer)]);
    let hex = Digest::of(&layer).hex().to_owned();
    let place = store.layers().join(&hex);
    let output = store.command().arg("--explain").write_stdin(document.to_string()).output().unwrap();
    let explained = String::from_utf8(output.stdout).unwrap();
    let blob = store.layout.blob_path(&Digest::of(&layer));
    let (place_text, blob) = (place.display(), blob.display());
    assert_eq!(explained, format!("mkdir -p {place_text} && tar --xattrs -xpf {blob} -C {place_text}\n"));
    assert!(!place.exists());
    let run = store.run(&document, &[]);
    let operation = &run.document["steps"][0]["operations"][0];
    assert_eq!(operation["layers"][0]["diffID"], format!("sha256:{hex}"));
    assert_eq!(store.run(&run.document, &["--check"]).status, 0);
    let undone = store.run(&run.document, &["--undo"]);
    assert_eq!((undone.status, &undone.document["layers"]), (0, &serde_json::Value::Null));
    assert!(place.exists());
    fs::remove_dir_all(&place).unwrap();
    assert_eq!(store.run(&run.document, &["--check"]).status, 1);
}
