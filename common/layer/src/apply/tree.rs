//! The directories of the layer that is being unpacked.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::fd::OwnedFd,
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2, statat},
    io::Errno,
};

use super::{EntryError, name};
use crate::{archive::Time, remove_tree};

/// What an entry says of its file or directory besides its content.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A directory that stands in the layer.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// What its entry says; none where it is only there because something in it is.
    pub(super) listed: Option<Facts>,
    /// An opaque whiteout was met: what the layers below have in it is hidden.
    pub(super) opaque: bool,
    /// The layer itself deleted, or replaced, what the layers below have under its name: it is a new one.
    pub(super) new: bool,
    /// Names deleted in it.
    pub(super) whiteouts: BTreeSet<Vec<u8>>,
    fd: Option<Rc<OwnedFd>>,
}

/// All directories by their paths; the root's is empty. A path that is in here is a real directory in the layer, and so
/// are all its parents.
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    pub(super) directories: BTreeMap<Vec<u8>, Directory>,
    /// Those whose descriptors are open, the oldest first.
    open: VecDeque<Vec<u8>>,
    /// How many directories were made that no entry lists.
    pub(super) implied: u64,
    /// About how many bytes all this takes.
    pub(super) kept: usize,
    /// The last directory that was asked for: entries come one directory after the other.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

/// How many directories are kept open.
const OPEN: usize = 200;

/// What the kept things take beside their bytes, about.
const OVERHEAD: usize = 100;

/// What stands under a name in the layer.
pub(super) enum Standing {
    Nothing,
    Directory,
    Symlink,
    Other,
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        let root = Rc::new(root);
        let directories = BTreeMap::from([(Vec::new(), Directory::default())]);
        Self { root, directories, open: VecDeque::new(), implied: 0, kept: 0, last: None }
    }

    /// The directory at `path`, which is in the tree, opened.
    pub(super) fn open(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, EntryError> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.clone());
        }
        let fd = self.open_path(path)?;
        self.last = Some((path.to_vec(), fd.clone()));
        Ok(fd)
    }

    fn open_path(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, EntryError> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(fd) = self.directories.get(path).and_then(|directory| directory.fd.clone()) {
            return Ok(fd);
        }
        let fd = openat2(
            &self.root,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        );
        let fd = Rc::new(fd.map_err(EntryError::call("open directory"))?);
        if let Some(directory) = self.directories.get_mut(path) {
            directory.fd = Some(fd.clone());
            self.open.push_back(path.to_vec());
        }
        if self.open.len() > OPEN
            && let Some(oldest) = self.open.pop_front()
            && let Some(directory) = self.directories.get_mut(&oldest)
        {
            directory.fd = None;
        }
        Ok(fd)
    }

    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.last.as_ref().is_some_and(|(last, _)| last == path) || self.directories.contains_key(path)
    }

    /// Makes the directory `name` in `parent`, which is in the tree. Nothing stands under that name.
    pub(super) fn make(&mut self, parent: &[u8], name: &[u8]) -> Result<(), EntryError> {
        let fd = self.open(parent)?;
        mkdirat(&fd, name, Mode::RWXU).map_err(EntryError::call("create directory"))?;
        let path = name::join(parent, name);
        self.implied += 1;
        self.keep(path.len());
        self.directories.insert(path, Directory::default());
        Ok(())
    }

    /// Counts something of `length` bytes that is kept until the layer is finished.
    pub(super) fn keep(&mut self, length: usize) {
        self.kept = self.kept.saturating_add(length + OVERHEAD);
    }

    /// What stands as `name` in `parent`, which is in the tree.
    pub(super) fn standing(&mut self, parent: &[u8], name: &[u8]) -> Result<Standing, EntryError> {
        let fd = self.open(parent)?;
        match statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Standing::Directory,
                FileType::Symlink => Standing::Symlink,
                _ => Standing::Other,
            }),
            Err(Errno::NOENT) => Ok(Standing::Nothing),
            Err(error) => Err(EntryError::call("stat")(error)),
        }
    }

    /// Removes whatever stands as `name` in `parent`, which is in the tree, with all that is below it.
    pub(super) fn remove(&mut self, parent: &[u8], name: &[u8]) -> Result<(), EntryError> {
        let fd = self.open(parent)?;
        let path = name::join(parent, name);
        if self.directories.remove(&path).is_some() {
            let (from, to) = ([&path[..], b"/"].concat(), [&path[..], b"0"].concat());
            let below: Vec<_> = self.directories.range(from..to).map(|(path, _)| path.clone()).collect();
            below.iter().for_each(|path| drop(self.directories.remove(path)));
        }
        self.last = None;
        remove_tree(&*fd, name).map_err(EntryError::call("remove what an earlier entry made"))
    }

    /// Whether the layers below can be seen at `path`: nothing in this layer hides them. `path` itself need not be there.
    pub(super) fn shows_below(&self, path: &[u8]) -> bool {
        let mut path = path;
        while !path.is_empty() {
            if self.directories.get(path).is_some_and(|directory| directory.new) {
                return false;
            }
            let (parent, name) = name::split(path);
            let hidden = |parent: &Directory| parent.opaque || parent.whiteouts.contains(name);
            if self.directories.get(parent).is_some_and(hidden) {
                return false;
            }
            path = parent;
        }
        true
    }

    /// The directory at `path`, which is in the tree.
    pub(super) fn get(&mut self, path: &[u8]) -> &mut Directory {
        self.directories.entry(path.to_vec()).or_default()
    }
}
