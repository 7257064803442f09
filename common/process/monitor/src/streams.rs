//! The FIFOs between a container's process and its monitor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{ProcessOperation, Stdio, Streams};
use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, flock, fstat, ftruncate, mkdirat, mknodat, openat,
        statat,
    },
    io::{Errno, retry_on_intr},
};

use crate::{Place, Result, failed, place::STREAMS};

pub(crate) const STDIN: &str = "stdin";
pub(crate) const STDOUT: &str = "stdout";
pub(crate) const STDERR: &str = "stderr";

/// The lock file. The container's one monitor holds its lock. No process of the container has the file open:
/// with a descriptor, it could take the lock.
pub(crate) const LOCK: &str = "monitor";

/// The content of the lock file while the container's monitor is the program that started it in the foreground.
const FOREGROUND: &[u8] = b"foreground\n";

/// The suffixes of the FIFOs.
pub(crate) const FILES: [&str; 3] = [STDIN, STDOUT, STDERR];

/// How often to make the directory of the streams: whoever removes the last stream removes it.
const ATTEMPTS: usize = 100;

/// Makes a FIFO, in a directory that only its owner can enter. One that is there stays: the name contains the container's
/// id, so an earlier container with this id left it.
pub(crate) fn make(place: &Place, suffix: &str) -> Result<()> {
    let attempt = || {
        unless_there(mkdirat(place, STREAMS, Mode::RWXU))?;
        let mode = Mode::RUSR | Mode::WUSR;
        unless_there(mknodat(place, place.stream(suffix), FileType::Fifo, mode, 0))
    };
    let mut made = attempt();
    for _ in 1..ATTEMPTS {
        if made != Err(Errno::NOENT) {
            break;
        }
        made = attempt();
    }
    made.map_err(failed("create", place.shown_stream(suffix)))
}

fn unless_there(made: std::result::Result<(), Errno>) -> std::result::Result<(), Errno> {
    match made {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// Whether there is such a FIFO, also where earlier versions made it.
pub(crate) fn is_there(place: &Place, suffix: &str) -> Result<bool> {
    for name in [place.stream(suffix), place.name(suffix)] {
        match statat(place, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Ok(true),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("look at", place.shown_stream(suffix))(errno)),
        }
    }
    Ok(false)
}

fn open(place: &Place, suffix: &str, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let failed = |errno: Errno| failed("open", place.shown_stream(suffix))(errno);
    let opened = match openat(place, place.stream(suffix), flags, Mode::empty()) {
        // A container of an earlier version.
        Err(Errno::NOENT) => openat(place, place.name(suffix), flags, Mode::empty()),
        opened => opened,
    };
    let opened = opened.map_err(failed)?;
    match FileType::from_raw_mode(fstat(&opened).map_err(failed)?.st_mode) {
        FileType::Fifo => Ok(opened),
        _ => Err(failed(Errno::INVAL)),
    }
}

/// The input of a container's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// It has none.
    None,
    /// It stays open, whatever clients come and go, even if the monitor is killed.
    Open,
    /// It ends when a client says so, or when the monitor is killed.
    Ends,
}

impl Input {
    /// The input of a process in the background.
    pub fn of(process: &ProcessOperation) -> Self {
        match (process.interactive, process.input_ends) {
            (false, _) => Self::None,
            (true, false) => Self::Open,
            (true, true) => Self::Ends,
        }
    }
}

/// The process's side of its streams. In the background, each FIFO is open for reading and writing, so the process can
/// write to it without another reader. An input that ends is open for reading only.
#[derive(Debug)]
pub(crate) struct Inside {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Inside {
    pub(crate) fn open(place: &Place, input: Input) -> Result<Self> {
        let one = |suffix| inside(place, suffix, OFlags::RDWR);
        let stdin = match input {
            Input::None => None,
            Input::Open => Some(one(STDIN)?),
            Input::Ends => Some(inside(place, STDIN, OFlags::RDONLY)?),
        };
        Ok(Self { stdin, stdout: one(STDOUT)?, stderr: one(STDERR)? })
    }

    /// For a process whose output goes on to the caller's streams. The FIFOs must have a reader already. If both of
    /// the caller's streams lead to the same file, the process gets one FIFO for both, so that the order is kept.
    pub(crate) fn to_caller(place: &Place) -> Result<Self> {
        let (stdout, stderr) = (rustix::stdio::stdout(), rustix::stdio::stderr());
        let one = |suffix, stream| {
            // When the reader of the caller's pipe is gone, the process must notice: so this FIFO has no reader but
            // the caller.
            let flags = if ends_with_reader(stream) { OFlags::WRONLY } else { OFlags::RDWR };
            inside(place, suffix, flags)
        };
        let first = one(STDOUT, stdout)?;
        let second = match are_same(stdout, stderr) {
            true => first.try_clone().map_err(failed("open", place.shown_stream(STDOUT)))?,
            false => one(STDERR, stderr)?,
        };
        Ok(Self { stdin: None, stdout: first, stderr: second })
    }

