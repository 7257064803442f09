//! `layer-apply --format erofs` makes one image of each layer. (common/image/layer/tests/forms.rs compares
//! both forms.)
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    slice::from_ref,
};

use archive::{Entry, Kind};
use common::{Run, Store, archive, directory, file, gzip, list, tar};
use oci::Digest;
use serde_json::{Value, json};

const EROFS: &[&str] = &["--format", "erofs"];

fn blobs(archives: &[Vec<u8>]) -> Vec<(&[u8], &[u8])> {
    archives.iter().map(|archive| (&archive[..], &archive[..])).collect()
}

fn images(run: &Run) -> Vec<PathBuf> {
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let layers = run.document["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["erofs"].as_str().unwrap().into()).collect()
}

fn apply(store: &Store, archives: &[Vec<u8>]) -> Vec<PathBuf> {
    images(&store.run(&store.image(&blobs(archives)), EROFS))
}

fn listed(image: &Path) -> Vec<String> {
    let mount = mount::image(image).unwrap();
    list(&mount::resolve::proc_path(mount.as_fd()))
}

/// The names in the directory of layers.
fn names(store: &Store) -> Vec<String> {
    let names = fs::read_dir(store.layers()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_document_names_the_images_which_are_made_once() {
    let store = Store::new();
    let layers = [tar(&["etc/", "etc/a", "lib -> usr/lib", "usr/lib/"]), tar(&["lib/b", "etc/.wh.a"])];
    let document = store.image(&blobs(&layers));
    let run = store.run(&document, EROFS);
    let found = images(&run);
    let hex = Digest::of(&layers[0]).hex().to_owned();
    assert_eq!(found[0], store.layers().join(format!("{hex}.erofs")));
    assert_eq!(run.document["layers"][0]["directory"], Value::Null);
    assert_eq!(listed(&found[0]), ["etc/", "etc/a", "lib -> usr/lib", "usr/", "usr/lib/"]);
    assert_eq!(listed(&found[1]), ["etc/", "etc/a (wh)", "usr/", "usr/lib/", "usr/lib/b"]);
    let status = found[0].metadata().unwrap();
    assert_eq!(status.mode() & 0o7777, 0o600, "only root reads what all users' files hold");
    // Again without the blobs, and in addition to the directories.
    for layer in &layers {
        fs::remove_file(store.layout.blob_path(&Digest::of(layer))).unwrap();
    }
    assert_eq!(images(&store.run(&document, EROFS)), found);
    assert_eq!(found[0].metadata().unwrap().ino(), status.ino());
    let directories = store.apply(&layers);
    assert_eq!(directories[0], store.layers().join(&hex));
    assert_eq!(list(&directories[1]), listed(&found[1]));
    // Every store has the same bytes.
    let other = Store::new();
    let again = apply(&other, &layers);
    assert!(fs::read(&found[1]).unwrap() == fs::read(&again[1]).unwrap());
}

#[test]
fn explained_checked_repaired_and_left_by_undo() {
    let store = Store::new();
    let layer = tar(&["a"]);
    let document = store.image(&blobs(from_ref(&layer)));
    let output =
        store.command().args(EROFS).arg("--explain").write_stdin(document.to_string()).output().unwrap();
    let place = store.layers().join(format!("{}.erofs", Digest::of(&layer).hex()));
    let blob = store.layout.blob_path(&Digest::of(&layer));
    let (shown, blob) = (place.display(), blob.display());
    let explained = format!("bsdcat {blob} | mkfs.erofs --tar=f --aufs {shown} /dev/stdin\n");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), explained);
    assert!(!place.exists());
    let run = store.run(&document, EROFS);
    let operation = &run.document["steps"][0]["operations"][0];
    assert_eq!((&operation["format"], &operation["layers"][0]["erofs"]), (&json!("erofs"), &json!(place)));
    assert_eq!(store.run(&run.document, &["--check"]).status, 0);
    fs::remove_file(&place).unwrap();
    assert_eq!(store.run(&run.document, &["--check"]).status, 1);
    assert_eq!(store.run(&run.document, &["--repair"]).status, 0);
    assert_eq!(listed(&place), ["a"]);
    let undone = store.run(&run.document, &["--undo"]);
    assert_eq!((undone.status, &undone.document["layers"]), (0, &Value::Null));
    assert!(place.exists());
    let output = store.command().arg("--schema").output().unwrap();
    let schema = String::from_utf8(output.stdout).unwrap();
    assert!(schema.contains("\"erofs\"") && schema.contains("\"directory\""), "{schema}");
    let output =
        store.command().args(["--format", "tar"]).write_stdin(document.to_string()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let line = "layer-apply: invalid value 'tar' for '--format <FORM>': a layer becomes a directory or erofs";
    assert_eq!((output.status.code(), said.lines().next()), (Some(2), Some(line)));
}

#[test]
fn two_at_once_do_the_work_once() {
    let store = Store::new();
    let layer = archive(&[file("big", &vec![7; 4 << 20])]);
    let document = store.image(&blobs(from_ref(&layer))).to_string();
    let start = |_| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_layer-apply"));
        for (flag, directory) in [("--root", "root"), ("--run-dir", "run")] {
            command.arg(flag).arg(store.dir.path().join(directory));
        }
        command.args(EROFS).arg("-v").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), document.as_bytes()).unwrap();
        child
    };
    let children: Vec<_> = (0..4).map(start).collect();
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(outputs.iter().all(|output| output.status.success()));
    assert_eq!(outputs.iter().filter(|output| said(output).contains(": unpacked into ")).count(), 1);
    assert_eq!(outputs.iter().filter(|output| said(output).contains(": already in ")).count(), 3);
    let hex = Digest::of(&layer).hex().to_owned();
    assert_eq!(names(&store), [".lock".into(), format!("{hex}.erofs"), format!("{hex}.erofs.json")]);
}

