//! Writes images and reads them with the kernel and fsck.erofs.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A broken fixture is a failed test.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use erofs::{Attributes, Directory, Entry, Error, Kind, Summary, Time, Writer};

fn write(path: &Path, make: impl Fn(&mut Writer)) -> Summary {
    let mut writer = Writer::new(File::create_new(path).unwrap().into());
    writer.set_attributes(Directory::ROOT, attributes(0o755));
    make(&mut writer);
    writer.finish(*b"stave-erofs-test").unwrap()
}

/// A temporary image, and the root of its mount.
struct Mounted {
    _dir: tempfile::TempDir,
    _mount: mount::Detached,
    root: PathBuf,
    summary: Summary,
}

fn mounted(make: impl Fn(&mut Writer)) -> Mounted {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let summary = write(&path, &make);
    assert_eq!(path.metadata().unwrap().len(), summary.size);
    let checked = Command::new("fsck.erofs").arg(&path).output().expect("fsck.erofs of erofs-utils");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let again = dir.path().join("again");
    write(&again, &make);
    assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap(), "the same calls give the same bytes");
    let mount = mount::image(&path).unwrap();
    let root = mount::resolve::proc_path(mount.as_fd());
    Mounted { _dir: dir, _mount: mount, root, summary }
}

fn attributes(mode: u32) -> Attributes {
    Attributes { mode, ..Attributes::default() }
}

fn add(writer: &mut Writer, directory: Directory, name: &str, content: &[u8]) -> erofs::File {
    let mut open = writer.file(&attributes(0o644), content.len() as u64).unwrap();
    // In pieces that do not align with blocks.
    for (at, piece) in content.chunks(1000).enumerate() {
        writer.write(&mut open, at as u64 * 1000, piece).unwrap();
    }
    let file = writer.close(open).unwrap();
    writer.name(directory, name.as_bytes(), file).unwrap();
    file
}

fn content(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 251 + seed) as u8).collect()
}

#[test]
fn files_of_every_size() {
    let sizes = [0, 1, 100, 3071, 3072, 3073, 4095, 4096, 4097, 7168, 7169, 8192, 100_000, 1 << 20];
    let image = mounted(|writer| {
        for round in 0..20 {
            for size in sizes {
                add(writer, Directory::ROOT, &format!("{size}.{round}"), &content(size, round));
            }
        }
    });
    for round in 0..20 {
        for size in sizes {
            let read = fs::read(image.root.join(format!("{size}.{round}"))).unwrap();
            assert!(read == content(size, round), "{size}.{round}");
        }
    }
    assert_eq!(image.summary.inodes, 1 + 20 * sizes.len() as u64);
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 10_000];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

