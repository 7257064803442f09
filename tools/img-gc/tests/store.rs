//! The tools of the image store together: names are added and removed, and unused data is removed.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Output},
};

use oci::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

struct Store {
    dir: TempDir,
}

impl Store {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> Output {
        let program = testkit::binaries().join(tool);
        let mut command = Command::new(&program);
        command.current_dir(self.dir.path()).args(arguments);
        command.env("STAVE_ROOT", self.path("root")).env("STAVE_RUN", self.path("run"));
        command.output().unwrap_or_else(|error| panic!("{program:?}: {error}: cargo build --workspace first"))
    }

    fn text(&self, tool: &str, arguments: &[&str]) -> String {
        let output = self.run(tool, arguments);
        assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, tool: &str, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(tool, arguments)).unwrap()
    }

    /// The error line of the tool, which must fail.
    fn refused(&self, tool: &str, arguments: &[&str]) -> String {
        let output = self.run(tool, arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Loads an image of one layer with one file, and returns the DiffID of the layer.
    fn load(&self, name: &str, content: &[u8]) -> Digest {
        let rootfs = testkit::rootfs(|tree| {
            testkit::directory(tree, "etc");
            testkit::file(tree, "etc/file", 0o644, content);
        });
        fs::write(self.path("rootfs.tar"), &rootfs).unwrap();
        self.text("img-load", &["-q", "-t", name, "rootfs.tar"]);
        Digest::of(&rootfs)
    }

    /// Makes a directory that looks like an unpacked layer.
    fn unpack(&self, diff_id: &Digest) -> PathBuf {
        let directory = self.path("root/layers").join(diff_id.hex());
        fs::create_dir_all(directory.join("etc")).unwrap();
        fs::write(directory.with_extension("json"), "{}").unwrap();
        directory
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.path("root/images/blobs/sha256")).unwrap().count()
    }
}

#[test]
fn what_somebody_mentions_stays() {
    let store = Store::new();
    let (kept, gone) = (store.load("kept:1", b"one"), store.load("gone:1", b"two"));
    let (kept, gone_directory) = (store.unpack(&kept), store.unpack(&gone));
    let manifest = store.json("img-ls", &["gone"])["images"][0]["digest"].as_str().unwrap().to_owned();
    let would = |arguments: &[&str]| {
        let found = store.json("img-gc", &[&["--dry-run"], arguments].concat());
        (found["blobs"].as_array().unwrap().len(), found["layers"].as_array().unwrap().len())
    };
    assert_eq!(would(&["--grace", "0"]), (0, 0), "both have names");
    store.text("img-rm", &["-q", "gone:1"]);
    assert_eq!(would(&[]), (0, 0), "young");
    assert_eq!(would(&["--grace", "0"]), (3, 1));

    fs::create_dir_all(store.path("run")).unwrap();
    let record = store.path("run/web.json");
    fs::write(&record, json!({"image": {"descriptor": {"digest": manifest}}}).to_string()).unwrap();
    assert_eq!(would(&["--grace", "0"]), (0, 0), "a container's record mentions the manifest");
    fs::write(&record, json!({"layers": [{"directory": gone_directory}]}).to_string()).unwrap();
    assert_eq!(would(&["--grace", "0"]), (2, 0), "or the layer's directory, whose blob has the same digest");
    fs::remove_file(&record).unwrap();

    // After a restart of the machine, a container has only its second record.
    let kept_record = store.path("root/containers/web");
    fs::create_dir_all(&kept_record).unwrap();
    let text = json!({"document": {"image": {"descriptor": {"digest": manifest}}}}).to_string();
    fs::write(kept_record.join("record.json"), text).unwrap();
    assert_eq!(would(&["--grace", "0"]), (0, 0), "a second record");
    fs::remove_dir_all(kept_record.parent().unwrap()).unwrap();

    let cache = store.path("root/cache");
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join("1.json"), json!({"layer": {"diffID": gone}}).to_string()).unwrap();
    assert_eq!(would(&["--grace", "0"]), (2, 0), "the build cache");
    fs::remove_dir_all(&cache).unwrap();

    // A record that cannot be read may name anything.
    fs::create_dir(&record).unwrap();
    assert_eq!(
        store.refused("img-gc", &["--grace", "0"]),
        format!("img-gc: read {record:?}: Is a directory\n")
    );
    assert_eq!(store.blobs(), 6);
    fs::remove_dir(&record).unwrap();

    // Nobody else sees what a build has mounted.
    let build = store.path("root/build/1-runs");
    fs::create_dir_all(&build).unwrap();
    let lock = fs::File::open(&build).unwrap();
    lock.try_lock().unwrap();
    assert_eq!(would(&["--grace", "0", "--cache"]), (3, 0), "a build runs");
    drop(lock);
    fs::remove_dir(&build).unwrap();

    let removed = store.json("img-gc", &["-q", "--grace", "0"]);
    assert_eq!(removed["layers"], json!([gone]));
    assert_eq!((store.blobs(), gone_directory.exists(), kept.exists()), (3, false, true));
    assert_eq!(store.json("img-gc", &["-q", "--grace", "0"])["blobs"], json!([]));
    store.text("img-history", &["kept:1"]);
}

