//! The work after the last entry: whiteouts, opaque directories, and the attributes of directories.

use std::os::fd::AsFd;

use archive::{LINKED, Time};

use super::{
    Dependency, EntryError, Error, LeftOut,
    below::Found,
    dependency::{Aspect, facts},
    entries::Unpacking,
    form::{Facts, Form, Standing},
    name::{join, split},
};

/// Facts about a finished layer.
pub(super) struct Finished {
    /// What was left out.
    pub(super) left_out: LeftOut,
    /// The number of entries that differ from the layer.
    pub(super) approximated: u64,
    /// What was taken from lower layers.
    pub(super) dependencies: Vec<Dependency>,
}

impl<F: Form> Unpacking<'_, F> {
    /// Finishes the layer.
    pub(super) fn finish(mut self) -> Result<Finished, Error> {
        self.link_pending()?;
        if self.tree.contains(LINKED) {
            self.tree.remove(LINKED);
            self.form.remove(b"", LINKED).map_err(Error::entry(LINKED))?;
        }
        // Parents before children: the whiteouts of a parent decide whether a directory is new.
        let mut next = Some(Vec::new());
        while let Some(path) = next {
            self.settle(&path).map_err(Error::entry(&path))?;
            self.within_memory()?;
            let after = (std::ops::Bound::Excluded(&path), std::ops::Bound::Unbounded);
            next = self.tree.directories.range::<Vec<u8>, _>(after).next().map(|(path, _)| path.clone());
        }
        let dependencies = self.dependencies.into_iter();
        let dependencies = dependencies.map(|((path, aspect), seen)| Dependency::new(&path, aspect, seen));
        let dependencies: Vec<_> = dependencies.collect();
        let left_out = self.left_out;
        let approximated = self.approximated + self.form.finish(&dependencies).map_err(Error::entry(b"."))?;
        Ok(Finished { left_out, approximated, dependencies })
    }

    fn settle(&mut self, path: &[u8]) -> Result<(), EntryError> {
        if self.remove_hidden_copies(path)? {
            return Ok(());
        }
        self.whiteouts(path)?;
        if path.is_empty() && self.tree.get(path).opaque {
            self.opaque_root()?;
        }
        let facts = match self.tree.get(path).listed.take() {
            Some(facts) => facts,
            None => self.implied(path)?,
        };
        let directory = self.tree.get(path);
        let hides = !path.is_empty() && (directory.opaque || directory.new);
        self.form.finish_directory(path, &facts, hides)
    }

    /// Removes the copies in a directory whose files the layer deletes. The hard links keep their content. A
    /// directory that exists only for such copies is removed too; returns whether it was.
    fn remove_hidden_copies(&mut self, path: &[u8]) -> Result<bool, EntryError> {
        let copies = self.tree.copies_below(path);
        if copies.is_empty() {
            return Ok(false);
        }
        if !path.is_empty() && self.tree.is_hollow(path) && !self.tree.shows_below(path) {
            let (parent, name) = split(path);
            self.tree.remove(path);
            self.form.remove(parent, name)?;
            return Ok(true);
        }
        for copy in copies {
            let (parent, name) = split(&copy);
            if parent == path && !self.tree.shows_below(&copy) {
                self.tree.remove(&copy);
                self.form.remove(parent, name)?;
            }
        }
        Ok(false)
    }

    /// The attributes of a directory that the archive does not list. They come from the lower layers, or are
    /// mode 0755, owner root and time 0.
    fn implied(&mut self, path: &[u8]) -> Result<Facts, EntryError> {
        if self.tree.shows_below(path) {
            self.depend(path, Aspect::Attributes)?;
            if let Found::Directory(fd) = self.below.find(path)? {
                let mut facts = facts(fd.as_fd(), path)?;
                self.keep_own(&mut facts);
                return Ok(facts);
            }
        }
        Ok(Facts { mode: 0o755, uid: 0, gid: 0, mtime: Time::default(), atime: None, xattrs: Vec::new() })
    }

    /// Makes the whiteouts of a directory. They do not apply to this layer's own content, in whatever order
    /// the entries came. If no lower layer has anything in the directory, no whiteouts are made, because the
    /// mount would show them as devices.
    fn whiteouts(&mut self, path: &[u8]) -> Result<(), EntryError> {
        if self.tree.get(path).whiteouts.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.tree.get(path).whiteouts.iter().cloned().collect();
        let merged = !self.tree.get(path).opaque
            && !self.tree.get(path).new
            && self.tree.shows_below(path)
            && self.depend(path, Aspect::Directory)? == "directory";
        for name in names {
            self.hide(path, &name, merged)?;
        }
        Ok(())
    }

    /// overlayfs ignores an opaque root of a layer, so each name in the lower root is deleted instead.
    fn opaque_root(&mut self) -> Result<(), EntryError> {
        self.depend(b"", Aspect::Names)?;
        for name in self.below.root_names()? {
            self.hide(b"", &name, true)?;
        }
        Ok(())
    }

    fn hide(&mut self, path: &[u8], name: &[u8], merged: bool) -> Result<(), EntryError> {
        let mut standing = self.form.standing(path, name)?;
        let at = join(path, name);
        // A directory that exists only for whiteouts in it is removed.
        if matches!(standing, Standing::Directory) && self.tree.is_hollow(&at) {
            self.tree.remove(&at);
            self.form.remove(path, name)?;
            standing = Standing::Nothing;
        }
        match standing {
            Standing::Directory => self.tree.get(&at).new = true,
            Standing::Nothing if merged => self.form.whiteout(path, name)?,
            _ => {}
        }
        Ok(())
    }
}
