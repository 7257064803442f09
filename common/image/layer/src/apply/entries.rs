//! Entries → files, one after the other.

use std::{collections::BTreeMap, io::BufRead};

use archive::{Entry, Kind, Reader};
use rustix::io::Errno;

use super::{
    Below, EntryError, Error, Limits, Options,
    dependency::{Aspect, look},
    form::{Facts, Form, Made, Special},
    links::Pending,
    name::{Target, join},
    tree::Tree,
};
use crate::{overlay, pipeline};

/// A layer that is being unpacked: the meaning of its entries, in whatever form it gets.
pub(super) struct Unpacking<'a, F> {
    pub(super) form: F,
    pub(super) tree: Tree,
    pub(super) below: &'a Below,
    pub(super) options: &'a Options,
    /// The owner of files whose owner has no mapping in the user namespace.
    owner: (u32, u32),
    pub(super) left_out: u64,
    pub(super) approximated: u64,
    /// Bytes of files that were copied from lower layers.
    pub(super) copied: u64,
    pub(super) dependencies: BTreeMap<(Vec<u8>, Aspect), String>,
    /// Hard links to targets that do not exist yet.
    pub(super) pending: Vec<Pending>,
}

/// The limit for what is kept in memory of a layer, in bytes: a million directories, or some millions of an image's
/// files.
const KEPT: usize = 256 << 20;

impl<'a, F: Form> Unpacking<'a, F> {
    pub(super) fn new(form: F, below: &'a Below, options: &'a Options) -> Self {
        Self {
            form,
            tree: Tree::new(),
            below,
            options,
            owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            left_out: 0,
            approximated: 0,
            copied: 0,
            dependencies: BTreeMap::new(),
            pending: Vec::new(),
        }
    }

