//! Detached mounts: mounts that are not attached to the file tree yet, and how to attach them.

use std::{
    ffi::{CStr, OsStr},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
        OpenTreeFlags, UnmountFlags,
    },
};

use operation::Place;

use crate::{
    Error, Options, Result,
    error::{explained, mounting},
    sys,
};

/// linux/mount.h
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// The longest string of fsconfig(2), in bytes.
pub(crate) const LONGEST_STRING: usize = 255;

/// A file system that is being configured (fsopen(2)).
#[derive(Debug)]
pub struct FileSystem {
    context: OwnedFd,
    kind: String,
}

impl FileSystem {
    /// Starts with a file system of the type `kind` (`tmpfs`, `overlay`).
    ///
    /// # Errors
    /// When the kernel does not know the type, or the caller may not mount.
    pub fn open(kind: &str) -> Result<Self> {
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
            Error::new("open", format_args!("file system {kind}"), errno).of(Place::Namespace)
        })?;
        Ok(Self { context, kind: kind.to_owned() })
    }

    /// Sets the option `key` to `value`, at most 255 bytes.
    ///
    /// # Errors
    /// When the file system rejects the option.
    pub fn set(&self, key: &str, value: impl rustix::path::Arg + std::fmt::Debug + Copy) -> Result<()> {
        rustix::mount::fsconfig_set_string(self.context.as_fd(), key, value)
            .map_err(|errno| self.error("set", format_args!("{key}={value:?} of {}", self.kind), errno))
    }

    /// Sets options in the form of `mount -o`: `mode=755`, `newinstance`.
    ///
    /// # Errors
    /// When the file system rejects an option.
    pub fn set_data<'a>(&self, data: impl IntoIterator<Item = &'a str>) -> Result<()> {
        for option in data {
            match option.split_once('=') {
                Some((key, value)) => self.set(key, value)?,
                None => rustix::mount::fsconfig_set_flag(self.context.as_fd(), option)
                    .map_err(|errno| self.error("set", format_args!("{option} of {}", self.kind), errno))?,
            }
        }
        Ok(())
    }

    /// Creates the file system, and a detached mount of it with these attributes.
    ///
    /// # Errors
    /// When the file system cannot be created with its options.
    pub fn mount(&self, attributes: MountAttrFlags) -> Result<Detached> {
        let make = || {
            rustix::mount::fsconfig_create(self.context.as_fd())?;
            rustix::mount::fsmount(self.context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        make().map(Detached).map_err(|errno| self.error("mount", &self.kind, errno))
    }

    /// The error, with the message that the file system wrote to the log of its context.
    fn error(&self, verb: &'static str, object: impl std::fmt::Display, errno: Errno) -> Error {
        let mut line = [0_u8; 1024];
        let mut said = Vec::new();
        while let Ok(length @ 1..) = rustix::io::read(&self.context, &mut line) {
            // "e overlay: message": the level, the sender, and the text.
            let text = String::from_utf8_lossy(&line[..length]);
            if let Some(error) = text.trim_end().strip_prefix("e ") {
                said.push(error.to_owned());
            }
        }
        let cause = match said.pop() {
            Some(cause) => explained(errno, format!("{} ({cause})", crate::strerror(errno))),
            None => errno.into(),
        };
        Error::new(verb, object, cause).of(Place::Namespace)
    }
}

/// A detached mount: a new file system, or a copy of an existing mount that will become a bind mount.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// Copies the mount at `path`, and with `recursive` all mounts below it. Follows symbolic links: for an
    /// untrusted path, open it with [`crate::resolve`] and use [`Detached::copy_of`].
    ///
    /// # Errors
    /// When `path` does not exist, or the caller may not mount.
    pub fn copy(path: &Path, recursive: bool) -> Result<Self> {
        open_tree(rustix::fs::CWD, path, recursive).map_err(mounting("copy mount of", path))
    }

    /// As [`Detached::copy`], for an open file.
    ///
    /// # Errors
    /// When the caller may not mount.
    pub fn copy_of(place: impl AsFd, recursive: bool) -> std::result::Result<Self, Errno> {
        open_tree(place.as_fd(), Path::new(""), recursive)
    }

    /// Attaches the mount on top of the open `target`.
    ///
    /// # Errors
    /// When the mount is a directory and `target` a file, or the reverse; when the caller may not mount.
    pub fn attach(&self, target: impl AsFd) -> std::result::Result<(), Errno> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(self.0.as_fd(), c"", target.as_fd(), c"", flags)
    }

    /// Attaches the mount on top of `name` in a directory that only this process can change. Does not follow
    /// a symbolic link.
    ///
    /// # Errors
    /// As [`Detached::attach`].
    pub fn attach_in(&self, directory: impl AsFd, name: &OsStr) -> std::result::Result<(), Errno> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(self.0.as_fd(), c"", directory.as_fd(), name, flags)
    }

    /// Maps the owners of files by a user namespace: files of user 0 on the disk belong to the root of the
    /// namespace. The mount must be a copy that was never attached.
    ///
    /// # Errors
    /// EINVAL for a file system that does not support mapped owners, such as an overlay, and for a mount that
    /// is mapped already.
    pub fn map_owners(&self, namespace: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        self.map_owners_below(namespace, false)
    }

    /// As [`Detached::map_owners`]; `recursive` maps the mounts below too.
    ///
    /// # Errors
    /// As [`Detached::map_owners`].
    pub fn map_owners_below(
        &self,
        namespace: BorrowedFd<'_>,
        recursive: bool,
    ) -> std::result::Result<(), Errno> {
        let attributes = sys::Attributes {
            set: MOUNT_ATTR_IDMAP,
            userns: namespace.as_raw_fd().unsigned_abs().into(),
            ..sys::Attributes::default()
        };
        sys::mount_setattr(self.0.as_fd(), recursive, &attributes)
    }

    /// Sets and clears the attributes in `options` on this mount, and with `recursive` on the mounts below
    /// it. Also works on an attached mount.
    ///
    /// # Errors
    /// When the caller may not, or an attribute is locked.
    pub fn change(&self, options: &Options, recursive: bool) -> std::result::Result<(), Errno> {
        change(self.0.as_fd(), options, recursive)
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Detached {
    /// Takes the open root of a mount. `O_PATH` is enough.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Detached> for OwnedFd {
    /// Returns the root of the mount. Unless it is attached, the mount disappears with the last descriptor.
    fn from(mount: Detached) -> Self {
        mount.0
    }
}

fn open_tree(at: BorrowedFd<'_>, path: &Path, recursive: bool) -> std::result::Result<Detached, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(at, path, flags).map(Detached)
}

fn change(mount: BorrowedFd<'_>, options: &Options, recursive: bool) -> std::result::Result<(), Errno> {
    let mut set = options.attributes;
    let mut clear = options.cleared;
    let times = MountAttrFlags::MOUNT_ATTR__ATIME;
    if options.sets_times {
        // Access times are one field with three values. Clear the whole field before setting it.
        clear |= times;
    } else {
        set -= times;
    }
    let attributes = sys::Attributes {
        set: set.bits().into(),
        clear: clear.bits().into(),
        propagation: options.propagation.map_or(0, |kind| (kind - MountPropagationFlags::REC).bits().into()),
        userns: 0,
    };
    if attributes.set != 0 || attributes.clear != 0 || attributes.propagation != 0 {
        sys::mount_setattr(mount, recursive, &attributes)?;
    }
    let (set, cleared, sets_times) = options.below;
    if !set.is_empty() || !cleared.is_empty() {
        let clear = if sets_times { cleared | times } else { cleared };
        let below =
            sys::Attributes { set: set.bits().into(), clear: clear.bits().into(), propagation: 0, userns: 0 };
        sys::mount_setattr(mount, true, &below)?;
    }
    if options.shallow.is_empty() {
        return Ok(());
    }
    let here = sys::Attributes { set: options.shallow.bits().into(), clear: 0, propagation: 0, userns: 0 };
    sys::mount_setattr(mount, false, &here)
}

/// Changes options of the file system that is mounted at the open `place`.
///
/// # Errors
/// When the file system rejects an option.
pub fn reconfigure<'a>(
    place: BorrowedFd<'_>,
    data: impl IntoIterator<Item = &'a str>,
) -> std::result::Result<(), Errno> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = rustix::mount::fspick(place, c"", flags)?;
    for option in data {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?,
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), option)?,
        }
    }
    rustix::mount::fsconfig_reconfigure(context.as_fd())
}

