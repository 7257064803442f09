//! Entries → files, one after the other.

use std::{
    collections::BTreeMap,
    io::BufRead,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, RawMode, fstat, ftruncate, makedev, mkdirat, mknodat, openat,
        symlinkat,
    },
    io::Errno,
};

use super::{
    Below, EntryError, Error, Limits, Options,
    dependency::{Aspect, look},
    links::Pending,
    name::{Target, join},
    tree::{Facts, Tree},
};
use crate::{
    archive::{Entry, Kind, Reader},
    overlay, pipeline,
};

/// A layer that is being unpacked.
pub(super) struct Unpacking<'a> {
    pub(super) tree: Tree,
    pub(super) below: &'a Below,
    pub(super) options: &'a Options,
    /// Whom the kernel makes the owner of what we create.
    pub(super) owner: (u32, u32),
    /// The bits of a mode that the kernel takes away.
    umask: u32,
    pub(super) left_out: u64,
    pub(super) approximated: u64,
    /// Bytes of files that were copied from the layers below.
    pub(super) copied: u64,
    pub(super) dependencies: BTreeMap<(Vec<u8>, Aspect), String>,
    /// Hard links to what was not there yet.
    pub(super) pending: Vec<Pending>,
}

/// The most that is kept in memory of a layer, in bytes: a million directories.
const KEPT: usize = 256 << 20;

impl From<&Entry> for Facts {
    fn from(entry: &Entry) -> Self {
        let Entry { mode, uid, gid, mtime, atime, ref xattrs, .. } = *entry;
        Self { mode, uid, gid, mtime, atime, xattrs: xattrs.clone() }
    }
}

impl<'a> Unpacking<'a> {
    pub(super) fn new(target: OwnedFd, below: &'a Below, options: &'a Options) -> Result<Self, Error> {
        let stat = fstat(&target).map_err(EntryError::call("stat")).map_err(Error::entry(b"."))?;
        Ok(Self {
            tree: Tree::new(target),
            below,
            options,
            owner: (stat.st_uid, stat.st_gid),
            umask: umask(),
            left_out: 0,
            approximated: 0,
            copied: 0,
            dependencies: BTreeMap::new(),
            pending: Vec::new(),
        })
    }

    /// Does what `entry` says; its data is read from `reader`.
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

    /// Whether what `entries` entries, with files of `size` bytes, made so far is within the limits.
    pub(super) fn within(&self, limits: &Limits, entries: u64, size: u64) -> Result<(), Error> {
        if entries.saturating_add(self.tree.implied) > limits.entries {
            return Err(Error::Entries { limit: limits.entries });
        }
        if size.saturating_add(self.copied) > limits.size {
            return Err(pipeline::Error::Size { limit: limits.size }.into());
        }
        if self.tree.kept > KEPT {
            return Err(Error::Memory { limit: KEPT });
        }
        Ok(())
    }

    /// What the layers below show at `path` becomes a part of what this directory depends on.
    pub(super) fn depend(&mut self, path: &[u8], aspect: Aspect) -> Result<&str, EntryError> {
        let key = (path.to_vec(), aspect);
        if !self.dependencies.contains_key(&key) {
            self.tree.keep(path.len());
            let seen = look(self.below, path, aspect)?;
            self.dependencies.insert(key.clone(), seen);
        }
        Ok(self.dependencies.get(&key).map_or("", String::as_str))
    }

