//! What COPY and ADD read: the build context, or the file system of a stage or an image. Every path is resolved by the
//! kernel inside of the tree's root (openat2, RESOLVE_IN_ROOT), so no symbolic link leads out of it.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use super::{CopyError, failed};
use crate::{
    glob::{self, DoubleStar, Glob},
    ignore::Ignore,
};

/// A tree of files to copy from.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    ignore: Ignore,
    context: bool,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device, a fifo or a socket.
    Node,
}

/// One file to copy.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it is, below the tree's root.
    pub source: PathBuf,
    /// Where it goes, below the copy's destination; empty for a directory whose contents are copied.
    pub target: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// What is known of it.
    pub stat: Stat,
}

impl Tree {
    /// The build context in the directory `root`, without what `ignore` takes out.
    pub fn context(root: OwnedFd, ignore: Ignore) -> Self {
        Self { root, ignore, context: true }
    }

    /// The file system of an image or a stage.
    pub fn image(root: OwnedFd) -> Self {
        Self { root, ignore: Ignore::default(), context: false }
    }

    /// Whether owners in it count for nothing: those of a context never reach an image.
    pub fn is_context(&self) -> bool {
        self.context
    }

    /// Whether anything in it is ignored.
    pub fn has_ignore(&self) -> bool {
        !self.ignore.is_empty()
    }

