//! The directories of a layer that is being unpacked.

use std::collections::{BTreeMap, BTreeSet};

use super::{form::Facts, name};

/// A directory of the layer.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// The attributes in the directory's entry; None if no entry lists it.
    pub(super) listed: Option<Facts>,
    /// Whether the directory has an opaque whiteout, which hides the content of lower layers.
    pub(super) opaque: bool,
    /// Whether the layer deleted or replaced the directory of the lower layers, so that this is a new one.
    pub(super) new: bool,
    /// Whether the directory, or one below it, holds something besides whiteouts.
    pub(super) filled: bool,
    /// The names deleted in the directory.
    pub(super) whiteouts: BTreeSet<Vec<u8>>,
}

/// All directories by path; the root's path is empty. Each path is a real directory in the layer, and so are
/// its parents.
pub(super) struct Tree {
    pub(super) directories: BTreeMap<Vec<u8>, Directory>,
    /// The number of directories that were made without an entry.
    pub(super) implied: u64,
    /// The paths of files copied from lower layers for hard links to them. No entry names these paths.
    pub(super) copies: BTreeSet<Vec<u8>>,
    /// The approximate size of all this, in bytes.
    pub(super) kept: usize,
    /// The directory of the last lookup. Entries usually come directory by directory.
    last: Vec<u8>,
    /// The directory that something was put into last.
    last_filled: Option<Vec<u8>>,
}

/// The approximate overhead of each kept item, in bytes.
const OVERHEAD: usize = 100;

impl Tree {
    /// A tree with only the root.
    pub(super) fn new() -> Self {
        let directories = BTreeMap::from([(Vec::new(), Directory::default())]);
        Self {
            directories,
            implied: 0,
            copies: BTreeSet::new(),
            kept: 0,
            last: Vec::new(),
            last_filled: None,
        }
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

    /// Adds a directory that has been made without an entry.
    pub(super) fn imply(&mut self, path: &[u8]) {
        self.implied += 1;
        self.keep(path.len());
        self.directories.insert(path.to_vec(), Directory::default());
    }

    /// Notes that something was put into the directory at `path`, which is in the tree.
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

    /// Whether the directory at `path`, which is in the tree, exists only for whiteouts in it.
    pub(super) fn is_hollow(&mut self, path: &[u8]) -> bool {
        let directory = self.get(path);
        directory.listed.is_none() && !directory.filled && !directory.opaque
    }

    /// Counts an item of `length` bytes that is kept until the layer is finished.
    pub(super) fn keep(&mut self, length: usize) {
        self.kept = self.kept.saturating_add(length + OVERHEAD);
    }

    /// Removes the file or directory at `path`, if there is one, and everything below it.
    pub(super) fn remove(&mut self, path: &[u8]) {
        self.copies.remove(path);
        if self.directories.remove(path).is_some() {
            for copy in self.copies_below(path) {
                self.copies.remove(&copy);
            }
            let below: Vec<_> = self.directories.range(below(path)).map(|(path, _)| path.clone()).collect();
            below.iter().for_each(|path| drop(self.directories.remove(path)));
        }
        // The root is never removed.
        self.last.clear();
        self.last_filled = None;
    }

    /// The paths in `copies` below the directory at `path`.
    pub(super) fn copies_below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        match path.is_empty() {
            true => self.copies.iter().cloned().collect(),
            false => self.copies.range(below(path)).cloned().collect(),
        }
    }

    /// Whether lower layers are visible at `path`, because nothing in this layer hides them. `path` itself
    /// need not exist.
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

/// The range of all paths below a directory, which is not the root. `0` is the character after `/`.
fn below(path: &[u8]) -> std::ops::Range<Vec<u8>> {
    [path, b"/"].concat()..[path, b"0"].concat()
}
