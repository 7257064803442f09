//! Unpacks a layer into an EROFS image. What the kernel would reject in a directory is rejected here with the
//! same error, so a layer works in both forms or in neither.

use std::{collections::HashMap, os::fd::OwnedFd};

use archive::Shown;
use erofs::{Attributes, Directory, Entry, Kind, Writer};
use oci::Digest;
use rustix::io::Errno;

use super::{
    Dependency, EntryError, acl,
    form::{Facts, Form, Made, Special, Standing},
};
use crate::overlay;

/// The maximum length of a name, in bytes.
const NAME: usize = 255;
/// The maximum length of a symbolic link's target, in bytes.
const TARGET: usize = 4095;

/// An EROFS image that a layer is unpacked to.
pub(super) struct Image {
    writer: Writer,
    diff_id: Digest,
    /// The targets of symbolic links. Links may be among the parents of an entry.
    targets: HashMap<erofs::File, Box<[u8]>>,
    kept: usize,
    /// The directory of the last lookup. Entries usually come directory by directory.
    last: (Vec<u8>, Directory),
}

/// A regular file that is being written.
pub(super) struct File {
    open: erofs::Open,
    directory: Directory,
    name: Vec<u8>,
}

impl Image {
    pub(super) fn new(file: OwnedFd, diff_id: Digest) -> Self {
        let last = (Vec::new(), Directory::ROOT);
        Self { writer: Writer::new(file), diff_id, targets: HashMap::new(), kept: 0, last }
    }

    /// The directory at `path`.
    fn open(&mut self, path: &[u8]) -> Result<Directory, EntryError> {
        if self.last.0 == path {
            return Ok(self.last.1);
        }
        let mut at = Directory::ROOT;
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            match self.writer.get(at, name) {
                Some(Entry::Directory(directory)) => at = directory,
                Some(Entry::File(_)) => return Err(EntryError::call("open directory")(Errno::NOTDIR)),
                None => return Err(EntryError::call("open directory")(Errno::NOENT)),
            }
        }
        self.last = (path.to_vec(), at);
        Ok(at)
    }

    /// The directory for a new entry; None if the name is in use already.
    fn place(&mut self, parent: &[u8], name: &[u8], verb: &'static str) -> Made<Directory> {
        if name.len() > NAME {
            return Err(EntryError::call(verb)(Errno::NAMETOOLONG));
        }
        let directory = self.open(parent)?;
        Ok(self.writer.get(directory, name).is_none().then_some(directory))
    }
}

impl Form for Image {
    type File = File;

    fn standing(&mut self, parent: &[u8], name: &[u8]) -> Result<Standing, EntryError> {
        let directory = self.open(parent)?;
        if name.len() > NAME {
            return Err(EntryError::call("stat")(Errno::NAMETOOLONG));
        }
        Ok(match self.writer.get(directory, name) {
            None => Standing::Nothing,
            Some(Entry::Directory(_)) => Standing::Directory,
            Some(Entry::File(file)) if file.kind == Kind::Symlink => Standing::Symlink,
            Some(Entry::File(_)) => Standing::Other,
        })
    }

    fn read_link(&mut self, parent: &[u8], name: &[u8]) -> Result<Vec<u8>, EntryError> {
        let directory = self.open(parent)?;
        let target = match self.writer.get(directory, name) {
            Some(Entry::File(file)) => self.targets.get(&file),
            _ => None,
        };
        target.map(|target| target.to_vec()).ok_or_else(|| EntryError::call("read link")(Errno::INVAL))
    }

    fn make_directory(&mut self, parent: &[u8], name: &[u8]) -> Made<()> {
        let Some(directory) = self.place(parent, name, "create directory")? else { return Ok(None) };
        self.writer.directory(directory, name)?;
        Ok(Some(()))
    }

