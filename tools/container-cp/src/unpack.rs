//! A tar, as files in a directory.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, Seek},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use archive::{Entry, Kind, Reader, Shown};
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chownat,
        fchmod, fchown, linkat, mkdirat, mknodat, openat, openat2, renameat, statat, symlinkat, unlinkat,
        utimensat,
    },
    io::Errno,
};
use toolkit::prelude::*;

use crate::{
    root::{Root, kind},
    target::Target,
};

/// The name of a file until it is whole.
const PART: &str = ".container-cp.part";

/// Makes files of a tar.
pub(crate) struct Unpacker<'a> {
    root: &'a Root,
    target: &'a Target,
    /// The host: there, no link below the target is followed, and nothing is made that gives somebody rights.
    is_host: bool,
    /// Owners are kept.
    keeps_owners: bool,
    /// New directories, whose modes and times are set at the end.
    made: Vec<(PathBuf, Entry)>,
}

/// For `map_err`: the error of `verb` on an entry.
fn on<E: Into<operation::Cause>>(verb: &'static str, entry: &Entry) -> impl FnOnce(E) -> anyhow::Error {
    let name = Shown::new(&entry.path);
    move |cause| operation::Error::new(verb, name, cause).into()
}

/// Whether a tar ended before its end: whoever wrote it has failed.
pub(crate) fn is_end(error: &anyhow::Error) -> bool {
    let truncated = |cause: &archive::Error| matches!(cause, archive::Error::Truncated);
    error.chain().any(|cause| cause.downcast_ref::<archive::Error>().is_some_and(truncated))
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(root: &'a Root, target: &'a Target, is_host: bool, keeps_owners: bool) -> Self {
        Self { root, target, is_host, keeps_owners, made: Vec::new() }
    }

    /// Makes all that the tar has.
    pub(crate) fn run(mut self, input: impl BufRead) -> Result<()> {
        let mut reader = Reader::new(input);
        while let Some(entry) = reader.next().context("read the tar")? {
            let path = plain(&entry)?;
            // The directory itself stays as it is.
            let Some(name) = path.file_name() else { continue };
            let above = self.above(path.parent().unwrap_or(Path::new("")), &entry)?;
            match entry.kind {
                Kind::File => self.file(&above, name, &entry, reader.content(&entry))?,
                Kind::Directory => self.directory(&above, name, &path, entry)?,
                _ => self.other(&above, name, &entry)?,
            }
        }
        self.finish()
    }

    /// The directory of a path below the target. Missing ones are made, as tar does.
    fn above(&self, path: &Path, entry: &Entry) -> Result<OwnedFd> {
        let at = || self.open(path);
        match at() {
            Err(Errno::NOENT) => {
                let mut below = PathBuf::new();
                for part in path.components() {
                    let directory = self.open(&below).map_err(on("open", entry))?;
                    match mkdirat(&directory, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                        Err(Errno::EXIST) => {}
                        made => {
                            made.map_err(on("create", entry))?;
                            self.own(&directory, part.as_os_str(), (0, 0)).map_err(on("create", entry))?;
                        }
                    }
                    below.push(part);
                }
                at().map_err(on("open", entry))
            }
            opened => opened.map_err(on("open", entry)),
        }
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        if path.as_os_str().is_empty() {
            return openat(&self.target.directory, ".", flags | OFlags::CLOEXEC, Mode::empty());
        }
        match self.is_host {
            true => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                openat2(&self.target.directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
            }
            // In a container, a link leads nowhere but into the container.
            false => self.root.open(&self.target.path.join(path), flags),
        }
    }

    /// The owner that it gets.
    fn owner(&self, entry: &Entry) -> (u32, u32) {
        match (self.keeps_owners, self.is_host) {
            (true, _) => self.root.ids.outside((entry.uid, entry.gid)),
            (false, true) => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            (false, false) => self.root.ids.outside((0, 0)),
        }
    }

    fn own(&self, above: &OwnedFd, name: &OsStr, ids: (u32, u32)) -> Result<(), Errno> {
        let (uid, gid) = match self.is_host {
            true => return Ok(()),
            false => self.root.ids.outside(ids),
        };
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(above, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Its mode. On the host, a program of somebody else's does not get the rights of another owner.
    fn mode(&self, entry: &Entry) -> Mode {
        let all = if self.is_host && !self.keeps_owners { 0o1777 } else { 0o7777 };
        Mode::from_raw_mode(entry.mode & all)
    }

    fn file(&self, above: &OwnedFd, name: &OsStr, entry: &Entry, mut content: impl io::Read) -> Result<()> {
        self.admit(above, name, entry)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = || match openat(above, PART, flags, Mode::RUSR | Mode::WUSR) {
            // Of a copy that was killed.
            Err(Errno::EXIST) => {
                unlinkat(above, PART, AtFlags::empty())?;
                openat(above, PART, flags, Mode::RUSR | Mode::WUSR)
            }
            made => made,
        };
        let mut file = File::from(make().map_err(on("create", entry))?);
        let done = (|| {
            io::copy(&mut content, &mut file).map_err(on("write", entry))?;
            self.dress(&file, entry).map_err(on("change", entry))?;
            match renameat(above, PART, above, name) {
                // Something is mounted there: it can only be written to.
                Err(Errno::BUSY) => self.rewrite(above, name, &file, entry),
                renamed => renamed.map_err(on("create", entry)),
            }
        })();
        if done.is_err() {
            let _ = unlinkat(above, PART, AtFlags::empty());
        }
        done
    }

    /// Writes to a file that cannot be replaced. It keeps its owner and its mode.
    fn rewrite(&self, above: &OwnedFd, name: &OsStr, mut whole: &File, entry: &Entry) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut file = File::from(openat(above, name, flags, Mode::empty()).map_err(on("open", entry))?);
        let mut copy = || {
            whole.rewind()?;
            file.set_len(0)?;
            io::copy(&mut whole, &mut file)
        };
        copy().map_err(on("write", entry))?;
        unlinkat(above, PART, AtFlags::empty()).map_err(on("remove", entry))
    }

    /// Owner, mode and times of an open file.
    fn dress(&self, file: impl AsFd, entry: &Entry) -> Result<(), Errno> {
        let (uid, gid) = self.owner(entry);
        match fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            // An ordinary user owns what he makes.
            Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {}
            done => done?,
        }
        fchmod(&file, self.mode(entry))?;
        rustix::fs::futimens(&file, &times(entry))
    }

    fn directory(&mut self, above: &OwnedFd, name: &OsStr, path: &Path, entry: Entry) -> Result<()> {
        match mkdirat(above, name, Mode::RWXU) {
            Ok(()) => self.made.push((path.to_owned(), entry)),
            Err(Errno::EXIST) => {
                let found = statat(above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(on("look at", &entry))?;
                // One that is there keeps its owner and its mode.
                if kind(&found) != FileType::Directory {
                    return Err(on("create", &entry)("a file is there, and no directory".to_owned()));
                }
            }
            Err(errno) => return Err(on("create", &entry)(errno)),
        }
        Ok(())
    }

    fn other(&self, above: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
        if self.is_host && matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            operation::tell!("container-cp: warning: device {} is left out", Shown::new(&entry.path));
            return Ok(());
        }
        self.admit(above, name, entry)?;
        match unlinkat(above, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(on("replace", entry)(errno)),
        }
        let node = |kind| {
            let (major, minor) = entry.device;
            mknodat(above, name, kind, Mode::RUSR | Mode::WUSR, rustix::fs::makedev(major, minor))
        };
        match entry.kind {
            Kind::Symlink => symlinkat(OsStr::from_bytes(&entry.link), above, name),
            Kind::HardLink => return self.hard_link(above, name, entry),
            Kind::CharDevice => node(FileType::CharacterDevice),
            Kind::BlockDevice => node(FileType::BlockDevice),
            _ => node(FileType::Fifo),
        }
        .map_err(on("create", entry))?;
        let dress = || {
            let (uid, gid) = self.owner(entry);
            if rustix::process::geteuid().is_root() {
                let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                chownat(above, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            if entry.kind != Kind::Symlink {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let node = openat(above, name, flags, Mode::empty())?;
                rustix::fs::chmod(mount::resolve::proc_path(node.as_fd()), self.mode(entry))?;
            }
            utimensat(above, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        };
        dress().map_err(on("change", entry))
    }

    fn hard_link(&self, above: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
        let mut other = Entry::new(Kind::File, entry.link.clone());
        other.link = entry.link.clone();
        let path = plain(&other)?;
        let (Some(first), directory) = (path.file_name(), path.parent().unwrap_or(Path::new(""))) else {
            return Err(on("create", entry)(Errno::INVAL));
        };
        let from = self.open(directory).map_err(on("open", &other))?;
        linkat(from, first, above, name, AtFlags::empty()).map_err(on("create", entry))
    }

    /// Refuses to put something else in the place of a directory.
    fn admit(&self, above: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
        match statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if kind(&found) == FileType::Directory => {
                Err(on("create", entry)("a directory is there".to_owned()))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(on("look at", entry)(errno)),
        }
    }

    fn finish(&mut self) -> Result<()> {
        for (path, entry) in std::mem::take(&mut self.made).into_iter().rev() {
            let dress = || {
                let above = self.open(path.parent().unwrap_or(Path::new("")))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = openat(above, path.file_name().unwrap_or_default(), flags, Mode::empty())?;
                self.dress(directory, &entry)
            };
            dress().map_err(on("change", &entry))?;
        }
        Ok(())
    }
}

fn times(entry: &Entry) -> Timestamps {
    let last_modification = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanoseconds.into() };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification }
}

/// The path of an entry below the target.
fn plain(entry: &Entry) -> Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(&entry.path)).components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(on("create", entry)("its path leads upwards".to_owned())),
        }
    }
    Ok(plain)
}