/// A list that is none, and a manifest that cannot be read, may hide anything.
#[test]
fn what_nobody_can_read_may_mention_anything() {
    let store = Store::new();
    store.load("one", b"one");
    let index = store.path("root/images/index.json");
    let whole = fs::read(&index).unwrap();
    for text in ["{}", "{\"manifests\": {}}", "{\"errors\": []}", "{\"schemaVersion\": 2}"] {
        fs::write(&index, text).unwrap();
        let refused = store.refused("img-gc", &["--grace", "0"]);
        assert!(
            refused.contains("it was lost, and its copy is used: nothing is removed"),
            "{text}: {refused}"
        );
        assert_eq!(fs::read(&index).unwrap(), whole, "{text}");
        fs::write(&index, text).unwrap();
        assert_eq!(store.json("img-ls", &[])["images"].as_array().unwrap().len(), 1, "{text}");
        fs::rename(store.path("root/images/.recent.json"), store.path("recent")).unwrap();
        let lost = store.refused("img-gc", &["--grace", "0"]);
        assert!(lost.contains("it has no list of manifests, and there is no copy of it"), "{text}: {lost}");
        fs::rename(store.path("recent"), store.path("root/images/.recent.json")).unwrap();
    }
    // An entry that is no descriptor and has no digest may have named any blob.
    fs::write(&index, "{\"manifests\": [1]}").unwrap();
    let refused = store.refused("img-gc", &["--grace", "0"]);
    assert!(refused.contains("index.json\": the entry \"\" is no descriptor: "), "{refused}");
    fs::write(&index, &whole).unwrap();
    // A list that is lost with its copy is none of a new store, whatever else is lost.
    let (blobs, images, layout) =
        (store.blobs(), store.path("root/images"), store.path("root/images/oci-layout"));
    for torn in [true, false] {
        if torn { fs::write(&layout, "") } else { fs::remove_file(&layout) }.unwrap();
        let files = ["index.json", ".recent.json"];
        let _ = files.map(|file| fs::rename(images.join(file), store.path(file)).unwrap());
        let refused = String::from_utf8(store.run("img-load", &["-t", "two", "rootfs.tar"]).stderr).unwrap();
        assert!(refused.contains("it is missing, and there is no copy of it"), "{refused}");
        let _ = files.map(|file| fs::rename(store.path(file), images.join(file)).unwrap());
    }
    fs::write(&layout, "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    assert_eq!(store.blobs(), blobs);
    let digest = store.json("img-ls", &[])["images"][0]["digest"].as_str().unwrap().to_owned();
    let manifest = store.path("root/images/blobs").join(digest.replace(':', "/"));
    let text = fs::read(&manifest).unwrap();
    let damages: [&dyn Fn(); 3] = [
        &|| fs::write(&manifest, vec![0; text.len()]).unwrap(),
        &|| fs::write(&manifest, &text[1..]).unwrap(),
        &|| fs::remove_file(&manifest).unwrap(),
    ];
    for damage in damages {
        damage();
        let refused = store.refused("img-gc", &["--grace", "0"]);
        let start = "img-gc: look through one:latest: ";
        assert!(refused.starts_with(start) && refused.contains("\nhint: nothing was removed: "), "{refused}");
        assert_eq!(refused.lines().count(), 2, "{refused}");
    }
    assert_eq!(store.blobs(), 2, "all but the manifest");
    store.text("img-rm", &["one"]); // What the hint names.
    assert_eq!(store.json("img-gc", &["-q", "--grace", "0"])["blobs"].as_array().unwrap().len(), 2);
}

/// `--explain` of img-gc lists exactly the files that are removed.
#[test]
fn what_is_explained_is_what_is_removed() {
    let store = Store::new();
    let (kept, gone) = (store.load("kept:1", b"one"), store.load("gone:1", b"two"));
    let (kept, gone) = (store.unpack(&kept), store.unpack(&gone));
    store.text("img-rm", &["-q", "gone:1"]);
    // A SHA-512 blob, the remains of a killed writer and of a killed build, and the EROFS image of a layer.
    fs::create_dir_all(store.path("root/images/blobs/sha512")).unwrap();
    fs::write(store.path("root/images/blobs/sha512").join("ab".repeat(64)), "x").unwrap();
    for half in [".new-1-2", ".index.json.new"] {
        fs::write(store.path("root/images").join(half), "x").unwrap();
    }
    fs::create_dir_all(store.path("root/build/1-left/0/upper")).unwrap();
    fs::write(gone.with_extension("erofs"), "x").unwrap();
    let everything = || {
        let mut found = BTreeSet::new();
        let mut open = vec![store.path("root")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            found.insert(path);
        }
        found
    };
    let before = everything();
    let explained = store.text("img-gc", &["--explain", "--grace", "0"]);
    assert_eq!(everything(), before, "to explain is to change nothing");
    store.text("img-gc", &["--dry-run", "--grace", "0"]);
    assert_eq!(everything(), before);
    store.text("img-gc", &["-q", "--grace", "0"]);
    let after = everything();
    let is_gone = |path: &&PathBuf| !after.contains(*path);
    // Of a removed directory tree, only the top.
    let went: BTreeSet<_> = before
        .iter()
        .filter(is_gone)
        .filter(|path| after.contains(path.parent().unwrap()))
        .map(|path| path.display().to_string())
        .collect();
    let paths = explained.lines().flat_map(|line| line.strip_prefix("rm ").unwrap().split(' '));
    let said: BTreeSet<_> = paths.filter(|word| *word != "-r").map(str::to_owned).collect();
    assert_eq!(said, went);
    assert_eq!(said.len(), 3 + 1 + 2 + 3 + 1, "{explained}");
    assert!(kept.exists() && !gone.exists());
    assert_eq!(store.text("img-gc", &["--explain", "--grace", "0"]), "");
}

/// img-rm and img-tag explain exactly the names that they remove or add.
#[test]
fn what_is_explained_is_what_is_named() {
    let store = Store::new();
    store.load("a:1", b"one");
    store.load("b:1", b"two");
    let id = store.json("img-history", &["a:1"])["id"].as_str().unwrap().to_owned();
    let names = || -> BTreeSet<String> {
        let list = store.json("img-ls", &[]);
        let images = list["images"].as_array().unwrap().iter();
        let names = images.flat_map(|image| image["references"].as_array().unwrap());
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let said = |tool: &str, arguments: &[&str]| -> BTreeSet<String> {
        let explained = store.text(tool, &[&["--explain"], arguments].concat());
        let commands = explained.lines().filter(|line| !line.starts_with('#'));
        commands.map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    };
    for arguments in [["a:1", "c:2"], [&id[7..20], "localhost:5000/d:1"]] {
        let (said, before) = (said("img-tag", &arguments), names());
        store.text("img-tag", &arguments);
        assert_eq!(names().difference(&before).cloned().collect::<BTreeSet<_>>(), said);
    }
    // A name given twice is removed once.
    for arguments in [&["c:2", "c:2"][..], &["--force", &id[7..20], "nope", "b:1"]] {
        let (said, before) = (said("img-rm", arguments), names());
        let removed = store.json("img-rm", &[&["-q"], arguments].concat());
        let untagged = removed["untagged"].as_array().unwrap().iter();
        let untagged: BTreeSet<_> = untagged.map(|name| name.as_str().unwrap().to_owned()).collect();
        let gone: BTreeSet<_> = before.difference(&names()).cloned().collect();
        assert_eq!(gone, untagged);
        let said_names: BTreeSet<_> = said.iter().filter(|what| **what != id).cloned().collect();
        assert_eq!(said_names, untagged);
        assert_eq!(said.contains(&id), arguments[0] == "--force", "the image that has no name then");
    }
    assert_eq!(names(), BTreeSet::new());
}

/// A step of the build cache, and its layer, are removed when no build has used the step for some time.
#[test]
fn the_build_cache_goes_when_it_is_asked_for() {
    let store = Store::new();
    store.load("base", b"1");
    fs::create_dir(store.path("context")).unwrap();
    fs::write(store.path("context/file"), "x").unwrap();
    fs::write(store.path("context/Dockerfile"), "FROM base\nCOPY file /file\n").unwrap();
    let build = || store.json("img-build", &["-q", "-t", "built", "context"])["image"]["descriptor"].clone();
    build();
    store.json("img-rm", &["built"]);
    let gc = |arguments: &[&str]| store.json("img-gc", &[&["-q", "--grace", "0s"], arguments].concat());
    let count = |report: &Value, member: &str| report[member].as_array().unwrap().len();
    let kept = gc(&["--cache", "1h"]);
    assert_eq!((count(&kept, "cache"), count(&kept, "blobs")), (0, 2), "manifest and configuration");
    let planned = gc(&["--cache", "0s", "--dry-run"]);
    let explained = store.text("img-gc", &["--grace", "0s", "--cache", "0s", "--explain"]);
    // The files of steps, and of what they depended on.
    let files = |directory: &str| {
        let entries = fs::read_dir(store.path(directory)).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
    };
    assert_eq!((files("root/cache"), files("root/cache/steps")), (1, 1));
    assert_eq!(count(&gc(&["--keep-size", "1g", "--dry-run"]), "cache"), 0);
    assert_eq!(count(&gc(&["--keep-size", "0", "--dry-run"]), "cache"), 1);
    let removed = gc(&["--cache", "0s"]);
    assert_eq!((count(&removed, "cache"), count(&removed, "blobs")), (1, 1), "the layer");
    assert_eq!((&planned["cache"], &planned["blobs"]), (&removed["cache"], &removed["blobs"]));
    let step = removed["cache"][0].as_str().unwrap();
    assert_eq!(explained.lines().next(), Some(&*format!("rm -r {step}")));
    assert_eq!((files("root/cache"), files("root/cache/steps")), (0, 0));
    build();
}

/// The image that a tool works on stays until it is done, also without its name.
#[test]
fn what_a_tool_works_on_stays() {
    let store = Store::new();
    store.load("x", b"x");
    let fifo = store.path("more.tar");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut edit = Command::new(testkit::binaries().join("img-edit"));
    edit.args(["-q", "x", "-t", "y", "--append"]).arg(&fifo).env("STAVE_ROOT", store.path("root"));
    let mut edit = edit.stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut more = fs::File::options().write(true).open(&fifo).unwrap();
    assert_eq!(store.text("img-rm", &["-q", "x"]).lines().count(), 1);
    let collected = store.run("img-gc", &["--grace", "0s"]);
    let said = String::from_utf8(collected.stderr).unwrap();
    assert_eq!(
        said,
        "img-gc: an image is being written: everything since that began stays\n\
         Removed: 0 blobs (0B), 0 unpacked layers\n"
    );
    more.write_all(&testkit::rootfs(|tree| testkit::file(tree, "more", 0o644, b"more"))).unwrap();
    drop(more);
    assert!(edit.wait().unwrap().success());
    store.text("img-verify", &["y"]);
    // The manifest of x, and its configuration.
    assert_eq!(store.json("img-gc", &["-q", "--grace", "0s"])["blobs"].as_array().unwrap().len(), 2);
}

#[test]
fn an_index_keeps_all_its_images() {
    let store = Store::new();
    store.load("a:1", b"one");
    let layout = oci::Layout::open(store.path("root/images")).unwrap();
    let image = layout.find("a:1").unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [image]});
    let index = layout.write_json(oci::spec::MediaType::ImageIndex, &index).unwrap();
    layout.tag(&"index:1".parse().unwrap(), &index).unwrap();
    // Until then this process counts as one that writes.
    drop(layout);
    store.text("img-rm", &["-q", "a:1"]);
    assert_eq!(store.json("img-gc", &["-q", "--grace", "0"])["blobs"], json!([]));
    store.text("img-rm", &["-q", "index:1"]);
    assert_eq!(store.json("img-gc", &["-q", "--grace", "0"])["blobs"].as_array().unwrap().len(), 4);
}