    fn create(&mut self, parent: &[u8], name: &[u8], facts: &Facts, size: u64) -> Made<File> {
        let Some(directory) = self.place(parent, name, "create")? else { return Ok(None) };
        let open = self.writer.file(&attributes(Kind::File, facts)?, size)?;
        Ok(Some(File { open, directory, name: name.to_vec() }))
    }

    fn write(&mut self, file: &mut File, offset: u64, data: &[u8]) -> Result<(), EntryError> {
        Ok(self.writer.write(&mut file.open, offset, data)?)
    }

    fn close(&mut self, file: File, _: &Facts) -> Result<(), EntryError> {
        let written = self.writer.close(file.open)?;
        Ok(self.writer.name(file.directory, &file.name, written)?)
    }

    fn special(&mut self, parent: &[u8], name: &[u8], special: Special, facts: &Facts) -> Made<()> {
        let Some(directory) = self.place(parent, name, "create")? else { return Ok(None) };
        let kind = match special.kind {
            archive::Kind::Symlink => Kind::Symlink,
            archive::Kind::CharDevice => Kind::CharDevice,
            archive::Kind::BlockDevice => Kind::BlockDevice,
            _ => Kind::Fifo,
        };
        let attributes = attributes(kind, facts)?;
        let made = if kind == Kind::Symlink {
            let target = special.target;
            check_target(target)?;
            // The kernel gives this mode to every symbolic link.
            let attributes = Attributes { mode: 0o777, ..attributes };
            let link = self.writer.symlink(&attributes, target)?;
            self.targets.insert(link, target.into());
            self.kept += target.len() + size_of::<(erofs::File, Box<[u8]>)>();
            link
        } else {
            self.writer.special(kind, &attributes, special.device)?
        };
        self.writer.name(directory, name, made)?;
        Ok(Some(()))
    }

    fn link(&mut self, from: (&[u8], &[u8]), to: (&[u8], &[u8])) -> Made<()> {
        let source = self.open(from.0)?;
        let file = match self.writer.get(source, from.1) {
            Some(Entry::File(file)) => file,
            Some(Entry::Directory(_)) => return Err(EntryError::call("create hard link")(Errno::PERM)),
            None => return Err(EntryError::call("create hard link")(Errno::NOENT)),
        };
        let Some(target) = self.place(to.0, to.1, "create hard link")? else { return Ok(None) };
        self.writer.link(target, to.1, file)?;
        Ok(Some(()))
    }

    fn remove(&mut self, parent: &[u8], name: &[u8]) -> Result<(), EntryError> {
        let directory = self.open(parent)?;
        self.writer.remove(directory, name);
        self.last = (Vec::new(), Directory::ROOT);
        Ok(())
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), EntryError> {
        let Some(directory) = self.place(parent, name, "create whiteout")? else {
            return Err(EntryError::call("create whiteout")(Errno::EXIST));
        };
        let whiteout = self.writer.special(Kind::CharDevice, &Attributes::default(), (0, 0))?;
        Ok(self.writer.name(directory, name, whiteout)?)
    }

    fn finish_directory(&mut self, path: &[u8], facts: &Facts, opaque: bool) -> Result<(), EntryError> {
        let directory = self.open(path)?;
        let mut attributes = attributes(Kind::Directory, facts)?;
        if opaque {
            attributes.xattrs.push((overlay::OPAQUE[0].into(), b"y".to_vec()));
        }
        self.writer.set_attributes(directory, attributes);
        Ok(())
    }

    fn kept(&self) -> usize {
        self.writer.kept() + self.kept
    }

    fn finish(self, taken: &[Dependency]) -> Result<u64, EntryError> {
        self.writer.finish(uuid(&self.diff_id, taken))?;
        Ok(0)
    }
}

