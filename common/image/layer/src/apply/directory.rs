//! Unpacks a layer into a directory. Every call works on an open directory and one name in it.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use archive::{Kind, Shown, Time};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, RawMode, ResolveFlags, XattrFlags, fsetxattr, fstat, ftruncate,
        linkat, makedev, mkdirat, mknodat, openat, openat2, readlinkat, statat, symlinkat,
    },
    io::Errno,
};

use super::{
    Dependency, EntryError, Options,
    form::{Facts, Form, Made, Special, Standing},
    name::join,
};
use crate::{overlay, remove_tree};

/// How many directories stay open.
const OPEN: usize = 200;

/// A directory that a layer is unpacked to. All directories in it belong to us, and nobody else can enter
/// them until they are finished.
pub(super) struct Directory<'a> {
    root: Rc<OwnedFd>,
    options: &'a Options,
    /// The owner that the kernel gives to new files.
    owner: (u32, u32),
    /// The bits that the kernel removes from a mode.
    umask: u32,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// The paths of the open directories, oldest first.
    opened: VecDeque<Vec<u8>>,
    /// The directory of the last lookup. Entries usually come directory by directory.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    approximated: u64,
}

/// A regular file that is being written.
pub(super) struct File {
    fd: OwnedFd,
    size: u64,
    /// The end of the last write.
    end: u64,
}

impl<'a> Directory<'a> {
    pub(super) fn new(root: OwnedFd, options: &'a Options) -> Result<Self, EntryError> {
        let stat = fstat(&root).map_err(EntryError::call("stat"))?;
        Ok(Self {
            root: Rc::new(root),
            options,
            owner: (stat.st_uid, stat.st_gid),
            umask: umask(),
            open: HashMap::new(),
            opened: VecDeque::new(),
            last: None,
            approximated: 0,
        })
    }

    /// The open directory at `path`.
    fn open(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, EntryError> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.clone());
        }
        let fd = self.open_path(path)?;
        self.last = Some((path.to_vec(), fd.clone()));
        Ok(fd)
    }

    fn open_path(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, EntryError> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(fd) = self.open.get(path) {
            return Ok(fd.clone());
        }
        let fd = openat2(
            &self.root,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        );
        let fd = Rc::new(fd.map_err(EntryError::call("open directory"))?);
        self.open.insert(path.to_vec(), fd.clone());
        self.opened.push_back(path.to_vec());
        if self.opened.len() > OPEN
            && let Some(oldest) = self.opened.pop_front()
        {
            self.open.remove(&oldest);
        }
        Ok(fd)
    }

    /// Sets owner, mode, attributes and times of an open file. The owner comes first, because a change of
    /// owner removes set-id bits and capabilities.
    fn seal(&mut self, fd: BorrowedFd, facts: &Facts, mode: bool) -> Result<(), EntryError> {
        let owner = (facts.uid, facts.gid) != self.owner;
        if owner {
            let (uid, gid) = owner_of(facts);
            rustix::fs::fchown(fd, uid, gid).map_err(EntryError::call("set the owner"))?;
        }
        if mode || (owner && facts.mode & 0o6000 != 0) {
            let mode = Mode::from_raw_mode(facts.mode as RawMode);
            rustix::fs::fchmod(fd, mode).map_err(EntryError::call("set the mode"))?;
        }
        for (name, value) in &facts.xattrs {
            let set = fsetxattr(fd, &name[..], value, XattrFlags::empty());
            self.attribute(name, set)?;
        }
        rustix::fs::futimens(fd, &times(facts)).map_err(EntryError::call("set the times"))
    }

    /// Like `seal`, for something that cannot be opened: `name` in a directory that nobody else can enter.
    fn seal_at(
        &mut self,
        directory: BorrowedFd,
        name: &[u8],
        facts: &Facts,
        is_symlink: bool,
    ) -> Result<(), EntryError> {
        if (facts.uid, facts.gid) != self.owner {
            let (uid, gid) = owner_of(facts);
            rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(EntryError::call("set the owner"))?;
        }
        if !is_symlink && facts.mode & (self.umask | 0o7000) != 0 {
            let mode = Mode::from_raw_mode(facts.mode as RawMode);
            rustix::fs::chmodat(directory, name, mode, AtFlags::empty())
                .map_err(EntryError::call("set the mode"))?;
        }
        for (attribute, value) in &facts.xattrs {
            let path = overlay::proc_path(directory, name);
            let flags = XattrFlags::empty();
            self.attribute(attribute, rustix::fs::lsetxattr(&path[..], &attribute[..], value, flags))?;
        }
        rustix::fs::utimensat(directory, name, &times(facts), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(EntryError::call("set the times"))
    }

    /// Handles the result of setting an attribute.
    fn attribute(&mut self, name: &[u8], set: rustix::io::Result<()>) -> Result<(), EntryError> {
        match set {
            Err(Errno::PERM | Errno::INVAL) if self.options.namespace.is_some() && self.options.rootless => {
                self.approximated += 1;
                Ok(())
            }
            set => {
                set.map_err(|errno| EntryError::Attribute { name: Shown::new(name), source: errno.into() })
            }
        }
    }
}

