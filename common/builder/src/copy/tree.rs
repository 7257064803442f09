//! The trees that COPY and ADD read: the build context, or the file system of a stage or image. The kernel
//! resolves every path inside the tree's root (openat2, RESOLVE_IN_ROOT), so no symbolic link leads out of
//! it.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use super::{CopyError, Owner, StatCache, failed, links};
use crate::{
    glob::{self, DoubleStar, Glob},
    ignore::{Ignore, Verdict},
};

/// A tree of files to copy from.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    ignore: Ignore,
    context: bool,
    /// The path of the root, if the tree outlives the build.
    path: Option<PathBuf>,
    /// The directories whose entries were read, and the links that were followed with the directories that
    /// they are in. None if nobody asks for them.
    seen: Option<RefCell<BTreeSet<PathBuf>>>,
    /// What earlier builds have read of it.
    pub(super) read_before: Option<RefCell<StatCache>>,
}

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device node, a fifo or a socket.
    Node,
}

/// One file to copy.
#[derive(Debug, Clone)]
pub struct Item {
    /// The file's path, relative to the tree's root.
    pub source: PathBuf,
    /// The file's new path, relative to the copy's destination. Empty for a directory whose contents are
    /// copied.
    pub target: PathBuf,
    /// The file's kind.
    pub kind: Kind,
    /// The file's metadata.
    pub stat: Stat,
}

/// A file that a source of COPY or ADD names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file's path, relative to the tree's root, with links followed.
    pub path: PathBuf,
    /// The name that the source used: that of a link, and not of its target. Empty for the root.
    pub name: OsString,
}

impl Tree {
    /// The build context in the directory `root`, without the files that `ignore` excludes.
    pub fn context(root: OwnedFd, ignore: Ignore) -> Self {
        Self { root, ignore, context: true, path: None, seen: None, read_before: None }
    }

    /// The file system of an image or a stage.
    pub fn image(root: OwnedFd) -> Self {
        Self { context: false, ..Self::context(root, Ignore::default()) }
    }

    /// Sets the path of the tree's root.
    pub fn at(self, path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// The same tree, which notes what decides which files are found ([`Tree::seen`]).
    pub(crate) fn noting(self) -> Self {
        Self { seen: Some(RefCell::default()), ..self }
    }

    /// The same tree, with the digests of files that earlier builds have read.
    pub(crate) fn with_stat_cache(self, cache: StatCache) -> Self {
        Self { read_before: Some(RefCell::new(cache)), ..self }
    }

    /// The path of the tree's root, if the tree outlives the build.
    pub fn host_path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What decided which files were found: the directories that were searched, and the links that were
    /// followed with the directories that they are in. Empty unless the tree notes it.
    pub(crate) fn seen(&self) -> Vec<PathBuf> {
        self.seen.iter().flat_map(|seen| seen.borrow().clone()).collect()
    }

    /// Records what was looked at to find files.
    fn see(&self, path: &Path) {
        if let Some(seen) = &self.seen {
            seen.borrow_mut().insert(path.to_owned());
        }
    }

    /// The patterns of files that are excluded from the tree.
    pub fn ignore(&self) -> &Ignore {
        &self.ignore
    }

    /// Whether the tree is a context. Owners in a context are ignored: they never reach an image.
    pub fn is_context(&self) -> bool {
        self.context
    }

    /// Opens a file in the tree. Does not follow a link at the end of the path.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_inside(self.root.as_fd(), path, flags | OFlags::NOFOLLOW)
    }

