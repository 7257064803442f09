//! layer-apply follows OCI image-spec, layer.md, exactly.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use archive::{Entry, Kind, Time};
use common::{Store, apply, archive, directory, file, gzip, list, tar};

#[test]
fn whiteouts_in_any_order() {
    let base = tar(&["etc/", "etc/a", "etc/b", "etc/d/", "etc/d/x", "etc/d/y"]);
    let cases: [(&[&str], &[&str]); 17] = [
        (&["etc/.wh.a"], &["etc/", "etc/a (wh)"]),
        // Whiteouts apply only to lower layers: files of the same layer stay.
        (&["etc/.wh.a", "etc/a"], &["etc/", "etc/a"]),
        (&["etc/a", "etc/.wh.a"], &["etc/", "etc/a"]),
        // A directory that is deleted and made again hides what is below.
        (&["etc/.wh.d", "etc/d/", "etc/d/z"], &["etc/", "etc/d/ (opaque)", "etc/d/z"]),
        (&["etc/d/", "etc/d/z", "etc/.wh.d"], &["etc/", "etc/d/ (opaque)", "etc/d/z"]),
        (&["etc/d/z", "etc/.wh.d"], &["etc/", "etc/d/ (opaque)", "etc/d/z"]),
        (&["etc/d/", "etc/d/.wh..wh..opq", "etc/d/z"], &["etc/", "etc/d/ (opaque)", "etc/d/z"]),
        (&["etc/d/", "etc/d/z", "etc/d/.wh..wh..opq"], &["etc/", "etc/d/ (opaque)", "etc/d/z"]),
        // An opaque directory leaves nothing to delete.
        (&["etc/d/.wh.x", "etc/d/.wh..wh..opq"], &["etc/", "etc/d/ (opaque)"]),
        // The same holds if no lower layer has the directory: the mount would show the whiteout.
        (&["new/.wh.x", "new/y"], &["new/", "new/y"]),
        // A whiteout does not keep its directory.
        (&["etc/.wh.d", "etc/d/.wh.x"], &["etc/", "etc/d (wh)"]),
        (&["etc/d/.wh.x", "etc/.wh.d"], &["etc/", "etc/d (wh)"]),
        (&["etc/d/e/f/.wh.x", "etc/.wh.d", "etc/d/.wh.y"], &["etc/", "etc/d (wh)"]),
        (&["etc/d/e/f", "etc/d/.wh.x", "etc/.wh.d"], &["etc/", "etc/d/ (opaque)", "etc/d/e/", "etc/d/e/f"]),
        // Only the name counts, whatever the entry is.
        (&["etc/.wh.a -> b", "etc/.wh.d/"], &["etc/", "etc/a (wh)", "etc/d (wh)"]),
        // No file can stand below such a name.
        (&["etc/.wh.d/", "etc/.wh.d/x", "etc/.wh.a/y"], &["etc/", "etc/d (wh)"]),
        // AUFS's own files do not belong to the layer. AUFS made whiteouts as hard links.
        (
            &[".wh..wh.aufs", ".wh..wh.plnk/", ".wh..wh.plnk/1.2", "etc/.wh.a => .wh..wh.aufs"],
            &["etc/", "etc/a (wh)"],
        ),
    ];
    for (names, expected) in cases {
        let directories = apply(&[base.clone(), tar(names)]);
        assert_eq!(list(&directories[1]), expected, "{names:?}");
    }
}

