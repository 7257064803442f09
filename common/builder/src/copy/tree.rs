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

use super::{CopyError, Owner, failed};
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
    /// Where it is, if somebody may want to know what was read of it.
    path: Option<PathBuf>,
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

/// A file that a source names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path below the tree's root, without links.
    pub path: PathBuf,
    /// The name that it was asked for by: a link's own, not its target's. Empty for the root.
    pub name: OsString,
}

impl Tree {
    /// The build context in the directory `root`, without what `ignore` takes out.
    pub fn context(root: OwnedFd, ignore: Ignore) -> Self {
        Self { root, ignore, context: true, path: None }
    }

    /// The file system of an image or a stage.
    pub fn image(root: OwnedFd) -> Self {
        Self { root, ignore: Ignore::default(), context: false, path: None }
    }

    /// The same, with the path of its root.
    pub fn at(self, path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// The path of its root, if it has one that outlives the build.
    pub fn host_path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What is taken out of it.
    pub fn ignore(&self) -> &Ignore {
        &self.ignore
    }

    /// Whether owners in it count for nothing: those of a context never reach an image.
    pub fn is_context(&self) -> bool {
        self.context
    }

    /// Opens a file in it, without following a link at the path's end.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_inside(self.root.as_fd(), path, flags | OFlags::NOFOLLOW)
    }

    /// The files that a source names: itself, or all that fit it as a pattern. Links are followed, those before the first
    /// wildcard and one at the end; each file keeps the name that it was found by. Empty for a pattern that nothing
    /// fits.
    ///
    /// # Errors
    /// [`CopyError::NotInContext`], [`CopyError::NotFound`], [`CopyError::Pattern`].
    pub fn resolve(&self, source: &str) -> Result<Vec<Found>, CopyError> {
        let parts = parts(source);
        let Some(first) = parts.iter().position(|part| glob::has_wildcards(part)) else {
            let path: PathBuf = parts.iter().map(|part| glob::unescape(part)).collect();
            return Ok(vec![self.found(&path, &glob::unescape(source))?]);
        };
        let above: PathBuf = parts[..first].iter().map(|part| glob::unescape(part)).collect();
        let Some(above) = self.follow(&above)? else { return Ok(Vec::new()) };
        let mut fitting = vec![above];
        for part in &parts[first..] {
            let pattern = Glob::parse(part, DoubleStar::Plain)?;
            let mut next = Vec::new();
            for directory in fitting {
                next.extend(self.matching(&directory, &pattern)?);
            }
            fitting = next;
        }
        fitting.retain(|path| !self.is_out(path));
        // A link that leads nowhere is no reason to leave a file out without a word.
        fitting.iter().map(|path| self.found(path, &path.to_string_lossy())).collect()
    }

    /// The file at `path`, no part of which is a pattern. Links are followed.
    ///
    /// # Errors
    /// [`CopyError::NotInContext`], [`CopyError::NotFound`].
    pub fn find(&self, path: &str) -> Result<PathBuf, CopyError> {
        Ok(self.found(&clean("", path), path)?.path)
    }

    fn found(&self, path: &Path, source: &str) -> Result<Found, CopyError> {
        let name = path.file_name().unwrap_or_default().to_owned();
        match self.follow(path)? {
            Some(path) => Ok(Found { path, name }),
            None if self.context => Err(CopyError::NotInContext(source.to_owned())),
            None => Err(CopyError::NotFound(source.to_owned())),
        }
    }

    /// The entries of a directory that fit a pattern. Nothing where it is no directory, or a link.
    fn matching(&self, directory: &Path, pattern: &Glob) -> Result<Vec<PathBuf>, CopyError> {
        let names = match self.names(directory) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Vec::new(),
            names => names.map_err(failed("read", directory))?,
        };
        let fitting = names.into_iter().filter(|name| pattern.matches(&name.to_string_lossy()));
        Ok(fitting.map(|name| directory.join(name)).collect())
    }

    /// The path that `path` stands for once links are followed, below the root; none where there is no such file, or
    /// where it is ignored.
    fn follow(&self, path: &Path) -> Result<Option<PathBuf>, CopyError> {
        if self.is_out(path) {
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
        Ok(inside.filter(|real| !self.is_out(real)))
    }

    /// What the file at a resolved path is.
    ///
    /// # Errors
    /// [`CopyError::System`].
    pub fn kind(&self, path: &Path) -> Result<Kind, CopyError> {
        let file = self.open(path, OFlags::PATH).map_err(failed("open", path))?;
        Ok(kind(&stat(file, path)?))
    }

    /// The mode of the file at a resolved path: its permissions.
    ///
    /// # Errors
    /// [`CopyError::System`].
    pub fn mode(&self, path: &Path) -> Result<u32, CopyError> {
        let file = self.open(path, OFlags::PATH).map_err(failed("open", path))?;
        Ok(stat(&file, path)?.st_mode & 0o7777)
    }

    /// The owner of the file at a resolved path.
    ///
    /// # Errors
    /// [`CopyError::System`].
    pub fn owner(&self, path: &Path) -> Result<Owner, CopyError> {
        let file = self.open(path, OFlags::PATH).map_err(failed("open", path))?;
        let stat = stat(&file, path)?;
        Ok(Owner { uid: stat.st_uid, gid: stat.st_gid })
    }

    fn is_ignored(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty()
            && !self.ignore.is_empty()
            && self.ignore.ignores(&path.to_string_lossy())
    }

    /// Whether the build does not see `path`: it is ignored, and so is all that is below it.
    fn is_out(&self, path: &Path) -> bool {
        let holds = || self.list(path, Path::new(""), &Ignore::default()).is_ok_and(|list| !list.is_empty());
        self.is_ignored(path) && !(self.ignore.has_exceptions() && holds())
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
    /// `exclude` is held against paths below the source. A directory that is left out, but something in it is not, is in
    /// the list before that: it is copied with its mode.
    ///
    /// # Errors
    /// [`CopyError::System`].
    pub fn list(&self, source: &Path, target: &Path, exclude: &Ignore) -> Result<Vec<Item>, CopyError> {
        let mut items = Vec::new();
        let mut pending = vec![(source.to_owned(), target.to_owned())];
        // Directories above the path that are left out so far.
        let mut above: Vec<Item> = Vec::new();
        let excluded = |ignore: &Ignore, path: &Path| {
            !path.as_os_str().is_empty() && !ignore.is_empty() && ignore.ignores(&path.to_string_lossy())
        };
        let deeper = self.ignore.has_exceptions() || exclude.has_exceptions();
        while let Some((path, target)) = pending.pop() {
            let file = self.open(&path, OFlags::PATH).map_err(failed("open", &path))?;
            let stat = stat(&file, &path)?;
            let kind = kind(&stat);
            let out = excluded(&self.ignore, &path) || excluded(exclude, &target);
            if kind == Kind::Directory && (!out || deeper) {
                let names = self.names(&path).map_err(failed("read", &path))?;
                pending.extend(names.iter().rev().map(|name| (path.join(name), target.join(name))));
            }
            while above.pop_if(|directory| !path.starts_with(&directory.source)).is_some() {}
            let item = Item { source: path, target, kind, stat };
            if !out {
                items.append(&mut above);
                items.push(item);
            } else if kind == Kind::Directory {
                above.push(item);
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

/// The components of a path, without empty ones and `.`; `..` stops at the root.
pub(crate) fn parts(source: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
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
