//! Odd names in archives: who stores layers and who unpacks them go by one rule (`archive::Target`), and say the same of the
//! same archive. So `img-load` takes no root file system that `layer-apply` would not unpack.
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
    // The entries, and what is wrong with them.
    for (entries, wrong) in [
        (vec![file("a/../b"), file("/c"), file("./d//e")], None),
        (vec![file("../x")], Some(format!("entry \"../x\": {out}"))),
        (vec![file("a/../../x")], Some(format!("entry \"a/../../x\": {out}"))),
        (
            vec![file("x"), link(Kind::HardLink, "y", "../../x")],
            Some(format!("entry \"y\": hard link to \"../../x\": {out}")),
        ),
        (vec![file("x"), link(Kind::HardLink, "y", "a/../x")], None),
        (vec![file(".")], Some("entry \".\": the root must be a directory".into())),
        (vec![file(&long)], Some("name longer than a path may be".into())),
        (vec![file(&part)], Some("name with a part longer than 255 bytes".into())),
        (vec![link(Kind::Symlink, "l", "../../../etc")], None),
        (vec![file("a/.wh.")], Some("entry \"a/.wh.\": whiteout of no file".into())),
        (vec![file(&format!(".wh.{}", &part[..255]))], None),
        (
            vec![link(Kind::HardLink, "y", ".wh.x")],
            Some("entry \"y\": hard link to \".wh.x\", which does not exist".into()),
        ),
        (
            vec![Entry::new(Kind::CharDevice, "n")],
            Some("entry \"n\": character device 0:0 is a whiteout of overlayfs".into()),
        ),
    ] {
        let archive = tar(&entries);
        let shown = format!("{:.80?}", entries[0].path.escape_ascii().to_string());

        let loaded = sandbox.sh_with("img-load -q -t rootfs -", &archive);
        let of_load = told(&loaded, "entry ");
        assert_eq!(of_load.is_some(), wrong.is_some(), "{shown}: {}", loaded.stderr);
        let wrong = wrong.unwrap_or_default();
        assert!(of_load.unwrap_or_default().contains(&wrong), "{shown}: {of_load:?}");

        sandbox.sh_with("img-load -q -t odd - > odd.json", &image(&archive)).ok();
        let applied = sandbox.sh("layer-apply --id odd < odd.json > /dev/null");
        sandbox.sh("unwind -q odd > /dev/null").ok();
        assert_eq!(told(&applied, "entry "), of_load, "{shown}");
    }
}
