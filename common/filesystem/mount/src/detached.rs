//! Mounts that are not attached yet, and attaching them.

use std::{
    ffi::{CStr, OsStr},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags,
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

    /// Sets the option `key` to `value`, of 255 bytes at most.
    ///
    /// # Errors
    /// When the file system refuses it.
    pub fn set(&self, key: &str, value: impl rustix::path::Arg + std::fmt::Debug + Copy) -> Result<()> {
        rustix::mount::fsconfig_set_string(self.context.as_fd(), key, value)
            .map_err(|errno| self.error("set", format_args!("{key}={value:?} of {}", self.kind), errno))
    }

    /// Sets options in the form of `mount -o`: `mode=755`, `newinstance`.
    ///
    /// # Errors
    /// When the file system refuses one of them.
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

    /// Makes the file system, and an unattached mount of it with these attributes.
    ///
    /// # Errors
    /// When the file system cannot be made with its options.
    pub fn mount(&self, attributes: MountAttrFlags) -> Result<Detached> {
        let make = || {
            rustix::mount::fsconfig_create(self.context.as_fd())?;
            rustix::mount::fsmount(self.context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        make().map(Detached).map_err(|errno| self.error("mount", &self.kind, errno))
    }

    /// The error, with the file system's explanation from its context's log.
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

/// An unattached mount: of a new file system, or a copy of an existing mount (a future bind mount).
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// A copy of the mount at `path`, and of all mounts below it if `recursive`. Follows symbolic links: open an
    /// untrusted path with [`crate::resolve`] first, and use [`Detached::copy_of`].
    ///
    /// # Errors
    /// When it does not exist, or the caller may not mount.
    pub fn copy(path: &Path, recursive: bool) -> Result<Self> {
        open_tree(rustix::fs::CWD, path, recursive).map_err(mounting("copy mount of", path))
    }

    /// The same for an open file.
    ///
    /// # Errors
    /// When the caller may not mount.
    pub fn copy_of(place: impl AsFd, recursive: bool) -> std::result::Result<Self, Errno> {
        open_tree(place.as_fd(), Path::new(""), recursive)
    }

    /// Attaches it on top of the open `target`.
    ///
    /// # Errors
    /// When a directory would cover a file, or the reverse; when the caller may not mount.
    pub fn attach(&self, target: impl AsFd) -> std::result::Result<(), Errno> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(self.0.as_fd(), c"", target.as_fd(), c"", flags)
    }

    /// Attaches it on top of `name` in a directory that only this process can change. A symbolic link is not followed.
    ///
    /// # Errors
    /// As [`Detached::attach`].
    pub fn attach_in(&self, directory: impl AsFd, name: &OsStr) -> std::result::Result<(), Errno> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(self.0.as_fd(), c"", directory.as_fd(), name, flags)
    }

    /// Shows the files' owners by the mappings of a user namespace: what belongs to 0 on the disk belongs to its root. The mount
    /// is a copy that was never attached.
    ///
    /// # Errors
    /// EINVAL for a file system that cannot be shown so, such as an overlay, and for one that is already.
    pub fn map_owners(&self, namespace: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        let attributes = sys::Attributes {
            set: MOUNT_ATTR_IDMAP,
            userns: namespace.as_raw_fd().unsigned_abs().into(),
            ..sys::Attributes::default()
        };
        sys::mount_setattr(self.0.as_fd(), false, &attributes)
    }

    /// Sets and clears the attributes in `options`, on this mount and on those below it if `recursive`. Works on an
    /// attached mount too.
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
    /// The open root of a mount, with `O_PATH`.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Detached> for OwnedFd {
    /// The root of the mount. Unless it is attached, it disappears with the last descriptor.
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
        // The three ways to handle access times are one field, which must be cleared as a whole before it is set.
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
    if options.shallow.is_empty() {
        return Ok(());
    }
    let here = sys::Attributes { set: options.shallow.bits().into(), clear: 0, propagation: 0, userns: 0 };
    sys::mount_setattr(mount, false, &here)
}

/// Sets the propagation of the mount at `path`, and of all below it if `kind` contains `REC`.
///
/// # Errors
/// When it is not a mount, or the caller may not.
pub fn propagate(path: &Path, kind: MountPropagationFlags) -> Result<()> {
    rustix::mount::mount_change(path, kind).map_err(mounting("set propagation of", path))
}

/// Unmounts the topmost mount at `path`. Its directory is reached without following a symbolic link. A mount in use
/// leaves the tree at once, and disappears with its last user.
///
/// # Errors
/// When nothing is mounted there ([`Errno::INVAL`]), or the caller may not.
pub fn unmount(path: &Path) -> Result<()> {
    let unmount = || {
        let (directory, name) = crate::resolve::parent(path)?;
        // By the descriptor of the parent directory: one of the mount itself would keep it busy.
        let mut place = crate::resolve::proc_path(directory.as_fd());
        place.push(name);
        match rustix::mount::unmount(&place, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => rustix::mount::unmount(&place, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            result => result,
        }
    };
    unmount().map_err(mounting("unmount", path))
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
