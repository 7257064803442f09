//! Writes the entries of a tar as files in a directory.

use std::{
    collections::HashSet,
    error,
    ffi::{OsStr, OsString},
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{self, BufRead, Seek},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use archive::{Entry, Kind, Reader, Shown};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Timespec, Timestamps,
        UTIME_OMIT, Uid, chownat, fchmod, fchown, fstat, linkat, mkdirat, mknodat, openat, openat2, renameat,
        statat, statx, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use toolkit::prelude::*;

use super::{
    root::{Root, kind},
    target::Target,
};

/// Unpacks a tar.
pub(crate) struct Unpacker<'a> {
    root: &'a Root,
    target: &'a Target,
    /// On the host, no symbolic link below the target is followed, and no file gets set-user-ID or
    /// set-group-ID, even if owners are kept.
    is_host: bool,
    /// Whether owners are kept.
    keeps_owners: bool,
    /// New directories. Their modes and times are set at the end.
    made: Vec<Made>,
    /// Devices that were left out. Hard links to them are left out as well.
    left_out: HashSet<PathBuf>,
}

#[derive(Debug)]
struct Made {
    path: PathBuf,
    entry: Entry,
    /// Identifies the directory, because its name may belong to another one when its mode is set.
    identity: Identity,
}

/// Identifies a directory by its device and creation time. The inode is used only if there is no creation
/// time: in an overlay of several file systems the inode changes when the kernel has dropped the directory
/// from its cache (Linux, overlayfs.rst, Inode properties).
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

/// Whether the tar was truncated, because its writer failed.
pub(crate) fn is_end(error: &anyhow::Error) -> bool {
    let truncated = |cause: &(dyn error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(archive::Error::Truncated))
    };
    // `source()` of an `io::Error` skips the error that it wraps.
    let wrapped = |cause: &(dyn error::Error + 'static)| {
        let inner = cause.downcast_ref().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| truncated(inner))
    };
    error.chain().any(|cause| truncated(cause) || wrapped(cause))
}

/// A new file that is not complete yet.
struct Part {
    file: File,
    /// None if it has no name: then nothing is left of it, whatever ends this process.
    name: Option<OsString>,
}

impl Part {
    /// Creates a file in this directory, if possible without a name (open(2), O_TMPFILE).
    fn new(above: &OwnedFd) -> Result<Self, Errno> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match openat(above, ".", flags | OFlags::TMPFILE, mode) {
            // A file system without such files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {}
            made => return Ok(Self { file: made?.into(), name: None }),
        }
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let (name, file) = under_new_name(|name| openat(above, name, flags, mode))?;
        Ok(Self { file: file.into(), name: Some(name) })
    }

    /// Gives the file a unique name in this directory, if it has none.
    fn name(&mut self, above: &OwnedFd) -> Result<(), Errno> {
        if self.name.is_none() {
            let from = mount::resolve::proc_path(self.file.as_fd());
            let link = |name: &OsStr| linkat(CWD, &from, above, name, AtFlags::SYMLINK_FOLLOW);
            self.name = Some(under_new_name(link)?.0);
        }
        Ok(())
    }

    /// Renames the file, which is complete.
    fn put(&mut self, above: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        self.name(above)?;
        renameat(above, self.name.as_deref().unwrap_or(name), above, name)?;
        self.name = None;
        Ok(())
    }
}

/// Makes something under a name that nothing has.
fn under_new_name<T>(make: impl Fn(&OsStr) -> Result<T, Errno>) -> Result<(OsString, T), Errno> {
    loop {
        let name = OsString::from(format!(".container-cp.{:016x}", RandomState::new().hash_one(())));
        match make(&name) {
            Err(Errno::EXIST) => {}
            made => return made.map(|made| (name, made)),
        }
    }
}

