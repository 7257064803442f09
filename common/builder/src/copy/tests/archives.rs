//! Archives that `ADD` unpacks.

use super::*;

/// Adds an archive of these entries to `/t/` of a fixture. There, `t/d` is a directory with a file in it, and
/// `t/l` is a link to `/usr`. Returns what is below `/t` afterwards.
fn add(entries: &[(::archive::Entry, &[u8])]) -> Result<Vec<String>, String> {
    let mut tar = ::archive::Writer::new(Vec::new());
    for (entry, content) in entries {
        tar.entry(entry).unwrap();
        tar.data(content).unwrap();
    }
    add_stream(tar.finish().unwrap())
}

fn add_stream(archive: Vec<u8>) -> Result<Vec<String>, String> {
    let dir = fixture();
    fs::write(dir.path().join("context/a"), archive).unwrap();
    fs::create_dir_all(dir.path().join("image/t/d/deep")).unwrap();
    fs::write(dir.path().join("image/t/d/deep/f"), "old").unwrap();
    symlink("/usr", dir.path().join("image/t/l")).unwrap();
    let before = list(&dir.path().join("image/usr"));
    let tree = Tree::context(open(&dir.path().join("context")), Ignore::default());
    let place = Place::new(open(&dir.path().join("image")), Owner::default(), None);
    let job = Job { unpack: true, instruction: "ADD", ..job(&["a"], "/t/") };
    let done = job.run(&tree, &job.list(&tree).unwrap(), place, None, None, dir.path());
    done.map_err(|error| error.to_string())?;
    assert_eq!(list(&dir.path().join("image/usr")), before, "nothing is written through a link");
    Ok(list(&dir.path().join("image/t")))
}

#[test]
fn entries_of_archives_replace_what_stands_there() {
    use ::archive::{Entry, Kind};
    let file =
        |name: &str| (Entry { mode: 0o644, size: 3, stored: 3, ..Entry::new(Kind::File, name) }, &b"new"[..]);
    let directory = |name: &str| {
        let mtime = ::archive::Time { seconds: 7, nanoseconds: 0 };
        (Entry { mode: 0o755, mtime, ..Entry::new(Kind::Directory, name) }, &b""[..])
    };
    for (entries, expected) in [
        // A file replaces a directory with everything in it, even a directory of the same archive.
        (vec![file("d")], vec!["/", "d=new", "l -> /usr"]),
        (vec![directory("d/"), directory("d/deep/"), file("d")], vec!["/", "d=new", "l -> /usr"]),
        // A directory replaces a link, and is not merged with the link's target.
        (vec![directory("l/"), file("l/f")], vec!["/", "d/", "d/deep/", "d/deep/f=old", "l/", "l/f=new"]),
        // A directory is merged with an existing directory.
        (
            vec![directory("d/"), file("d/f")],
            vec!["/", "d/", "d/deep/", "d/deep/f=old", "d/f=new", "l -> /usr"],
        ),
        // The target is the archive's root.
        (vec![file("../../x")], vec!["/", "d/", "d/deep/", "d/deep/f=old", "l -> /usr", "x=new"]),
        (
            vec![directory("./"), file("a/../y")],
            vec!["/", "d/", "d/deep/", "d/deep/f=old", "l -> /usr", "y=new"],
        ),
    ] {
        assert_eq!(add(&entries).unwrap(), expected);
    }
}

#[test]
fn archives_are_limited() {
    use ::archive::{Entry, Kind, Writer};
    // The limit is held before any content arrives.
    let (mut archive, size) = (Vec::new(), 65 << 30);
    let entry = Entry { size, stored: size, ..Entry::new(Kind::File, "zeros") };
    Writer::new(&mut archive).entry(&entry).unwrap();
    let error = add_stream(archive).unwrap_err();
    assert_eq!(error, "unpack \"a\": unpacked size exceeds 68719476736 bytes");
}

