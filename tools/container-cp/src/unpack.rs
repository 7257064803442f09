//! A tar, as files in a directory.

use std::{
    collections::HashSet,
    error,
    ffi::{OsStr, OsString},
    fs::File,
    hash::{BuildHasher, RandomState},
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
        AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT,
        Uid, chownat, fchmod, fchown, fstat, linkat, mkdirat, mknodat, openat, openat2, renameat, statat,
        statx, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use toolkit::prelude::*;

use crate::{
    root::{Root, kind},
    target::Target,
};

/// Makes files of a tar.
pub(crate) struct Unpacker<'a> {
    root: &'a Root,
    target: &'a Target,
    /// The host: there, no link below the target is followed, and nothing is made that gives somebody rights.
    is_host: bool,
    /// Owners are kept.
    keeps_owners: bool,
    /// New directories, whose modes and times are set at the end.
    made: Vec<Made>,
    /// Devices that are not made: what else they are called is not made either.
    left_out: HashSet<PathBuf>,
}

/// A new directory.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    entry: Entry,
    /// By the time that it gets its mode, another one may have its name.
    identity: Identity,
}

/// Tells a directory from others: by its device, and when it was made. Its inode tells it only where there is no such time: in an
/// overlay of several file systems it is another one when the kernel has forgotten the directory (Linux, overlayfs.rst, Inode
/// properties).
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    made: (i64, u32),
    inode: u64,
}

impl Identity {
    fn of(directory: impl AsFd) -> Result<Self, Errno> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let found = statx(directory, "", AtFlags::EMPTY_PATH, wanted)?;
        let is_known = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            made: if is_known { (found.stx_btime.tv_sec, found.stx_btime.tv_nsec) } else { (0, 0) },
            inode: if is_known { 0 } else { found.stx_ino },
        })
    }
}

/// For `map_err`: the error of `verb` on an entry.
fn on<E: Into<operation::Cause>>(verb: &'static str, entry: &Entry) -> impl FnOnce(E) -> anyhow::Error {
    let name = Shown::new(&entry.path);
    move |cause| operation::Error::new(verb, name, cause).into()
}

/// Whether a tar ended before its end: whoever wrote it has failed.
pub(crate) fn is_end(error: &anyhow::Error) -> bool {
    let truncated = |cause: &(dyn error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(archive::Error::Truncated))
    };
    // An error of reading is no cause of the error that it is wrapped in, but is that error.
    let wrapped = |cause: &(dyn error::Error + 'static)| {
        let inner = cause.downcast_ref().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| truncated(inner))
    };
    error.chain().any(|cause| truncated(cause) || wrapped(cause))
}

/// A new file in this directory, and its name until it is whole, which is nobody else's.
fn part(above: &OwnedFd) -> Result<(OsString, File), Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        let name = OsString::from(format!(".container-cp.{:016x}", RandomState::new().hash_one(())));
        match openat(above, &name, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => {}
            made => return made.map(|file| (name, file.into())),
        }
    }
}

