//! Places files into an image's file system. The kernel resolves paths inside the image's root. A link at the
//! end of a path is replaced and never followed. [`Place::resolve`] tells where a destination that is a link
//! leads.

use std::{
    cell::RefCell,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{
    CopyError, Kind, NotOwned, Owner, failed, links,
    tree::{kind, open_inside, stat},
};

/// The attributes of a file.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// User and group.
    pub owner: Owner,
    /// The modification time. `None` for now.
    pub modified: Option<Timespec>,
    /// Extended attributes.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

/// The file system of an image, into which files are placed.
#[derive(Debug)]
pub struct Place {
    root: OwnedFd,
    /// The owner of parent directories that are made.
    owner: Owner,
    /// The mode of parent directories that are made.
    mode: u32,
    /// The time of parent directories that are made. `None` for now.
    now: Option<Timespec>,
    /// Whether what the user namespace cannot represent becomes what it can (`--rootless`).
    rootless: bool,
    /// The directory that was used last, because files come directory by directory.
    last: RefCell<Option<(PathBuf, Rc<OwnedFd>)>>,
    /// The times of directories. They are set at the end, when nothing more is placed into the directories.
    times: RefCell<Vec<(PathBuf, Timespec)>>,
}

fn mode_bits(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode & 0o7777)
}

fn times(modified: Timespec) -> Timestamps {
    Timestamps { last_access: modified, last_modification: modified }
}

/// The parent directory of a path, and the name in it.
fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or(OsStr::new(".")))
}

impl Place {
    /// Places files below `root`. Missing parent directories belong to `owner` and have the time `now`.
    pub fn new(root: OwnedFd, owner: Owner, now: Option<Timespec>) -> Self {
        let (last, times) = Default::default();
        Self { root, owner, mode: 0o755, now, rootless: false, last, times }
    }

    /// Comes as close as possible to what the user namespace cannot represent, if `rootless` is true: a file whose owner
    /// has no mapping belongs to the caller and has no set-id bits, and a device is an empty file.
    pub fn rootless(self, rootless: bool) -> Self {
        Self { rootless, ..self }
    }

    /// Sets the mode of missing parent directories; 0755 by default. Returns the mode that they had before.
    pub fn set_mode(&mut self, mode: u32) -> u32 {
        std::mem::replace(&mut self.mode, mode & 0o777)
    }

    /// Sets the owner of missing parent directories. Returns the one that they had before.
    pub fn set_owner(&mut self, owner: Owner) -> Owner {
        std::mem::replace(&mut self.owner, owner)
    }

