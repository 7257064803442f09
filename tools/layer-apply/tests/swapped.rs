//! A layer's directory is changed while it is unpacked.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use archive::Entry;
use common::{Store, archive, directory, file};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use oci::Digest;

/// More than the number of directories that layer-apply keeps open.
const OTHERS: usize = 300;

/// A layer with `victim/` and a file in it, many other directories, so that `victim` must be opened again, a
/// file that takes a while, and then more files in `victim`, or in `inside` below it. Everybody may write to
/// all of it when it is finished.
fn layer(inside: &str) -> Vec<u8> {
    let big = vec![7; 120 << 20];
    let mut entries: Vec<(Entry, &[u8])> = vec![(Entry { mode: 0o777, ..directory("victim/") }, b"")];
    let [first, second] = ["first", "second"].map(|name| format!("victim/{inside}{name}"));
    entries.push(file(&first, b"1"));
    let others: Vec<String> = (0..OTHERS).map(|number| format!("other{number}/f")).collect();
    entries.extend(others.iter().map(|name| file(name, b"")));
    entries.push(file("big", &big));
    entries.push(file(&second, b"2"));
    archive(&entries)
}

struct Stopped {
    child: Child,
    part: PathBuf,
}

/// A layer-apply that is stopped while it writes the big file.
fn stopped(store: &Store, layer: &[u8]) -> Stopped {
    let document = store.image(&[(layer, layer)]).to_string();
    let part = store.layers().join(format!(".{}.part", Digest::of(layer).hex()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_layer-apply"));
    command.arg("--root").arg(store.dir.path().join("root"));
    command.arg("--run-dir").arg(store.dir.path().join("run"));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), document.as_bytes()).unwrap();
    while !part.join("big").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        std::thread::sleep(Duration::from_micros(200));
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    let status = waitid(nix::sys::wait::Id::Pid(pid), flags).unwrap();
    assert!(matches!(status, WaitStatus::Stopped(..)), "it ended before it could be stopped: {status:?}");
    assert!(fs::metadata(part.join("big")).unwrap().len() < 120 << 20, "it was stopped too late");
    Stopped { child, part }
}

impl Stopped {
    fn go_on(self) -> Output {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGCONT).unwrap();
        self.child.wait_with_output().unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_directory_becomes_a_symbolic_link() {
    // The directory itself, and one on the path to it: different rules of openat2 refuse them.
    for (inside, error) in [("", "Not a directory"), ("sub/", "Too many levels of symbolic links")] {
        becomes_a_link(inside, error);
    }
}

fn becomes_a_link(inside: &str, error: &str) {
    let outside = tempfile::tempdir().unwrap();
    let there = outside.path().join(inside);
    fs::create_dir_all(&there).unwrap();
    let store = Store::new();
    let layer = layer(inside);
    let stopped = stopped(&store, &layer);
    // No other user can enter, whatever modes the layer gives its directories.
    assert_eq!((mode(&stopped.part), mode(&stopped.part.join("victim"))), (0o700, 0o700));
    fs::rename(stopped.part.join("victim"), stopped.part.join("moved")).unwrap();
    symlink(outside.path(), stopped.part.join("victim")).unwrap();
    let output = stopped.go_on();
    let digest = Digest::of(&layer);
    let message =
        format!("layer-apply: layer {digest}: entry \"victim/{inside}second\": open directory: {error}\n");
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), message));
    assert_eq!(fs::read_dir(there).unwrap().count(), 0);
    // The unpacked files are removed, and the link with them, but not the link's target.
    let left: Vec<_> =
        fs::read_dir(store.layers()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".lock"]);
}

#[test]
fn the_whole_directory_becomes_a_symbolic_link() {
    let outside = tempfile::tempdir().unwrap();
    let store = Store::new();
    let layer = layer("");
    let stopped = stopped(&store, &layer);
    let part = stopped.part.clone();
    fs::rename(&part, store.layers().join("moved")).unwrap();
    symlink(outside.path(), &part).unwrap();
    let output = stopped.go_on();
    // layer-apply continues in the directory that it made, and does not use another one with the same name.
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let digest = Digest::of(&layer);
    let place = store.layers().join(digest.hex());
    let message = format!("layer-apply: layer {digest}: open {place:?}: Not a directory\n");
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), message));
    // The next run does not use it either.
    assert!(!store.apply(&[layer])[0].is_symlink());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
