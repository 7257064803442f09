//! Turns the entries of an archive into files, one after the other.

use std::{collections::BTreeMap, io::BufRead};

use archive::{Entry, Kind, LINKED, Reader, Target};
use rustix::io::Errno;

use super::{
    Below, EntryError, Error, LeftOut, Limits, Options,
    dependency::{Aspect, look},
    form::{Facts, Form, Made, Special},
    links::Pending,
    name::join,
    tree::Tree,
};
use crate::{overlay, pipeline};

/// A layer that is being unpacked. It implements the meaning of entries for any form of the layer.
pub(super) struct Unpacking<'a, F> {
    pub(super) form: F,
    pub(super) tree: Tree,
    pub(super) below: &'a Below,
    pub(super) options: &'a Options,
    /// The owner of files whose owner has no mapping in the user namespace.
    owner: (u32, u32),
    pub(super) left_out: LeftOut,
    pub(super) approximated: u64,
    /// The number of bytes copied from lower layers.
    pub(super) copied: u64,
    pub(super) dependencies: BTreeMap<(Vec<u8>, Aspect), String>,
    /// Hard links to targets that do not exist yet.
    pub(super) pending: Vec<Pending>,
}

/// The limit on memory for a layer, in bytes. This is enough for a million directories, or for several
/// million files of an image.
const KEPT: usize = 256 << 20;

/// The attributes of access lists (acl(5)).
const ACCESS_LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

impl<'a, F: Form> Unpacking<'a, F> {
    pub(super) fn new(form: F, below: &'a Below, options: &'a Options) -> Self {
        Self {
            form,
            tree: Tree::new(),
            below,
            options,
            owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            left_out: LeftOut::default(),
            approximated: 0,
            copied: 0,
            dependencies: BTreeMap::new(),
            pending: Vec::new(),
        }
    }

    /// Applies `entry`. Its data is read from `reader`.
    pub(super) fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), Error> {
        self.apply(entry, reader).map_err(Error::entry(&entry.path))
    }

    fn apply<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), EntryError> {
        match entry.target()? {
            Target::Root => self.tree.get(b"").listed = Some(self.facts(entry)?),
            Target::Aufs => {}
            Target::BelowWhiteout => self.left_out.entries += 1,
            // AUFS makes only regular files of several names there.
            Target::Linked { name } if entry.kind == Kind::File => {
                if !self.tree.contains(LINKED) {
                    self.make(b"", LINKED, |form| form.make_directory(b"", LINKED))?;
                    self.tree.imply(LINKED);
                }
                self.file(LINKED, &name, entry, reader)?;
            }
            Target::Linked { .. } => {}
            Target::Whiteout { parent, name } => {
                self.note_whiteout(entry);
                let parent = self.parent(parent)?;
                self.tree.keep(name.len());
                self.tree.get(&parent).whiteouts.insert(name);
            }
            Target::Opaque { parent } => {
                self.note_whiteout(entry);
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

    /// Checks the limits, after `entries` entries with files of `size` bytes.
    pub(super) fn within(&self, limits: &Limits, entries: u64, size: u64) -> Result<(), Error> {
        let (entries, size) = (entries.saturating_add(self.tree.implied), size.saturating_add(self.copied));
        limits.hold_entries(entries, size).map_err(pipeline::Error::Exceeded)?;
        self.within_memory()
    }

    /// Checks the limit on memory.
    pub(super) fn within_memory(&self) -> Result<(), Error> {
        match self.tree.kept.saturating_add(self.form.kept()) > KEPT {
            true => Err(Error::Memory { limit: KEPT }),
            false => Ok(()),
        }
    }

    /// Returns what the lower layers have at `path`, and records it as a dependency of this layer.
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
            // If an earlier entry was a file with this name, it hid the content of the lower layers.
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

    /// Writes the next `length` bytes of the entry's data at `offset`, or fewer if the data ends.
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

    /// Creates a regular file that only we can see.
    pub(super) fn create(
        &mut self,
        parent: &[u8],
        name: &[u8],
        facts: &Facts,
        size: u64,
    ) -> Result<F::File, EntryError> {
        Ok(self.make(parent, name, |form| form.create(parent, name, facts, size))?.0)
    }

    /// Makes something. If an earlier entry has the same name, that is removed first. Returns whether
    /// something was removed.
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

    /// Makes a symbolic link, a device or a named pipe.
    pub(super) fn special(
        &mut self,
        parent: &[u8],
        name: &[u8],
        target: &[u8],
        entry: &Entry,
    ) -> Result<(), EntryError> {
        let Entry { kind, device, .. } = *entry;
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

    /// Counts a whiteout that is more than its name. OCI image-spec, layer.md: a whiteout is an empty file.
    /// AUFS made whiteouts as hard links to an empty file. Docker, containerd and umoci look only at the name.
    fn note_whiteout(&mut self, entry: &Entry) {
        if !matches!(entry.kind, Kind::File | Kind::HardLink) || entry.size > 0 {
            self.left_out.whiteouts += 1;
        }
    }

    /// The attributes of the entry's file, as far as the user namespace can represent them.
    fn facts(&mut self, entry: &Entry) -> Result<Facts, EntryError> {
        let mut facts = Facts::from(entry);
        self.keep_own(&mut facts);
        if !matches!(entry.kind, Kind::File | Kind::HardLink | Kind::Directory) {
            // Only other systems have these on symbolic links, FIFOs and devices (xattr(7), "Extended user attributes").
            let all = facts.xattrs.len();
            facts.xattrs.retain(|(name, _)| !name.starts_with(b"user."));
            self.left_out.attributes += (all - facts.xattrs.len()) as u64;
        }
        let Some(namespace) = &self.options.namespace else { return Ok(facts) };
        let (user, group) = (namespace.has_user(facts.uid), namespace.has_group(facts.gid));
        if user && group {
            return Ok(facts);
        }
        if !self.options.rootless {
            return Err(EntryError::Owner { uid: facts.uid, gid: facts.gid });
        }
        self.approximated += 1;
        // With its set-id bit, the program would run as an owner that the layer does not name.
        if !user {
            (facts.uid, facts.mode) = (self.owner.0, facts.mode & !0o4000);
        }
        if !group {
            (facts.gid, facts.mode) = (self.owner.1, facts.mode & !0o2000);
        }
        Ok(facts)
    }

    /// Keeps only the attributes that belong to the file. overlayfs's own attributes would change what the
    /// mount shows. An SELinux label belongs to the machine that the layer was made on, and `system.` has
    /// attributes of its file system (NFS, CIFS), besides the access lists that every file system has. Attributes outside Linux's namespaces
    /// (xattr(7)), such as `com.apple.provenance` of macOS, are dropped too.
    pub(super) fn keep_own(&mut self, facts: &mut Facts) {
        let all = facts.xattrs.len();
        facts.xattrs.retain(|(name, _)| {
            overlay::is_linux_xattr(name)
                && !overlay::is_overlay_xattr(name)
                && name != b"security.selinux"
                && (!name.starts_with(b"system.") || ACCESS_LISTS.contains(&&name[..]))
        });
        self.left_out.attributes += (all - facts.xattrs.len()) as u64;
    }
}
