//! The same layers, unpacked by other programs: GNU tar for one layer, umoci for several.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{fs, path::Path, process::Command};

use common::{Store, tar};
use serde_json::json;

fn sh(directory: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    // A name that is not UTF-8 is compared by its valid part.
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A tree with most types of content.
const TREE: &str = r"
    mkdir -p t/etc/deep/er t/bin t/empty; cd t
    echo content > etc/file; ln etc/file bin/hard; ln -s ../etc/file bin/soft; ln -s /nowhere dangling
    mkfifo pipe; mknod null c 1 3; mknod disk b 8 1; truncate -s 5M sparse; echo end >> sparse
    dd if=/dev/urandom of=sparse bs=4k seek=300 count=3 conv=notrunc status=none
    for n in $(seq 300); do echo $n > etc/deep/er/f$n; done
    n=$(printf 'long%.0s' $(seq 50)); mkdir -p $n/$n; echo x > $n/$n/$n; ln -s $n/$n/$n to-long; ln $n/$n/$n hard-long
    printf x > $(printf 'caf\351')
    chmod 4755 bin/hard; chmod 2711 etc; chmod 1777 empty; chmod 0 etc/deep/er/f1; chown 70000:3000000 etc/deep/er/f2
    setfattr -n user.k -v 0x00ff0a3d etc/deep; setcap cap_net_raw+ep etc/deep/er/f3
    touch -d '1969-12-31 23:59:58.25 UTC' etc/deep/er/f4; touch -d '2100-01-01 00:00:00.123456789' etc/deep/er/f5
    touch -d @1000000000 etc bin empty .";

/// Everything that tar shows of a tree, except for the root's own time.
fn picture(directory: &Path) -> String {
    sh(
        directory,
        "tar --sort=name --numeric-owner --format=pax --xattrs --xattrs-include='*' \
        --pax-option=exthdr.name=%d/%f,delete=atime,delete=ctime -cf - $(ls -A) | sha256sum",
    )
}

#[test]
fn every_format_of_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    sh(dir.path(), TREE);
    let all = "--xattrs --xattrs-include='*' --format=pax";
    for (options, exact) in [
        (all.to_owned(), true),
        (format!("{all} --sparse --sparse-version=0.0"), true),
        (format!("{all} --sparse --sparse-version=0.1"), true),
        (format!("{all} --sparse --sparse-version=1.0"), true),
        (format!("{all} --sort=name ./etc ."), true),
        ("--format=gnu".into(), false),
        ("--format=gnu --sparse".into(), false),
    ] {
        let what = if options.ends_with(" .") { "" } else { "." };
        sh(dir.path(), &format!("tar -C t --numeric-owner -cf t.tar {options} {what}"));
        let archive = fs::read(dir.path().join("t.tar")).unwrap();
        let store = Store::new();
        let ours = &store.apply(&[archive])[0];
        sh(
            dir.path(),
            "rm -rf peer; mkdir peer; tar -C peer --numeric-owner --xattrs --xattrs-include='*' -xpf t.tar",
        );
        assert_eq!(picture(ours), picture(&dir.path().join("peer")), "{options}");
        if exact {
            assert_eq!(picture(ours), picture(&dir.path().join("t")), "{options}");
        }
        if options.contains("sparse") {
            let blocks = |path: &Path| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap());
            assert!(blocks(&ours.join("sparse")) < 200, "{options}");
        }
    }
}

/// Lists what is in a directory. umoci gives unlisted parents the current time, so times of directories are left out.
const LIST: &str = "find . -mindepth 1 \\( -type d -printf '%p %y %m %U %G\\n' -o -printf '%p %y %m %U %G %T@ %s %l\\n' \\) | LC_ALL=C sort;
        find . -type f -exec sha256sum {} + | LC_ALL=C sort";

#[test]
fn what_umoci_makes_of_several_layers() {
    let dir = tempfile::tempdir().unwrap();
    sh(dir.path(), TREE);
    sh(
        dir.path(),
        "tar -C t --numeric-owner --xattrs --xattrs-include='*' --format=pax --sort=name -cf t.tar .",
    );
    let layers = [
        fs::read(dir.path().join("t.tar")).unwrap(),
        tar(&[
            "etc/",
            "etc/.wh.file",
            "etc/deep/",
            "etc/deep/.wh..wh..opq",
            "etc/deep/new",
            "empty",
            ".wh.null",
        ]),
        tar(&["usr/lib/", "lib -> usr/lib", "bin/", "bin/x", "bin/y => bin/x", "pipe/", "pipe/z"]),
        tar(&["lib/through-the-link", "bin/.wh.x", "bin/w => bin/soft"]),
    ];
    let store = Store::new();
    let blobs: Vec<(&[u8], &[u8])> = layers.iter().map(|layer| (&layer[..], &layer[..])).collect();
    let mut document = store.image(&blobs);
    let directories = store.run(&document, &[]).directories();
    // umoci relies on the media type, which is correct here.
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| store.layout.write_blob(oci::spec::MediaType::ImageLayer, layer).unwrap())
        .collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| oci::Digest::of(layer).to_string()).collect();
    document = store.image_of(&descriptors, &diff_ids);
    let mut named = document["image"]["descriptor"].clone();
    named["annotations"] = json!({"org.opencontainers.image.ref.name": "t"});
    let index = json!({"schemaVersion": 2, "manifests": [named]});
    fs::write(store.layout.path().join("index.json"), index.to_string()).unwrap();
    let bundle = dir.path().join("bundle");
    sh(
        dir.path(),
        &format!("umoci unpack --image {}:t {} 2>&1", store.layout.path().display(), bundle.display()),
    );
    let lower: Vec<_> = directories.iter().rev().map(|path| path.display().to_string()).collect();
    let merged = dir.path().join("merged");
    fs::create_dir(&merged).unwrap();
    let ours = sh(
        dir.path(),
        &format!(
            "unshare -m sh -ec \"mount -t overlay overlay -o ro,lowerdir={} merged; cd merged; exec sh -s\" <<'E'\n{LIST}\nE",
            lower.join(":")
        ),
    );
    let theirs = sh(&bundle.join("rootfs"), LIST);
    let differences: Vec<_> = ours
        .lines()
        .filter(|line| !theirs.contains(line))
        .chain(theirs.lines().filter(|line| !ours.contains(line)))
        .collect();
    assert_eq!(differences, [""; 0]);
}