    /// Opens a file in it, without following a link at the path's end.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_inside(self.root.as_fd(), path, flags | OFlags::NOFOLLOW)
    }

    /// The paths that a source names: itself, or all that fit it as a pattern. A link at the end is followed. Empty for
    /// a pattern that nothing fits.
    ///
    /// # Errors
    /// [`CopyError::Forbidden`], [`CopyError::NotInContext`], [`CopyError::NotFound`], [`CopyError::Pattern`].
    pub fn resolve(&self, source: &str) -> Result<Vec<PathBuf>, CopyError> {
        let parts = self.parts(source)?;
        let wild = parts.iter().any(|part| glob::has_wildcards(part));
        let mut found = vec![PathBuf::new()];
        for part in &parts {
            found = if glob::has_wildcards(part) {
                let pattern = Glob::parse(part, DoubleStar::Plain)?;
                let mut next = Vec::new();
                for directory in found {
                    next.extend(self.matching(&directory, &pattern));
                }
                next
            } else {
                let name = glob::unescape(part);
                found.into_iter().map(|path| path.join(&name)).collect()
            };
        }
        let mut resolved = Vec::new();
        for path in found {
            match self.follow(&path)? {
                Some(real) => resolved.push(real),
                None if wild => {}
                None if self.context => return Err(CopyError::NotInContext(source.to_owned())),
                None => return Err(CopyError::NotFound(source.to_owned())),
            }
        }
        Ok(resolved)
    }

    /// The components of a source's path.
    fn parts(&self, source: &str) -> Result<Vec<String>, CopyError> {
        let mut parts: Vec<String> = Vec::new();
        for part in source.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    if parts.pop().is_none() && self.context {
                        return Err(CopyError::Forbidden(source.to_owned()));
                    }
                }
                part => parts.push(part.to_owned()),
            }
        }
        Ok(parts)
    }

    /// The entries of a directory that fit a pattern. Nothing where it is no directory.
    fn matching(&self, directory: &Path, pattern: &Glob) -> Vec<PathBuf> {
        let names = self.names(directory).unwrap_or_default();
        names
            .into_iter()
            .filter(|name| pattern.matches(&name.to_string_lossy()))
            .map(|name| directory.join(name))
            .collect()
    }

    /// The path that `path` stands for once links are followed, below the root; none where there is no such file, or
    /// where it is ignored.
    fn follow(&self, path: &Path) -> Result<Option<PathBuf>, CopyError> {
        if self.is_ignored(path) && !self.may_hold_exceptions(path) {
            return Ok(None);
        }
        let file = match open_inside(self.root.as_fd(), path, OFlags::PATH) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(failed("open", path)(error)),
        };
        // Where no link was in the way, the path is the file's own.
        if let Ok(plain) = self.open(path, OFlags::PATH) {
            let (a, b) = (stat(&file, path)?, stat(&plain, path)?);
            if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) {
                return Ok(Some(path.to_owned()));
            }
        }
        let link = |fd: &OwnedFd| {
            let text =
                rustix::fs::readlink(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd)), []);
            text.map(|text| PathBuf::from(OsStr::from_bytes(text.as_bytes())))
        };
        let (root, real) = (link(&self.root), link(&file));
        let inside = match (&root, &real) {
            (Ok(root), Ok(real)) => real.strip_prefix(root).ok().map(Path::to_owned),
            _ => None,
        };
        // A link to what is ignored leads nowhere either: to the build it is not there.
        Ok(inside.filter(|real| !self.is_ignored(real) || self.may_hold_exceptions(real)))
    }

    /// What the file at a resolved path is.
    ///
    /// # Errors
    /// [`CopyError::System`].
    pub fn kind(&self, path: &Path) -> Result<Kind, CopyError> {
        let file = self.open(path, OFlags::PATH).map_err(failed("open", path))?;
        Ok(kind(&stat(file, path)?))
    }

    fn is_ignored(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty()
            && !self.ignore.is_empty()
            && self.ignore.ignores(&path.to_string_lossy())
    }

    /// Whether `path` is an ignored directory in which something may not be ignored.
    fn may_hold_exceptions(&self, path: &Path) -> bool {
        self.ignore.has_exceptions()
            && self
                .open(path, OFlags::PATH)
                .and_then(rustix::fs::fstat)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// The names in a directory, sorted.
    fn names(&self, directory: &Path) -> Result<Vec<OsString>, Errno> {
        let file = self.open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&file)? {
            let name = entry?.file_name().to_owned();
            if name.to_bytes() != b"." && name.to_bytes() != b".." {
                names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Lists what is to be copied for one resolved source: the file itself, under `target`; or a directory's contents.
    /// `exclude` is held against paths below the source.
    ///
    /// # Errors
    /// [`CopyError::System`].
    pub fn list(&self, source: &Path, target: &Path, exclude: &Ignore) -> Result<Vec<Item>, CopyError> {
        let mut items = Vec::new();
        let mut pending = vec![(source.to_owned(), target.to_owned())];
        while let Some((path, target)) = pending.pop() {
            let file = self.open(&path, OFlags::PATH).map_err(failed("open", &path))?;
            let stat = stat(&file, &path)?;
            let kind = kind(&stat);
            let excluded = |ignore: &Ignore, path: &Path| {
                !path.as_os_str().is_empty() && !ignore.is_empty() && ignore.ignores(&path.to_string_lossy())
            };
            let out = excluded(&self.ignore, &path) || excluded(exclude, &target);
            let deeper = self.ignore.has_exceptions() || exclude.has_exceptions();
            if kind == Kind::Directory && (!out || deeper) {
                let names = self.names(&path).map_err(failed("read", &path))?;
                pending.extend(names.iter().rev().map(|name| (path.join(name), target.join(name))));
            }
            if !out {
                items.push(Item { source: path, target, kind, stat });
            }
        }
        Ok(items)
    }
}

/// Opens a path inside of `root`, whatever links are in it.
pub(super) fn open_inside(
    root: std::os::fd::BorrowedFd,
    path: &Path,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT) {
            // Something was renamed meanwhile, so that the kernel could not be sure to have stayed inside.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

pub(super) fn stat(file: impl AsFd, path: &Path) -> Result<Stat, CopyError> {
    rustix::fs::fstat(file).map_err(failed("stat", path))
}

pub(super) fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Node,
    }
}

/// `path` (absolute, or relative to `directory`) without `.` and `..`, as a path below the root.
pub fn clean(directory: &str, path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in Path::new(directory).components().chain(Path::new(path).components()) {
        match part {
            Component::RootDir => clean.clear(),
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}