    fn directory(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<(), EntryError> {
        let path = join(parent, name);
        if !self.tree.contains(&path) {
            let fd = self.tree.open(parent)?;
            let mut replaces = false;
            match mkdirat(&fd, name, Mode::RWXU) {
                Err(Errno::EXIST) => {
                    // An earlier entry made a file of it, which hid what the layers below have in it.
                    self.tree.remove(parent, name)?;
                    replaces = true;
                    mkdirat(&fd, name, Mode::RWXU).map_err(EntryError::call("create directory"))?;
                }
                other => other.map_err(EntryError::call("create directory"))?,
            }
            self.tree.get(&path).new = replaces;
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
        let file = self.create(parent, name, entry.mode)?;
        match &entry.sparse {
            None => while write_some(&file, reader, u64::MAX, None)? > 0 {},
            Some(segments) => {
                for segment in segments {
                    let mut done = 0;
                    while done < segment.length {
                        match write_some(&file, reader, segment.length - done, Some(segment.offset + done))? {
                            0 => break,
                            count => done += count,
                        }
                    }
                }
                ftruncate(&file, entry.size).map_err(EntryError::call("set the size"))?;
            }
        }
        self.seal(file.as_fd(), &facts, entry.mode & (self.umask | 0o7000) != 0)
    }

    /// Creates a regular file that nobody has; what an earlier entry made under its name goes.
    pub(super) fn create(&mut self, parent: &[u8], name: &[u8], mode: u32) -> Result<OwnedFd, EntryError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode((mode & 0o777) as RawMode);
        let fd = self.tree.open(parent)?;
        match openat(&fd, name, flags, mode) {
            Err(Errno::EXIST) => {
                self.tree.remove(parent, name)?;
                openat(&fd, name, flags, mode)
            }
            other => other,
        }
        .map_err(EntryError::call("create"))
    }

    /// A symbolic link, a device or a named pipe.
    pub(super) fn special(
        &mut self,
        parent: &[u8],
        name: &[u8],
        target: &[u8],
        entry: &Entry,
    ) -> Result<(), EntryError> {
        let (major, minor) = entry.device;
        if entry.kind == Kind::CharDevice && (major, minor) == (0, 0) {
            return Err(EntryError::WhiteoutDevice);
        }
        let facts = self.facts(entry)?;
        if self.options.namespace.is_some() && matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            if !self.options.rootless {
                return Err(EntryError::NamespaceDevice);
            }
            self.approximated += 1;
            let file = self.create(parent, name, entry.mode)?;
            return self.seal(file.as_fd(), &facts, true);
        }
        let fd = self.tree.open(parent)?;
        let mode = Mode::from_raw_mode((entry.mode & 0o777) as RawMode);
        let make = |fd: BorrowedFd| match entry.kind {
            Kind::Symlink => symlinkat(target, fd, name),
            Kind::CharDevice => mknodat(fd, name, FileType::CharacterDevice, mode, makedev(major, minor)),
            Kind::BlockDevice => mknodat(fd, name, FileType::BlockDevice, mode, makedev(major, minor)),
            _ => mknodat(fd, name, FileType::Fifo, mode, 0),
        };
        match make(fd.as_fd().as_fd()) {
            Err(Errno::EXIST) => {
                self.tree.remove(parent, name)?;
                make(fd.as_fd().as_fd())
            }
            other => other,
        }
        .map_err(EntryError::call("create"))?;
        self.seal_at(fd.as_fd().as_fd(), name, &facts, entry.kind == Kind::Symlink)
    }

    /// Owner, mode, attributes and times of what is open. The owner comes first: changing it takes suid and
    /// capabilities away.
    pub(super) fn seal(&mut self, fd: BorrowedFd, facts: &Facts, mode: bool) -> Result<(), EntryError> {
        let owner = (facts.uid, facts.gid) != self.owner;
        if owner {
            let (uid, gid) = owner_of(facts);
            rustix::fs::fchown(fd, uid, gid).map_err(EntryError::call("set the owner"))?;
        }
        if mode || (owner && facts.mode & 0o6000 != 0) {
            let mode = Mode::from_raw_mode(facts.mode as RawMode);
            rustix::fs::fchmod(fd, mode).map_err(EntryError::call("set the mode"))?;
        }
        for (name, value) in &facts.xattrs {
            if self.keeps(name) {
                let set = rustix::fs::fsetxattr(fd, &name[..], value, rustix::fs::XattrFlags::empty());
                self.attribute(name, set)?;
            }
        }
        rustix::fs::futimens(fd, &times(facts)).map_err(EntryError::call("set the times"))
    }