#[test]
fn names_and_ids() {
    let store = Store::new();
    assert_eq!(store.json("img-ls", &[]), json!({"images": []}));
    store.load("a:1", b"one");
    store.load("b:1", b"two");
    store.text("img-tag", &["a:1", "localhost:5000/c/d:2"]);
    assert_eq!(store.refused("img-tag", &["nope", "x"]), "img-tag: no image \"nope\" in the image store\n");
    let id = store.json("img-history", &["a:1"])["id"].as_str().unwrap().to_owned();
    let short = &id[7..19];
    assert_eq!(
        store.refused("img-rm", &[short]),
        format!(
            "img-rm: image {short} has several names: a:1, localhost:5000/c/d:2\n\
             hint: remove it by its names, or with --force\n"
        )
    );
    // A name with a digest, as a pull by digest gives it, is a name like the others.
    let index = store.path("root/images/index.json");
    let mut list: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let mut entry = list["manifests"][0].clone();
    let pinned = format!("localhost:5000/c/d@{}", entry["digest"].as_str().unwrap());
    entry["annotations"] = json!({oci::layout::REF_NAME: pinned});
    list["manifests"].as_array_mut().unwrap().push(entry);
    fs::write(&index, list.to_string()).unwrap();
    let removed = store.json("img-rm", &["-q", "-f", &pinned]);
    assert_eq!(removed, json!({"untagged": [pinned], "deleted": []}));
    // If one name is wrong, none is removed.
    assert_eq!(store.refused("img-rm", &["b:1", "nope"]), "img-rm: no image \"nope\" in the image store\n");
    let removed = store.json("img-rm", &["-q", "a:1"]);
    assert_eq!(removed, json!({"untagged": ["a:1"], "deleted": []}));
    let removed =
        store.json("img-rm", &["-q", short, "b"].map(|text| if text == "b" { "b:1" } else { text }));
    assert_eq!(removed["untagged"], json!(["localhost:5000/c/d:2", "b:1"]));
    assert_eq!(removed["deleted"].as_array().unwrap().len(), 2);
    assert_eq!(store.json("img-ls", &[]), json!({"images": []}));
    store.text("img-rm", &["-f", "nope"]);
}

