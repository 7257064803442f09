//! The FIFOs between a container's process and its monitor.

use std::os::fd::{AsFd, OwnedFd};

use runtime::{Stdio, Streams};
use rustix::{
    fs::{FileType, FlockOperation, Mode, OFlags, flock, fstat, mknodat, openat},
    io::Errno,
};

use crate::{Place, Result, failed};

pub(crate) const STDIN: &str = "stdin";
pub(crate) const STDOUT: &str = "stdout";
pub(crate) const STDERR: &str = "stderr";

/// The lock file. The container's one monitor holds its lock. No process of the container has the file open:
/// with a descriptor, it could take the lock.
pub(crate) const LOCK: &str = "monitor";

/// The suffixes of the FIFOs.
pub(crate) const FILES: [&str; 3] = [STDIN, STDOUT, STDERR];

/// Makes a FIFO.
pub(crate) fn make(place: &Place, suffix: &str) -> Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(place, place.name(suffix), FileType::Fifo, mode, 0).map_err(failed("create", place.shown(suffix)))
}

fn open(place: &Place, suffix: &str, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let failed = |errno: Errno| failed("open", place.shown(suffix))(errno);
    let opened = openat(place, place.name(suffix), flags, Mode::empty()).map_err(failed)?;
    match fstat(&opened).map(|found| FileType::from_raw_mode(found.st_mode)) {
        Ok(FileType::Fifo) => Ok(opened),
        _ => Err(failed(Errno::INVAL)),
    }
}

/// The process's side of its streams. Each FIFO is open for reading too, so the process can write to it
/// without another reader.
#[derive(Debug)]
pub(crate) struct Inside {
    /// The input, if it stays open.
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Inside {
    pub(crate) fn open(place: &Place, stdin: bool) -> Result<Self> {
        let one = |suffix| -> Result<OwnedFd> {
            let opened = open(place, suffix, OFlags::RDWR)?;
            // Programs expect blocking streams.
            rustix::fs::fcntl_setfl(&opened, OFlags::empty()).map_err(failed("open", place.shown(suffix)))?;
            Ok(opened)
        };
        Ok(Self { stdin: stdin.then(|| one(STDIN)).transpose()?, stdout: one(STDOUT)?, stderr: one(STDERR)? })
    }

    pub(crate) fn streams(&self) -> Streams<'_> {
        Streams {
            stdin: self.stdin.as_ref().map_or(Stdio::Null, |stdin| Stdio::Fd(stdin.as_fd())),
            stdout: Stdio::Fd(self.stdout.as_fd()),
            stderr: Stdio::Fd(self.stderr.as_fd()),
        }
    }
}

fn lock_file(place: &Place, create: OFlags) -> Result<OwnedFd> {
    let flags =
        create | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    openat(place, place.name(LOCK), flags, Mode::RUSR | Mode::WUSR).map_err(failed("open", place.shown(LOCK)))
}

/// Whether a monitor has the lock.
pub(crate) fn is_taken(place: &Place) -> bool {
    let Ok(lock) = lock_file(place, OFlags::empty()) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::AGAIN)
}

/// The monitor's side of the streams. The process that has it is the container's one monitor.
#[derive(Debug)]
pub(crate) struct Outside {
    /// For typed input. It is open for reading too, so that opening it does not wait for the process.
    pub(crate) stdin: Option<OwnedFd>,
    /// None once the stream has ended.
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// [`LOCK`], locked.
    _lock: OwnedFd,
}

impl Outside {
    /// Returns none if another monitor has the lock.
    pub(crate) fn open(place: &Place, stdin: bool) -> Result<Option<Self>> {
        let lock = lock_file(place, OFlags::CREATE)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => return Ok(None),
            locked => locked.map_err(failed("lock", place.shown(LOCK)))?,
        }
        let stdin = stdin.then(|| open(place, STDIN, OFlags::RDWR)).transpose()?;
        let mut streams = Self { stdin, stdout: None, stderr: None, _lock: lock };
        streams.reopen(place)?;
        Ok(Some(streams))
    }

    /// Opens the output again, for a process that is started again.
    pub(crate) fn reopen(&mut self, place: &Place) -> Result<()> {
        self.stdout = Some(open(place, STDOUT, OFlags::RDONLY)?);
        self.stderr = Some(open(place, STDERR, OFlags::RDONLY)?);
        Ok(())
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
        let all = [&self.stdin, &self.stdout, &self.stderr];
        all.into_iter().flatten().chain([&self._lock]).map(AsFd::as_fd)
    }
}