/// The image's UUID. overlayfs identifies its lower file systems by their UUIDs. A variant of the layer for
/// other lower layers needs another UUID, because both variants may be in one container.
fn uuid(diff_id: &Digest, taken: &[Dependency]) -> [u8; 16] {
    let mut hex = diff_id.hex().to_owned();
    for Dependency { path, aspect, seen } in taken {
        hex = Digest::of(format!("{hex} {path} {aspect:?} {seen}").as_bytes()).hex().to_owned();
    }
    let mut uuid = [0; 16];
    for (byte, digits) in uuid.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16).unwrap_or_default() as u8;
        *byte = digit(0) << 4 | digit(1);
    }
    uuid
}

fn attributes(kind: Kind, facts: &Facts) -> Result<Attributes, EntryError> {
    let mtime = erofs::Time { seconds: facts.mtime.seconds, nanoseconds: facts.mtime.nanoseconds };
    let Facts { mode, uid, gid, .. } = *facts;
    let mut attributes = Attributes { mode, uid, gid, mtime, xattrs: Vec::new() };
    for (name, value) in &facts.xattrs {
        let keeps = set_attribute(kind, &mut attributes.mode, name, value)
            .map_err(|errno| EntryError::Attribute { name: Shown::new(name), source: errno.into() })?;
        if keeps {
            attributes.xattrs.push((name.clone(), value.clone()));
        }
    }
    Ok(attributes)
}

/// Checks a target as symlink(2) does.
fn check_target(target: &[u8]) -> Result<(), EntryError> {
    let errno = match target.len() {
        0 => Errno::NOENT,
        _ if target.contains(&0) => Errno::INVAL,
        length if length > TARGET => Errno::NAMETOOLONG,
        _ => return Ok(()),
    };
    Err(EntryError::call("create")(errno))
}

/// Sets an attribute as setxattr(2) does on a file system that accepts all attributes (xattr(7), acl(5)).
/// Returns whether the attribute exists afterwards.
fn set_attribute(kind: Kind, mode: &mut u32, name: &[u8], value: &[u8]) -> Result<bool, Errno> {
    if name.len() > NAME {
        return Err(Errno::RANGE);
    }
    match name {
        b"system.posix_acl_access" if kind != Kind::Symlink => {
            let Some(acl) = acl::read(value)? else { return Ok(false) };
            *mode = *mode & !0o777 | acl.mode;
            Ok(!acl.is_mode)
        }
        b"system.posix_acl_default" if kind == Kind::Directory => Ok(acl::read(value)?.is_some()),
        b"system.posix_acl_default" if kind != Kind::Symlink => Err(Errno::ACCESS),
        _ if name.starts_with(b"user.") && !matches!(kind, Kind::File | Kind::Directory) => Err(Errno::PERM),
        b"user." | b"trusted." | b"security." => Err(Errno::INVAL),
        b"security.capability" if !is_capability(value) => Err(Errno::INVAL),
        _ if name.starts_with(b"user.") => Ok(true),
        _ if name.starts_with(b"trusted.") || name.starts_with(b"security.") => Ok(true),
        _ => Err(Errno::OPNOTSUPP),
    }
}

/// Whether the kernel accepts the value as file capabilities (security/commoncap.c, `validheader`). The
/// revision must match the size. The kernel ignores an empty value.
fn is_capability(value: &[u8]) -> bool {
    const EFFECTIVE: u32 = 1;
    let revision = value.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) & !EFFECTIVE);
    matches!((value.len(), revision), (0, _) | (20, Some(0x0200_0000)) | (24, Some(0x0300_0000)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::dependency::Aspect;

    #[test]
    fn a_layer_that_became_another_has_another_uuid() {
        let diff_id = Digest::of(b"layer");
        let taken = |seen: &str| [Dependency::new(b"usr", Aspect::Attributes, seen.to_owned())];
        assert_eq!(uuid(&diff_id, &[])[..2], [0xda, 0xc1]);
        let all = [uuid(&diff_id, &[]), uuid(&diff_id, &taken("755")), uuid(&diff_id, &taken("700"))];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{all:?}");
        assert_eq!(uuid(&diff_id, &taken("755")), all[1]);
    }
}