    pub(crate) fn streams(&self) -> Streams<'_> {
        Streams {
            stdin: self.stdin.as_ref().map_or(Stdio::Null, |stdin| Stdio::Fd(stdin.as_fd())),
            stdout: Stdio::Fd(self.stdout.as_fd()),
            stderr: Stdio::Fd(self.stderr.as_fd()),
        }
    }
}

/// Opens a FIFO for the process. Programs expect blocking streams.
fn inside(place: &Place, suffix: &str, flags: OFlags) -> Result<OwnedFd> {
    let opened = open(place, suffix, flags)?;
    rustix::fs::fcntl_setfl(&opened, OFlags::empty()).map_err(failed("open", place.shown_stream(suffix)))?;
    Ok(opened)
}

/// Whether this is a pipe or a socket, where writing fails without a reader.
pub(crate) fn ends_with_reader(stream: BorrowedFd<'_>) -> bool {
    let kind = fstat(stream).map(|found| FileType::from_raw_mode(found.st_mode));
    matches!(kind, Ok(FileType::Fifo | FileType::Socket))
}

/// Whether two streams lead to the same file. In `/dev/null`, nobody sees the order.
fn are_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => {
            (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) && !runtime::is_null_device(&one)
        }
        _ => false,
    }
}

fn lock_file(place: &Place, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    openat(place, place.name(LOCK), flags, Mode::RUSR | Mode::WUSR).map_err(failed("open", place.shown(LOCK)))
}

/// The file of the lock, if there is one. What cannot be opened may be there.
fn existing_lock(place: &Place) -> Result<Option<OwnedFd>> {
    match lock_file(place, OFlags::RDONLY) {
        Err(error) if operation::is_gone(&error) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Whether a monitor has the lock.
pub(crate) fn is_taken(place: &Place) -> Result<bool> {
    let Some(lock) = existing_lock(place)? else { return Ok(false) };
    match retry_on_intr(|| flock(&lock, FlockOperation::NonBlockingLockExclusive)) {
        Err(Errno::AGAIN) => Ok(true),
        locked => locked.map(|()| false).map_err(failed("lock", place.shown(LOCK))),
    }
}

/// Whether the program that started the container in the foreground has the lock, or had it last.
pub(crate) fn is_foreground(place: &Place) -> Result<bool> {
    let mut content = [0_u8; FOREGROUND.len()];
    let Some(lock) = existing_lock(place)? else { return Ok(false) };
    let length = retry_on_intr(|| rustix::io::read(&lock, &mut content));
    let length = length.map_err(failed("read", place.shown(LOCK)))?;
    Ok(length == FOREGROUND.len() && content == FOREGROUND)
}

/// The monitor's side of the streams. The process that has it is the container's one monitor.
#[derive(Debug)]
pub(crate) struct Outside {
    /// For typed input. It is open for reading too, so that opening it does not wait for the process.
    pub(crate) stdin: Option<OwnedFd>,
    ends: bool,
    /// None once the stream has ended.
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// [`LOCK`], locked.
    _lock: OwnedFd,
}

impl Outside {
    /// Returns none if another monitor has the lock. `foreground`: whether this program ends by itself with the
    /// container, and is not to be killed.
    pub(crate) fn open(place: &Place, input: Input, foreground: bool) -> Result<Option<Self>> {
        let lock = lock_file(place, OFlags::CREATE | OFlags::RDONLY)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => return Ok(None),
            locked => locked.map_err(failed("lock", place.shown(LOCK)))?,
        }
        if is_foreground(place)? != foreground {
            // Not with the descriptor that stays: the file system must not count as busy.
            let file = lock_file(place, OFlags::WRONLY)?;
            let content = if foreground { FOREGROUND } else { &[] };
            let write = || rustix::io::write(&file, content).map(drop);
            ftruncate(&file, 0).and_then(|()| write()).map_err(failed("write", place.shown(LOCK)))?;
        }
        let stdin = (input != Input::None).then(|| open(place, STDIN, OFlags::RDWR)).transpose()?;
        let ends = input == Input::Ends;
        let mut streams = Self { stdin, ends, stdout: None, stderr: None, _lock: lock };
        streams.reopen(place)?;
        Ok(Some(streams))
    }

    /// Opens the output again, for a process that is started again.
    pub(crate) fn reopen(&mut self, place: &Place) -> Result<()> {
        self.stdout = Some(open(place, STDOUT, OFlags::RDONLY)?);
        self.stderr = Some(open(place, STDERR, OFlags::RDONLY)?);
        Ok(())
    }

    /// Closes the process's input, if it is one that ends.
    pub(crate) fn end_input(&mut self) {
        if self.ends {
            self.stdin = None;
        }
    }

    /// What the process gets when it is started again.
    pub(crate) fn input(&self) -> Input {
        match (&self.stdin, self.ends) {
            (None, _) => Input::None,
            (Some(_), false) => Input::Open,
            (Some(_), true) => Input::Ends,
        }
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let all = [&self.stdin, &self.stdout, &self.stderr];
        all.into_iter().flatten().chain([&self._lock]).map(AsFd::as_fd)
    }
}