#[test]
fn tables_are_dockers() {
    let store = Store::new();
    store.load("debian:12", b"one");
    store.text("img-tag", &["debian:12", "localhost/a:1"]);
    let id = store.json("img-history", &["debian:12"])["id"].as_str().unwrap()[7..19].to_owned();
    let table = store.text("img-ls", &["--table"]);
    let years =
        table.lines().nth(1).unwrap().split("   ").find(|cell| cell.ends_with(" ago")).unwrap().to_owned();
    let expected = format!(
        "REPOSITORY    TAG       IMAGE ID       CREATED        SIZE\n\
         debian        12        {id}   {years}   2.83kB\n\
         localhost/a   1         {id}   {years}   2.83kB\n"
    );
    assert_eq!(table, expected);
    assert_eq!(store.text("img-ls", &["--ids"]), format!("{id}\n"));
    assert_eq!(store.text("img-ls", &["--table", "debian"]).lines().count(), 2);
    assert_eq!(store.text("img-ls", &["--table", "debian:11"]).lines().count(), 1);
    assert_eq!(
        store.text("img-history", &["--table", "debian:12"]),
        format!(
            "IMAGE          CREATED        CREATED BY   SIZE      COMMENT\n\
             {id}   {years}                2.56kB    Imported from -\n"
        )
    );
}

