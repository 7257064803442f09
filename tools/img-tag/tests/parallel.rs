//! Many writers of one store at the same time, including skopeo: no name and no blob gets lost.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use testkit::{Sandbox, file, rootfs};

#[test]
fn twenty_tags_and_loads_and_skopeo_at_once() {
    let sandbox = Sandbox::new();
    for n in 0..20 {
        let archive = rootfs(|tree| file(tree, "etc/name", 0o644, format!("{n}").as_bytes()));
        fs::write(sandbox.directory().join(format!("{n}.tar")), archive).unwrap();
    }
    // A layer that takes skopeo some time, so that others write between its reading and its writing of
    // index.json.
    let large = rootfs(|tree| file(tree, "large", 0o644, &vec![7; 8 << 20]));
    sandbox.sh_with("img-load -q -t base - > /dev/null", &large).ok();
    let store = "oci:$STAVE_ROOT/images";
    sandbox.sh(&format!("skopeo copy -q {store}:docker.io/library/base:latest oci:other:base")).ok();
    sandbox
        .sh(&format!(
            "for n in $(seq 0 19); do
                (img-load -q -t localhost/loaded:$n $n.tar > /dev/null || touch failed) &
                (img-tag -q base localhost/tagged:$n > /dev/null || touch failed) &
            done
            for n in $(seq 0 4); do
                skopeo copy -q oci:other:base {store}:localhost/skopeo:$n || touch failed
                img-tag base localhost/between:$n > /dev/null
            done
            wait; test ! -e failed"
        ))
        .ok();
    let images = sandbox.sh("img-ls").json();
    let names: BTreeSet<String> = images["images"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|image| image["references"].as_array().unwrap())
        .map(|name: &Value| name.as_str().unwrap().to_owned())
        .collect();
    let mut expected: BTreeSet<String> = ["base:latest".to_owned()].into();
    for (kind, count) in [("loaded", 20), ("tagged", 20), ("skopeo", 5), ("between", 5)] {
        expected.extend((0..count).map(|n| format!("localhost/{kind}:{n}")));
    }
    assert_eq!(expected.difference(&names).collect::<Vec<_>>(), Vec::<&String>::new(), "lost");
    assert_eq!(names, expected);
    // Everything with a name is complete, also for skopeo.
    sandbox.sh("img-gc -q --grace 0 > /dev/null").ok();
    sandbox
        .sh(&format!(
            "for n in $(seq 0 19); do
                img-save localhost/loaded:$n | tar t > /dev/null || exit 1
            done
            skopeo inspect {store}:localhost/skopeo:0 > /dev/null"
        ))
        .ok();
}