/// Whether something is mounted on a name in a directory. In another mount namespace, replacing the file
/// would remove the mount: the kernel refuses that with EBUSY only in the caller's own namespace.
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

    /// Unpacks all entries of the tar.
    pub(crate) fn run(mut self, input: impl BufRead) -> Result<()> {
        if let Some((user, group)) = self.root.ids.root().filter(|_| rustix::process::geteuid().is_root()) {
            // On a mount with mapped owners, the host's root cannot create files.
            mount::act_for(user, group).context("act for the container's root")?;
        }
        let mut reader = Reader::new(input);
        while let Some(entry) = reader.next().context("read the tar")? {
            let path = plain(&entry)?;
            // The target directory itself is not changed.
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

    /// Opens the directory of a path below the target. Creates missing directories, as tar does.
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
            // In a container, links are resolved inside the container.
            false => self.root.open(&self.target.path.join(path), flags),
        }
    }

    /// The owner of the new file.
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

    /// The mode of the new file. Set-user-ID and set-group-ID stay only in a container, and only if the file keeps its
    /// owner: otherwise the program of an ordinary user would run as another one.
    fn mode(&self, entry: &Entry) -> Mode {
        let is_owner = self.keeps_owners || (entry.uid, entry.gid) == (0, 0);
        let keeps = !self.is_host && is_owner && rustix::process::geteuid().is_root();
        Mode::from_raw_mode(entry.mode & if keeps { 0o7777 } else { 0o1777 })
    }

    fn file(&self, above: &OwnedFd, name: &OsStr, entry: &Entry, mut content: impl io::Read) -> Result<()> {
        let is_mounted = self.admit(above, name, entry)?;
        let mut part = Part::new(above).map_err(on("create", entry))?;
        let done = (|| {
            io::copy(&mut content, &mut part.file).map_err(on("write", entry))?;
            if is_mounted {
                return rewrite(above, name, &part.file, entry);
            }
            // Named before it belongs to somebody else, whose files this process may not be able to link.
            part.name(above).map_err(on("create", entry))?;
            self.dress(&part.file, entry).map_err(on("change", entry))?;
            match part.put(above, name) {
                Err(Errno::BUSY) => rewrite(above, name, &part.file, entry),
                put => put.map_err(on("create", entry)),
            }
        })();
        let removed = part.name.map_or(Ok(()), |name| unlinkat(above, &name, AtFlags::empty()));
        done.and(removed.map_err(on("remove", entry)))
    }

    /// Sets owner, mode and times of an open file.
    fn dress(&self, file: impl AsFd, entry: &Entry) -> Result<(), Errno> {
        let (uid, gid) = self.owner(entry);
        match fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            // Files that an ordinary user makes belong to that user.
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
                // An existing directory keeps its owner and mode.
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

    /// Refuses to replace a directory. Returns whether something is mounted on the name.
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
                return Err(on("change", &entry)("another directory was put in its place in the meantime"));
            }
            self.dress(directory, &entry).map_err(on("change", &entry))?;
        }
        Ok(())
    }
}

/// Writes the content to a file on which something is mounted, because such a file cannot be replaced. The
/// file keeps its owner and mode. Returns false: `whole` still exists under its temporary name.
fn rewrite(above: &OwnedFd, name: &OsStr, mut whole: &File, entry: &Entry) -> Result<()> {
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
    copy().map(drop).map_err(on("write", entry))
}

fn times(entry: &Entry) -> Timestamps {
    let last_modification = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanoseconds.into() };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification }
}

/// The path of an entry below the target.
fn plain(entry: &Entry) -> Result<PathBuf> {
    below(&entry.path, entry)
}

/// The path of the first name that a hard link refers to.
fn first_name(entry: &Entry) -> Result<PathBuf> {
    below(&entry.link, entry)
}

fn below(path: &[u8], entry: &Entry) -> Result<PathBuf> {
    let below = archive::inside(path).map_err(|error| on("create", entry)(error.to_string()))?;
    Ok(OsString::from_vec(below).into())
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