impl Form for Directory<'_> {
    type File = File;

    fn standing(&mut self, parent: &[u8], name: &[u8]) -> Result<Standing, EntryError> {
        let fd = self.open(parent)?;
        match statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Standing::Directory,
                FileType::Symlink => Standing::Symlink,
                _ => Standing::Other,
            }),
            Err(Errno::NOENT) => Ok(Standing::Nothing),
            Err(error) => Err(EntryError::call("stat")(error)),
        }
    }

    fn read_link(&mut self, parent: &[u8], name: &[u8]) -> Result<Vec<u8>, EntryError> {
        let fd = self.open(parent)?;
        let target = readlinkat(&fd, name, Vec::new()).map_err(EntryError::call("read link"))?;
        Ok(target.into_bytes())
    }

    fn make_directory(&mut self, parent: &[u8], name: &[u8]) -> Made<()> {
        made(mkdirat(self.open(parent)?, name, Mode::RWXU), "create directory")
    }

    fn create(&mut self, parent: &[u8], name: &[u8], facts: &Facts, size: u64) -> Made<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode((facts.mode & 0o777) as RawMode);
        let created = made(openat(self.open(parent)?, name, flags, mode), "create")?;
        Ok(created.map(|fd| File { fd, size, end: 0 }))
    }

    fn write(&mut self, file: &mut File, mut offset: u64, mut data: &[u8]) -> Result<(), EntryError> {
        while !data.is_empty() {
            let count = rustix::io::retry_on_intr(|| rustix::io::pwrite(&file.fd, data, offset))
                .map_err(EntryError::call("write"))?;
            offset += count as u64;
            data = &data[count..];
        }
        file.end = file.end.max(offset);
        Ok(())
    }

    fn close(&mut self, file: File, facts: &Facts) -> Result<(), EntryError> {
        if file.end < file.size {
            ftruncate(&file.fd, file.size).map_err(EntryError::call("set the size"))?;
        }
        self.seal(file.fd.as_fd(), facts, facts.mode & (self.umask | 0o7000) != 0)
    }

    fn special(&mut self, parent: &[u8], name: &[u8], special: Special, facts: &Facts) -> Made<()> {
        let Special { kind, target, device: (major, minor) } = special;
        let fd = self.open(parent)?;
        let mode = Mode::from_raw_mode((facts.mode & 0o777) as RawMode);
        let make = |kind, device| mknodat(&fd, name, kind, mode, device);
        let outcome = match kind {
            Kind::Symlink => symlinkat(target, &fd, name),
            Kind::CharDevice => make(FileType::CharacterDevice, makedev(major, minor)),
            Kind::BlockDevice => make(FileType::BlockDevice, makedev(major, minor)),
            _ => make(FileType::Fifo, 0),
        };
        match made(outcome, "create")? {
            None => Ok(None),
            Some(()) => self.seal_at(fd.as_fd().as_fd(), name, facts, kind == Kind::Symlink).map(Some),
        }
    }

    fn link(&mut self, from: (&[u8], &[u8]), to: (&[u8], &[u8])) -> Made<()> {
        let (source, target) = (self.open(from.0)?, self.open(to.0)?);
        made(linkat(&source, from.1, &target, to.1, AtFlags::empty()), "create hard link")
    }

    fn remove(&mut self, parent: &[u8], name: &[u8]) -> Result<(), EntryError> {
        let fd = self.open(parent)?;
        let gone = join(parent, name);
        let is_gone =
            |path: &[u8]| path.strip_prefix(&gone[..]).is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
        self.open.retain(|path, _| !is_gone(path));
        self.opened.retain(|path| !is_gone(path));
        self.last = None;
        remove_tree(&*fd, name).map_err(EntryError::call("remove what an earlier entry made"))
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), EntryError> {
        let fd = self.open(parent)?;
        mknodat(&fd, name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(EntryError::call("create whiteout"))
    }

    fn finish_directory(&mut self, path: &[u8], facts: &Facts, opaque: bool) -> Result<(), EntryError> {
        let fd = self.open(path)?;
        if opaque {
            let [trusted, user] = overlay::OPAQUE;
            let name = if self.options.namespace.is_some() { user } else { trusted };
            fsetxattr(&fd, name, b"y", XattrFlags::empty()).map_err(EntryError::call("make opaque"))?;
        }
        self.seal(fd.as_fd().as_fd(), facts, true)
    }

    fn kept(&self) -> usize {
        0
    }

    fn finish(self, _: &[Dependency]) -> Result<u64, EntryError> {
        Ok(self.approximated)
    }
}

/// The result of a call that never replaces anything; None if the name is in use.
fn made<T>(outcome: rustix::io::Result<T>, verb: &'static str) -> Made<T> {
    match outcome {
        Err(Errno::EXIST) => Ok(None),
        outcome => outcome.map(Some).map_err(EntryError::call(verb)),
    }
}

fn owner_of(facts: &Facts) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(facts.uid)), Some(rustix::fs::Gid::from_raw(facts.gid)))
}

/// Times that the file system cannot represent (before 1901 or after 2446 on ext4) become the nearest
/// possible ones. The kernel does this, so other tools get the same result.
fn times(facts: &Facts) -> rustix::fs::Timestamps {
    let time = |time: Time| rustix::fs::Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    rustix::fs::Timestamps {
        last_access: time(facts.atime.unwrap_or(facts.mtime)),
        last_modification: time(facts.mtime),
    }
}

/// The process's umask. Only `/proc` tells it without changing it. Without `/proc`, every mode is set
/// explicitly.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    field.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}
