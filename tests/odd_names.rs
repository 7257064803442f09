//! Odd names in archives: whatever unpacks an archive goes by one rule (`archive::Target`, `archive::inside`), and says the
//! same of the same archive. So `img-load` takes no root file system that `layer-apply` would not unpack.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use archive::{Entry, Kind, Writer};
use oci::Digest;
use serde_json::json;
use testkit::Sandbox;

/// An archive of these entries.
fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    entries.iter().for_each(|entry| writer.entry(entry).unwrap());
    writer.finish().unwrap()
}

/// An archive as docker save writes it, with this layer. img-load does not look into layers.
fn image(layer: &[u8]) -> Vec<u8> {
    let configuration = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer)]},
    });
    let list = json!([{"Config": "c.json", "RepoTags": ["odd:1"], "Layers": ["l.tar"]}]);
    let mut writer = Writer::new(Vec::new());
    let members = [("c.json", configuration.to_string()), ("manifest.json", list.to_string())];
    let members = members.map(|(name, text)| (name, text.into_bytes()));
    for (name, content) in members.iter().map(|(n, c)| (*n, &c[..])).chain([("l.tar", layer)]) {
        let size = content.len() as u64;
        writer.entry(&Entry { mode: 0o644, size, stored: size, ..Entry::new(Kind::File, name) }).unwrap();
        writer.data(content).unwrap();
    }
    writer.finish().unwrap()
}

/// An entry with a link.
fn link(kind: Kind, name: &str, to: &str) -> Entry {
    Entry { link: to.into(), ..Entry::new(kind, name) }
}

fn file(name: &str) -> Entry {
    Entry { mode: 0o644, ..Entry::new(Kind::File, name) }
}

/// What is said after these words, or nothing of a success.
fn told<'a>(outcome: &'a testkit::Outcome, words: &str) -> Option<&'a str> {
    let line = outcome.stderr.lines().find(|line| line.starts_with("img-") || line.starts_with("layer-"));
    let found = line.and_then(|line| Some(&line[line.find(words)?..]));
    assert_eq!(found.is_none(), outcome.status == 0, "{}: {}", outcome.script, outcome.stderr);
    found
}

#[test]
fn all_say_the_same_of_a_name() {
    let sandbox = Sandbox::new();
    let out = "name with \"..\" that leads out of the root";
    let (long, part) = (["x/"; 2040].concat(), "p".repeat(256));
    // The entries, what is wrong for a layer, and what is wrong for ADD, for which a whiteout is a file.
    for (entries, layer, add) in [
        (vec![file("a/../b"), file("/c"), file("./d//e")], None, None),
        (vec![file("../x")], Some(format!("entry \"../x\": {out}")), Some(format!("entry \"../x\": {out}"))),
        (vec![file("a/../../x")], Some(format!("entry \"a/../../x\": {out}")), Some(out.to_owned())),
        (
            vec![file("x"), link(Kind::HardLink, "y", "../../x")],
            Some(format!("entry \"y\": hard link to \"../../x\": {out}")),
            Some(format!("entry \"y\": {out}")),
        ),
        (vec![file("x"), link(Kind::HardLink, "y", "a/../x")], None, None),
        (
            vec![file(".")],
            Some("the root must be a directory".into()),
            Some("root must be a directory".into()),
        ),
        (vec![file(&long)], Some("name longer than a path may be".into()), Some("name longer".into())),
        (
            vec![file(&part)],
            Some("name with a part longer than 255 bytes".into()),
            Some("name with a part".into()),
        ),
        (vec![link(Kind::Symlink, "l", "../../../etc")], None, None),
        (
            vec![file("a/.wh.")],
            Some("entry \"a/.wh.\": whiteout of no file".into()),
            Some("is a whiteout in a layer".into()),
        ),
        (vec![file(&format!(".wh.{}", &part[..255]))], None, Some("name with a part".into())),
        (
            vec![link(Kind::HardLink, "y", ".wh.x")],
            Some("entry \"y\": hard link to \".wh.x\", which does not exist".into()),
            Some("ADD failed".into()),
        ),
        (
            vec![Entry::new(Kind::CharDevice, "n")],
            Some("entry \"n\": character device 0:0 is a whiteout of overlayfs".into()),
            Some("ADD failed: create \"n\"".into()),
        ),
    ] {
        let archive = tar(&entries);
        let shown = format!("{:.80?}", entries[0].path.escape_ascii().to_string());

        let loaded = sandbox.sh_with("img-load -q -t rootfs -", &archive);
        let of_load = told(&loaded, "entry ");
        assert!(
            of_load.unwrap_or_default().contains(layer.as_deref().unwrap_or_default()),
            "{shown}: {of_load:?}"
        );
        assert_eq!(of_load.is_some(), layer.is_some(), "{shown}: {}", loaded.stderr);

        sandbox.sh_with("img-load -q -t odd - > odd.json", &image(&archive)).ok();
        let applied = sandbox.sh("layer-apply --id odd < odd.json > /dev/null");
        sandbox.sh("unwind -q odd > /dev/null").ok();
        assert_eq!(told(&applied, "entry "), of_load, "{shown}");

        std::fs::write(sandbox.directory().join("odd.tar"), &archive).unwrap();
        sandbox.sh("printf 'FROM scratch\\nADD odd.tar /\\n' > Dockerfile").ok();
        let added = sandbox.sh("img-build -q --network none . > /dev/null");
        assert_eq!(added.status == 0, add.is_none(), "{shown}: {}", added.stderr);
        assert!(added.stderr.contains(add.as_deref().unwrap_or_default()), "{shown}: {}", added.stderr);
    }
}