/// A blob and its intended archive, the flags, and the error.
type Refused<'a> = ((Vec<u8>, Vec<u8>), &'a [&'a str], &'a str);

#[test]
fn what_is_refused_leaves_nothing() {
    let device = Entry { device: (1, 3), ..Entry::new(Kind::CharDevice, "null") };
    let devices = archive(&[(device, b"")]);
    let bomb = archive(&[file("zeros", &vec![0; 80 << 20])]);
    let compressed = gzip(&bomb);
    let plain = |layer: &Vec<u8>| (layer.clone(), layer.clone());
    let cases: [Refused; 8] = [
        (plain(&tar(&["../x"])), &[], "entry \"../x\": name with \"..\" that leads out of the root"),
        (plain(&tar(&["a", "a/b"])), &[], "entry \"a/b\": parent \"a\" is not a directory"),
        (plain(&devices), &["--no-devices"], "entry \"null\": device nodes are not allowed"),
        (plain(&tar(&["a", "b", "c"])), &["--max-entries", "2"], "more than 2 entries"),
        (plain(&tar(&["a", "b", "c"])), &["--max-size", "1K"], "unpacked size exceeds 1024 bytes"),
        ((compressed, bomb), &["--max-ratio", "10"], "unpacked size exceeds 10 times the compressed size"),
        (plain(&tar(&["a"])[..300].to_vec()), &[], "archive ends in the middle of an entry"),
        ((tar(&["a"]), tar(&["b"])), &[], "archive has DiffID "),
    ];
    for ((blob, layer), flags, said) in cases {
        let store = Store::new();
        let message = store.refuse_blobs(&[(&blob, &layer)], &[EROFS, flags].concat());
        assert!(message.starts_with(said), "{message}, not: {said}");
        assert_eq!(names(&store), [".lock"]);
    }
    // An existing layer is compared with the limits of this run.
    let store = Store::new();
    let image = apply(&store, from_ref(&devices)).remove(0);
    let run = store.run(&store.image(&blobs(&[devices])), &[EROFS, &["--no-devices"]].concat());
    assert_eq!(run.status, 1);
    assert!(run.stderr.ends_with("it holds device nodes, which are not allowed\n"), "{}", run.stderr);
    assert!(image.exists());
}

#[test]
fn what_cannot_be_trusted_is_made_again() {
    let store = Store::new();
    let layers = [tar(&["a", "b"])];
    let image = apply(&store, &layers).remove(0);
    let note = image.with_added_extension("json");
    let text = fs::read_to_string(&note).unwrap();
    let hex = Digest::of(&layers[0]).hex().to_owned();
    // After a power cut, after a kill between the rename and the note, and with other content under the name.
    fs::write(&note, text.replace("bootID\":\"", "bootID\":\"another")).unwrap();
    fs::write(&image, "half of it").unwrap();
    assert_eq!(listed(&apply(&store, &layers)[0]), ["a", "b"]);
    fs::remove_file(&note).unwrap();
    fs::write(&image, "half of it").unwrap();
    fs::write(store.layers().join(format!(".{hex}.part")), "less").unwrap();
    assert_eq!(listed(&apply(&store, &layers)[0]), ["a", "b"]);
    fs::remove_file(&image).unwrap();
    fs::create_dir(&image).unwrap();
    assert_eq!(listed(&apply(&store, &layers)[0]), ["a", "b"]);
    assert_eq!(names(&store), [".lock".into(), format!("{hex}.erofs"), format!("{hex}.erofs.json")]);
}

#[test]
fn a_layer_on_other_layers_is_another_image() {
    let store = Store::new();
    let base = |mode| archive(&[(Entry { mode, ..directory("etc/") }, &b""[..])]);
    let top = tar(&["etc/f"]);
    let mode = |image: &Path| {
        let mount = mount::image(image).unwrap();
        mount::resolve::proc_path(mount.as_fd()).join("etc").metadata().unwrap().mode() & 0o7777
    };
    let first = apply(&store, &[base(0o700), top.clone()]).remove(1);
    let second = apply(&store, &[base(0o750), top.clone()]).remove(1);
    assert_eq!((mode(&first), mode(&second)), (0o700, 0o750));
    assert_ne!(first, second);
    assert_eq!(second.extension().unwrap(), "erofs");
    assert_eq!(apply(&store, &[base(0o700), top.clone()])[1], first);
    assert_eq!(apply(&store, &[base(0o750), top])[1], second);
}

#[test]
fn a_user_namespace_has_directories_only() {
    let store = Store::new();
    let document = store.image(&blobs(&[tar(&["a"])]));
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--", env!("CARGO_BIN_EXE_layer-apply")]).args(EROFS);
    for (flag, directory) in [("--root", "root"), ("--run-dir", "run")] {
        command.arg(flag).arg(store.dir.path().join(directory));
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), document.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let layer = Digest::of(&tar(&["a"]));
    assert_eq!(
        said,
        format!(
            "layer-apply: layer {layer}: EROFS images cannot be mounted in a user namespace\n\
             hint: use `--format directory`, the default: it needs no mounts\n"
        )
    );
}
