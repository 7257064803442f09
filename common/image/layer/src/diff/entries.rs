//! Writes the content of directories as entries of an archive.

use std::{
    collections::HashMap,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use archive::{Entry, Kind, OPAQUE, Shown, Time, WHITEOUT, Writer};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, makedev, openat, openat2, readlinkat, statat,
};

use super::{Error, Options, Summary, blob::Blob};
use crate::overlay;

pub(super) struct Entries<W: Write> {
    writer: Writer<Blob<W>>,
    /// The first path of each file with several hard links, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    count: u64,
    newest: Option<Time>,
    all: Option<Time>,
}

/// For `map_err`: an error while doing `verb` on `path`.
pub(super) fn tree<E: Into<io::Error>>(verb: &'static str, path: &[u8]) -> impl FnOnce(E) -> Error {
    let name = Shown::new(path);
    move |source| Error::Tree { verb, name, source: source.into() }
}

/// `directory/name`, or only `name` in the root.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Opens a directory below `root`. An empty path is the root itself.
pub(super) fn open_directory(root: BorrowedFd, path: &[u8]) -> Result<OwnedFd, Error> {
    let name = if path.is_empty() { b"." } else { path };
    openat2(
        root,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
    .map_err(tree("open", path))
}

/// The names in the directory, sorted.
pub(super) fn names(directory: impl AsFd, path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory).map_err(tree("read", path))? {
        let entry = entry.map_err(tree("read", path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

pub(super) fn stat(directory: impl AsFd, name: &[u8], path: &[u8]) -> Result<Stat, Error> {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(tree("stat", path))
}

pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

impl<W: Write> Entries<W> {
    pub(super) fn new(blob: Blob<W>, options: &Options) -> Self {
        let time = |seconds| Time { seconds, nanoseconds: 0 };
        let (newest, all) = (options.newest.map(time), options.all.map(time));
        Self { writer: Writer::new(blob), links: HashMap::new(), count: 0, newest, all }
    }

    pub(super) fn finish(self) -> io::Result<Summary> {
        let finished = self.writer.finish()?.finish()?;
        Ok(Summary {
            diff_id: finished.diff_id,
            size: finished.size,
            uncompressed: finished.uncompressed,
            entries: self.count,
            media_type: finished.media_type,
        })
    }

    fn put(&mut self, entry: &Entry) -> Result<(), Error> {
        let newest = self.newest.filter(|newest| entry.mtime > *newest);
        let time = self.all.or(newest);
        self.put_with(entry, time)
    }

    fn put_with(&mut self, entry: &Entry, time: Option<Time>) -> Result<(), Error> {
        self.count += 1;
        match time {
            Some(mtime) => self.writer.entry(&Entry { mtime, ..entry.clone() }),
            None => self.writer.entry(entry),
        }
        .map_err(Error::Write)
    }

    /// Writes the whiteout of `name` in `directory`. It has no time, because the time of a deletion does not
    /// matter.
    pub(super) fn whiteout(&mut self, directory: &[u8], name: &[u8]) -> Result<(), Error> {
        self.put_with(&Entry::new(Kind::File, join(directory, &[WHITEOUT, name].concat())), None)
    }

    /// Writes the opaque whiteout of `directory`.
    pub(super) fn opaque(&mut self, directory: &[u8]) -> Result<(), Error> {
        self.put_with(&Entry::new(Kind::File, join(directory, OPAQUE)), None)
    }

    /// Writes the entry of an open directory. An empty path is the root.
    pub(super) fn directory(&mut self, directory: impl AsFd, path: &[u8]) -> Result<(), Error> {
        let directory = directory.as_fd();
        let stat = rustix::fs::fstat(directory).map_err(tree("stat", path))?;
        let name = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
        // "." stands for the open directory. The magic link in /proc has no attributes itself and is not
        // followed.
        let xattrs = overlay::xattrs(directory, b".").map_err(tree("list attributes of", path))?;
        let entry = Entry { xattrs, ..plain(Kind::Directory, name, &stat) };
        self.put(&entry)
    }

    /// Writes the entry of anything but a directory: `name` in the open `directory`. `path` is its path in
    /// the tree.
    pub(super) fn file(
        &mut self,
        directory: impl AsFd,
        name: &[u8],
        path: Vec<u8>,
        stat: &Stat,
    ) -> Result<(), Error> {
        let directory = directory.as_fd();
        let kind = match kind(stat) {
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            // A socket is useless without its process, so archives have no sockets.
            _ => return Ok(()),
        };
        if stat.st_nlink > 1 {
            let known = self.links.get(&(stat.st_dev, stat.st_ino)).cloned();
            if let Some(link) = known {
                return self.put(&Entry { link, ..plain(Kind::HardLink, path, stat) });
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let xattrs = overlay::xattrs(directory, name).map_err(tree("list attributes of", &path))?;
        let mut entry = Entry { xattrs, ..plain(kind, path, stat) };
        match kind {
            Kind::File => return self.content(directory, name, entry),
            Kind::Symlink => {
                let target = readlinkat(directory, name, Vec::new()).map_err(tree("read", &entry.path))?;
                entry.link = target.into_bytes();
            }
            Kind::CharDevice | Kind::BlockDevice => {
                entry.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                debug_assert_eq!(makedev(entry.device.0, entry.device.1), stat.st_rdev);
            }
            _ => {}
        }
        self.put(&entry)
    }

    fn content(&mut self, directory: BorrowedFd, name: &[u8], mut entry: Entry) -> Result<(), Error> {
        // Opening must not block, even if the file was replaced meanwhile.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::empty())
            .or_else(|_| openat(directory, name, flags - OFlags::NOATIME, Mode::empty()))
            .map_err(tree("open", &entry.path))?;
        let stat = rustix::fs::fstat(&file).map_err(tree("stat", &entry.path))?;
        if kind(&stat) != FileType::RegularFile {
            return Err(changed(&entry.path));
        }
        entry.size = stat.st_size as u64;
        entry.stored = entry.size;
        self.put(&entry)?;
        let mut left = entry.size;
        while left > 0 {
            let blob = self.writer.get_mut();
            let space = blob.space().map_err(Error::Write)?;
            let want = usize::try_from(left).map_or(space.len(), |left| left.min(space.len()));
            match rustix::io::read(&file, &mut space[..want]) {
                Ok(0) => return Err(changed(&entry.path)),
                Ok(count) => {
                    blob.filled(count);
                    left -= count as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(tree("read", &entry.path)(error)),
            }
        }
        Ok(())
    }
}

fn changed(path: &[u8]) -> Error {
    Error::Refused { name: Shown::new(path), reason: "changed while it was read" }
}

fn plain(kind: Kind, path: Vec<u8>, stat: &Stat) -> Entry {
    let mtime = Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
    Entry { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, ..Entry::new(kind, path) }
}
