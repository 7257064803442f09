//! `img-gc` beside a pull: what the pull has fetched so far has no name yet.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod server;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use oci::Digest;
use serde_json::Value;
use server::{Content, image, pull, serve};
use testkit::{rootfs, wait_for};

const LIMIT: Duration = Duration::from_secs(30);

fn layers() -> [Vec<u8>; 2] {
    ["first", "second"].map(|name| rootfs(|tree| testkit::file(tree, name, 0o644, name.as_bytes())))
}

fn blob(root: &Path, content: &[u8]) -> PathBuf {
    root.join("images/blobs/sha256").join(Digest::of(content).hex())
}

/// What `img-gc --grace 0s` removes from the store: the numbers of blobs and of layers.
fn collect(root: &Path) -> (usize, usize) {
    let mut command = Command::new(testkit::binaries().join("img-gc"));
    command.args(["-q", "--grace", "0s", "--root"]).arg(root).env("STAVE_RUN", root.join("run"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    (found["blobs"].as_array().unwrap().len(), found["layers"].as_array().unwrap().len())
}

fn notes(root: &Path) -> usize {
    let names = fs::read_dir(root.join("images")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".writing-")).count()
}

#[test]
fn a_running_pull_keeps_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    let [first, second] = layers();
    let mut content = Content::new();
    image(&mut content, "1", &[first.clone(), second.clone()]);
    let (store, last) = (root.clone(), Digest::of(&second).to_string());
    let (told, collected) = mpsc::channel();
    let (host, _) = serve(content, move |request, _, _| {
        if request.contains(&last) {
            let unpacked = || {
                fs::read_dir(store.join("layers"))
                    .is_ok_and(|mut all| all.any(|entry| entry.unwrap().path().join("first").exists()))
            };
            wait_for("the first layer", LIMIT, || blob(&store, &first).exists() && unpacked());
            told.send(collect(&store)).unwrap();
        }
        false
    });
    assert_eq!(pull(&host, &root, &["-q", "--apply"], "a/b:1"), (0, String::new()));
    assert_eq!(collected.recv().unwrap(), (0, 0));
    assert_eq!((notes(&root), collect(&root)), (0, (0, 0)), "the image has a name now");
}

#[test]
fn a_killed_pull_keeps_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let [first, second] = layers();
    let mut content = Content::new();
    image(&mut content, "1", &[first.clone(), second.clone()]);
    let last = Digest::of(&second).to_string();
    let (ended, end) = mpsc::channel::<()>();
    let end = std::sync::Mutex::new(end);
    let (host, _) = serve(content, move |request, _, _| {
        // Until the test ends.
        request.contains(&last) && end.lock().unwrap().recv().is_err()
    });
    let mut pull = Command::new(testkit::binaries().join("img-pull"));
    let pull = pull.args(["-q", "--root"]).arg(root).arg(format!("{host}/a/b:1")).stdout(Stdio::null());
    let mut pull = pull.spawn().unwrap();
    wait_for("the first layer", LIMIT, || blob(root, &first).exists());
    assert_eq!((notes(root), collect(root)), (1, (0, 0)));
    pull.kill().unwrap();
    pull.wait().unwrap();
    assert_eq!(notes(root), 1, "nobody has looked yet");
    // The manifest, the configuration and the first layer.
    assert_eq!(collect(root), (3, 0));
    assert_eq!(notes(root), 0);
    drop(ended);
}
