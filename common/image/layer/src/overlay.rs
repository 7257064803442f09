//! How overlayfs represents deletions (kernel, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
//! directories").

use std::os::fd::{AsFd, AsRawFd};

use rustix::{
    fs::{FileType, Stat},
    io::Errno,
};

/// The prefixes of overlayfs's extended attributes: for mounts by root, and by other users (`userxattr`).
pub(crate) const PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The attribute of an opaque directory, in the order of [`PREFIXES`].
pub(crate) const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Whether the attribute belongs to overlayfs. Such attributes are not part of a layer.
pub(crate) fn is_overlay_xattr(name: &[u8]) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the attribute is in one of Linux's namespaces for attributes (xattr(7)).
pub(crate) fn is_linux_xattr(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"security.", b"system."].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a file with this status is a whiteout: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The attribute's value, for a file that is open for reading; None if it is not set.
pub(crate) fn xattr(fd: impl AsFd, name: &str) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 64];
    loop {
        match rustix::fs::fgetxattr(fd.as_fd(), name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) => {
                let length = rustix::fs::fgetxattr(fd.as_fd(), name, &mut [0_u8; 0])?;
                value.resize(length, 0);
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Whether the directory hides the content of lower layers.
///
/// # Errors
/// When its attributes cannot be read.
pub fn is_opaque(directory: impl AsFd) -> rustix::io::Result<bool> {
    for name in OPAQUE {
        if xattr(directory.as_fd(), name)?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The `/proc` path of an entry in an open directory, for system calls without a directory argument. With an
/// empty name, the path of a file opened with `O_PATH`.
pub(crate) fn proc_path(directory: impl AsFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

/// The extended attributes of an entry, sorted by name, without those of overlayfs. Symbolic links are not
/// followed.
pub(crate) fn xattrs(directory: impl AsFd, name: &[u8]) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = proc_path(directory, name);
    let mut names = all_xattr_names(&path)?;
    names.retain(|name| !is_overlay_xattr(name));
    names.into_iter().map(|name| xattr_of(&path, &name).map(|value| (name, value))).collect()
}

/// The names of all extended attributes, sorted.
pub(crate) fn all_xattr_names(path: &[u8]) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut list = [0_u8; 1024];
    let list = match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(0) => return Ok(Vec::new()),
        Ok(length) => list[..length].to_vec(),
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            // The kernel limits such a list to 64 KiB.
            let mut list = vec![0_u8; 1 << 16];
            let length = rustix::fs::llistxattr(path, &mut list[..])?;
            list.truncate(length);
            list
        }
        Err(error) => return Err(error),
    };
    let mut names: Vec<_> =
        list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}

fn xattr_of(path: &[u8], name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; 256];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => value.truncate(length),
        Err(Errno::RANGE) => {
            value.resize(1 << 16, 0);
            let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
            value.truncate(length);
        }
        Err(error) => return Err(error),
    }
    Ok(value)
}