    /// The same for what cannot be opened, which is `name` in a directory that nobody else can enter.
    fn seal_at(
        &mut self,
        directory: BorrowedFd,
        name: &[u8],
        facts: &Facts,
        is_symlink: bool,
    ) -> Result<(), EntryError> {
        if (facts.uid, facts.gid) != self.owner {
            let (uid, gid) = owner_of(facts);
            rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(EntryError::call("set the owner"))?;
        }
        if !is_symlink && facts.mode & (self.umask | 0o7000) != 0 {
            let mode = Mode::from_raw_mode(facts.mode as RawMode);
            rustix::fs::chmodat(directory, name, mode, AtFlags::empty())
                .map_err(EntryError::call("set the mode"))?;
        }
        for (attribute, value) in &facts.xattrs {
            if self.keeps(attribute) {
                let path = overlay::proc_path(directory, name);
                let flags = rustix::fs::XattrFlags::empty();
                self.attribute(attribute, rustix::fs::lsetxattr(&path[..], &attribute[..], value, flags))?;
            }
        }
        rustix::fs::utimensat(directory, name, &times(facts), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(EntryError::call("set the times"))
    }

    /// What the entry says of its file, as far as the user namespace can hold it.
    fn facts(&mut self, entry: &Entry) -> Result<Facts, EntryError> {
        let mut facts = Facts::from(entry);
        let Some(namespace) = &self.options.namespace else { return Ok(facts) };
        let (user, group) = (namespace.has_user(facts.uid), namespace.has_group(facts.gid));
        if user && group {
            return Ok(facts);
        }
        if !self.options.rootless {
            return Err(EntryError::Owner { uid: facts.uid, gid: facts.gid });
        }
        self.approximated += 1;
        // Whoever executes it would become somebody that the layer does not name.
        if !user {
            (facts.uid, facts.mode) = (self.owner.0, facts.mode & !0o4000);
        }
        if !group {
            (facts.gid, facts.mode) = (self.owner.1, facts.mode & !0o2000);
        }
        Ok(facts)
    }

    /// What became of setting an attribute.
    fn attribute(&mut self, name: &[u8], set: rustix::io::Result<()>) -> Result<(), EntryError> {
        match set {
            Err(Errno::PERM | Errno::INVAL) if self.options.namespace.is_some() && self.options.rootless => {
                self.approximated += 1;
                Ok(())
            }
            set => set.map_err(attribute_error(name)),
        }
    }

    /// Whether an attribute belongs to the file. overlayfs's own would change what the mount shows; a label of SELinux and
    /// an ACL of NFS speak of the machine that the layer was made on.
    fn keeps(&mut self, name: &[u8]) -> bool {
        let keeps =
            !overlay::is_overlay_xattr(name) && name != b"security.selinux" && name != b"system.nfs4_acl";
        self.left_out += u64::from(!keeps);
        keeps
    }
}

/// OCI image-spec, layer.md: "a whiteout is an empty file". AUFS made them as hard links to one.
fn check_whiteout(entry: &Entry) -> Result<(), EntryError> {
    match entry.kind {
        Kind::File | Kind::HardLink if entry.size == 0 => Ok(()),
        _ => Err(EntryError::NotAWhiteout),
    }
}

/// Writes some of the entry's data, at most `limit` bytes, at `offset` or where the file stands. Returns how many.
fn write_some<R: BufRead>(
    file: &OwnedFd,
    reader: &mut Reader<R>,
    limit: u64,
    offset: Option<u64>,
) -> Result<u64, EntryError> {
    let data = reader.data()?;
    let data = &data[..usize::try_from(limit).map_or(data.len(), |limit| limit.min(data.len()))];
    if data.is_empty() {
        return Ok(0);
    }
    let count = rustix::io::retry_on_intr(|| match offset {
        Some(offset) => rustix::io::pwrite(file, data, offset),
        None => rustix::io::write(file, data),
    });
    let count = count.map_err(EntryError::call("write"))?;
    reader.consume(count);
    Ok(count as u64)
}

fn owner_of(facts: &Facts) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(facts.uid)), Some(rustix::fs::Gid::from_raw(facts.gid)))
}

/// What the file system cannot hold, before 1901 or after 2446 on ext4, becomes the nearest that it can: the kernel does
/// that, so that also other tools which unpack such archives, and there are some, come to the same.
fn times(facts: &Facts) -> rustix::fs::Timestamps {
    let time = |time: crate::archive::Time| rustix::fs::Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    rustix::fs::Timestamps {
        last_access: time(facts.atime.unwrap_or(facts.mtime)),
        last_modification: time(facts.mtime),
    }
}

fn attribute_error(name: &[u8]) -> impl FnOnce(Errno) -> EntryError {
    let name = crate::archive::Shown::new(name);
    move |source| EntryError::Attribute { name, source: source.into() }
}

/// The process's umask, which can only be read without changing it in `/proc`. Where that is not to be had, every mode is
/// set.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    field.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}
