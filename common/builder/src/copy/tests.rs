//! Tests that copy files. They need root, because files get owners.

mod archives;
mod parents;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use rustix::fs::{Mode, OFlags};

use super::*;
use crate::ignore::Ignore;

fn open(path: &Path) -> std::os::fd::OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// A directory with a context and an image.
fn fixture() -> tempfile::TempDir {
    assert!(rustix::process::geteuid().is_root(), "these tests need root");
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for file in ["a.txt", "b.txt", "c.md", "sub/d.txt", "sub/deep/e.txt", "arr[0].txt"] {
        write(&format!("context/{file}"), file);
    }
    write("context/run.sh", "#!");
    fs::set_permissions(dir.path().join("context/run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("a.txt", dir.path().join("context/link")).unwrap();
    symlink("/etc/passwd", dir.path().join("context/outside")).unwrap();
    symlink("../../../etc/passwd", dir.path().join("context/upwards")).unwrap();
    symlink("sub", dir.path().join("context/sublink")).unwrap();
    write("image/etc/passwd", "root:x:0:0::/:\n");
    write("image/usr/lib/x", "x");
    write("image/file", "old");
    symlink("usr/lib", dir.path().join("image/lib")).unwrap();
    symlink("/usr", dir.path().join("image/absolute")).unwrap();
    symlink("/etc", dir.path().join("image/usr/escape")).unwrap();
    symlink("file", dir.path().join("image/tofile")).unwrap();
    symlink("/none/made", dir.path().join("image/usr/dangling")).unwrap();
    symlink("../../../../up", dir.path().join("image/usr/upwards")).unwrap();
    symlink("circle", dir.path().join("image/circle")).unwrap();
    dir
}

fn job(sources: &[&str], destination: &str) -> Job {
    Job {
        instruction: "COPY",
        sources: sources.iter().map(|source| (*source).to_owned()).collect(),
        fetched: Vec::new(),
        unpack_fetched: false,
        keep_times: false,
        inline: Vec::new(),
        destination: clean("/work", destination),
        into: destination.ends_with('/'),
        chmod: None,
        parents: false,
        exclude: Ignore::default(),
        unpack: false,
    }
}

/// Runs a job on a fresh fixture. Returns the files that the image has afterwards and had not before, as
/// `path=content`.
fn run(job: &Job, ignore: &str) -> Result<Vec<String>, String> {
    let dir = fixture();
    let before = list(&dir.path().join("image"));
    let tree = Tree::context(open(&dir.path().join("context")), Ignore::parse(ignore.as_bytes()).unwrap());
    let place = Place::new(open(&dir.path().join("image")), Owner::default(), None);
    let copy = || job.run(&tree, &job.list(&tree)?, place, None, None, dir.path());
    copy().map_err(|error| error.to_string())?;
    let mut after = list(&dir.path().join("image"));
    after.retain(|line| !before.contains(line));
    Ok(after)
}

fn list(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            found.push(format!("{name}/"));
        } else if metadata.is_symlink() {
            found.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
        } else {
            found.push(format!("{name}={}", fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn where_files_go() {
    for (sources, destination, expected) in [
        (&["a.txt"][..], "/x", vec!["x=a.txt"]),
        (&["a.txt"], "/x/", vec!["x/", "x/a.txt=a.txt"]),
        (&["/a.txt"], "y", vec!["work/", "work/y=a.txt"]),
        (&["a.txt"], "/file", vec!["file=a.txt"]),
        (&["a.txt"], "/usr", vec!["usr/a.txt=a.txt"]),
        (&["a.txt"], "/lib", vec!["usr/lib/a.txt=a.txt"]),
        (&["a.txt"], "/absolute/y/", vec!["usr/y/", "usr/y/a.txt=a.txt"]),
        (&["a.txt"], "/usr/escape/", vec!["etc/a.txt=a.txt"]),
        (&["a.txt"], "/lib/../x", vec!["x=a.txt"]),
        (
            &["*.txt", "c.md"],
            "/x/",
            vec!["x/", "x/a.txt=a.txt", "x/arr[0].txt=arr[0].txt", "x/b.txt=b.txt", "x/c.md=c.md"],
        ),
        (&["arr[[]0].txt"], "/x", vec!["x=arr[0].txt"]),
        (&["sub"], "/x", vec!["x/", "x/d.txt=sub/d.txt", "x/deep/", "x/deep/e.txt=sub/deep/e.txt"]),
        (
            &["sub/"],
            "/usr/lib/",
            vec!["usr/lib/d.txt=sub/d.txt", "usr/lib/deep/", "usr/lib/deep/e.txt=sub/deep/e.txt"],
        ),
        (&["s*/d[e]*/"], "/x/", vec!["x/", "x/e.txt=sub/deep/e.txt"]),
        (&["link"], "/x", vec!["x=a.txt"]),
        (&["link"], "/x/", vec!["x/", "x/link=a.txt"]),
        (&["sublink/d.txt"], "/x", vec!["x=sub/d.txt"]),
        (&["./sub/../a.txt"], "/x", vec!["x=a.txt"]),
        // `..` stops at the root.
        (&["../a.txt"], "/x", vec!["x=a.txt"]),
        (&["sub/../../../a.txt"], "/x", vec!["x=a.txt"]),
        // Patterns match links and not their targets. Links above the first wildcard are followed.
        (&["l*"], "/x/", vec!["x/", "x/link=a.txt"]),
        (&["[al][.i]*"], "/x/", vec!["x/", "x/a.txt=a.txt", "x/link=a.txt"]),
        (&["sublink/*.txt"], "/x/", vec!["x/", "x/d.txt=sub/d.txt"]),
        (&["sublin?/*.txt"], "/x/", vec![]),
        (&["*.none"], "/x/", vec![]),
        (&["*.none", "a.txt"], "/x", vec!["x=a.txt"]),
        // A destination that is a link is followed, wherever it leads.
        (&["a.txt"], "/tofile", vec!["file=a.txt"]),
        (&["a.txt"], "/usr/dangling", vec!["none/", "none/made=a.txt"]),
        (&["a.txt"], "/usr/dangling/", vec!["none/", "none/made/", "none/made/a.txt=a.txt"]),
        (&["a.txt"], "/usr/dangling/y", vec!["none/", "none/made/", "none/made/y=a.txt"]),
        (&["sub/deep"], "/usr/dangling", vec!["none/", "none/made/", "none/made/e.txt=sub/deep/e.txt"]),
        (&["a.txt"], "/usr/upwards", vec!["up=a.txt"]),
    ] {
        assert_eq!(run(&job(sources, destination), "").unwrap(), expected, "{sources:?} {destination}");
    }
}

#[test]
fn what_cannot_be_copied() {
    let missing = |name: &str| {
        format!(
            "file not found in build context or excluded by .dockerignore: stat {name}: file does not exist"
        )
    };
    let several = "when using COPY with more than one source file, the destination must be a directory and end with a /";
    for (sources, destination, ignore, expected) in [
        (&["missing"][..], "/x", "", missing("missing")),
        (&["a.txt/b"], "/x", "", missing("a.txt/b")),
        (&["none/*.none"], "/x", "", missing("none/*.none")),
        (&["sub/*.txt"], "/x", "sub", missing("sub/*.txt")),
        (&["a.txt"], "/x", "*.txt", missing("a.txt")),
        (&["outside"], "/x", "", missing("outside")),
        (&["upwards"], "/x", "", missing("upwards")),
        (&["../x"], "/x", "", missing("../x")),
        (&["outs*"], "/x", "", missing("outside")),
        (&["lin*"], "/x", "a.txt", missing("link")),
        (&["circle/x"], "/circle/x", "", missing("circle/x")),
        (
            &["a.txt"],
            "/circle/x",
            "",
            "open \"circle/x\": Too many levels of symbolic links (os error 40)".to_owned(),
        ),
        (&["sub"], "/x", "sub\n!sub/none", missing("sub")),
        (&["a.txt", "b.txt"], "/x", "", several.to_owned()),
        (&["*.txt"], "/x", "", several.to_owned()),
        (&["sub"], "/file", "", "cannot copy to non-directory: /file".to_owned()),
        (&["a.txt"], "/file/x", "", "cannot copy to non-directory: /file".to_owned()),
        (&["[a"], "/x", "", "syntax error in pattern \"[a\"".to_owned()),
    ] {
        assert_eq!(run(&job(sources, destination), ignore).unwrap_err(), expected, "{sources:?}");
    }
}

#[test]
fn ignored_and_excluded_files_stay_out() {
    let x = ["x/", "x/deep/", "x/deep/e.txt=sub/deep/e.txt"];
    assert_eq!(run(&job(&["sub"], "/x"), "sub/*.txt").unwrap(), x);
    assert_eq!(run(&job(&["sub"], "/x"), "sub\n!sub/deep/e.txt").unwrap(), x);
    // A link does not lead to what is excluded.
    assert!(run(&job(&["sublink/d.txt"], "/x"), "sub").is_err());
    let excluding = Job { exclude: Ignore::new(["deep"]).unwrap(), ..job(&["sub"], "/x") };
    assert_eq!(run(&excluding, "").unwrap(), ["x/", "x/d.txt=sub/d.txt"]);
}

/// Runs a job on a context. Returns the modes of the files that it made.
fn modes(dir: &tempfile::TempDir, job: &Job, ignore: &str, names: &[&str]) -> Vec<u32> {
    let context = open(&dir.path().join("context"));
    let tree = Tree::context(context, Ignore::parse(ignore.as_bytes()).unwrap());
    let place = Place::new(open(&dir.path().join("image")), Owner::default(), None);
    job.run(&tree, &job.list(&tree).unwrap(), place, None, None, dir.path()).unwrap();
    let mode = |name: &&str| dir.path().join("image").join(name).metadata().unwrap().mode() & 0o7777;
    names.iter().map(mode).collect()
}

#[test]
fn directories_above_what_is_taken_back_in_keep_their_modes() {
    for exclude in ["", "deep\n!deep/e.txt"] {
        let dir = fixture();
        for (name, mode) in [("sub", 0o711), ("sub/deep", 0o700)] {
            let path = dir.path().join("context").join(name);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let ignore = if exclude.is_empty() { "sub\n!sub/deep/e.txt" } else { "" };
        let exclude = Ignore::parse(format!("{exclude}\nsub/d.txt").as_bytes()).unwrap();
        let job = Job { exclude, ..job(&["."], "/x") };
        assert_eq!(modes(&dir, &job, ignore, &["x/sub", "x/sub/deep"]), [0o711, 0o700]);
        assert!(!dir.path().join("image/x/sub/d.txt").exists());
    }
}

#[test]
fn a_mode_is_that_of_new_directories_on_the_way_too() {
    let chmod = |text: &str| Some(Chmod::parse(text).unwrap());
    let dir = fixture();
    let octal = Job { chmod: chmod("1750"), ..job(&["a.txt"], "/p/q/f") };
    assert_eq!(modes(&dir, &octal, "", &["p", "p/q", "p/q/f", "usr"]), [0o750, 0o750, 0o1750, 0o755]);
    let directory = Job { chmod: chmod("700"), ..job(&["sub/deep"], "/n/") };
    assert_eq!(modes(&dir, &directory, "", &["n", "n/e.txt"]), [0o700, 0o700]);
    let symbolic = Job { chmod: chmod("go="), ..job(&["a.txt"], "/s/f") };
    assert_eq!(modes(&dir, &symbolic, "", &["s", "s/f"]), [0o755, 0o600]);
}

#[test]
fn attributes_of_a_context_stay_outside() {
    let dir = fixture();
    let file = dir.path().join("context/a.txt");
    let (context, image) = (open(&dir.path().join("context")), dir.path().join("image/x"));
    let tree = Tree::context(context, Ignore::default());
    let job = job(&["a.txt"], "/x");
    let before = job.digest(&tree, &job.list(&tree).unwrap()).unwrap();
    let set = rustix::fs::setxattr(&file, "trusted.stave", b"1", rustix::fs::XattrFlags::empty());
    set.unwrap();
    assert_eq!(job.digest(&tree, &job.list(&tree).unwrap()).unwrap(), before);
    let place = Place::new(open(&dir.path().join("image")), Owner::default(), None);
    job.run(&tree, &job.list(&tree).unwrap(), place, None, None, dir.path()).unwrap();
    assert!(place::xattrs(fs::File::open(image).unwrap(), &file).unwrap().is_empty());
    // The attributes of an image are a part of it.
    let tree = Tree::image(open(&dir.path().join("context")));
    let place = Place::new(open(&dir.path().join("image")), Owner::default(), None);
    job.run(&tree, &job.list(&tree).unwrap(), place, None, None, dir.path()).unwrap();
    let kept = place::xattrs(fs::File::open(dir.path().join("image/x")).unwrap(), &file).unwrap();
    assert_eq!(kept, [("trusted.stave".into(), b"1".to_vec())]);
}

#[test]
fn times_count_where_they_are_kept() {
    let dir = fixture();
    let tree = Tree::context(open(&dir.path().join("context")), Ignore::default());
    let digest = |keep_times| {
        let job = Job { keep_times, ..job(&["a.txt"], "/x") };
        job.digest(&tree, &job.list(&tree).unwrap()).unwrap()
    };
    let before = (digest(false), digest(true));
    let file = fs::File::options().write(true).open(dir.path().join("context/a.txt")).unwrap();
    let time = file.metadata().unwrap().modified().unwrap() + std::time::Duration::from_nanos(1);
    file.set_modified(time).unwrap();
    assert_eq!(digest(false), before.0);
    assert_ne!(digest(true), before.1);
}

#[test]
fn what_changes_while_it_is_copied_has_the_digest_of_the_copy() {
    for (source, unpack) in [("a.txt", false), ("a.txt", true), ("sub", false)] {
        let dir = fixture();
        let context = dir.path().join("context");
        let tree = Tree::context(open(&context), Ignore::default());
        let job = Job { unpack, ..job(&[source], "/x/") };
        let listing = job.list(&tree).unwrap();
        let listed = job.digest(&tree, &listing).unwrap();
        let run = || {
            let place = Place::new(open(&dir.path().join("image")), Owner::default(), None);
            job.run(&tree, &listing, place, None, None, dir.path()).unwrap().unwrap()
        };
        assert_eq!(run(), listed, "{source}");
        for file in ["a.txt", "sub/d.txt"] {
            fs::write(context.join(file), "changed").unwrap();
        }
        let copied = run();
        assert_ne!(copied, listed, "{source}");
        assert_eq!(copied, job.digest(&tree, &job.list(&tree).unwrap()).unwrap(), "{source}");
    }
}

#[test]
fn metadata_is_kept_or_set() {
    let dir = fixture();
    let context = dir.path().join("context");
    std::os::unix::fs::chown(context.join("run.sh"), Some(1000), Some(1000)).unwrap();
    fs::hard_link(context.join("run.sh"), context.join("sub/same")).unwrap();
    fs::hard_link(context.join("run.sh"), context.join("sub/same2")).unwrap();
    let tree = Tree::context(open(&context), Ignore::default());
    let copy = |job: &Job, tree: &Tree, owner: Option<Owner>| {
        let place = Place::new(open(&dir.path().join("image")), owner.unwrap_or_default(), None);
        job.run(tree, &job.list(tree).unwrap(), place, owner, None, dir.path()).unwrap();
    };
    copy(&job(&["run.sh"], "/r"), &tree, None);
    let made = dir.path().join("image/r").metadata().unwrap();
    let source = context.join("run.sh").metadata().unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o750, 0, 0));
    assert_eq!((made.mtime(), made.mtime_nsec()), (source.mtime(), source.mtime_nsec()));

    fs::set_permissions(context.join("sub"), fs::Permissions::from_mode(0o700)).unwrap();
    copy(&job(&["sub"], "/s"), &tree, None);
    let made = dir.path().join("image/s").metadata().unwrap();
    assert_eq!(made.mode() & 0o7777, 0o755, "of a directory only the contents are copied");
    let inode = |name: &str| dir.path().join("image").join(name).metadata().unwrap().ino();
    assert_eq!(inode("s/same"), inode("s/same2"), "hard links stay hard links");

    let chmod = Some(Chmod::parse("u=rwX,go=rX").unwrap());
    copy(&Job { chmod, ..job(&["run.sh"], "/n/m/r") }, &tree, Some(Owner { uid: 7, gid: 8 }));
    for (name, mode) in [("n", 0o755), ("n/m", 0o755), ("n/m/r", 0o755)] {
        let made = dir.path().join("image").join(name).metadata().unwrap();
        assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (mode, 7, 8), "{name}");
    }

    // From an image, owners stay.
    let image = Tree::image(open(&context));
    copy(&job(&["/run.sh"], "/o"), &image, None);
    assert_eq!(dir.path().join("image/o").metadata().unwrap().uid(), 1000);
}

#[test]
fn the_digest_depends_on_contents_and_not_on_times() {
    let dir = fixture();
    let context = dir.path().join("context");
    let digest = |sources: &[&str]| {
        let tree = Tree::context(open(&context), Ignore::default());
        let job = job(sources, "/x/");
        job.digest(&tree, &job.list(&tree).unwrap()).unwrap()
    };
    let first = digest(&["sub"]);
    fs::File::options()
        .write(true)
        .open(context.join("sub/d.txt"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(digest(&["sub"]), first);
    fs::set_permissions(context.join("sub/d.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    let second = digest(&["sub"]);
    assert_ne!(second, first);
    fs::write(context.join("sub/d.txt"), "other").unwrap();
    let third = digest(&["sub"]);
    assert_ne!(third, second);
    fs::rename(context.join("sub/d.txt"), context.join("sub/f.txt")).unwrap();
    assert_ne!(digest(&["sub"]), third);
}

#[test]
fn another_file_in_the_place_of_the_first_name_is_no_link() {
    let dir = fixture();
    let context = dir.path().join("context");
    for (path, text) in [("one/x", "first"), ("two/x", "other")] {
        fs::create_dir_all(context.join(path).parent().unwrap()).unwrap();
        fs::write(context.join(path), text).unwrap();
    }
    fs::hard_link(context.join("one/x"), context.join("two/y")).unwrap();
    fs::hard_link(context.join("one/x"), context.join("two/z")).unwrap();
    let tree = Tree::context(open(&context), Ignore::default());
    let job = job(&["one", "two"], "/x/");
    let listing = job.list(&tree).unwrap();
    let place = Place::new(open(&dir.path().join("image")), Owner::default(), None);
    job.run(&tree, &listing, place, None, None, dir.path()).unwrap();
    let image = dir.path().join("image/x");
    let read = |name: &str| fs::read_to_string(image.join(name)).unwrap();
    assert_eq!(["x", "y", "z"].map(read), ["other", "first", "first"]);
    let inode = |name: &str| image.join(name).metadata().unwrap().ino();
    assert_eq!(inode("y"), inode("z"), "these are still one file");
    let links = |name: &str| image.join(name).metadata().unwrap().nlink();
    assert_eq!(["x", "y"].map(links), [1, 2]);
}

#[test]
fn a_socket_of_a_context_becomes_an_empty_file() {
    let dir = fixture();
    let socket = dir.path().join("context/socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(modes(&dir, &job(&["socket"], "/x"), "", &["x"]), [0o640]);
    assert_eq!(modes(&dir, &job(&["."], "/all"), "", &["all/socket"]), [0o640]);
    assert_eq!(fs::read(dir.path().join("image/x")).unwrap(), b"");
}

#[test]
fn two_names_of_one_file_are_not_two_files() {
    let digest = |linked: bool| {
        let dir = fixture();
        let context = dir.path().join("context");
        match linked {
            true => fs::hard_link(context.join("a.txt"), context.join("sub/same")).unwrap(),
            false => drop(fs::copy(context.join("a.txt"), context.join("sub/same")).unwrap()),
        }
        let tree = Tree::context(open(&context), Ignore::default());
        let digest = |sources: &[&str]| {
            let job = job(sources, "/x/");
            job.digest(&tree, &job.list(&tree).unwrap()).unwrap()
        };
        let apart = digest(&["a.txt", "sub/same"]);
        // Other names of the file in the context do not matter.
        fs::remove_file(context.join("run.sh")).unwrap();
        (digest(&["."]), apart)
    };
    assert_ne!(digest(true).0, digest(false).0);
    assert_eq!(digest(true), digest(true));
    assert_eq!(digest(true).1, digest(false).1, "two sources make two files");
}
