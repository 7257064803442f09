//! A layer is the same in both forms, directory and mounted image: each file, and each error.
#![allow(clippy::unwrap_used, missing_docs)]

mod seen;

use std::{
    fs::{self, File},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use archive::{Entry, Kind, Segment, Time, Writer};
use layer::apply::{Below, Limits, Options, Target, unpack};
use proptest::prelude::*;
use rustix::fs::{CWD, Mode, OFlags, openat};
use seen::walk;

/// Layers in both forms, lowest first.
struct Both {
    dir: tempfile::TempDir,
    directories: Vec<PathBuf>,
    images: Vec<PathBuf>,
}

impl Both {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        Self { dir: tempfile::tempdir().unwrap(), directories: Vec::new(), images: Vec::new() }
    }

    /// Unpacks one more layer on top. Both forms must succeed, or fail with the same message.
    fn add(&mut self, archive: &[u8], options: &Options) -> Result<(), String> {
        let number = self.directories.len();
        let directory = self.dir.path().join(format!("{number}.directory"));
        let image = self.dir.path().join(format!("{number}.erofs"));
        fs::create_dir(&directory).unwrap();
        let targets = [
            (Target::Directory(open(&directory)), &self.directories),
            (
                Target::Image(
                    File::create_new(&image).unwrap().into(),
                    oci::Digest::of(&number.to_le_bytes()),
                ),
                &self.images,
            ),
        ];
        let mut outcomes = targets.into_iter().map(|(target, below)| {
            let unpacked = unpack(archive, target, &Below::open(below).unwrap(), options);
            unpacked.map_err(|error| error.to_string())
        });
        let (as_directory, as_image) = (outcomes.next().unwrap(), outcomes.next().unwrap());
        drop(outcomes);
        assert_eq!(as_directory, as_image);
        as_directory?;
        let (expected, found) = (walk(&directory), mounted(&image, walk));
        assert!(expected.keys().eq(found.keys()), "{:?} or {:?}", expected.keys(), found.keys());
        for (path, line) in expected {
            assert_eq!(found[&path], line, "{path:?}");
        }
        self.directories.push(directory);
        self.images.push(image);
        Ok(())
    }
}

fn mounted<T>(image: &Path, look: impl FnOnce(&Path) -> T) -> T {
    let mount = mount::image(image).unwrap();
    look(&mount::resolve::proc_path(mount.as_fd()))
}

fn open(path: &Path) -> OwnedFd {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn archive(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.entry(entry).unwrap();
        writer.data(data).unwrap();
    }
    writer.finish().unwrap()
}

fn file(name: &str, size: usize) -> (Entry, Vec<u8>) {
    let data: Vec<u8> = (0..size).map(|at| (at * 31 + at / 256) as u8).collect();
    let (size, mode) = (size as u64, 0o644);
    (Entry { mode, size, stored: size, ..Entry::new(Kind::File, name) }, data)
}

fn special(kind: Kind, name: &str) -> (Entry, Vec<u8>) {
    (Entry { mode: 0o640, ..Entry::new(kind, name) }, Vec::new())
}

fn with_xattr(kind: Kind, name: &str, value: &[u8]) -> (Entry, Vec<u8>) {
    let xattrs = vec![(name.into(), value.into())];
    (Entry { xattrs, link: b"x".to_vec(), ..special(kind, "file").0 }, Vec::new())
}

