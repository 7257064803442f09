//! Two states of a file system, each of them directories of overlayfs's form that lie upon each other. Only what is not in the
//! directories that both share is read.

use std::{
    collections::BTreeSet,
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, readlinkat, statat},
    io::Errno,
};

use super::{
    Error,
    entries::{join, kind, names, open_directory, tree},
    trees::same_content,
    upper::is_whiteout_file,
};
use crate::overlay;

/// A state: its directories, lowest first.
#[derive(Debug)]
pub struct State {
    /// The directories, open.
    pub directories: Vec<OwnedFd>,
    /// Paths that are there only because something was mounted there, as [`super::stubs`] finds them.
    pub without: BTreeSet<Vec<u8>>,
}

/// What one of the states has at a path.
#[derive(Debug)]
pub struct Side {
    /// The directory that it is in.
    directory: OwnedFd,
    name: Vec<u8>,
    /// Its status.
    pub stat: Stat,
}

/// A path at which they differ.
#[derive(Debug)]
pub struct Change {
    /// The path, without a slash at its beginning.
    pub path: Vec<u8>,
    /// What the first one has there; none if nothing.
    pub old: Option<Side>,
    /// What the second one has there.
    pub new: Option<Side>,
    /// In what they differ, if both have something: `kind`, `mode`, `owner`, `device`, `target`, `attributes`, `content`.
    pub what: Vec<&'static str>,
}

impl Side {
    /// What kind of file it is.
    pub fn kind(&self) -> FileType {
        kind(&self.stat)
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> rustix::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(&self.directory, &self.name[..], flags, Mode::empty()).map(File::from)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn target(&self) -> rustix::io::Result<Vec<u8>> {
        readlinkat(&self.directory, &self.name[..], Vec::new()).map(std::ffi::CString::into_bytes)
    }
}

/// What is found under a name.
enum Node {
    Nothing,
    File(Side),
    /// With the directories that it comes from, the highest first.
    Directory(Side, Vec<usize>),
}

/// A directory that is still to be looked at.
struct Left {
    path: Vec<u8>,
    old: Vec<usize>,
    new: Vec<usize>,
}

/// The directories that a directory comes from, open.
type Parts = Vec<(usize, OwnedFd)>;

/// Calls `found` for each path at which the states differ: a directory before what is in it. The first `shared` directories of both
/// are the same.
///
/// # Errors
/// When one of the states cannot be read; those of `found`.
pub fn states<E: From<Error>>(
    old: &State,
    new: &State,
    shared: usize,
    mut found: impl FnMut(Change) -> Result<(), E>,
) -> Result<(), E> {
    let all = |state: &State| (0..state.directories.len()).rev().collect();
    let mut left = vec![Left { path: Vec::new(), old: all(old), new: all(new) }];
    while let Some(Left { path, old: old_of, new: new_of }) = left.pop() {
        let (before, after) = (open(old, &old_of, &path)?, open(new, &new_of, &path)?);
        let mut below = Vec::new();
        for name in candidates(&before, &after, shared, &path)? {
            let path = join(&path, &name);
            let (one, other) = (look(&before, &name, &path)?, look(&after, &name, &path)?);
            let nothing = matches!(one, Node::Nothing) || matches!(other, Node::Nothing);
            if nothing && (old.without.contains(&path) || new.without.contains(&path)) {
                continue;
            }
            let what = difference(&one, &other, &path)?;
            let (old_side, old_of) = one.split();
            let (new_side, new_of) = other.split();
            if !(old_of.is_empty() && new_of.is_empty()) {
                below.push(Left { path: path.clone(), old: old_of, new: new_of });
            }
            if old_side.is_some() != new_side.is_some() || !what.is_empty() {
                found(Change { path, old: old_side, new: new_side, what })?;
            }
        }
        left.extend(below.into_iter().rev());
    }
    Ok(())
}

/// Opens a directory in those that it comes from, until one that hides what is below.
fn open(state: &State, of: &[usize], path: &[u8]) -> Result<Parts, Error> {
    let mut parts = Vec::new();
    for at in of {
        let directory = open_directory(state.directories[*at].as_fd(), path)?;
        let hides = overlay::is_opaque(&directory).map_err(tree("read attribute of", path))?;
        parts.push((*at, directory));
        if hides {
            break;
        }
    }
    Ok(parts)
}

/// The names under which they can differ, sorted.
fn candidates(old: &Parts, new: &Parts, shared: usize, path: &[u8]) -> Result<BTreeSet<Vec<u8>>, Error> {
    let common =
        |parts: &Parts| parts.iter().map(|(at, _)| *at).filter(|at| *at < shared).collect::<Vec<_>>();
    // One of them hides what the other one has.
    let every = common(old) != common(new);
    let mut all = BTreeSet::new();
    for (_, directory) in old.iter().chain(new).filter(|(at, _)| every || *at >= shared) {
        all.extend(names(directory, path)?);
    }
    Ok(all)
}

fn look(parts: &Parts, name: &[u8], path: &[u8]) -> Result<Node, Error> {
    let (mut highest, mut of) = (None, Vec::new());
    for (at, directory) in parts {
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            found => found.map_err(tree("stat", path))?,
        };
        let side = || -> Result<Side, Error> {
            let directory = directory.try_clone().map_err(tree("open", path))?;
            Ok(Side { directory, name: name.to_vec(), stat })
        };
        if kind(&stat) == FileType::Directory {
            if highest.is_none() {
                highest = Some(side()?);
            }
            of.push(*at);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inside = openat(directory, name, flags, Mode::empty()).map_err(tree("open", path))?;
            if overlay::is_opaque(inside).map_err(tree("read attribute of", path))? {
                break;
            }
            continue;
        }
        if highest.is_some() {
            break;
        }
        let is_gone = overlay::is_whiteout(&stat) || is_whiteout_file(directory, name, path, &stat)?;
        return if is_gone { Ok(Node::Nothing) } else { Ok(Node::File(side()?)) };
    }
    Ok(highest.map_or(Node::Nothing, |side| Node::Directory(side, of)))
}