    /// The files that a source names: one path, or all files that match a pattern. Follows links before the
    /// first wildcard and at the end, but each file keeps the name that matched. Empty if nothing matches the
    /// pattern in a directory that exists.
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
        // Only a pattern may fit nothing. As in BuildKit, the directory before it must exist.
        let above = self.follow(&above)?.ok_or_else(|| self.missing(source))?;
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
        // A broken link is an error: it must not be left out silently.
        fitting.iter().map(|path| self.found(path, &path.to_string_lossy())).collect()
    }

    /// The file at `path`, which is not a pattern. Follows links.
    ///
    /// # Errors
    /// [`CopyError::NotInContext`], [`CopyError::NotFound`].
    pub fn find(&self, path: &str) -> Result<PathBuf, CopyError> {
        Ok(self.found(&clean("", path), path)?.path)
    }

    /// The file at `path`, with links followed. `source` is the name of the source in an error.
    pub(super) fn found(&self, path: &Path, source: &str) -> Result<Found, CopyError> {
        let name = path.file_name().unwrap_or_default().to_owned();
        self.follow(path)?.map(|path| Found { path, name }).ok_or_else(|| self.missing(source))
    }

    /// The error for a source that does not exist.
    pub(super) fn missing(&self, source: &str) -> CopyError {
        match self.context {
            true => CopyError::NotInContext(source.to_owned()),
            false => CopyError::NotFound(source.to_owned()),
        }
    }

    /// The item for the file at a resolved path.
    pub(super) fn item(&self, source: PathBuf, target: PathBuf) -> Result<Item, CopyError> {
        let file = self.open(&source, OFlags::PATH).map_err(failed("open", &source))?;
        let stat = stat(&file, &source)?;
        Ok(Item { kind: kind(&stat), source, target, stat })
    }

    /// The entries of a directory that match a pattern. Empty if it is not a directory, or is a link.
    fn matching(&self, directory: &Path, pattern: &Glob) -> Result<Vec<PathBuf>, CopyError> {
        let names = match self.names(directory) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Vec::new(),
            names => names.map_err(failed("read", directory))?,
        };
        let fitting = names.into_iter().filter(|name| pattern.matches(&name.to_string_lossy()));
        Ok(fitting.map(|name| directory.join(name)).collect())
    }

    /// The path that `path` leads to, with links followed, relative to the root. `None` if there is no such
    /// file, or it is excluded.
    fn follow(&self, path: &Path) -> Result<Option<PathBuf>, CopyError> {
        if self.is_out(path) {
            return Ok(None);
        }
        let file = match open_inside(self.root.as_fd(), path, OFlags::PATH) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(failed("open", path)(error)),
        };
        // If no link was on the way, the path is the file's own.
        let (flags, resolve) =
            (OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS);
        if let Ok(plain) = open_resolving(self.root.as_fd(), path, flags, resolve) {
            let (a, b) = (stat(&file, path)?, stat(&plain, path)?);
            if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) {
                return Ok(Some(path.to_owned()));
            }
        }
        if self.seen.is_some() {
            // Another link in its place would change the directory, but perhaps not the file that it leads to.
            let mut see = |link: &Path| {
                self.see(link);
                self.see(link.parent().unwrap_or(Path::new("")));
            };
            links::resolve(self.root.as_fd(), path, &mut see)?;
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
        // For the build, excluded files do not exist. So a link to one is broken.
        Ok(inside.filter(|real| !self.is_out(real)))
    }

    /// The kind of the file at a resolved path.
    ///
    /// # Errors
    /// [`CopyError::System`].
    pub fn kind(&self, path: &Path) -> Result<Kind, CopyError> {
        let file = self.open(path, OFlags::PATH).map_err(failed("open", path))?;
        Ok(kind(&stat(file, path)?))
    }

    /// The mode of the file at a resolved path, without the file type.
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

    /// Whether the build cannot see `path`: it is excluded, and so is everything below it.
    fn is_out(&self, path: &Path) -> bool {
        let holds = || self.list(path, Path::new(""), &Ignore::default()).is_ok_and(|list| !list.is_empty());
        self.is_ignored(path) && !(self.ignore.has_exceptions() && holds())
    }

    /// The names in a directory, sorted.
    fn names(&self, directory: &Path) -> Result<Vec<OsString>, Errno> {
        let file = self.open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.see(directory);
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

    /// Lists the files to copy for one resolved source: the file itself under the name `target`, or the
    /// contents of a directory. `exclude` is compared with paths relative to the source. An excluded
    /// directory is still listed, before its entries, if something in it is not excluded. It is copied with
    /// its mode.
    ///
    /// # Errors
    /// [`CopyError::System`].
    pub fn list(&self, source: &Path, target: &Path, exclude: &Ignore) -> Result<Vec<Item>, CopyError> {
        let mut items = Vec::new();
        // The verdicts on the directory above each file: the context's and those of `exclude`.
        let above = |ignore: &Ignore, path: &Path| match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => ignore.verdict(&above.to_string_lossy()),
            _ => Verdict::default(),
        };
        let verdicts = Rc::new((above(&self.ignore, source), above(exclude, target)));
        let mut pending = vec![(source.to_owned(), target.to_owned(), verdicts)];
        // Excluded directories above the current path that are not listed so far.
        let mut above: Vec<Item> = Vec::new();
        let verdict = |ignore: &Ignore, above: &Verdict, path: &Path| match path.as_os_str().is_empty() {
            true => Verdict::default(),
            false => ignore.verdict_below(above, &path.to_string_lossy()),
        };
        let deeper = self.ignore.has_exceptions() || exclude.has_exceptions();
        while let Some((path, target, verdicts)) = pending.pop() {
            let item = self.item(path, target)?;
            let (path, target) = (&item.source, &item.target);
            let verdicts =
                Rc::new((verdict(&self.ignore, &verdicts.0, path), verdict(exclude, &verdicts.1, target)));
            let out = verdicts.0.ignored || verdicts.1.ignored;
            if item.kind == Kind::Directory && (!out || deeper) {
                let names = self.names(path).map_err(failed("read", path))?;
                let below = |name| (path.join(name), target.join(name), Rc::clone(&verdicts));
                pending.extend(names.iter().rev().map(below));
            }
            while above.pop_if(|directory| !path.starts_with(&directory.source)).is_some() {}
            if !out {
                items.append(&mut above);
                items.push(item);
            } else if item.kind == Kind::Directory {
                above.push(item);
            }
        }
        Ok(items)
    }
}

/// Opens a path inside `root`, wherever links in it lead.
pub(super) fn open_inside(root: BorrowedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_resolving(root, path, flags, ResolveFlags::IN_ROOT)
}

fn open_resolving(
    root: BorrowedFd,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Something was renamed meanwhile, so the kernel could not guarantee that the path stayed inside.
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

/// The components of a path, without empty ones and `.`. `..` stops at the root.
pub(super) fn parts(source: &str) -> Vec<&str> {
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

/// A path without `.`, `..` and double slashes, as Go's `filepath.Clean` makes it: an absolute one stays
/// absolute, and `..` at the beginning of a relative one stays. `.` if nothing is left.
pub(crate) fn cleaned(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.as_slice()) {
        (true, parts) => format!("/{}", parts.join("/")),
        (false, []) => ".".to_owned(),
        (false, parts) => parts.join("/"),
    }
}

/// `path` (absolute, or relative to `directory`) without `.` and `..`, relative to the root.
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