    /// Resolves every link in `path`, including the last part. A missing part is allowed: a link may lead to
    /// a file or directory that is about to be made.
    ///
    /// # Errors
    /// [`CopyError::System`]: `ELOOP` for too many links.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, CopyError> {
        links::resolve(self.root.as_fd(), path, &mut |_| {})
    }

    /// The kind of the file at `path`, with links resolved. `None` if there is no file.
    ///
    /// # Errors
    /// [`CopyError::System`].
    pub fn look(&self, path: &Path) -> Result<Option<Kind>, CopyError> {
        match open_inside(self.root.as_fd(), path, OFlags::PATH) {
            Ok(file) => Ok(Some(kind(&stat(file, path)?))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(failed("open", path)(error)),
        }
    }

    /// Opens the directory at `path`, with links resolved. Makes the directory and its parents if they are
    /// missing.
    ///
    /// # Errors
    /// [`CopyError::OverFile`], [`CopyError::System`].
    pub fn ensure(&self, path: &Path) -> Result<Rc<OwnedFd>, CopyError> {
        if let Some((last, directory)) = &*self.last.borrow()
            && last == path
        {
            return Ok(Rc::clone(directory));
        }
        let open = || open_inside(self.root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY);
        let directory = match open() {
            Ok(directory) => directory,
            Err(Errno::NOENT) if !path.as_os_str().is_empty() => {
                let (above, name) = split(path);
                let above = self.ensure(above)?;
                match rustix::fs::mkdirat(&*above, name, mode_bits(0o755)) {
                    Ok(()) => {}
                    // The name is a link to something that does not exist yet.
                    Err(Errno::EXIST) if self.kind_at(&above, name, path)? == Some(Kind::Symlink) => {
                        return self.ensure(&self.resolve(path)?);
                    }
                    Err(error) => return Err(failed("create directory", path)(error)),
                }
                let metadata =
                    Metadata { mode: self.mode, owner: self.owner, modified: self.now, xattrs: Vec::new() };
                self.describe(&above, name, path, &metadata, Kind::Directory)?;
                open().map_err(failed("open", path))?
            }
            Err(Errno::NOTDIR) => return Err(CopyError::OverFile(Path::new("/").join(path))),
            Err(error) => return Err(failed("open", path)(error)),
        };
        let directory = Rc::new(directory);
        *self.last.borrow_mut() = Some((path.to_owned(), Rc::clone(&directory)));
        Ok(directory)
    }

    /// Makes a directory, or takes an existing one, and sets its attributes.
    ///
    /// # Errors
    /// [`CopyError::OverFile`], [`CopyError::System`].
    pub fn directory(&self, path: &Path, metadata: &Metadata) -> Result<(), CopyError> {
        let (above, name) = split(path);
        let above = self.ensure(above)?;
        match rustix::fs::mkdirat(&*above, name, mode_bits(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => match self.kind_at(&above, name, path)? {
                Some(Kind::Directory) => {}
                _ => return Err(CopyError::OverFile(Path::new("/").join(path))),
            },
            Err(error) => return Err(failed("create directory", path)(error)),
        }
        self.describe(&above, name, path, metadata, Kind::Directory)
    }

    /// Makes a file with the content of `source`.
    ///
    /// # Errors
    /// [`CopyError::OverDirectory`], [`CopyError::System`].
    pub fn file(&self, path: &Path, metadata: &Metadata, source: &mut dyn Source) -> Result<(), CopyError> {
        // The file is read again if the written content has to be hashed.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            self.instead(path, |above, name| rustix::fs::openat(above, name, flags, mode_bits(0o600)))?;
        let mut file = File::from(file);
        source
            .write_to(&mut file)
            .map_err(|error| failed("write", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let bits = self.give(metadata, path, |user, group| rustix::fs::fchown(&file, user, group))?;
        rustix::fs::fchmod(&file, mode_bits(metadata.mode & bits)).map_err(failed("change mode of", path))?;
        self.set_xattrs(&file, &metadata.xattrs, path)?;
        match metadata.modified {
            Some(time) => rustix::fs::futimens(&file, &times(time)).map_err(failed("set times of", path)),
            None => Ok(()),
        }
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// [`CopyError::OverDirectory`], [`CopyError::System`].
    pub fn symlink(&self, path: &Path, metadata: &Metadata, target: &OsStr) -> Result<(), CopyError> {
        self.instead(path, |above, name| rustix::fs::symlinkat(target, above, name))?;
        let (above, name) = split(path);
        self.describe(&*self.ensure(above)?, name, path, metadata, Kind::Symlink)
    }

    /// Makes a device node, a fifo or a socket.
    ///
    /// # Errors
    /// [`CopyError::OverDirectory`], [`CopyError::System`].
    pub fn node(
        &self,
        path: &Path,
        metadata: &Metadata,
        kind: FileType,
        device: Dev,
    ) -> Result<(), CopyError> {
        let made = self.instead(path, |above, name| {
            rustix::fs::mknodat(above, name, kind, mode_bits(metadata.mode), device)
        });
        match made {
            Err(CopyError::System { source: Errno::PERM, .. }) if self.rootless => {
                return self.file(path, metadata, &mut &[][..]);
            }
            made => made?,
        }
        let (above, name) = split(path);
        self.describe(&*self.ensure(above)?, name, path, metadata, Kind::Node)
    }

    /// Makes a hard link at `path` to the file at `existing`.
    ///
    /// # Errors
    /// [`CopyError::OverDirectory`], [`CopyError::System`].
    pub fn hard_link(&self, path: &Path, existing: &Path) -> Result<(), CopyError> {
        let (from, from_name) = split(existing);
        let from = self.ensure(from)?;
        self.instead(path, |above, name| rustix::fs::linkat(&*from, from_name, above, name, AtFlags::empty()))
    }

    /// Sets the times of directories. Call this last.
    ///
    /// # Errors
    /// [`CopyError::System`].
    pub fn finish(self) -> Result<(), CopyError> {
        for (path, time) in self.times.take().iter().rev() {
            let directory =
                open_inside(self.root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
                    .map_err(failed("open", path))?;
            rustix::fs::futimens(directory, &times(*time)).map_err(failed("set times of", path))?;
        }
        Ok(())
    }

    /// Removes the file at `path`, because an entry of an archive replaces it. A directory stays if another
    /// directory is to be merged with it.
    ///
    /// # Errors
    /// [`CopyError::OverFile`], [`CopyError::System`].
    pub fn make_way(&self, path: &Path, for_directory: bool) -> Result<(), CopyError> {
        let (above, name) = split(path);
        let above = self.ensure(above)?;
        let found = self.kind_at(&above, name, path)?;
        if found.is_none() || (found == Some(Kind::Directory) && for_directory) {
            return Ok(());
        }
        if found == Some(Kind::Directory) {
            // The directory goes, and with it what is known about it.
            *self.last.borrow_mut() = None;
            self.times.borrow_mut().retain(|(at, _)| !at.starts_with(path));
        }
        layer::remove_tree(&*above, name.as_bytes()).map_err(failed("remove", path))
    }

    fn kind_at(&self, above: &OwnedFd, name: &OsStr, path: &Path) -> Result<Option<Kind>, CopyError> {
        match rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(kind(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("stat", path)(error)),
        }
    }

    /// Makes something at `path`. Replaces an existing file, but no directory.
    fn instead<T>(
        &self,
        path: &Path,
        make: impl Fn(&OwnedFd, &OsStr) -> Result<T, Errno>,
    ) -> Result<T, CopyError> {
        let (above, name) = split(path);
        let above = self.ensure(above)?;
        match make(&above, name) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(failed("create", path)),
        }
        if self.kind_at(&above, name, path)? == Some(Kind::Directory) {
            return Err(CopyError::OverDirectory(Path::new("/").join(path)));
        }
        rustix::fs::unlinkat(&*above, name, AtFlags::empty()).map_err(failed("remove", path))?;
        make(&above, name).map_err(failed("create", path))
    }

    /// Gives a file its owner with `set`, a call of chown(2). Returns the bits that its mode may have ([`Owner::give`]).
    fn give(
        &self,
        metadata: &Metadata,
        path: &Path,
        set: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    ) -> Result<u32, CopyError> {
        metadata.owner.give(self.rootless, set).map_err(|error| match error {
            NotOwned::System(error) => failed("change owner of", path)(error),
            source => CopyError::Unmapped { path: path.to_owned(), source },
        })
    }

    fn set_xattrs(
        &self,
        file: impl AsFd,
        xattrs: &[(OsString, Vec<u8>)],
        path: &Path,
    ) -> Result<(), CopyError> {
        for (name, value) in xattrs {
            match rustix::fs::fsetxattr(&file, name.as_os_str(), value, XattrFlags::empty()) {
                // As with cp, attributes that the image's file system does not support are dropped.
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(Errno::PERM | Errno::INVAL) if self.rootless => {}
                Err(error) => return Err(failed("set attribute of", path)(error)),
            }
        }
        Ok(())
    }

    /// Sets the attributes of anything but a regular file.
    fn describe(
        &self,
        above: &OwnedFd,
        name: &OsStr,
        path: &Path,
        metadata: &Metadata,
        kind: Kind,
    ) -> Result<(), CopyError> {
        let bits = self.give(metadata, path, |user, group| {
            rustix::fs::chownat(above, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
        })?;
        if kind != Kind::Symlink {
            rustix::fs::chmodat(above, name, mode_bits(metadata.mode & bits), AtFlags::empty())
                .map_err(failed("change mode of", path))?;
        }
        if kind == Kind::Directory && !metadata.xattrs.is_empty() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory =
                rustix::fs::openat(above, name, flags, Mode::empty()).map_err(failed("open", path))?;
            self.set_xattrs(&directory, &metadata.xattrs, path)?;
        }
        match metadata.modified {
            Some(time) if kind == Kind::Directory => self.times.borrow_mut().push((path.to_owned(), time)),
            Some(time) => rustix::fs::utimensat(above, name, &times(time), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("set times of", path))?,
            None => {}
        }
        Ok(())
    }
}

/// The content of a new file.
pub trait Source {
    /// Writes the whole content to `file`.
    ///
    /// # Errors
    /// When the content cannot be read or written.
    fn write_to(&mut self, file: &mut File) -> io::Result<()>;
}

impl Source for &[u8] {
    fn write_to(&mut self, file: &mut File) -> io::Result<()> {
        io::Write::write_all(file, self)
    }
}

impl Source for File {
    fn write_to(&mut self, file: &mut File) -> io::Result<()> {
        // Shares the blocks if the file system can. Otherwise the kernel copies (copy_file_range).
        if rustix::fs::ioctl_ficlone(&*file, &*self).is_ok() {
            return Ok(());
        }
        io::copy(self, file).map(|_| ())
    }
}

/// Whether an attribute belongs to the file itself. Attributes of overlayfs and of the host's security policy
/// do not.
pub(super) fn is_portable(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.starts_with(b"trusted.overlay.")
        && !name.starts_with(b"user.overlay.")
        && name != b"security.selinux"
}

/// The extended attributes of an open file that are portable.
pub(super) fn xattrs(file: impl AsFd, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>, CopyError> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::flistxattr(&file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(failed("read attributes of", path)(error)),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = OsStr::from_bytes(name);
        if !is_portable(name) {
            continue;
        }
        let mut value = vec![0_u8; 64 << 10];
        let length =
            rustix::fs::fgetxattr(&file, name, &mut value[..]).map_err(failed("read attribute of", path))?;
        value.truncate(length);
        found.push((name.to_owned(), value));
    }
    found.sort();
    Ok(found)
}