#[test]
fn archives_are_unpacked() {
    use std::io::Write;
    let mut tar = ::archive::Writer::new(Vec::new());
    let mut file = ::archive::Entry::new(::archive::Kind::File, "dir/f");
    (file.mode, file.uid, file.size, file.stored) = (0o640, 5, 2, 2);
    tar.entry(&file).unwrap();
    tar.data(b"hi").unwrap();
    let mut link = ::archive::Entry::new(::archive::Kind::Symlink, "../../l");
    link.link = b"/etc/passwd".to_vec();
    tar.entry(&link).unwrap();
    let mut hard = ::archive::Entry::new(::archive::Kind::HardLink, "h");
    hard.link = b"dir/f".to_vec();
    tar.entry(&hard).unwrap();
    let tar = tar.finish().unwrap();

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&tar).unwrap();
    let zstd = zstd::encode_all(&*tar, 1).unwrap();
    let xz = {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("t"), &tar).unwrap();
        let done = std::process::Command::new("xz").arg(dir.path().join("t")).status().unwrap();
        assert!(done.success(), "this test needs xz");
        fs::read(dir.path().join("t.xz")).unwrap()
    };
    let gzip = gzip.finish().unwrap();
    // From a tape or a block device, with what stands behind it.
    let padded = [&gzip[..], &[0; 700], b"other"].concat();
    for archive in [tar, gzip, padded, bzip2.finish().unwrap(), zstd, xz] {
        let dir = fixture();
        fs::write(dir.path().join("context/a"), archive).unwrap();
        let tree = Tree::context(open(&dir.path().join("context")), Ignore::default());
        let place = Place::new(open(&dir.path().join("image")), Owner::default(), None);
        let job = Job { unpack: true, instruction: "ADD", ..job(&["a"], "/t/") };
        job.run(&tree, &job.list(&tree).unwrap(), place, None, None, dir.path()).unwrap();
        let t = dir.path().join("image/t");
        assert_eq!(
            list(&t),
            ["/", "dir/", "dir/f=hi", "h=hi", "l -> /etc/passwd"],
            "the target is the archive's root, and nothing leaves it"
        );
        assert_eq!(t.join("h").metadata().unwrap().uid(), 5);
    }
}

/// An archive with one file.
fn with_file(name: &str) -> Vec<u8> {
    let mut tar = ::archive::Writer::new(Vec::new());
    tar.entry(&::archive::Entry { mode: 0o640, ..::archive::Entry::new(::archive::Kind::File, name) })
        .unwrap();
    tar.finish().unwrap()
}

#[test]
fn a_mode_does_not_apply_to_directories_of_archives() {
    let dir = fixture();
    fs::write(dir.path().join("context/a.tar"), with_file("sub/deep/f")).unwrap();
    let chmod = Some(Chmod::parse("600").unwrap());
    let local = Job { unpack: true, chmod: chmod.clone(), ..job(&["a.tar", "a.txt"], "/t/") };
    let names = ["t", "t/sub", "t/sub/deep", "t/sub/deep/f", "t/a.txt"];
    assert_eq!(modes(&dir, &local, "", &names), [0o755, 0o755, 0o755, 0o640, 0o600]);
    let file = fs::File::open(dir.path().join("context/a.tar")).unwrap();
    let fetched =
        Fetched { name: "a.tar".to_owned(), file: file.into(), digest: "sha256:0".to_owned(), modified: 0 };
    let remote = Job { fetched: vec![fetched], unpack_fetched: true, chmod, ..job(&[], "/r/") };
    let names = ["r", "r/sub", "r/sub/deep", "r/sub/deep/f"];
    assert_eq!(modes(&dir, &remote, "", &names), [0o755, 0o755, 0o755, 0o640]);
}

#[test]
fn sources_that_are_merged_make_their_directory() {
    let add = |sources: &[&str], exclude: &str| {
        let dir = fixture();
        let context = dir.path().join("context");
        for (path, content) in [("d1/f", &b"1"[..]), ("d2/f", b"2"), ("d2/g", b"2"), ("dd3", b"file")] {
            fs::create_dir_all(context.join(path).parent().unwrap()).unwrap();
            fs::write(context.join(path), content).unwrap();
        }
        for name in ["x", "y"] {
            fs::write(context.join(format!("{name}.tar")), with_file(name)).unwrap();
        }
        let tree = Tree::context(open(&context), Ignore::default());
        let place = Place::new(open(&dir.path().join("image")), Owner::default(), None);
        let exclude = Ignore::parse(exclude.as_bytes()).unwrap();
        let job = Job { unpack: true, exclude, instruction: "ADD", ..job(sources, "/new") };
        let done = job.run(&tree, &job.list(&tree).unwrap(), place, None, None, dir.path());
        let new = dir.path().join("image/new");
        done.map(|_| if new.is_dir() { list(&new) } else { vec![fs::read_to_string(&new).unwrap()] })
            .map_err(|error| error.to_string())
    };
    assert_eq!(add(&["d?"], "").unwrap(), ["/", "f=2", "g=2"]);
    assert_eq!(add(&["[xy].tar"], "").unwrap(), ["/", "x=", "y="]);
    // One file is left, and takes the name.
    assert_eq!(add(&["*.txt"], "b*\narr*").unwrap(), ["a.txt"; 1]);
    // It does not matter whether they are matches of one pattern.
    assert_eq!(add(&["d1", "d2"], "").unwrap(), ["/", "f=2", "g=2"]);
    assert_eq!(add(&["x.tar", "y.tar", "d1"], "").unwrap(), ["/", "f=1", "x=", "y="]);
    let refused =
        "when using ADD with more than one source file, the destination must be a directory and end with a /";
    // One of them would take the name.
    for sources in [&["d*"][..], &["*.txt"], &["d1", "dd3"], &["x.tar", "a.txt"], &["[cx].*"]] {
        assert_eq!(add(sources, "").unwrap_err(), refused, "{sources:?}");
    }
}