const ACL: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Entries with all that an entry can say.
fn entries() -> Vec<(Entry, Vec<u8>)> {
    let say = |(entry, data): (Entry, Vec<u8>)| {
        let mtime = Time { seconds: 1_234_567_890, nanoseconds: 123_456_789 };
        (Entry { uid: 70_000, gid: 4_000_000_000, mtime, ..entry }, data)
    };
    let acl = (b"system.posix_acl_access".to_vec(), ACL.to_vec());
    let xattrs = vec![
        (b"security.capability".to_vec(), CAPABILITY.to_vec()),
        acl.clone(),
        (b"trusted.x".to_vec(), vec![1; 1000]),
        (b"user.bytes".to_vec(), vec![0, b'=', b'\n', 255]),
        (b"user.empty".to_vec(), Vec::new()),
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        (b"security.selinux".to_vec(), b"label".to_vec()),
        (b"system.cifs_acl".to_vec(), b"acl".to_vec()),
    ];
    let (sparse, _) = file("d/sparse", 0);
    let segments = vec![
        Segment { offset: 4096, length: 3 },
        Segment { offset: 70_000, length: 5000 },
        Segment { offset: 99_999, length: 1 },
    ];
    let sparse = Entry { size: 100_000, stored: 5004, sparse: Some(segments), ..sparse };
    let default = vec![(b"system.posix_acl_default".to_vec(), ACL.to_vec()), acl];
    let mut entries = vec![
        say((Entry { xattrs: default, mode: 0o3750, ..Entry::new(Kind::Directory, "d") }, Vec::new())),
        (Entry { xattrs, mode: 0o6755, ..file("d/all", 5000).0 }, file("d/all", 5000).1),
        say((Entry { device: (1, 3), ..special(Kind::CharDevice, "d/null").0 }, Vec::new())),
        say((Entry { device: (259, 70_000), ..special(Kind::BlockDevice, "d/disk").0 }, Vec::new())),
        say(special(Kind::Fifo, "d/fifo")),
        say((Entry { link: vec![b't'; 4000], ..special(Kind::Symlink, "d/long").0 }, Vec::new())),
        say((Entry { link: b"../d".to_vec(), ..special(Kind::Symlink, "d/short").0 }, Vec::new())),
        (Entry { mtime: Time { seconds: -5, nanoseconds: 1 }, ..file("d/old", 1).0 }, vec![b'x']),
        (sparse, vec![7; 5004]),
        (Entry { mode: 0o1777, ..Entry::new(Kind::Directory, "./") }, Vec::new()),
    ];
    for size in [0, 1, 3072, 3073, 4095, 4096, 4097, 8192, 50_000] {
        entries.push(say(file(&format!("d/{size}"), size)));
    }
    for name in [&b"caf\xe9 \xff\x01\n"[..], &[b'n'; 255], b" x ", b"!", b"...", b".!"] {
        entries.push((Entry { path: [b"d/", name].concat(), ..file("", 3).0 }, vec![1, 2, 3]));
    }
    // Many names in one directory.
    entries.extend((0..1000).map(|at| file(&format!("many/a file with a longer name, {at}"), at % 7)));
    entries
}

#[test]
fn all_that_an_entry_can_say() {
    let mut both = Both::new();
    both.add(&archive(&entries()), &Options::default()).unwrap();
    // Things that a layer takes from those below: attributes, symbolic links on the way, files to link to.
    let link = |name: &str, target: &str| {
        (Entry { link: target.into(), ..special(Kind::HardLink, name).0 }, Vec::new())
    };
    let second = [
        file("d/new/x", 10),
        file("d/short/y", 10),
        link("other/all", "d/all"),
        link("other/long", "d/long"),
        link("other/disk", "d/disk"),
        link("other/sparse", "d/sparse"),
        link("other/old", "d/old"),
        file(".wh..wh.plnk/1.2", 10),
        link("other/one", ".wh..wh.plnk/1.2"),
        link("other/two", ".wh..wh.plnk/1.2"),
        file("d/.wh.old", 0),
        file("many/.wh..wh..opq", 0),
    ];
    both.add(&archive(&second), &Options::default()).unwrap();
    let top = mounted(both.images.last().unwrap(), walk);
    // The ACL decides the permissions.
    assert!(top[Path::new("d")].starts_with("43644 70000:4000000000 0 1234567890.123456789 "));
    assert!(top[Path::new("d/old")].starts_with("20000 0:0 0"), "a whiteout");
    assert!(top[Path::new("other/old")].contains("1 links"), "{}", top[Path::new("other/old")]);
    assert!(top[Path::new("other/all")].contains("2 links, \"d/all\", 5000 bytes"));
    assert!(top[Path::new("many")].contains("trusted.overlay.opaque=y"));
    both.add(&archive(&[file(".wh..wh..opq", 0)]), &Options::default()).unwrap();
    assert!(
        mounted(both.images.last().unwrap(), walk).contains_key(Path::new("other")),
        "deleted one by one"
    );
}

