//! Copies one file, link, socket, pipe or device with everything that belongs to it.

use std::{
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
        flistxattr, ioctl_ficlone, llistxattr, mknodat, openat, readlinkat, seek, symlinkat, utimensat,
    },
    io::Errno,
};

use crate::resolve;

/// Copies the entry `name`, which has this status and is no directory.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::RegularFile => return file(from, to, name, stat),
        FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name)?,
        _ => mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?,
    }
    chownat(to, name, uid(stat), gid(stat), AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        // mknod(2) obeys the umask.
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    unopened_attributes(from, to, name)?;
    utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives the open directory or file `to` the owner, mode, extended attributes and times of `from`, which has this status.
pub(super) fn like(from: impl AsFd, to: impl AsFd, stat: &Stat) -> Result<(), Errno> {
    let (from, to) = (from.as_fd(), to.as_fd());
    owner_and_mode(to, stat)?;
    attributes(from, to)?;
    utimensat(to, c"", &times(stat), AtFlags::EMPTY_PATH)
}

fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let open = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = File::from(openat(from, name, open | OFlags::RDONLY, Mode::empty())?);
    let create = open | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let copy = File::from(openat(to, name, create, Mode::RWXU)?);
    content(&source, &copy)?;
    like(&source, &copy, stat)
}

/// Copies the content of a file into an empty one. Shares the blocks where the file system can. Holes stay holes.
fn content(mut source: &File, mut copy: &File) -> Result<(), Errno> {
    if ioctl_ficlone(copy, source).is_ok() {
        return Ok(());
    }
    let failed = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut at = 0;
    loop {
        let (begin, end) = match seek(source, rustix::fs::SeekFrom::Data(at)) {
            // There is nothing but a hole behind.
            Err(Errno::NXIO) => break,
            // The file system does not tell of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (at, u64::MAX),
            begin => {
                let begin = begin?;
                (begin, seek(source, rustix::fs::SeekFrom::Hole(begin))?)
            }
        };
        source.seek(SeekFrom::Start(begin)).map_err(failed)?;
        copy.seek(SeekFrom::Start(begin)).map_err(failed)?;
        let copied = io::copy(&mut source.take(end - begin), &mut copy).map_err(failed)?;
        at = begin + copied;
        if end == u64::MAX || copied < end - begin {
            break;
        }
    }
    let size = source.metadata().map_err(failed)?.len();
    if copy.metadata().map_err(failed)?.len() < size {
        copy.set_len(size).map_err(failed)?;
    }
    Ok(())
}

/// Sets the owner before the mode. Extended attributes follow last: changing the owner removes setuid bits
/// and file capabilities.
fn owner_and_mode(to: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    chownat(to, c"", uid(stat), gid(stat), AtFlags::EMPTY_PATH)?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

/// The longest list of attributes, and the longest value (xattr(7)).
const LONGEST: usize = 64 << 10;

fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut names = vec![0_u8; LONGEST];
    let length = match flistxattr(from, names.as_mut_slice()) {
        Err(Errno::NOTSUP) => return Ok(()),
        result => result?,
    };
    each(
        &names[..length],
        |name, value| rustix::fs::fgetxattr(from, name, value),
        |name, value| rustix::fs::fsetxattr(to, name, value, XattrFlags::empty()),
    )
}

/// The attributes of an entry that cannot be opened: a link, a device.
fn unopened_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let path = |of: BorrowedFd<'_>| resolve::proc_path(of).join(OsStr::from_bytes(name.to_bytes()));
    let (from, to) = (path(from), path(to));
    let mut names = vec![0_u8; LONGEST];
    let length = match llistxattr(&from, names.as_mut_slice()) {
        Err(Errno::NOTSUP) => return Ok(()),
        result => result?,
    };
    each(
        &names[..length],
        |name, value| rustix::fs::lgetxattr(&from, name, value),
        |name, value| rustix::fs::lsetxattr(&to, name, value, XattrFlags::empty()),
    )
}

/// Reads and sets each attribute of a list, except overlayfs's own.
fn each(
    names: &[u8],
    read: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut value = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        value.resize(LONGEST, 0_u8);
        let length = read(name, &mut value)?;
        match set(name, &value[..length]) {
            // The file system may not support these attributes.
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn uid(stat: &Stat) -> Option<Uid> {
    Some(Uid::from_raw(stat.st_uid))
}

fn gid(stat: &Stat) -> Option<Gid> {
    Some(Gid::from_raw(stat.st_gid))
}

#[allow(clippy::cast_possible_wrap)] // Nanoseconds are below 1,000,000,000.
fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink},
    };

    use rustix::fs::{CWD, statat};

    use super::*;

    fn copied(name: &str, make: impl FnOnce(&std::path::Path)) -> (tempfile::TempDir, fs::Metadata) {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        make(&from);
        let [one, other] = [&from, &to].map(|path| File::open(path).unwrap());
        let name = std::ffi::CString::new(name).unwrap();
        let stat = statat(&one, &name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        copy(one.as_fd(), other.as_fd(), &name, &stat).unwrap();
        let found = to.join(name.to_str().unwrap()).symlink_metadata().unwrap();
        (dir, found)
    }

    #[test]
    fn holes_stay_holes() {
        let (dir, copy) = copied("sparse", |from| {
            let file = File::create(from.join("sparse")).unwrap();
            file.set_len(1 << 30).unwrap();
            file.write_at(b"middle", 500 << 20).unwrap();
        });
        assert_eq!(copy.len(), 1 << 30);
        assert!(copy.blocks() * 512 < 1 << 20, "{} blocks", copy.blocks());
        let mut text = [0; 8];
        let file = File::open(dir.path().join("to/sparse")).unwrap();
        file.read_at(&mut text, (500 << 20) - 1).unwrap();
        assert_eq!(&text, b"\0middle\0");
        let (_dir, copy) = copied("empty", |from| drop(File::create(from.join("empty")).unwrap()));
        assert_eq!(copy.len(), 0);
        let (dir, _) = copied("plain", |from| fs::write(from.join("plain"), "text").unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("to/plain")).unwrap(), "text");
    }

    #[test]
    fn what_is_no_file_keeps_its_kind_mode_and_attributes() {
        let (_dir, copy) = copied("socket", |from| {
            drop(std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap())
        });
        assert!(copy.file_type().is_socket());
        let (_dir, copy) = copied("pipe", |from| {
            mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
            fs::set_permissions(from.join("pipe"), std::os::unix::fs::PermissionsExt::from_mode(0o666))
                .unwrap();
        });
        assert!(copy.file_type().is_fifo() && copy.mode() & 0o7777 == 0o666);
        let (dir, copy) = copied("link", |from| {
            symlink("/nowhere", from.join("link")).unwrap();
            rustix::fs::lsetxattr(from.join("link"), "trusted.mine", b"x", XattrFlags::empty()).unwrap();
        });
        assert!(copy.is_symlink());
        let mut value = [0; 8];
        assert_eq!(rustix::fs::lgetxattr(dir.path().join("to/link"), "trusted.mine", &mut value[..]), Ok(1));
    }
}