/// Sets the propagation of the mount at `path`, and of all mounts below it if `kind` contains `REC`.
///
/// # Errors
/// When `path` is not a mount, or the caller may not change it.
pub fn propagate(path: &Path, kind: MountPropagationFlags) -> Result<()> {
    rustix::mount::mount_change(path, kind).map_err(mounting("set propagation of", path))
}

/// Unmounts the topmost mount at `path`, without following a symbolic link. A mount in use is detached from
/// the tree at once, and disappears with its last user.
///
/// # Errors
/// When nothing is mounted there ([`Errno::INVAL`]), or the caller may not unmount.
pub fn unmount(path: &Path) -> Result<()> {
    let unmount = || {
        let (directory, name) = crate::resolve::parent(path)?;
        // Use the descriptor of the parent directory: a descriptor of the mount itself would keep it busy.
        let mut place = crate::resolve::proc_path(directory.as_fd());
        place.push(name);
        match rustix::mount::unmount(&place, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => rustix::mount::unmount(&place, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            result => result,
        }
    };
    unmount().map_err(mounting("unmount", path))
}

/// As [`unmount`], but fails if the mount is in use.
///
/// # Errors
/// [`Errno::BUSY`] if a process in this mount namespace uses the mount, or something is mounted in it; the
/// errors of [`unmount`].
pub(crate) fn unmount_unused(path: &Path) -> std::result::Result<(), Errno> {
    let (directory, name) = crate::resolve::parent(path)?;
    let mut place = crate::resolve::proc_path(directory.as_fd());
    place.push(name);
    rustix::mount::unmount(&place, UnmountFlags::NOFOLLOW)
}

/// mount(2), for kernels with an incomplete mount API.
pub(crate) fn mount_by_string(
    kind: &str,
    source: &str,
    target: BorrowedFd<'_>,
    flags: rustix::mount::MountFlags,
    data: &CStr,
) -> std::result::Result<(), Errno> {
    rustix::mount::mount(source, crate::resolve::proc_path(target), kind, flags, data)
}

/// A buffer for directory entries.
pub(crate) type EntryBuffer = [MaybeUninit<u8>; 16 << 10];