    /// Applies `entry`; its data is read from `reader`.
    pub(super) fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), Error> {
        self.apply(entry, reader).map_err(Error::entry(&entry.path))
    }

    fn apply<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), EntryError> {
        match Target::of(&entry.path)? {
            Target::Root if entry.kind != Kind::Directory => return Err(EntryError::Root),
            Target::Root => self.tree.get(b"").listed = Some(self.facts(entry)?),
            Target::Aufs => {}
            Target::Whiteout { parent, name } => {
                check_whiteout(entry)?;
                let parent = self.parent(parent)?;
                self.tree.keep(name.len());
                self.tree.get(&parent).whiteouts.insert(name);
            }
            Target::Opaque { parent } => {
                check_whiteout(entry)?;
                let parent = self.parent(parent)?;
                self.tree.get(&parent).opaque = true;
            }
            Target::Path { parent, name } => {
                let parent = self.parent(parent)?;
                self.tree.fill(&parent);
                match entry.kind {
                    Kind::Directory => self.directory(&parent, &name, entry)?,
                    Kind::File => self.file(&parent, &name, entry, reader)?,
                    Kind::HardLink => self.hard_link(&parent, &name, entry)?,
                    _ => self.special(&parent, &name, &entry.link, entry)?,
                }
            }
        }
        Ok(())
    }

    /// Whether the result so far, from `entries` entries with files of `size` bytes, is within the limits.
    pub(super) fn within(&self, limits: &Limits, entries: u64, size: u64) -> Result<(), Error> {
        let (entries, size) = (entries.saturating_add(self.tree.implied), size.saturating_add(self.copied));
        limits.hold_entries(entries, size).map_err(pipeline::Error::Exceeded)?;
        self.within_memory()
    }

    /// Whether the memory is within its limit.
    pub(super) fn within_memory(&self) -> Result<(), Error> {
        match self.tree.kept.saturating_add(self.form.kept()) > KEPT {
            true => Err(Error::Memory { limit: KEPT }),
            false => Ok(()),
        }
    }

    /// Adds what the lower layers have at `path` to the dependencies of this directory.
    pub(super) fn depend(&mut self, path: &[u8], aspect: Aspect) -> Result<&str, EntryError> {
        let key = (path.to_vec(), aspect);
        if !self.dependencies.contains_key(&key) {
            let seen = look(self.below, path, aspect)?;
            self.tree.keep(path.len() + seen.len());
            self.dependencies.insert(key.clone(), seen);
        }
        Ok(self.dependencies.get(&key).map_or("", String::as_str))
    }

    fn directory(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<(), EntryError> {
        let path = join(parent, name);
        if !self.tree.contains(&path) {
            // If an earlier entry made it a file, that hid the content of the lower layers.
            let ((), replaced) = self.make(parent, name, |form| form.make_directory(parent, name))?;
            self.tree.get(&path).new = replaced;
        }
        let facts = self.facts(entry)?;
        self.tree.keep(
            path.len() + facts.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>(),
        );
        self.tree.get(&path).listed = Some(facts);
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        parent: &[u8],
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), EntryError> {
        let facts = self.facts(entry)?;
        let mut file = self.create(parent, name, &facts, entry.size)?;
        match &entry.sparse {
            None => self.copy(&mut file, reader, 0, entry.size)?,
            Some(segments) => {
                for segment in segments {
                    self.copy(&mut file, reader, segment.offset, segment.length)?;
                }
            }
        }
        self.form.close(file, &facts)
    }

    /// Writes the next `length` bytes of the entry's data at `offset`, or as many as there are.
    fn copy<R: BufRead>(
        &mut self,
        file: &mut F::File,
        reader: &mut Reader<R>,
        mut offset: u64,
        length: u64,
    ) -> Result<(), EntryError> {
        let end = offset.saturating_add(length);
        while offset < end {
            let data = reader.data()?;
            let count = usize::try_from(end - offset).map_or(data.len(), |left| left.min(data.len()));
            if count == 0 {
                break;
            }
            self.form.write(file, offset, &data[..count])?;
            reader.consume(count);
            offset += count as u64;
        }
        Ok(())
    }

    /// Creates a regular file that is visible only to us.
    pub(super) fn create(
        &mut self,
        parent: &[u8],
        name: &[u8],
        facts: &Facts,
        size: u64,
    ) -> Result<F::File, EntryError> {
        Ok(self.make(parent, name, |form| form.create(parent, name, facts, size))?.0)
    }

    /// Makes something, and removes what an earlier entry made under its name. Returns whether there was something.
    pub(super) fn make<T>(
        &mut self,
        parent: &[u8],
        name: &[u8],
        mut make: impl FnMut(&mut F) -> Made<T>,
    ) -> Result<(T, bool), EntryError> {
        if let Some(made) = make(&mut self.form)? {
            return Ok((made, false));
        }
        self.tree.remove(&join(parent, name));
        self.form.remove(parent, name)?;
        let made = make(&mut self.form)?;
        Ok((made.ok_or_else(|| EntryError::call("create")(Errno::EXIST))?, true))
    }

    /// A symbolic link, a device or a named pipe.
    pub(super) fn special(
        &mut self,
        parent: &[u8],
        name: &[u8],
        target: &[u8],
        entry: &Entry,
    ) -> Result<(), EntryError> {
        let Entry { kind, device, .. } = *entry;
        if kind == Kind::CharDevice && device == (0, 0) {
            return Err(EntryError::WhiteoutDevice);
        }
        let facts = self.facts(entry)?;
        if self.options.namespace.is_some() && matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            if !self.options.rootless {
                return Err(EntryError::NamespaceDevice);
            }
            self.approximated += 1;
            let file = self.create(parent, name, &facts, 0)?;
            return self.form.close(file, &facts);
        }
        let special = Special { kind, target, device };
        self.make(parent, name, |form| form.special(parent, name, special, &facts)).map(|_| ())
    }

    /// The attributes of the entry's file, as far as the user namespace can represent them.
    fn facts(&mut self, entry: &Entry) -> Result<Facts, EntryError> {
        let mut facts = Facts::from(entry);
        self.keep_own(&mut facts);
        let Some(namespace) = &self.options.namespace else { return Ok(facts) };
        let (user, group) = (namespace.has_user(facts.uid), namespace.has_group(facts.gid));
        if user && group {
            return Ok(facts);
        }
        if !self.options.rootless {
            return Err(EntryError::Owner { uid: facts.uid, gid: facts.gid });
        }
        self.approximated += 1;
        // Executing it would switch to a user that the layer does not name.
        if !user {
            (facts.uid, facts.mode) = (self.owner.0, facts.mode & !0o4000);
        }
        if !group {
            (facts.gid, facts.mode) = (self.owner.1, facts.mode & !0o2000);
        }
        Ok(facts)
    }

    /// Keeps only the attributes that belong to the file. overlayfs's own would change what the mount shows. A label of
    /// SELinux and an ACL of NFS belong to the machine that the layer was made on. So do attributes outside Linux's
    /// name spaces (xattr(7)), such as `com.apple.provenance` of macOS.
    pub(super) fn keep_own(&mut self, facts: &mut Facts) {
        let all = facts.xattrs.len();
        facts.xattrs.retain(|(name, _)| {
            overlay::is_linux_xattr(name)
                && !overlay::is_overlay_xattr(name)
                && name != b"security.selinux"
                && name != b"system.nfs4_acl"
        });
        self.left_out += (all - facts.xattrs.len()) as u64;
    }
}

/// OCI image-spec, layer.md: "a whiteout is an empty file". AUFS made them as hard links to one.
fn check_whiteout(entry: &Entry) -> Result<(), EntryError> {
    match entry.kind {
        Kind::File | Kind::HardLink if entry.size == 0 => Ok(()),
        _ => Err(EntryError::NotAWhiteout),
    }
}
