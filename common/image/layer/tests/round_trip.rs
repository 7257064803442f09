//! Archive → directory → archive → directory: nothing is lost, and the bytes stay the same from then on.
#![allow(clippy::unwrap_used, missing_docs)]

mod seen;

use std::{fs, os::fd::AsFd, path::Path};

use archive::{Entry, Kind, Time, Writer};
use layer::{
    apply::{Below, Options, Target, unpack},
    compression::Compression,
    diff,
};
use proptest::prelude::*;
use rustix::fs::{CWD, Mode, OFlags, openat};

fn open(path: &Path) -> std::os::fd::OwnedFd {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn apply(archive: &[u8], target: &Path, below: &[&Path]) {
    fs::create_dir(target).unwrap();
    let below = Below::open(below).unwrap();
    unpack(archive, Target::Directory(open(target)), &below, &Options::default()).unwrap();
}

fn diff(upper: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    let options = diff::Options { compression: Compression::None, ..Default::default() };
    diff::upper(open(upper).as_fd(), &mut out, &options).unwrap();
    out
}

fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let part = prop::sample::select(vec!["a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq"]);
    let directories = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 0..3);
    let kind =
        prop::sample::select(vec![Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::CharDevice]);
    let xattrs = prop::collection::btree_map("user\\.[a-c]", prop::collection::vec(any::<u8>(), 0..9), 0..2);
    let facts = (0..0o10000_u32, 0..3_u32, 0..4_000_000_000_i64, 0..1_000_000_000_u32);
    (directories, part, kind, facts, xattrs, prop::collection::vec(any::<u8>(), 0..2000)).prop_map(
        |(mut path, part, mut kind, (mode, owner, seconds, nanoseconds), xattrs, mut data)| {
            path.push(part);
            if part.starts_with(".wh.") {
                kind = Kind::File;
                data.clear();
            }
            let file = kind == Kind::File;
            if !file {
                data.clear();
            }
            // The kernel allows user attributes only on files and directories.
            let keeps = file || kind == Kind::Directory;
            let xattrs = xattrs.into_iter().filter(|_| keeps).map(|(name, value)| (name.into_bytes(), value));
            let size = data.len() as u64;
            let entry = Entry {
                mode,
                uid: owner,
                gid: owner,
                mtime: Time { seconds, nanoseconds },
                link: if kind == Kind::Symlink { b"nowhere".to_vec() } else { Vec::new() },
                device: if kind == Kind::CharDevice { (1, 3) } else { (0, 0) },
                xattrs: xattrs.collect(),
                size,
                stored: size,
                ..Entry::new(kind, path.join("/"))
            };
            (entry, data)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost(entries in prop::collection::vec(entry(), 0..12)) {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        for name in ["a/a/a", "a/b", "b/a", "c"] {
            fs::create_dir_all(base.join(name)).unwrap();
            fs::write(base.join(name).join("f"), "x").unwrap();
        }
        let mut writer = Writer::new(Vec::new());
        for (entry, data) in &entries {
            writer.entry(entry).unwrap();
            writer.data(data).unwrap();
        }
        let archive = writer.finish().unwrap();
        let first = dir.path().join("first");
        fs::create_dir(&first).unwrap();
        let below = Below::open(&[&base]).unwrap();
        // A file among the parents of a later entry is an error. Such an archive is skipped.
        if unpack(&archive[..], Target::Directory(open(&first)), &below, &Options::default()).is_err() {
            return Ok(());
        }
        let written = diff(&first);
        let second = dir.path().join("second");
        apply(&written, &second, &[&base]);
        prop_assert_eq!(seen::walk(&first), seen::walk(&second));
        prop_assert!(diff(&second) == written);
    }
}
