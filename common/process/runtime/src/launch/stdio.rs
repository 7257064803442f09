use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{FileType, Mode, OFlags, Uid, fchown, fstat},
    io::{Errno, fcntl_dupfd_cloexec},
    pipe::{PipeFlags, pipe_with},
};

use crate::{Error, error::Result};

/// One of the three standard streams of a new process.
#[derive(Debug, Clone, Copy)]
pub enum Stdio<'fd> {
    /// The caller's stream.
    Inherit,
    /// Empty input; output is discarded.
    Null,
    /// This descriptor.
    Fd(BorrowedFd<'fd>),
}

/// The standard streams of a new process.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'fd> {
    /// Standard input.
    pub stdin: Stdio<'fd>,
    /// Standard output.
    pub stdout: Stdio<'fd>,
    /// Standard error.
    pub stderr: Stdio<'fd>,
}

impl<'fd> Streams<'fd> {
    /// The caller's own streams.
    pub fn inherit() -> Self {
        Self { stdin: Stdio::Inherit, stdout: Stdio::Inherit, stderr: Stdio::Inherit }
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'fd>> {
        [self.stdin, self.stdout, self.stderr].into_iter().filter_map(|stream| match stream {
            Stdio::Fd(fd) => Some(fd),
            _ => None,
        })
    }

    /// Opens the streams while the host's `/dev` is there. The results are not among the first three
    /// descriptors, which will be replaced.
    pub(crate) fn open(&self) -> Result<[Option<OwnedFd>; 3]> {
        let open = |stream: Stdio<'_>| -> std::result::Result<Option<OwnedFd>, Errno> {
            match stream {
                Stdio::Inherit => Ok(None),
                Stdio::Fd(fd) => fcntl_dupfd_cloexec(fd, 3).map(Some),
                Stdio::Null => {
                    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
                    fcntl_dupfd_cloexec(null, 3).map(Some)
                }
            }
        };
        let all = || Ok([open(self.stdin)?, open(self.stdout)?, open(self.stderr)?]);
        all().map_err(Error::at::<Errno>("open", "standard streams"))
    }
}

/// Makes the opened streams the process's standard streams.
pub(crate) fn install(streams: [Option<OwnedFd>; 3]) -> Result<()> {
    let [stdin, stdout, stderr] = streams;
    let install = || {
        stdin.map_or(Ok(()), rustix::stdio::dup2_stdin)?;
        stdout.map_or(Ok(()), rustix::stdio::dup2_stdout)?;
        stderr.map_or(Ok(()), rustix::stdio::dup2_stderr)
    };
    install().map_err(Error::at::<Errno>("replace", "standard streams"))
}

/// The number of `/dev/null` (Documentation/admin-guide/devices.txt).
pub(crate) fn null() -> rustix::fs::Dev {
    rustix::fs::makedev(1, 3)
}

/// Puts the container's own `/dev/null` in place of the host's, whose mode and owner root in the container could change.
/// The process is in its root. Input from a container without one is empty.
///
/// # Errors
/// When output needs one, and the container has none.
pub(crate) fn own_null() -> Result<()> {
    let is_null = |stream: BorrowedFd<'_>| {
        fstat(stream).is_ok_and(|found| {
            found.st_rdev == null() && FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        })
    };
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let own = || match rustix::fs::open("/dev/null", flags, Mode::empty()) {
        Ok(own) if is_null(own.as_fd()) => Ok(own),
        Ok(_) => Err(Errno::NODEV),
        Err(errno) => Err(errno),
    };
    if is_null(rustix::stdio::stdin()) {
        let empty = || pipe_with(PipeFlags::CLOEXEC).map(|(read, _)| read);
        let input = own().or_else(|_| empty()).map_err(Error::at::<Errno>("create", "pipe"))?;
        rustix::stdio::dup2_stdin(input).map_err(Error::at::<Errno>("replace", "standard streams"))?;
    }
    let [stdout, stderr] = [is_null(rustix::stdio::stdout()), is_null(rustix::stdio::stderr())];
    if stdout || stderr {
        let output = match own() {
            // The device list of the container leaves it out.
            Err(Errno::PERM | Errno::ACCESS) => return Ok(()),
            output => output.map_err(Error::at::<Errno>("open", "\"/dev/null\" of the container"))?,
        };
        let replaced = || {
            stdout.then(|| rustix::stdio::dup2_stdout(&output)).transpose()?;
            stderr.then(|| rustix::stdio::dup2_stderr(&output)).transpose().map(drop)
        };
        replaced().map_err(Error::at::<Errno>("replace", "standard streams"))?;
    }
    Ok(())
}

/// Gives pipes to the process's user, because `/dev/stdout` leads to them and opening it needs permission. A
/// file or a terminal keeps its owner, unless `all` are given, as in runc. `/dev/null` always does.
pub(crate) fn give(user: Uid, all: bool) {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if let Ok(stat) = fstat(stream)
            && (all && stat.st_rdev != null() || FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
            && stat.st_uid != user.as_raw()
        {
            // In a user namespace that does not map its owner, the pipe keeps it.
            let _ = fchown(stream, Some(user), None);
        }
    }
}

/// Makes a terminal all three standard streams. With `controls`, it also becomes the session's controlling
/// terminal.
pub(crate) fn install_terminal(terminal: impl AsFd, controls: bool) -> Result<()> {
    let install = || {
        if controls {
            rustix::process::ioctl_tiocsctty(&terminal)?;
        }
        rustix::stdio::dup2_stdin(&terminal)?;
        rustix::stdio::dup2_stdout(&terminal)?;
        rustix::stdio::dup2_stderr(&terminal)
    };
    install().map_err(Error::at::<Errno>("take", "the terminal"))
}