#[test]
fn whiteouts_that_are_more_than_names_are_told() {
    let layer = archive(&[file(".wh.a", b"data"), (directory(".wh.d/"), b""), file(".wh.d/x", b"data")]);
    let store = Store::new();
    let run = store.run(&store.image(&[(&tar(&["a", "d/"]), &tar(&["a", "d/"])), (&layer, &layer)]), &["-v"]);
    assert_eq!(list(&run.directories()[1]), ["a (wh)", "d (wh)"]);
    for said in
        [": used 2 whiteouts that are not empty files\n", ": left out 1 entries below names of whiteouts\n"]
    {
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
}

/// AUFS kept a file with several names in a directory of its own. The names are hard links to it.
#[test]
fn files_that_aufs_kept_aside() {
    for names in [
        &[".wh..wh.plnk/", ".wh..wh.plnk/93.12", "b => .wh..wh.plnk/93.12", "c => ./.wh..wh.plnk/93.12"][..],
        &["c => .wh..wh.plnk/93.12", ".wh..wh.plnk/93.12", "b => c", ".wh..wh.plnk/unused"],
    ] {
        let applied = apply(&[tar(names)]);
        assert_eq!(list(&applied[0]), ["b", "c"], "{names:?}");
        assert_eq!(fs::read(applied[0].join("b")).unwrap(), b".wh..wh.plnk/93.12");
        assert_eq!(fs::metadata(applied[0].join("c")).unwrap().nlink(), 2, "{names:?}");
    }
    let refused = Store::new().refuse(&[tar(&["b => .wh..wh.plnk/1.1"])], &[]);
    assert_eq!(refused, r#"entry "b": hard link to ".wh..wh.plnk/1.1", which does not exist"#);
}

#[test]
fn whiteouts_at_the_root() {
    let store = Store::new();
    let base = tar(&["a", "b/", "b/x", "c"]);
    let directories = store.apply(&[base.clone(), tar(&[".wh.a"])]);
    assert_eq!(list(&directories[1]), ["a (wh)"]);
    // overlayfs ignores attributes of the root, so each name is deleted.
    let directories = store.apply(&[base, tar(&["b/", "b/z", ".wh..wh..opq"])]);
    assert_eq!(list(&directories[1]), ["a (wh)", "b/ (opaque)", "b/z", "c (wh)"]);
    let directories = store.apply(&[tar(&[".wh.a", ".wh..wh..opq", "x"])]);
    assert_eq!(list(&directories[0]), ["x"], "there is nothing below the lowest layer");
}

const TIME: Time = Time { seconds: 1_234_567_890, nanoseconds: 123_456_789 };

/// Entries with everything that an entry can say, and their content.
fn entries() -> Vec<(Entry, &'static [u8])> {
    let say = |kind, name: &str, mode| Entry {
        mode,
        uid: 70_000,
        gid: 4_000_000_000,
        mtime: TIME,
        ..Entry::new(kind, name)
    };
    // The attribute for capabilities has a fixed form: version 2, cap_net_bind_service.
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff".to_vec();
    let xattrs = vec![
        (b"security.capability".to_vec(), capability),
        (b"system.posix_acl_access".to_vec(), acl.clone()),
        (b"user.bytes".to_vec(), vec![0, b'=', b'\n', 255]),
    ];
    vec![
        (
            Entry {
                xattrs: vec![
                    (b"system.posix_acl_default".to_vec(), acl),
                    (b"user.d".to_vec(), b"1".to_vec()),
                ],
                ..say(Kind::Directory, "d/", 0o3711)
            },
            b"",
        ),
        (Entry { xattrs, stored: 2, size: 2, ..say(Kind::File, "d/suid", 0o4644) }, b"ab"),
        (say(Kind::File, "d/sgid", 0o2555), b""),
        (say(Kind::File, "d/none", 0), b""),
        (Entry { link: b"anywhere".to_vec(), ..say(Kind::Symlink, "d/link", 0o777) }, b""),
        (say(Kind::Fifo, "d/fifo", 0o622), b""),
        (Entry { device: (1, 3), ..say(Kind::CharDevice, "d/null", 0o666) }, b""),
        (Entry { device: (259, 70_000), ..say(Kind::BlockDevice, "d/disk", 0o660) }, b""),
        (
            Entry {
                mtime: Time { seconds: -5, nanoseconds: 250_000_000 },
                atime: Some(TIME),
                ..say(Kind::File, "d/old", 0o600)
            },
            b"",
        ),
        (say(Kind::Directory, "./", 0o1777), b""),
    ]
}

#[test]
fn everything_an_entry_says() {
    let entries = entries();
    let applied = apply(&[archive(&entries)]);
    let directory = &applied[0];
    for (entry, _) in &entries {
        let path = directory.join(std::str::from_utf8(&entry.path).unwrap());
        let status = fs::symlink_metadata(&path).unwrap();
        assert_eq!((status.uid(), status.gid()), (70_000, 4_000_000_000), "{path:?}");
        assert_eq!(status.mode() & 0o7777, entry.mode, "{path:?}");
        assert_eq!(
            (status.mtime(), status.mtime_nsec() as u32),
            (entry.mtime.seconds, entry.mtime.nanoseconds),
            "{path:?}"
        );
        let device = (rustix::fs::major(status.rdev()), rustix::fs::minor(status.rdev()));
        assert_eq!(device, entry.device);
        for (name, value) in &entry.xattrs {
            let mut found = [0; 100];
            let length = rustix::fs::lgetxattr(&path, &name[..], &mut found[..]).unwrap();
            assert_eq!(&found[..length], value, "{}", name.escape_ascii());
        }
    }
    let mut names = [0; 100];
    assert_eq!(
        rustix::fs::llistxattr(directory.join("d/none"), &mut names[..]).unwrap(),
        0,
        "no ACL is inherited"
    );
    assert_eq!(fs::metadata(directory.join("d/old")).unwrap().atime(), TIME.seconds);
}

#[test]
fn attributes_that_speak_to_overlayfs_are_left_out() {
    // Attributes of another system, for which Linux has no namespace, are left out as well.
    let xattrs = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "security.selinux",
        "system.nfs4_acl",
        "system.cifs_acl",
        "com.apple.provenance",
    ];
    let xattrs = xattrs.map(|name| (name.as_bytes().to_vec(), b"y".to_vec())).to_vec();
    let layer = archive(&[(Entry { xattrs, ..directory("d/") }, b"")]);
    let directories = apply(&[tar(&["d/", "d/x"]), layer.clone()]);
    let store = Store::new();
    let told = store.run(&store.image(&[(&layer, &layer)]), &["-v"]).stderr;
    assert!(told.contains(": left out 7 extended attributes of other systems\n"), "{told}");
    let mut names = [0; 100];
    assert_eq!(rustix::fs::llistxattr(directories[1].join("d"), &mut names[..]).unwrap(), 0);
}

#[test]
fn repeated_and_replaced_entries() {
    let cases: [(&[&str], &[&str]); 8] = [
        (&["a", "a"], &["a"]),
        (&["a -> x", "a"], &["a"]),
        (&["a/", "a/b/", "a/b/c", "a"], &["a"]),
        // The file hid the content of the directory below it, and the directory is a new one.
        (&["d", "d/", "d/y"], &["d/ (opaque)", "d/y"]),
        (&["a/", "a/b", "a/"], &["a/", "a/b"]),
        (&["a/b", "a/"], &["a/", "a/b"]),
        (&["a -> /tmp", "a/"], &["a/ (opaque)"]),
        (&["a", "b => a", "a => b"], &["a", "b"]),
    ];
    for (names, expected) in cases {
        let directories = apply(&[tar(&["d/", "d/x"]), tar(names)]);
        assert_eq!(list(&directories[1]), expected, "{names:?}");
    }
    let twice = archive(&[file("a", b"first, and longer"), file("a", b"second")]);
    assert_eq!(fs::read(apply(&[twice])[0].join("a")).unwrap(), b"second");
}

#[test]
fn parents_that_the_archive_does_not_list_are_as_below() {
    let time = Time { seconds: 1_000_000_000, nanoseconds: 5 };
    let xattrs = vec![(b"user.k".to_vec(), b"v".to_vec())];
    let below = |name: &str, mode| Entry {
        mode,
        uid: 7,
        gid: 8,
        mtime: time,
        xattrs: xattrs.clone(),
        ..directory(name)
    };
    let base = archive(&[(below("./", 0o711), b""), (below("a/", 0o700), b""), (below("a/b/", 0o1777), b"")]);
    let middle = archive(&[(Entry { mode: 0o750, ..below("a/", 0o750) }, b"")]);
    let store = Store::new();
    let directories = store.apply(&[base.clone(), middle, tar(&["a/b/c/f"])]);
    for (path, mode, owner) in [("", 0o711, 7), ("a", 0o750, 7), ("a/b", 0o1777, 7), ("a/b/c", 0o755, 0)] {
        let path = directories[2].join(path);
        let status = fs::metadata(&path).unwrap();
        assert_eq!((status.mode() & 0o7777, status.uid()), (mode, owner), "{path:?}");
        if owner == 7 {
            assert_eq!((status.mtime(), status.mtime_nsec()), (1_000_000_000, 5), "{path:?}");
            assert_eq!(rustix::fs::lgetxattr(&path, "user.k", &mut [0_u8; 8][..]).unwrap(), 1);
        }
    }
    // If the directory is deleted first, nothing is taken from below.
    let directories = store.apply(&[base, tar(&[".wh.a", "a/f"])]);
    assert_eq!(fs::metadata(directories[1].join("a")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn parents_that_are_links_lead_inside() {
    let cases: [(&[&str], &[&str], &[&str]); 6] = [
        (&["usr/lib/", "lib -> usr/lib"], &["lib/x"], &["usr/", "usr/lib/", "usr/lib/x"]),
        (&["usr/lib/", "lib -> /usr/lib"], &["lib/x"], &["usr/", "usr/lib/", "usr/lib/x"]),
        (&["etc/"], &["l -> ../../../../tmp", "l/x"], &["l -> ../../../../tmp", "tmp/", "tmp/x"]),
        (
            &["etc/"],
            &["l -> /proc/self/root", "l/x"],
            &["l -> /proc/self/root", "proc/", "proc/self/", "proc/self/root/", "proc/self/root/x"],
        ),
        // An entry for the name itself makes it a directory.
        (&["usr/lib/", "lib -> usr/lib"], &["lib/", "lib/x"], &["lib/", "lib/x"]),
        (&["usr/lib/", "lib -> usr/lib"], &[".wh.lib", "lib/x"], &["lib/ (opaque)", "lib/x"]),
    ];
    for (below, names, expected) in cases {
        let directories = apply(&[tar(below), tar(names)]);
        assert_eq!(list(&directories[1]), expected, "{names:?}");
    }
}

#[test]
fn hard_links() {
    let store = Store::new();
    let base =
        archive(&[file("etc/target", b"content"), (Entry { mode: 0o700, uid: 3, ..directory("etc/") }, b"")]);
    let directories =
        store.apply(&[base, tar(&["a/x", "a/y => a/x", "late => comes", "comes", "etc2/l => etc/target"])]);
    let same = |root: &Path, a: &str, b: &str| {
        fs::metadata(root.join(a)).unwrap().ino() == fs::metadata(root.join(b)).unwrap().ino()
    };
    assert!(same(&directories[1], "a/x", "a/y"));
    assert!(same(&directories[1], "late", "comes"));
    // The target is in the layer below. Both names appear in this layer.
    assert!(same(&directories[1], "etc2/l", "etc/target"));
    assert_eq!(fs::read(directories[1].join("etc2/l")).unwrap(), b"content");
    assert_eq!(fs::metadata(directories[1].join("etc")).unwrap().uid(), 3);
    let links = tar(&["l -> nowhere", "m => l"]);
    assert_eq!(list(&store.apply(&[links])[0]), ["l -> nowhere", "m -> nowhere"]);
}

/// A hard link to a file below copies that file into this layer. A whiteout of the file still deletes it.
#[test]
fn deleted_files_that_were_linked_to() {
    let base = tar(&["a", "d/", "d/a", "d/e/", "d/e/a", "s -> a"]);
    let cases: [(&[&str], &[&str]); 12] = [
        (&["b => a", ".wh.a"], &["a (wh)", "b"]),
        (&["b => a", "c => a", ".wh.a"], &["a (wh)", "b", "c"]),
        (&["b => s", ".wh.s"], &["b -> a", "s (wh)"]),
        (&["b => d/a", "d/.wh.a"], &["b", "d/", "d/a (wh)"]),
        (&["b => d/e/a", ".wh.d"], &["b", "d (wh)"]),
        (&["b => d/e/a", ".wh.d", "d/x"], &["b", "d/ (opaque)", "d/x"]),
        (&["d/", "b => d/a", ".wh.d"], &["b", "d/ (opaque)"]),
        (&["b => d/a", "d/.wh..wh..opq", "d/x"], &["b", "d/ (opaque)", "d/x"]),
        (&["b => a", ".wh..wh..opq"], &["a (wh)", "b", "d (wh)", "s (wh)"]),
        // What an entry names belongs to this layer.
        (&["b => a", "a", ".wh.a"], &["a", "b"]),
        (&["b => a", "a => b", ".wh.a"], &["a", "b"]),
        (&["b => d/a", "d/a => d/a", ".wh.d"], &["b", "d/ (opaque)", "d/a"]),
    ];
    for (names, expected) in cases {
        let directories = apply(&[base.clone(), tar(names)]);
        assert_eq!(list(&directories[1]), expected, "{names:?}");
        if expected.contains(&"b") {
            assert!(fs::read(directories[1].join("b")).unwrap().ends_with(b"a"), "{names:?}");
        }
    }
}

#[test]
fn long_and_odd_names() {
    let names: [&[u8]; 4] =
        [&[b'n'; 255], b"caf\xe9 \xff\x01\n", "ünïcödé".as_bytes(), b" leading and trailing "];
    let deep = vec![&b"abcdefghi"[..]; 350].join(&b'/');
    let mut entries: Vec<(Entry, &[u8])> =
        names.iter().map(|name| (Entry::new(Kind::File, *name), &b""[..])).collect();
    entries.push((Entry::new(Kind::File, deep.clone()), b""));
    entries.push((Entry { link: vec![b't'; 3000], ..Entry::new(Kind::Symlink, "link") }, b""));
    let applied = apply(&[archive(&entries)]);
    let directory = &applied[0];
    for name in names.iter().copied().chain([&deep[..]]) {
        let path = directory.join(std::ffi::OsStr::from_bytes(name));
        assert!(fs::symlink_metadata(&path).is_ok(), "{path:?}");
    }
    assert_eq!(fs::read_link(directory.join("link")).unwrap().as_os_str().len(), 3000);
}

#[test]
fn every_compression_and_the_wrong_media_type() {
    let plain = tar(&["a/", "a/b"]);
    let (first, second) = plain.split_at(700);
    let members = [gzip(first), gzip(second)].concat();
    for blob in [plain.clone(), gzip(&plain), members, zstd::bulk::compress(&plain, 3).unwrap()] {
        let store = Store::new();
        // All descriptors say gzip.
        let run = store.run(&store.image(&[(&blob, &plain)]), &[]);
        assert_eq!(run.stderr, "");
        assert_eq!(list(&run.directories()[0]), ["a/", "a/b"]);
    }
}

/// Archives that docker, containerd and umoci all unpack: after the end of an archive, data only count for
/// the digest.
#[test]
fn ends_of_archives() {
    let plain = tar(&["a/", "a/b"]);
    let behind = tar(&["stargz.index.json"]);
    let last = plain.len() - 1024;
    let xattrs = vec![(b"user.x".to_vec(), b"1".to_vec())];
    let extended = archive(&[(Entry { xattrs, ..directory("c/") }, b"")]);
    for archive in [
        // An extended header, and no entry that it is for.
        [&plain[..last], &extended[..1024], &[0; 1024]].concat(),
        // estargz: its table of contents is a separate tar.
        [&plain[..], &behind].concat(),
        [&plain[..], b"tail"].concat(),
        // The end may be one block or missing, even with the zeros that fill the last entry's block.
        plain[..last + 512].to_vec(),
        plain[..last].to_vec(),
        plain[..last - 500].to_vec(),
    ] {
        let directories = apply(&[archive]);
        assert_eq!(list(&directories[0]), ["a/", "a/b"]);
    }
    let tail = [&plain[..], b"\0\0tail"].concat();
    let store = Store::new();
    let told = store.run(&store.image(&[(&tail, &tail)]), &["-v"]).stderr;
    let at = plain.len() + 2;
    assert!(told.contains(&format!(": ignored data after the end of the archive at byte {at}\n")), "{told}");
}

/// Before POSIX, a name with a slash at its end was a directory's. An entry with data is a file all the same.
#[test]
fn names_with_a_slash_at_their_end() {
    let applied = apply(&[archive(&[file("a/", b"data"), file("d/", b"")])]);
    assert_eq!(list(&applied[0]), ["a", "d/"]);
    assert_eq!(fs::read(applied[0].join("a")).unwrap(), b"data");
}

#[test]
fn an_empty_layer_and_an_image_without_layers() {
    let store = Store::new();
    assert!(list(&store.apply(&[tar(&[])])[0]).is_empty());
    assert!(store.apply(&[]).is_empty());
}