#[test]
fn every_kind_with_all_that_an_inode_says() {
    let all = Attributes {
        mode: 0o4751,
        uid: 70_000,
        gid: u32::MAX - 1,
        mtime: Time { seconds: -5, nanoseconds: 999_999_999 },
        xattrs: vec![
            (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
            (b"user.long".to_vec(), content(9000, 1)),
            (b"user.empty".to_vec(), Vec::new()),
        ],
    };
    let target = "t/".repeat(2000);
    let image = mounted(|writer| {
        let directory = writer.directory(Directory::ROOT, b"d").unwrap();
        writer.set_attributes(directory, all.clone());
        let specials = [
            ("char", Kind::CharDevice, (4095, 1_048_575)),
            ("block", Kind::BlockDevice, (8, 300)),
            ("white", Kind::CharDevice, (0, 0)),
            ("fifo", Kind::Fifo, (0, 0)),
            ("socket", Kind::Socket, (0, 0)),
        ];
        for (name, kind, device) in specials {
            let file = writer.special(kind, &all, device).unwrap();
            writer.name(directory, name.as_bytes(), file).unwrap();
        }
        for (name, target) in [("short", "to"), ("long", &target[..])] {
            let link = writer.symlink(&attributes(0o777), target.as_bytes()).unwrap();
            writer.name(directory, name.as_bytes(), link).unwrap();
        }
        let mut open = writer.file(&all, 5000).unwrap();
        writer.write(&mut open, 0, &content(5000, 2)).unwrap();
        let file = writer.close(open).unwrap();
        writer.name(directory, b"file", file).unwrap();
    });
    let at = |name: &str| image.root.join("d").join(name);
    let status = |name: &str| at(name).symlink_metadata().unwrap();
    for name in ["char", "block", "white", "fifo", "socket", "file", ""] {
        let status = status(name);
        assert_eq!(
            (status.mode() & 0o7777, status.uid(), status.gid(), status.mtime(), status.mtime_nsec()),
            (0o4751, 70_000, u32::MAX - 1, -5, 999_999_999),
            "{name}"
        );
        assert_eq!(attribute(&at(name), "trusted.overlay.opaque"), b"y");
    }
    assert!(attribute(&at("file"), "user.long") == content(9000, 1));
    assert!(fs::read(at("file")).unwrap() == content(5000, 2));
    let numbers =
        |name: &str| (rustix::fs::major(status(name).rdev()), rustix::fs::minor(status(name).rdev()));
    assert_eq!((numbers("char"), numbers("block")), ((4095, 1_048_575), (8, 300)));
    assert_eq!(numbers("white"), (0, 0));
    assert!(status("fifo").file_type().is_fifo() && status("socket").file_type().is_socket());
    assert_eq!(fs::read_link(at("short")).unwrap(), Path::new("to"));
    assert_eq!(fs::read_link(at("long")).unwrap(), Path::new(&target));
}

#[test]
fn large_directories_and_odd_names() {
    // Names that sort before, between and after "." and "..".
    let odd: Vec<Vec<u8>> =
        ["!", "-", ".!", ".-", "...", "..a", ".a", "0", "a\n", "\u{fc}"].map(|name| name.into()).to_vec();
    let odd = [odd, vec![b"\xff\xfe".to_vec(), vec![b'n'; 255]]].concat();
    let image = mounted(|writer| {
        for name in &odd {
            let directory = writer.directory(Directory::ROOT, name).unwrap();
            writer.set_attributes(directory, attributes(0o700));
        }
        let many = writer.directory(Directory::ROOT, b"many").unwrap();
        writer.set_attributes(many, attributes(0o755));
        for at in 0..5000 {
            add(writer, many, &format!("a file of number {at}"), at.to_string().as_bytes());
        }
    });
    for name in &odd {
        use std::os::unix::ffi::OsStrExt as _;
        let path = image.root.join(std::ffi::OsStr::from_bytes(name));
        assert!(path.is_dir(), "{path:?}");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }
    let many = image.root.join("many");
    assert_eq!(fs::read_dir(&many).unwrap().count(), 5000);
    for at in (0..5000).step_by(7) {
        let read = fs::read_to_string(many.join(format!("a file of number {at}"))).unwrap();
        assert_eq!(read, at.to_string());
    }
    assert_eq!(image.root.metadata().unwrap().nlink(), 2 + odd.len() as u64 + 1);
    assert_eq!(many.join("..").metadata().unwrap().ino(), image.root.metadata().unwrap().ino());
}

#[test]
fn links_are_counted_and_what_is_removed_is_gone() {
    let image = mounted(|writer| {
        let directory = writer.directory(Directory::ROOT, b"d").unwrap();
        let file = add(writer, directory, "one", b"linked");
        for name in ["two", "three", "four"] {
            writer.link(Directory::ROOT, name.as_bytes(), file).unwrap();
        }
        writer.remove(Directory::ROOT, b"four");
        add(writer, Directory::ROOT, "gone", &content(10_000, 0));
        writer.remove(Directory::ROOT, b"gone");
        let gone = writer.directory(Directory::ROOT, b"tree").unwrap();
        let below = writer.directory(gone, b"below").unwrap();
        writer.link(below, b"five", file).unwrap();
        writer.remove(Directory::ROOT, b"tree");
        assert_eq!(writer.get(Directory::ROOT, b"tree"), None);
        assert_eq!(writer.get(Directory::ROOT, b"two"), Some(Entry::File(file)));
    });
    let mut names: Vec<_> =
        fs::read_dir(&image.root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["d", "three", "two"]);
    let (one, two) = (image.root.join("d/one"), image.root.join("two"));
    assert_eq!(one.metadata().unwrap().ino(), two.metadata().unwrap().ino());
    assert_eq!(two.metadata().unwrap().nlink(), 3);
    assert_eq!(fs::read(two).unwrap(), b"linked");
    assert_eq!(image.summary.inodes, 3);
}

#[test]
fn holes_take_no_room() {
    const SIZE: u64 = 10 << 30;
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    write(&path, |writer| {
        let mut open = writer.file(&attributes(0o644), SIZE + 5).unwrap();
        writer.write(&mut open, 5 << 30, b"middle").unwrap();
        writer.write(&mut open, SIZE - 2, b"the end").unwrap();
        let file = writer.close(open).unwrap();
        writer.name(Directory::ROOT, b"sparse", file).unwrap();
    });
    assert!(path.metadata().unwrap().blocks() * 512 < 1 << 20);
    let mount = mount::image(&path).unwrap();
    let mut file = File::open(mount::resolve::proc_path(mount.as_fd()).join("sparse")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), SIZE + 5);
    let mut read = [1; 16];
    file.read_exact(&mut read).unwrap();
    assert_eq!(read, [0; 16]);
    file.seek(SeekFrom::Start(5 << 30)).unwrap();
    file.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"middle\0\0\0\0\0\0\0\0\0\0");
    file.seek(SeekFrom::Start(SIZE - 2)).unwrap();
    assert_eq!(file.read(&mut read).unwrap(), 7);
    assert_eq!(&read[..7], b"the end");
}

#[test]
fn what_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let writer = |name: &str| Writer::new(File::create_new(dir.path().join(name)).unwrap().into());
    let mut first = writer("first");
    assert!(matches!(first.directory(Directory::ROOT, &[b'n'; 256]), Err(Error::NameTooLong)));
    assert!(matches!(first.file(&attributes(0), 1 << 60), Err(Error::TooLarge)));
    let mut open = first.file(&attributes(0), 10).unwrap();
    assert!(matches!(first.write(&mut open, 8, b"abc"), Err(Error::Size)));
    // The root is in the first block, with all its attributes.
    let xattrs = vec![(b"user.large".to_vec(), vec![0; 3000])];
    first.set_attributes(Directory::ROOT, Attributes { xattrs, ..attributes(0o755) });
    assert!(matches!(first.finish([0; 16]), Err(Error::Attributes { size: 3024, limit: 2880 })));
    // An image with nothing but its root.
    assert_eq!(writer("second").finish([0; 16]).unwrap(), Summary { size: 4096, inodes: 1 });
}

#[test]
fn the_root_is_told_without_mounting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let said = Attributes {
        mode: 0o1751,
        uid: 12,
        gid: 70_000,
        mtime: Time { seconds: -1, nanoseconds: 5 },
        xattrs: Vec::new(),
    };
    write(&path, |writer| writer.set_attributes(Directory::ROOT, said.clone()));
    assert_eq!(erofs::root(File::open(&path).unwrap()).unwrap(), said);
    let refused = |content: &[u8]| erofs::root(content).unwrap_err().to_string();
    assert_eq!(refused(&[0; 4096]), "it is not an EROFS image of a layer");
    assert_eq!(refused(&[0; 4095]), "failed to fill whole buffer");
}
