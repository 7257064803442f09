//! Copies a tree like `cp --archive`, for a volume that starts with the image's content.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use operation::{Error, Place};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, linkat, mkdirat, openat, openat2,
        statat,
    },
    io::Errno,
};

use super::entry;
use crate::{detached::EntryBuffer, resolve};

/// Copies the content of the directory `from` into the directory `to`. `to` also gets the mode, owner, times
/// and extended attributes of `from`. Hard links within the tree are kept. Mounts below `from` are skipped.
///
/// # Errors
/// The system's error for the first entry that cannot be copied.
pub fn copy(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let stat = rustix::fs::fstat(from)?;
    let mut copying =
        Copying { from, to, device: stat.st_dev, links: HashMap::new(), directories: Vec::new() };
    copying.directories.push((b".".to_vec(), stat));
    let mut done = 0;
    while done < copying.directories.len() {
        copying.content(done)?;
        done += 1;
    }
    // Directories last: new entries change their times, and their mode may forbid new entries.
    for (path, stat) in copying.directories.iter().rev() {
        entry::like(open(from, path)?, open(to, path)?, stat)?;
    }
    Ok(())
}

/// Copies the directory `source` of the root file system `within` into the empty directory `target`, as [`copy`]
/// does. Links of `source` cannot lead out of `within`. Returns false, and does nothing, if there is no such directory.
///
/// # Errors
/// When something cannot be copied.
pub fn fill(within: &Path, source: &Path, target: &Path) -> Result<bool, Error> {
    let fill = || {
        let root = resolve::place(within)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let from = match resolve::open_in(&root, source, flags) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            result => result?,
        };
        let place = resolve::place(target)?;
        let to = openat(&place, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        copy(from, to).map(|()| true)
    };
    let object = format_args!("{source:?} of {within:?} to {target:?}");
    fill().map_err(|errno| Error::new("copy", object, errno).of(Place::Store))
}

/// Gives the directory `to` the owner, the mode, the extended attributes and the times of the directory
/// `from`.
///
/// # Errors
/// When a directory is missing, or may not be changed.
pub fn copy_attributes(from: &Path, to: &Path) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = || {
        let [from, to] = [from, to].map(|path| openat(CWD, path, flags, Mode::empty()));
        let (from, to) = (from?, to?);
        entry::like(&from, &to, &rustix::fs::fstat(&from)?)
    };
    copy().map_err(|errno: Errno| {
        Error::new("copy attributes", format_args!("of {from:?} to {to:?}"), errno).of(Place::Store)
    })
}

struct Copying<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    device: u64,
    /// For files with several names: the directory and name of the first copy.
    links: HashMap<u64, (Vec<u8>, CString)>,
    /// Paths of new directories, parents first. A hostile tree may be very deep, so neither the stack nor the
    /// number of open files grows with it.
    directories: Vec<(Vec<u8>, Stat)>,
}

/// Opens a directory below `root`, through no link.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// The names in a directory.
pub(super) fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    let mut buffer: EntryBuffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    Ok(names)
}

impl Copying<'_> {
    /// Copies the content of one directory. Makes its subdirectories and queues them.
    fn content(&mut self, at: usize) -> Result<(), Errno> {
        let path = self.directories[at].0.clone();
        let (from, to) = (open(self.from, &path)?, open(self.to, &path)?);
        names(&from)?.iter().try_for_each(|name| self.entry(&path, from.as_fd(), to.as_fd(), name))
    }

    fn entry(
        &mut self,
        path: &[u8],
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<(), Errno> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if stat.st_dev != self.device && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(());
        }
        if let Some((directory, first)) = self.links.get(&stat.st_ino) {
            return linkat(open(self.to, directory)?, first, to, name, AtFlags::empty());
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            mkdirat(to, name, Mode::RWXU)?;
            self.directories.push(([path, b"/", name.to_bytes()].concat(), stat));
            return Ok(());
        }
        entry::copy(from, to, name, &stat)?;
        if stat.st_nlink > 1 {
            self.links.insert(stat.st_ino, (path.to_vec(), name.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, File},
        os::unix::fs::MetadataExt,
    };

    use rustix::fs::XattrFlags;

    #[test]
    fn everything_of_an_entry_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        fs::create_dir_all(from.join("d")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("d/file"), "text").unwrap();
        fs::hard_link(from.join("d/file"), from.join("twin")).unwrap();
        std::os::unix::fs::symlink("/nowhere", from.join("link")).unwrap();
        std::os::unix::fs::chown(from.join("d/file"), Some(12), Some(34)).unwrap();
        fs::set_permissions(from.join("d/file"), std::os::unix::fs::PermissionsExt::from_mode(0o4751))
            .unwrap();
        let opened = File::open(from.join("d/file")).unwrap();
        // A capability of version 2: CAP_NET_RAW, permitted and effective.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::fsetxattr(&opened, "security.capability", &capability, XattrFlags::empty()).unwrap();
        opened.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000)).unwrap();
        let open = |path| rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        copy(open(&from), open(&to)).unwrap();

        let file = fs::metadata(to.join("d/file")).unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid(), file.mtime()), (0o4751, 12, 34, 1000));
        assert_eq!(fs::metadata(to.join("twin")).unwrap().ino(), file.ino());
        assert_eq!(fs::read_link(to.join("link")).unwrap().to_str(), Some("/nowhere"));
        assert_eq!(fs::read_to_string(to.join("twin")).unwrap(), "text");
        let mut found = [0; 64];
        let copied = File::open(to.join("d/file")).unwrap();
        let length = rustix::fs::fgetxattr(copied, "security.capability", &mut found).unwrap();
        assert_eq!(found[..length], capability);
        let times = |path| fs::metadata(path).unwrap().mtime_nsec();
        assert_eq!(times(from.join("d")), times(to.join("d")));
    }
}