/// As with Docker, the image whose name went to another one can be had back.
#[test]
fn an_image_whose_last_name_moved_stays_for_a_while() {
    let store = Store::new();
    store.load("t", b"one");
    let digest = |name: &str| store.json("img-inspect", &[name])["image"]["descriptor"]["digest"].clone();
    let first = digest("t");
    let first = first.as_str().unwrap();
    store.text("img-tag", &["t", "also"]);
    store.load("t", b"two");
    let dangling = || store.text("img-ls", &["--filter", "dangling=true", "--format", "{digest}"]);
    assert_eq!(dangling(), "", "it has another name");
    store.text("img-rm", &["-q", "also"]);
    assert_eq!(store.blobs(), 6);
    assert_eq!(dangling(), "", "what was removed is gone");
    store.load("t", b"one");
    let second = digest("t");
    store.load("t", b"two");
    assert_eq!(dangling(), format!("{first}\n"), "{second}");
    store.text("img-gc", &["-q"]);
    store.text("img-tag", &[first, "back"]);
    assert_eq!((dangling().as_str(), digest("back").as_str()), ("", Some(first)));

    // A container keeps it. Otherwise it goes after the grace.
    store.text("img-tag", &["t", "back"]);
    assert_eq!(dangling(), format!("{first}\n"));
    fs::create_dir_all(store.path("run")).unwrap();
    let record = store.path("run/web.json");
    fs::write(&record, json!({"image": {"descriptor": {"digest": first}}}).to_string()).unwrap();
    let would = |images: &Value| {
        let found = store.json("img-gc", &["--grace", "0", "--dry-run"]);
        assert_eq!(&found["images"], images);
    };
    would(&json!([]));
    fs::remove_file(&record).unwrap();
    would(&json!([first]));
    assert_eq!(dangling(), format!("{first}\n"), "nothing was removed yet");
    let removed = store.json("img-gc", &["-q", "--grace", "0"]);
    assert_eq!((&removed["images"], removed["blobs"].as_array().unwrap().len()), (&json!([first]), 3));
    assert_eq!((dangling().as_str(), store.blobs()), ("", 3));
    store.text("img-verify", &[]);

    // So does one of the images of an index.
    store.text("img-index", &["-q", "many", "t"]);
    store.text("img-tag", &["t", "many"]);
    let index = dangling();
    fs::write(&record, json!({"image": {"descriptor": {"digest": digest("t")}}}).to_string()).unwrap();
    would(&json!([]));
    fs::remove_file(&record).unwrap();
    would(&json!([index.trim()]));
}

/// As with Docker, the names that do not fit are left out.
#[test]
fn a_filter_by_name_lists_the_names_that_fit() {
    let store = Store::new();
    store.load("two", b"one");
    store.text("img-tag", &["two", "x/y:2"]);
    let listed = |filters: &[&str]| {
        let format = ["--format", "{repository}:{tag}"];
        let filters = filters.iter().flat_map(|filter| ["--filter", filter]).collect::<Vec<_>>();
        store.text("img-ls", &[&format[..], &filters].concat())
    };
    assert_eq!(listed(&["reference=two"]), "two:latest\n");
    assert_eq!(listed(&["reference=x/*"]), "x/y:2\n");
    assert_eq!(listed(&["reference=two", "reference=x/y"]), "two:latest\nx/y:2\n");
    assert_eq!(listed(&["reference=none"]), "");
    assert_eq!(listed(&["reference=two", "dangling=true"]), "");
}
