//! ADD of a local archive: a tar file, plain or compressed with gzip, bzip2, xz or zstd. The content tells
//! the format. The limits are those of a layer.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, Seek, SeekFrom, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

use archive::{BLOCK, Decompressed, Entry, Kind, Limits, Reader};
use rustix::fs::{FileType, Timespec};

use super::{CopyError, Metadata, Owner, Place, place};

/// Whether a file is an archive: its decompressed content begins with the header of a tar entry.
pub fn is_archive(file: &File) -> bool {
    let first = || -> io::Result<bool> {
        let mut copy = file.try_clone()?;
        copy.seek(SeekFrom::Start(0))?;
        let mut content = Decompressed::new(copy, Limits::default())?;
        // An archive without entries is not unpacked. A disk image may begin with zeros too, and is long.
        let start = content.fill_buf()?;
        if start.get(..BLOCK).is_none_or(|block| block.iter().all(|&byte| byte == 0)) {
            return Ok(false);
        }
        Ok(Reader::of_content(content).next()?.is_some())
    };
    let found = first().unwrap_or(false);
    let mut file = file;
    file.seek(SeekFrom::Start(0)).is_ok() && found
}

/// Unpacks an archive below `target`. Files keep the owners of the archive, unless `owner` replaces them.
/// Directories that the archive does not list have the mode 0755 and belong to root, as in BuildKit: neither
/// `--chmod` nor `--chown` applies to them.
pub(super) fn unpack(
    file: File,
    path: &Path,
    target: &Path,
    owner: Option<Owner>,
    place: &mut Place,
) -> Result<(), CopyError> {
    let mode = place.set_mode(0o755);
    let unpacked = place.ensure(target).and_then(|_| {
        let own = place.set_owner(Owner::default());
        let unpacked = unpack_entries(file, path, target, owner, place);
        place.set_owner(own);
        unpacked.map(drop)
    });
    place.set_mode(mode);
    unpacked
}

/// Unpacks below `target`, which exists. Returns the newest time of the entries, in seconds since 1970.
fn unpack_entries(
    file: File,
    path: &Path,
    target: &Path,
    owner: Option<Owner>,
    place: &Place,
) -> Result<Option<i64>, CopyError> {
    let failed = |source: io::Error| CopyError::Archive { path: path.to_owned(), source };
    let limits = Limits::default();
    let mut archive = Reader::new(Decompressed::padded(file, limits).map_err(failed)?);
    let (mut count, mut size, mut newest) = (0, 0_u64, None);
    while let Some(entry) = archive.next().map_err(|error| failed(error.into()))? {
        (count, size) = (count + 1, size.saturating_add(entry.size));
        limits.hold_entries(count, size).map_err(|error| failed(io::Error::other(error)))?;
        newest = newest.max(Some(entry.mtime.seconds));
        let name = inside(&entry.path);
        if name.as_os_str().is_empty() {
            match entry.kind {
                Kind::Directory => continue,
                _ => return Err(failed(io::Error::other("its root must be a directory"))),
            }
        }
        let at = target.join(&name);
        place.make_way(&at, entry.kind == Kind::Directory)?;
        let metadata = metadata(&entry, owner);
        let link = OsStr::from_bytes(&entry.link);
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        match entry.kind {
            Kind::File => {
                let mut content = Content { archive: &mut archive, entry: &entry, error: None };
                let made = place.file(&at, &metadata, &mut content);
                content.error.map_or(made, |error| Err(failed(error)))?;
            }
            Kind::Directory => place.directory(&at, &metadata)?,
            Kind::Symlink => place.symlink(&at, &metadata, link)?,
            Kind::HardLink => place.hard_link(&at, &target.join(inside(&entry.link)))?,
            Kind::CharDevice => place.node(&at, &metadata, FileType::CharacterDevice, device)?,
            Kind::BlockDevice => place.node(&at, &metadata, FileType::BlockDevice, device)?,
            Kind::Fifo => place.node(&at, &metadata, FileType::Fifo, 0)?,
        }
    }
    Ok(newest)
}

/// Unpacks the archive of a build context into an empty directory. Its owners are ignored: they do not reach
/// an image. Returns the newest time of the entries, in seconds since 1970.
///
/// # Errors
/// When the archive is damaged or exceeds a limit, or a file cannot be made.
pub fn unpack_context(
    file: File,
    path: &Path,
    directory: &std::os::fd::OwnedFd,
) -> Result<Option<i64>, CopyError> {
    let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let root =
        directory.try_clone().map_err(|error| CopyError::Archive { path: path.to_owned(), source: error })?;
    let place = Place::new(root, owner, None);
    let newest = unpack_entries(file, path, Path::new(""), Some(owner), &place)?;
    place.finish()?;
    Ok(newest)
}

/// Unpacks an archive that Stave made into a directory, with the archive's owners. Links cannot lead out of
/// the directory.
///
/// # Errors
/// When a file cannot be made.
pub fn unpack_tree(file: File, path: &Path, directory: std::os::fd::OwnedFd) -> Result<(), CopyError> {
    let root = Owner { uid: 0, gid: 0 };
    let place = Place::new(directory, root, None);
    unpack_entries(file, path, Path::new(""), None, &place)?;
    place.finish()
}

/// The name of an entry as a path below the target. `..` stops at the target.
fn inside(name: &[u8]) -> PathBuf {
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => drop(path.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    path
}

fn metadata(entry: &Entry, owner: Option<Owner>) -> Metadata {
    let xattrs =
        entry.xattrs.iter().map(|(name, value)| (std::ffi::OsString::from_vec(name.clone()), value.clone()));
    Metadata {
        mode: entry.mode,
        owner: owner.unwrap_or(Owner { uid: entry.uid, gid: entry.gid }),
        modified: Some(Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanoseconds.into() }),
        xattrs: xattrs.filter(|(name, _)| place::is_portable(name)).collect(),
    }
}

/// The data of one entry.
struct Content<'a> {
    archive: &'a mut Reader<Decompressed<File>>,
    entry: &'a Entry,
    /// The error if the archive is at fault, and not the file that is written.
    error: Option<io::Error>,
}

impl Content<'_> {
    fn copy(&mut self, file: &mut File, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let data = match self.archive.data() {
                Ok(data) => data,
                Err(error) => {
                    self.error = Some(error.into());
                    return Err(io::ErrorKind::Other.into());
                }
            };
            let take = usize::try_from(length).map_or(data.len(), |length| length.min(data.len()));
            if take == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all(&data[..take])?;
            self.archive.consume(take);
            length -= take as u64;
        }
        Ok(())
    }
}

impl place::Source for Content<'_> {
    fn write_to(&mut self, file: &mut File) -> io::Result<()> {
        let Some(segments) = &self.entry.sparse else { return self.copy(file, self.entry.size) };
        for segment in segments {
            file.seek(SeekFrom::Start(segment.offset))?;
            self.copy(file, segment.length)?;
        }
        file.set_len(self.entry.size)
    }
}