/// Whether something is mounted on a name in a directory. In the mount namespace of a container, replacing the file would take the
/// mount away: the kernel refuses that with EBUSY in the caller's own namespace alone.
fn is_mounted(above: &OwnedFd, name: &OsStr) -> Result<bool, Errno> {
    let mount = |name, flags| statx(above, name, flags, StatxFlags::MNT_ID).map(|found| found.stx_mnt_id);
    match mount(name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        there => Ok(there? != mount(OsStr::new(""), AtFlags::EMPTY_PATH)?),
    }
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(root: &'a Root, target: &'a Target, is_host: bool, keeps_owners: bool) -> Self {
        Self { root, target, is_host, keeps_owners, made: Vec::new(), left_out: HashSet::new() }
    }

    /// Makes all that the tar has.
    pub(crate) fn run(mut self, input: impl BufRead) -> Result<()> {
        if let Some((user, group)) = self.root.ids.root().filter(|_| rustix::process::geteuid().is_root()) {
            // Where a mount maps owners, the host's root can make nothing.
            mount::act_for(user, group).context("act for the container's root")?;
        }
        let mut reader = Reader::new(input);
        while let Some(entry) = reader.next().context("read the tar")? {
            let path = plain(&entry)?;
            // The directory itself stays as it is.
            let Some(name) = path.file_name() else { continue };
            let above = self.above(path.parent().unwrap_or(Path::new("")), &entry)?;
            match entry.kind {
                Kind::File => self.file(&above, name, &entry, reader.content(&entry))?,
                Kind::Directory => self.directory(&above, name, &path, entry)?,
                _ => self.other(&above, name, &path, &entry)?,
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
        let is_mounted = self.admit(above, name, entry)?;
        let (part, mut file) = part(above).map_err(on("create", entry))?;
        let done = (|| {
            io::copy(&mut content, &mut file).map_err(on("write", entry))?;
            if is_mounted {
                return rewrite(above, name, &file, entry);
            }
            self.dress(&file, entry).map_err(on("change", entry))?;
            match renameat(above, &part, above, name) {
                Err(Errno::BUSY) => rewrite(above, name, &file, entry),
                renamed => renamed.map(|()| true).map_err(on("create", entry)),
            }
        })();
        if !matches!(done, Ok(true)) {
            let removed = unlinkat(above, &part, AtFlags::empty());
            if done.is_ok() {
                removed.map_err(on("remove", entry))?;
            }
        }
        done.map(drop)
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
            Ok(()) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(above, name, flags, Mode::empty()).and_then(Identity::of);
                let identity = made.map_err(on("open", &entry))?;
                self.made.push(Made { path: path.to_owned(), entry, identity });
            }
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

    fn other(&mut self, above: &OwnedFd, name: &OsStr, path: &Path, entry: &Entry) -> Result<()> {
        let is_left_out = match entry.kind {
            Kind::CharDevice | Kind::BlockDevice => self.is_host,
            Kind::HardLink => self.left_out.contains(&first_name(entry)?),
            _ => false,
        };
        if is_left_out {
            operation::tell!("container-cp: warning: device {} is left out", Shown::new(&entry.path));
            self.left_out.insert(path.to_owned());
            return Ok(());
        }
        if self.admit(above, name, entry)? {
            return Err(on("replace", entry)("something is mounted there"));
        }
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
        let path = first_name(entry)?;
        let (Some(first), directory) = (path.file_name(), path.parent().unwrap_or(Path::new(""))) else {
            return Err(on("create", entry)(Errno::INVAL));
        };
        let from = self.open(directory).map_err(on("open", entry))?;
        linkat(from, first, above, name, AtFlags::empty()).map_err(on("create", entry))
    }

    /// Refuses to put something else in the place of a directory. Whether something is mounted there.
    fn admit(&self, above: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<bool> {
        match statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if kind(&found) == FileType::Directory => {
                Err(on("create", entry)("a directory is there".to_owned()))
            }
            Ok(_) | Err(Errno::NOENT) => is_mounted(above, name).map_err(on("look at", entry)),
            Err(errno) => Err(on("look at", entry)(errno)),
        }
    }

    fn finish(&mut self) -> Result<()> {
        for Made { path, entry, identity } in std::mem::take(&mut self.made).into_iter().rev() {
            let open = || {
                let above = self.open(path.parent().unwrap_or(Path::new("")))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = openat(above, path.file_name().unwrap_or_default(), flags, Mode::empty())?;
                Identity::of(&directory).map(|found| (directory, found))
            };
            let (directory, found) = open().map_err(on("open", &entry))?;
            if found != identity {
                return Err(on("change", &entry)("another directory was put in its place meanwhile"));
            }
            self.dress(directory, &entry).map_err(on("change", &entry))?;
        }
        Ok(())
    }
}

/// Writes to a file on which something is mounted: it cannot be replaced. It keeps its owner and its mode. False: `whole` is still
/// there under its own name.
fn rewrite(above: &OwnedFd, name: &OsStr, mut whole: &File, entry: &Entry) -> Result<bool> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut file = File::from(openat(above, name, flags, Mode::empty()).map_err(on("open", entry))?);
    if kind(&fstat(&file).map_err(on("look at", entry))?) != FileType::RegularFile {
        return Err(on("replace", entry)("something is mounted there, and no file"));
    }
    let mut copy = || {
        whole.rewind()?;
        file.set_len(0)?;
        io::copy(&mut whole, &mut file)
    };
    copy().map(|_| false).map_err(on("write", entry))
}

fn times(entry: &Entry) -> Timestamps {
    let last_modification = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanoseconds.into() };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification }
}

/// The path of an entry below the target.
fn plain(entry: &Entry) -> Result<PathBuf> {
    below(&entry.path, entry)
}

/// The path of the file that an entry is another name of.
fn first_name(entry: &Entry) -> Result<PathBuf> {
    below(&entry.link, entry)
}

fn below(path: &[u8], entry: &Entry) -> Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(on("create", entry)("its path leads upwards".to_owned())),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_that_ends_within_a_file_has_ended_too() {
        let entry = Entry::new(Kind::File, *b"file");
        let cut = || io::Error::from(archive::Error::Truncated);
        assert!(is_end(&on("write", &entry)(cut())));
        assert!(is_end(&anyhow::Error::from(archive::Error::Truncated).context("read the tar")));
        assert!(!is_end(&on("write", &entry)(Errno::NOSPC)));
    }
}