impl Node {
    fn split(self) -> (Option<Side>, Vec<usize>) {
        match self {
            Self::Nothing => (None, Vec::new()),
            Self::File(side) => (Some(side), Vec::new()),
            Self::Directory(side, of) => (Some(side), of),
        }
    }

    fn side(&self) -> Option<&Side> {
        match self {
            Self::Nothing => None,
            Self::File(side) | Self::Directory(side, _) => Some(side),
        }
    }
}

/// In what both differ, where both have something.
fn difference(old: &Node, new: &Node, path: &[u8]) -> Result<Vec<&'static str>, Error> {
    let (Some(old), Some(new)) = (old.side(), new.side()) else { return Ok(Vec::new()) };
    let (one, other) = (&old.stat, &new.stat);
    if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) {
        return Ok(Vec::new());
    }
    let mut what = Vec::new();
    let mut differ = |differs: bool, name| what.extend(differs.then_some(name));
    differ(kind(one) != kind(other), "kind");
    differ(one.st_mode & 0o7777 != other.st_mode & 0o7777, "mode");
    differ((one.st_uid, one.st_gid) != (other.st_uid, other.st_gid), "owner");
    let xattrs =
        |side: &Side| overlay::xattrs(&side.directory, &side.name).map_err(tree("list attributes of", path));
    if kind(one) == kind(other) {
        differ(one.st_rdev != other.st_rdev, "device");
        match kind(one) {
            FileType::Symlink => {
                let target = |side: &Side| side.target().map_err(tree("read", path));
                differ(target(old)? != target(new)?, "target");
            }
            FileType::RegularFile => {
                let same = one.st_size == other.st_size
                    && same_content(old.directory.as_fd(), new.directory.as_fd(), &new.name, path)?;
                differ(!same, "content");
            }
            _ => {}
        }
        differ(xattrs(old)? != xattrs(new)?, "attributes");
    }
    Ok(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
    };

    fn state(paths: &[&Path]) -> State {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directories =
            paths.iter().map(|path| rustix::fs::open(*path, flags, Mode::empty()).unwrap()).collect();
        State { directories, without: BTreeSet::new() }
    }

    #[test]
    fn only_what_differs_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let [low, one, two] = ["low", "one", "two"].map(|name| dir.path().join(name));
        for path in [&low, &one, &two] {
            fs::create_dir_all(path.join("d")).unwrap();
        }
        for (path, content) in [
            (low.join("d/same"), "s"),
            (low.join("d/f"), "1"),
            (one.join("d/same"), "s"),
            (two.join("d/f"), "2"),
        ] {
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(one.join("new/deep")).unwrap();
        symlink("x", two.join("link")).unwrap();
        fs::set_permissions(two.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        let mut told = Vec::new();
        states(&state(&[&low, &one]), &state(&[&low, &two]), 1, |change| {
            let sides = (change.old.is_some(), change.new.is_some());
            told.push((String::from_utf8(change.path).unwrap(), sides, change.what));
            Ok::<_, Error>(())
        })
        .unwrap();
        let (both, gone, came) = ((true, true), (true, false), (false, true));
        let expected = [
            ("d", both, vec!["mode"]),
            ("link", came, vec![]),
            ("new", gone, vec![]),
            ("d/f", both, vec!["content"]),
            ("new/deep", gone, vec![]),
        ];
        assert_eq!(told, expected.map(|(path, sides, what)| (path.to_owned(), sides, what)));
    }
}
