//! `--normalize`: removes what commands write differently each time and nobody needs. Logs are emptied.
//! Caches of the linker and of apt, and Python's bytecode, are removed; programs make them again.

use std::{
    ffi::OsStr,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid},
    io::Errno,
};

use crate::error::Cause;

/// The directory of logs. Files below it are emptied.
const LOGS: &str = "var/log";
/// Cache files that are made again when they are missing (ldconfig(8), apt.conf(5)).
const CACHES: [&str; 3] =
    ["var/cache/ldconfig/aux-cache", "var/cache/apt/pkgcache.bin", "var/cache/apt/srcpkgcache.bin"];
/// The directory of Python's bytecode beside its source (PEP 3147). Elsewhere, the bytecode may be all there
/// is of a program.
const BYTECODE: &str = "__pycache__";

/// Normalizes the files that a step has written. `upper` tells which files those are. The changes are made in
/// `merged`, where removing a file does not let the file of a lower layer appear. Nobody else writes there
/// meanwhile. Links on the way to a file are not followed, because they may lead to files of the host.
///
/// # Errors
/// When a file cannot be changed.
/// When a file cannot be changed.
pub(crate) fn normalize(upper: &Path, merged: &Path) -> Result<(), Cause> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(Cause::system("open", path))
    };
    let step = Step { upper: open(upper)?, merged: open(merged)?, path: merged };
    for name in CACHES.map(Path::new) {
        if step.written(name).is_some() {
            step.remove(name)?;
        }
    }
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let (is_log, is_bytecode) = (directory.starts_with(LOGS), directory.ends_with(BYTECODE));
        let path = upper.join(&directory);
        let read = |error| Cause::system::<io::Error>("read", &path)(error);
        for entry in fs::read_dir(&path).map_err(read)? {
            let entry = entry.map_err(read)?;
            let (kind, name) = (entry.file_type().map_err(read)?, directory.join(entry.file_name()));
            if kind.is_dir() {
                pending.push(name);
            } else if kind.is_file() && is_log {
                step.empty(&name)?;
            } else if kind.is_file() && is_bytecode && name.extension().is_some_and(|end| end == "pyc") {
                step.remove(&name)?;
            }
        }
        if is_bytecode && let Some((above, name)) = place(&step.merged, &directory) {
            // The directory may have other files.
            let _ = rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR);
        }
    }
    Ok(())
}

/// Opens the parent directory of a file below `root`. Returns it with the name of the file. `None` if it is
/// missing or behind a link.
fn place<'a>(root: &OwnedFd, path: &'a Path) -> Option<(OwnedFd, &'a OsStr)> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let above = rustix::fs::openat2(root, above, flags, Mode::empty(), resolve).ok()?;
    Some((above, path.file_name()?))
}

/// The files that a step has written.
struct Step<'a> {
    upper: OwnedFd,
    merged: OwnedFd,
    /// The path of `merged`, for messages.
    path: &'a Path,
}

impl Step<'_> {
    /// The metadata of a regular file that the step has written.
    fn written(&self, path: &Path) -> Option<Stat> {
        let (above, name) = place(&self.upper, path)?;
        let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(stat)
    }

    fn remove(&self, path: &Path) -> Result<(), Cause> {
        let Some((above, name)) = place(&self.merged, path) else { return Ok(()) };
        match rustix::fs::unlinkat(above, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Cause::system("remove", &self.path.join(path))(error)),
        }
    }

    fn empty(&self, path: &Path) -> Result<(), Cause> {
        let (Some(written), Some((above, name))) = (self.written(path), place(&self.merged, path)) else {
            return Ok(());
        };
        let emptied = || -> Result<(), Errno> {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if written.st_nlink < 2 {
                let file = rustix::fs::openat(&above, name, flags, Mode::empty())?;
                return if written.st_size > 0 { rustix::fs::ftruncate(file, 0) } else { Ok(()) };
            }
            // The file has other names, which may not be logs. So make a new file.
            rustix::fs::unlinkat(&above, name, AtFlags::empty())?;
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            let file = rustix::fs::openat(&above, name, flags, Mode::RUSR | Mode::WUSR)?;
            let (uid, gid) = (Uid::from_raw(written.st_uid), Gid::from_raw(written.st_gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(written.st_mode & 0o7777))
        };
        emptied().map_err(Cause::system("empty", &self.path.join(path)))
    }
}
