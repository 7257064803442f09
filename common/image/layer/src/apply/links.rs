//! Links: symbolic links among an entry's parents, and hard links, also to files of lower layers.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use archive::{Entry, Kind, LINKED, NameError, Shown, Target, Time, WHITEOUT};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat},
    io::Errno,
};

use super::{
    EntryError,
    below::{Found, error},
    dependency::Aspect,
    entries::Unpacking,
    form::{Facts, Form, Standing},
    name::{join, split},
};
use crate::overlay;

/// The kernel's limit on symbolic links in one path.
const LINKS: usize = 40;
/// The maximum length of a path that links lead to, in bytes.
const LONGEST: usize = 4064;

/// A hard link whose target did not exist yet when its entry came.
pub(super) struct Pending {
    pub(super) path: Vec<u8>,
    parent: Vec<u8>,
    name: Vec<u8>,
    target: Vec<u8>,
}

impl<F: Form> Unpacking<'_, F> {
    /// The real path of an entry's parent directory. The directory is made, with its parents, if the archive
    /// has not listed it yet.
    pub(super) fn parent(&mut self, path: Vec<u8>) -> Result<Vec<u8>, EntryError> {
        if self.tree.contains(&path) {
            return Ok(path);
        }
        let real = self.resolve(&path)?;
        self.ensure(&real)?;
        Ok(real)
    }

    fn ensure(&mut self, real: &[u8]) -> Result<(), EntryError> {
        let ends = real.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([real.len()]) {
            let path = &real[..end];
            if !self.tree.contains(path) {
                let (parent, name) = split(path);
                let made = self.form.make_directory(parent, name)?;
                made.ok_or_else(|| EntryError::call("create directory")(Errno::EXIST))?;
                self.tree.imply(path);
            }
        }
        Ok(())
    }

    /// Resolves symbolic links in a path, inside the file system of this layer and those below. Missing parts
    /// are treated as directories to be made.
    fn resolve(&mut self, path: &[u8]) -> Result<Vec<u8>, EntryError> {
        let parts = |path: &[u8]| path.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut left: VecDeque<Vec<u8>> = parts(path).into();
        let (mut real, mut links) = (Vec::new(), 0);
        while let Some(part) = left.pop_front() {
            match &part[..] {
                b"" | b"." => continue,
                // `..` comes only from a link's target. The parent of the root is the root.
                b".." => {
                    real = split(&real).0.to_vec();
                    continue;
                }
                // Such a name may come from a link's target too. No layer can have a directory with this
                // name.
                part if part.starts_with(WHITEOUT) => return Err(EntryError::LinkToWhiteout),
                _ => {}
            }
            let next = join(&real, &part);
            if next.len() > LONGEST {
                return Err(NameError::TooLong.into());
            }
            let target = if self.tree.contains(&next) { None } else { self.link_at(&real, &part)? };
            let Some(target) = target else {
                real = next;
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(EntryError::Loop(Shown::new(path)));
            }
            if target.first() == Some(&b'/') {
                real.clear();
            }
            for part in parts(&target).into_iter().rev() {
                left.push_front(part);
            }
        }
        Ok(real)
    }

    /// The target of the symbolic link `name` in `parent`, in this layer or below; None if it is not a link.
    fn link_at(&mut self, parent: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, EntryError> {
        let path = join(parent, name);
        if self.tree.contains(parent) {
            match self.form.standing(parent, name)? {
                Standing::Symlink => return self.form.read_link(parent, name).map(Some),
                Standing::Other => return Err(EntryError::Parent(Shown::new(&path))),
                Standing::Directory => return Ok(None),
                Standing::Nothing => {}
            }
        }
        if !self.tree.shows_below(&path) {
            return Ok(None);
        }
        match self.below.find(&path)? {
            Found::Symlink(target, _) => {
                self.depend(&path, Aspect::Link)?;
                Ok(Some(target))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn hard_link(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<(), EntryError> {
        let target = match entry.first_name()? {
            Target::Path { parent, name } => join(&self.resolve(&parent)?, &name),
            Target::Linked { name } => join(LINKED, &name),
            _ => return Err(NameError::NoTarget(Shown::new(&entry.link)).into()),
        };
        if !self.link(parent, name, &target)? {
            let (parent, name) = (parent.to_vec(), name.to_vec());
            self.tree.keep(entry.path.len() + parent.len() + name.len() + target.len());
            self.pending.push(Pending { path: entry.path.clone(), parent, name, target });
        }
        Ok(())
    }

    /// Makes the hard links whose targets came later. If another file has the link's name by now, that file
    /// stays.
    pub(super) fn link_pending(&mut self) -> Result<(), super::Error> {
        for Pending { path, parent, name, target } in std::mem::take(&mut self.pending) {
            let outcome = (|| {
                // The directory may have been replaced meanwhile.
                self.ensure(&parent)?;
                match self.form.standing(&parent, &name)? {
                    Standing::Nothing if !self.link(&parent, &name, &target)? => {
                        Err(NameError::NoTarget(Shown::new(&target)).into())
                    }
                    _ => Ok(()),
                }
            })();
            outcome.map_err(super::Error::entry(&path))?;
        }
        Ok(())
    }

    /// Links `target`, a real path, to `name` in `parent`. Returns false if the target does not exist.
    fn link(&mut self, parent: &[u8], name: &[u8], target: &[u8]) -> Result<bool, EntryError> {
        let (target_parent, target_name) = split(target);
        let here = self.tree.contains(target_parent)
            && !matches!(self.form.standing(target_parent, target_name)?, Standing::Nothing);
        if !here && !self.copy_up(target)? {
            return Ok(false);
        }
        if join(parent, name) == target {
            self.tree.copies.remove(target);
            return Ok(true);
        }
        if self.tree.contains(target) {
            return Err(NameError::DirectoryTarget(Shown::new(target)).into());
        }
        let (from, to) = ((target_parent, target_name), (parent, name));
        self.make(parent, name, |form| form.link(from, to))?;
        Ok(true)
    }

    /// Copies a file from the lower layers into this one, as overlayfs does before a write. Both names of a
    /// hard link are one file, so both must be in one layer. Returns false if there is no such file.
    fn copy_up(&mut self, path: &[u8]) -> Result<bool, EntryError> {
        if !self.tree.shows_below(path) {
            return Ok(false);
        }
        let (parent, _) = split(path);
        match self.below.find(path)? {
            Found::Nothing => return Ok(false),
            Found::Directory(_) => return Err(NameError::DirectoryTarget(Shown::new(path)).into()),
            Found::File(directory) | Found::Symlink(_, directory) => {
                self.depend(path, Aspect::Content)?;
                self.ensure(parent)?;
                self.copy_file(directory.as_fd(), path)?;
                self.tree.keep(path.len());
                self.tree.copies.insert(path.to_vec());
            }
        }
        Ok(true)
    }

    fn copy_file(&mut self, directory: BorrowedFd, path: &[u8]) -> Result<(), EntryError> {
        let (parent, name) = split(path);
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(error("stat", path))?;
        let xattrs = overlay::xattrs(directory, name).map_err(error("list attributes of", path))?;
        let mtime = Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
        let mut facts = Facts {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime,
            atime: None,
            xattrs,
        };
        let mut target = Vec::new();
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let from = openat(directory, name, flags, Mode::empty()).map_err(error("open", path))?;
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                self.copied = self.copied.saturating_add(size);
                self.keep_own(&mut facts);
                let mut to = self.create(parent, name, &facts, size)?;
                self.copy_content(from, &mut to, size)?;
                return self.form.close(to, &facts);
            }
            FileType::Symlink => {
                target = readlinkat(directory, name, Vec::new()).map_err(error("read", path))?.into_bytes();
                Kind::Symlink
            }
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            _ => Kind::Fifo,
        };
        let entry = Entry {
            mode: facts.mode,
            uid: facts.uid,
            gid: facts.gid,
            mtime,
            xattrs: facts.xattrs,
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            ..Entry::new(kind, path)
        };
        self.special(parent, name, &target, &entry)
    }

    fn copy_content(&mut self, from: OwnedFd, to: &mut F::File, size: u64) -> Result<(), EntryError> {
        let mut buffer = vec![0; 128 << 10];
        let mut offset = 0;
        while offset < size {
            let count = rustix::io::retry_on_intr(|| rustix::io::pread(&from, &mut buffer[..], offset))
                .map_err(EntryError::call("copy from the layers below"))?;
            let count = u64::try_from(count).map_or(size, |count| count.min(size - offset));
            if count == 0 {
                let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(EntryError::call("copy from the layers below")(short));
            }
            self.form.write(to, offset, &buffer[..count as usize])?;
            offset += count;
        }
        Ok(())
    }
}