#[test]
fn the_same_is_refused_in_the_same_words() {
    let link = |kind, target: Vec<u8>| (Entry { link: target, ..special(kind, "file").0 }, Vec::new());
    let acl = "system.posix_acl_access";
    for (entry, said) in [
        (file("../x", 1), "entry \"../x\": name with \"..\" that leads out of the root"),
        (file("a/.wh..", 0), "entry \"a/.wh..\": whiteout of no file"),
        (special(Kind::CharDevice, "file"), "character device 0:0 is a whiteout of overlayfs"),
        (file(&"n".repeat(256), 1), "name with a part longer than 255 bytes"),
        (special(Kind::Directory, &"n".repeat(256)), "name with a part longer than 255 bytes"),
        (file(&format!("{}/x", "n".repeat(256)), 1), "name with a part longer than 255 bytes"),
        (special(Kind::Fifo, &"n".repeat(256)), "name with a part longer than 255 bytes"),
        (link(Kind::Symlink, vec![b't'; 4096]), "symbolic link to a name longer than a path may be"),
        (link(Kind::Symlink, Vec::new()), "symbolic link to nothing"),
        (link(Kind::HardLink, b"missing".to_vec()), "hard link to \"missing\", which does not exist"),
        (link(Kind::HardLink, b"d".to_vec()), "hard link to \"d\", which is a directory"),
        (with_xattr(Kind::File, "user.", b"1"), "set attribute \"user.\": Invalid argument"),
        (with_xattr(Kind::Fifo, "security.", b"1"), "set attribute \"security.\": Invalid argument"),
        (with_xattr(Kind::File, "security.capability", b"bad"), "Invalid argument"),
        (with_xattr(Kind::File, "security.capability", b"\x01\0\0\x02 of 14 bytes"), "Invalid argument"),
        (with_xattr(Kind::Directory, "security.capability", &[0; 20]), "Invalid argument"),
        (with_xattr(Kind::File, acl, b"\x02"), "Invalid argument"),
        (with_xattr(Kind::File, acl, b"\x02\0\0\0\x01\0"), "Invalid argument"),
        (with_xattr(Kind::File, acl, b"\x03\0\0\0"), "Operation not supported"),
        (with_xattr(Kind::Symlink, acl, ACL), "Operation not supported"),
        (with_xattr(Kind::File, "system.posix_acl_default", ACL), "Permission denied"),
    ] {
        let refused = Both::new().add(&archive(&[special(Kind::Directory, "d"), entry]), &Options::default());
        let refused = refused.unwrap_err();
        assert!(refused.contains(said), "{refused}, not: {said}");
    }
    // An attribute that Linux has for no file of this kind is left out of both.
    for kept in [
        with_xattr(Kind::File, "other.x", b"1"),
        with_xattr(Kind::Symlink, "user.x", b"1"),
        with_xattr(Kind::Fifo, "user.x", b"1"),
    ] {
        Both::new().add(&archive(&[kept]), &Options::default()).unwrap();
    }
    let limited = |limits: Limits, devices| Options { limits, devices, ..Options::default() };
    for (options, said) in [
        (limited(Limits { entries: 4, ..Limits::default() }, true), "more than 4 entries"),
        (limited(Limits { size: 4000, ..Limits::default() }, true), "unpacked size exceeds 4000 bytes"),
        (limited(Limits::default(), false), "entry \"null\": device nodes are not allowed"),
    ] {
        let device = Entry { device: (1, 3), ..special(Kind::CharDevice, "null").0 };
        let entries = [file("a/b/c", 3000), file("d", 2000), (device, Vec::new())];
        let refused = Both::new().add(&archive(&entries), &options).unwrap_err();
        assert!(refused.contains(said), "{refused}, not: {said}");
    }
}

fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name = prop::sample::select(vec!["a", "b", "c", "l", ".wh.a", ".wh.b", ".wh..wh..opq"]);
    let parents = prop::collection::vec(prop::sample::select(vec!["a", "b", "l"]), 0..3);
    let target = prop::sample::select(vec!["a", "b", "a/b", "../a", "/b/a", "a/a/a", "l/c", "nowhere"]);
    let kind = prop::sample::select(vec![
        Kind::File,
        Kind::File,
        Kind::Directory,
        Kind::Directory,
        Kind::Symlink,
        Kind::HardLink,
        Kind::HardLink,
        Kind::Fifo,
    ]);
    let facts = (0..0o10000_u32, 0..3_u32, 0..4_000_000_000_i64, 0..1_000_000_000_u32, 0..9000_usize);
    (parents, name, target, kind, facts).prop_map(|(mut path, name, target, kind, facts)| {
        path.push(name);
        let (mode, owner, seconds, nanoseconds, size) = facts;
        let whiteout = name.starts_with(".wh.");
        let kind = if whiteout { Kind::File } else { kind };
        let (entry, data) = file(&path.join("/"), if kind == Kind::File && !whiteout { size } else { 0 });
        let mtime = Time { seconds, nanoseconds };
        (Entry { kind, mode, uid: owner, gid: owner, mtime, link: target.into(), ..entry }, data)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_entries(layers in prop::collection::vec(prop::collection::vec(entry(), 0..10), 1..4)) {
        let mut both = Both::new();
        for entries in &layers {
            if both.add(&archive(entries), &Options::default()).is_err() {
                break;
            }
        }
    }
}

#[test]
fn the_walk_sees_what_there_is() {
    let mut both = Both::new();
    both.add(&archive(&[file("a", 5)]), &Options::default()).unwrap();
    let seen = mounted(&both.images[0], walk);
    let content = oci::Digest::of(b"\x00\x1f>]|").hex().to_owned();
    assert_eq!(seen[Path::new("a")], format!("100644 0:0 0 0.000000000 1 links, \"a\", 5 bytes {content}"));
    assert_eq!(seen[Path::new("")], "40755 0:0 0 0.000000000");
    assert_eq!(seen.len(), 2);
}
