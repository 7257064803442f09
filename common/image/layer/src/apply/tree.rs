//! The directories of the layer that is being unpacked.

use std::collections::{BTreeMap, BTreeSet};

use super::{form::Facts, name};

/// A directory of the layer.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// The attributes of its entry; none if no entry lists it.
    pub(super) listed: Option<Facts>,
    /// An opaque whiteout was found: the content in lower layers is hidden.
    pub(super) opaque: bool,
    /// The layer itself deleted or replaced the directory of the lower layers: this is a new one.
    pub(super) new: bool,
    /// Something stands in it, or in a directory below it, that is more than a whiteout.
    pub(super) filled: bool,
    /// Names deleted in it.
    pub(super) whiteouts: BTreeSet<Vec<u8>>,
}

/// All directories by their paths; the root's path is empty. Each path in here is a real directory in the layer, and so
/// are all its parents.
pub(super) struct Tree {
    pub(super) directories: BTreeMap<Vec<u8>, Directory>,
    /// How many directories were made without an entry.
    pub(super) implied: u64,
    /// About how many bytes all this takes.
    pub(super) kept: usize,
    /// The last directory that was looked up: entries usually come directory by directory.
    last: Vec<u8>,
    /// The last directory that something was put into.
    last_filled: Option<Vec<u8>>,
}

/// The approximate overhead for each kept thing, in bytes.
const OVERHEAD: usize = 100;

impl Tree {
    /// Only the root.
    pub(super) fn new() -> Self {
        let directories = BTreeMap::from([(Vec::new(), Directory::default())]);
        Self { directories, implied: 0, kept: 0, last: Vec::new(), last_filled: None }
    }

    pub(super) fn contains(&mut self, path: &[u8]) -> bool {
        if self.last == path {
            return true;
        }
        let found = self.directories.contains_key(path);
        if found {
            self.last.clear();
            self.last.extend_from_slice(path);
        }
        found
    }

    /// Adds a directory that was made without an entry (so far).
    pub(super) fn imply(&mut self, path: &[u8]) {
        self.implied += 1;
        self.keep(path.len());
        self.directories.insert(path.to_vec(), Directory::default());
    }

    /// Says that something was put into the directory at `path`, which is in the tree.
    pub(super) fn fill(&mut self, path: &[u8]) {
        if self.last_filled.as_deref() == Some(path) {
            return;
        }
        let mut next = path;
        while !std::mem::replace(&mut self.get(next).filled, true) && !next.is_empty() {
            next = name::split(next).0;
        }
        self.last_filled = Some(path.to_vec());
    }

    /// Whether the directory at `path`, which is in the tree, is there for whiteouts in it alone.
    pub(super) fn is_hollow(&mut self, path: &[u8]) -> bool {
        let directory = self.get(path);
        directory.listed.is_none() && !directory.filled && !directory.opaque
    }

    /// Counts something of `length` bytes that is kept until the layer is finished.
    pub(super) fn keep(&mut self, length: usize) {
        self.kept = self.kept.saturating_add(length + OVERHEAD);
    }

    /// Removes the directory at `path`, if it is one, and all below it.
    pub(super) fn remove(&mut self, path: &[u8]) {
        if self.directories.remove(path).is_some() {
            let (from, to) = ([path, b"/"].concat(), [path, b"0"].concat());
            let below: Vec<_> = self.directories.range(from..to).map(|(path, _)| path.clone()).collect();
            below.iter().for_each(|path| drop(self.directories.remove(path)));
        }
        // The root is never removed.
        self.last.clear();
        self.last_filled = None;
    }

    /// Whether lower layers are visible at `path`: nothing in this layer hides them. `path` itself need not exist.
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
