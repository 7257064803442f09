//! Damage in the store is found, reported, removed, and repaired. A lost list is never taken for an empty
//! store.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;

struct Store {
    dir: TempDir,
}

struct Outcome {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Outcome {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}{}", self.stdout, self.stderr))
    }
}

impl Store {
    /// A store with the images `one` and `two`, each with one layer.
    fn new() -> Self {
        let store = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["one", "two"] {
            let tar =
                testkit::rootfs(|tree| testkit::file(tree, "name", 0o644, name.repeat(1000).as_bytes()));
            fs::write(store.path(&format!("{name}.tar")), tar).unwrap();
            assert_eq!(store.run(&format!("img-load -q -t {name} {name}.tar")).status, 0);
        }
        store
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, line: &str) -> Outcome {
        let mut words = line.split(' ');
        let program = testkit::binaries().join(words.next().unwrap());
        let output = Command::new(&program)
            .args(words)
            .current_dir(self.dir.path())
            .env("STAVE_ROOT", self.path("root"))
            .env("STAVE_RUN", self.path("run"))
            .output()
            .unwrap_or_else(|error| panic!("{program:?}: {error}: cargo build --workspace --bins first"));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Outcome {
            status: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn names(&self) -> Vec<String> {
        let images = self.run("img-ls").json()["images"].clone();
        let names =
            images.as_array().unwrap().iter().flat_map(|image| image["references"].as_array().unwrap());
        let mut names: Vec<_> = names.map(|name| name.as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// The digest and the file of an image's only layer, or of its manifest.
    fn blob(&self, image: &str, pointer: &str) -> (String, PathBuf) {
        let document = self.run(&format!("img-inspect {image}")).json();
        let manifest = document["image"]["descriptor"].clone();
        let file = |digest: &str| self.path("root/images/blobs").join(digest.replace(':', "/"));
        let manifest_file = file(manifest["digest"].as_str().unwrap());
        let content: Value = serde_json::from_slice(&fs::read(manifest_file).unwrap()).unwrap();
        let digest = json!({"manifest": manifest, "content": content}).pointer(pointer).unwrap().clone();
        let digest = digest["digest"].as_str().unwrap().to_owned();
        let path = file(&digest);
        (digest, path)
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.path("root/images/blobs/sha256")).unwrap().count()
    }
}

const LAYER: &str = "/content/layers/0";
const HINT: &str = "hint: `img-verify --remove` removes them; then pull, load or build the images again\n";

#[test]
fn a_store_that_is_whole() {
    let store = Store::new();
    let outcome = store.run("img-verify");
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    let report = outcome.json();
    assert_eq!((&report["blobs"], &report["damaged"], &report["lost"]), (&json!(6), &json!([]), &json!([])));
    assert_eq!(store.run("img-verify one").json()["blobs"], 3);
    assert_eq!(store.run("img-verify three").stderr, "img-verify: no image \"three\" in the image store\n");
    assert!(store.run("img-verify --explain").stdout.ends_with("| sha256sum --check --quiet\n"));
}

#[test]
fn damage_is_told_and_taken_out_and_healed() {
    let store = Store::new();
    let (layer, file) = store.blob("one", LAYER);
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[700] ^= 1;
    fs::write(&file, bad).unwrap();
    let outcome = store.run("img-verify");
    let report = outcome.json();
    assert_eq!(outcome.status, 1);
    assert_eq!(
        outcome.stderr,
        format!("img-verify: 1 blob is damaged, 1 name leads to an incomplete image\n{HINT}")
    );
    assert_eq!(report["damaged"][0]["digest"], layer.as_str());
    assert!(report["damaged"][0]["problem"].as_str().unwrap().starts_with("its content has digest sha256:"));
    assert_eq!(report["lost"][0]["reference"], "one:latest");
    assert_eq!(report["removed"], false);
    // The other image is intact.
    assert_eq!(store.run("img-verify two").status, 0);
    assert_eq!(store.run("img-verify one").status, 1);
    // A tool that reads the whole blob reports the same.
    let saved = store.run("img-save -q -o saved.tar one");
    assert_eq!(saved.status, 1);
    let lines: Vec<_> = saved.stderr.lines().collect();
    assert!(lines[0].ends_with(": the image store is damaged"), "{lines:?}");
    assert!(lines[1].starts_with("hint: `img-verify --remove`"), "{lines:?}");

    let explained = store.run("img-verify --remove --explain").stdout;
    assert_eq!(explained.lines().filter(|line| !line.starts_with('#')).count(), 2, "{explained}");
    assert_eq!(store.blobs(), 6, "nothing is done");
    let removed = store.run("img-verify --remove");
    assert_eq!((removed.status, &*removed.stderr), (0, ""));
    assert_eq!((&removed.json()["removed"], store.blobs()), (&json!(true), 5));
    assert_eq!(store.names(), ["two:latest"]);
    assert_eq!(store.run("img-verify").status, 0);
    assert_eq!(store.run("img-load -q -t one one.tar").status, 0);
    assert_eq!(fs::read(&file).unwrap(), good);
    assert_eq!(store.run("img-verify").json()["blobs"], 6);
}

#[test]
fn cut_short_missing_and_no_files() {
    let store = Store::new();
    let (_, layer) = store.blob("one", LAYER);
    fs::write(&layer, "").unwrap();
    let (manifest, file) = store.blob("two", "/manifest");
    fs::remove_file(&file).unwrap();
    let report = store.run("img-verify").json();
    let problems: Vec<_> =
        report["lost"].as_array().unwrap().iter().map(|lost| lost["problem"].as_str().unwrap()).collect();
    assert_eq!(report["damaged"].as_array().unwrap().len(), 1, "{report}");
    assert!(problems[0].contains(" is damaged: its content has digest sha256:e3b0c442"), "{problems:?}");
    assert_eq!(problems[1], format!("{manifest} is not in the image store"));
    // A directory instead of a blob.
    fs::create_dir_all(file.join("below")).unwrap();
    let report = store.run("img-verify").json();
    let problems: Vec<_> =
        report["damaged"].as_array().unwrap().iter().map(|blob| blob["problem"].as_str().unwrap()).collect();
    assert!(problems.contains(&"not a regular file"), "{report}");
    assert_eq!(store.run("img-verify --remove").status, 0);
    assert!(!file.exists() && !layer.exists());
    assert_eq!(store.names(), [""; 0]);
}

/// The list is cut short, as by a power cut after another program wrote it in place, or missing.
#[test]
fn a_list_that_is_lost_is_put_back() {
    let store = Store::new();
    let index = store.path("root/images/index.json");
    let whole = fs::read(&index).unwrap();
    for cut in [Some(&b""[..]), Some(&whole[..100]), Some(&[0; 512]), None] {
        match cut {
            Some(content) => fs::write(&index, content).unwrap(),
            None => fs::remove_file(&index).unwrap(),
        }
        assert_eq!(store.names(), ["one:latest", "two:latest"]);
        assert_eq!(store.run("img-verify").status, 0);
        assert_eq!(store.run("img-gc -q --grace 0s --dry-run").status, 1);
        let collected = store.run("img-gc -q --grace 0s");
        assert_eq!(collected.status, 1);
        assert!(
            collected.stderr.contains("index.json\": it was lost, and its copy is used"),
            "{}",
            collected.stderr
        );
        assert_eq!(store.blobs(), 6);
        // img-gc has restored the list, and may go on.
        assert_eq!(fs::read(&index).unwrap(), whole);
        assert_eq!(store.run("img-gc -q --grace 0s").status, 0);
        assert_eq!(store.blobs(), 6);
    }
    fs::write(&index, "").unwrap();
    assert_eq!(store.run("img-tag one three").status, 0);
    assert_eq!(store.names(), ["one:latest", "three:latest", "two:latest"]);
}

#[test]
fn a_list_that_is_lost_with_its_copy_is_told() {
    let store = Store::new();
    let index = store.path("root/images/index.json");
    fs::write(store.path("root/images/.recent.json"), "").unwrap();
    for command in [
        "img-ls",
        "img-gc -q --grace 0s",
        "img-tag one three",
        "img-load -q -t one one.tar",
        "img-verify --remove",
    ] {
        fs::write(&index, "").unwrap();
        let outcome = store.run(command);
        assert_eq!(outcome.status, 1, "{command}");
        assert!(outcome.stderr.contains("and there is no copy of it"), "{command}: {}", outcome.stderr);
        fs::remove_file(&index).unwrap();
        let outcome = store.run(command);
        assert_eq!(outcome.status, 1, "{command}");
        assert!(outcome.stderr.contains("it is missing, and there is no copy of it"), "{}", outcome.stderr);
        assert_eq!(store.blobs(), 6, "{command}");
    }
}

/// skopeo also writes `oci-layout` in place.
#[test]
fn a_layout_file_that_is_lost_takes_no_image() {
    let store = Store::new();
    fs::write(store.path("root/images/oci-layout"), "").unwrap();
    assert_eq!(store.names(), ["one:latest", "two:latest"]);
    assert_eq!(store.run("img-load -q -t again one.tar").status, 0);
    assert_eq!(store.names(), ["again:latest", "one:latest", "two:latest"]);
    let layout = fs::read_to_string(store.path("root/images/oci-layout")).unwrap();
    assert_eq!(layout, r#"{"imageLayoutVersion":"1.0.0"}"#);
}

#[test]
fn no_sync_is_said_in_two_ways() {
    let store = Store::new();
    assert_eq!(store.run("img-tag --no-sync one three").status, 0);
    let with = |value: &str| {
        let mut command = Command::new(testkit::binaries().join("img-tag"));
        command.args(["one", "four"]).env("STAVE_ROOT", store.path("root")).env("STAVE_SYNC", value);
        command.output().unwrap()
    };
    for value in ["no", "yes", ""] {
        assert!(with(value).status.success(), "{value}");
    }
    let refused = with("perhaps");
    assert_eq!(
        String::from_utf8(refused.stderr).unwrap(),
        "img-tag: read STAVE_SYNC: it is \"perhaps\", and must be yes or no\n"
    );
}