/// skopeo writes `index.json` and `oci-layout` in place, umoci replaces them with its own files, and neither
/// takes a lock. As long as only one of them runs at a time, they lose nothing of Stave's, Stave loses
/// nothing of theirs, and a reader in between finds its images.
#[test]
fn skopeo_and_umoci_between_tags_and_removals() {
    let sandbox = Sandbox::new();
    let archive = rootfs(|tree| file(tree, "etc/name", 0o644, b"a"));
    sandbox.sh_with("img-load -q -t base - > /dev/null", &archive).ok();
    sandbox
        .sh("base=$STAVE_ROOT/images:docker.io/library/base:latest
            (for n in $(seq 0 2 18); do
                skopeo copy -q oci:$base oci:$STAVE_ROOT/images:theirs:$n || echo skopeo $n >> failed
                umoci tag --image $base theirs:$((n + 1)) || echo umoci $n >> failed
            done; touch done) &
            (while test ! -e done; do n=$((n + 1)); img-tag base ours:$n > /dev/null || echo tag $n >> failed; done
                echo $n > count) &
            while test ! -e done; do
                n=$((n + 1))
                img-tag base gone:$n > /dev/null && img-rm -q gone:$n > /dev/null || echo remove $n >> failed
            done
            wait; test ! -e failed || { cat failed >&2; exit 1; }")
        .ok();
    let names = sandbox.sh("img-ls | jq -r '.images[].references[]'").ok();
    let names: BTreeSet<&str> = names.lines().collect();
    let count: usize = fs::read_to_string(sandbox.directory().join("count")).unwrap().trim().parse().unwrap();
    let expected = (0..20).map(|n| format!("theirs:{n}")).chain((1..=count).map(|n| format!("ours:{n}")));
    assert_eq!(expected.filter(|name| !names.contains(&**name)).collect::<Vec<_>>(), [""; 0], "lost");
}

#[test]
fn a_name_that_skopeo_overwrote_with_an_older_list_comes_back() {
    let sandbox = Sandbox::new();
    let archive = rootfs(|tree| file(tree, "etc/name", 0o644, b"a"));
    sandbox.sh_with("img-load -q -t base - > /dev/null", &archive).ok();
    let index = sandbox.root().join("images/index.json");
    let old: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    sandbox.sh("img-tag base mine > /dev/null").ok();
    // Acts like a skopeo that started earlier: writes the old list in place, with its own image added.
    let mut theirs = old.clone();
    let mut entry = theirs["manifests"][0].clone();
    entry["annotations"]["org.opencontainers.image.ref.name"] = "theirs".into();
    theirs["manifests"].as_array_mut().unwrap().push(entry);
    fs::write(&index, theirs.to_string()).unwrap();
    let listed = || sandbox.sh("img-ls | jq -c '[.images[].references[]]'").ok();
    assert_eq!(listed(), "[\"base:latest\",\"theirs:latest\",\"mine:latest\"]\n");
    sandbox.sh("timeout 10 img-gc -q --grace 0 > /dev/null && img-inspect mine > /dev/null").ok();
    sandbox.sh("img-tag base other > /dev/null").ok();
    let written: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    assert_eq!(written["manifests"].as_array().unwrap().len(), 4);
    // If another program removes a name and adds none, the removal is intended.
    sandbox.sh("umoci rm --image $STAVE_ROOT/images:docker.io/library/mine:latest").ok();
    assert_eq!(listed(), "[\"base:latest\",\"theirs:latest\",\"other:latest\"]\n");
}

#[test]
fn a_name_that_skopeo_moved_back_is_where_we_moved_it() {
    let sandbox = Sandbox::new();
    for name in ["one", "two"] {
        let archive = rootfs(|tree| file(tree, "etc/name", 0o644, name.as_bytes()));
        sandbox.sh_with(&format!("img-load -q -t {name} - > /dev/null"), &archive).ok();
    }
    let digest =
        |name: &str| sandbox.sh(&format!("img-inspect {name} | jq -r .image.descriptor.digest")).ok();
    let index = sandbox.root().join("images/index.json");
    sandbox.sh("img-tag one app > /dev/null").ok();
    let mut old: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    sandbox.sh("img-tag two app > /dev/null").ok();
    // If another program writes exactly the old list back, that is intended.
    let moved = fs::read(&index).unwrap();
    fs::write(&index, old.to_string()).unwrap();
    assert_eq!(digest("app"), digest("one"));
    fs::write(&index, &moved).unwrap();
    assert_eq!(digest("app"), digest("two"));
    // An addition to the old list is not intended to remove anything.
    let mut entry = old["manifests"][0].clone();
    entry["annotations"]["org.opencontainers.image.ref.name"] = "theirs".into();
    old["manifests"].as_array_mut().unwrap().push(entry);
    fs::write(&index, old.to_string()).unwrap();
    assert_eq!((digest("app"), digest("theirs")), (digest("two"), digest("one")));
    // A name that Stave removed comes back with such a list: in doubt, an image keeps its name.
    sandbox.sh("img-rm -q theirs app > /dev/null").ok();
    old["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "new".into();
    fs::write(&index, old.to_string()).unwrap();
    assert_eq!(digest("theirs"), digest("one"));
}
