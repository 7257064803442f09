use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use mount::{Detached, Options};
use rustix::{
    fs::{FileType, Mode, OFlags, Stat, Uid, fchown, fstat},
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

    /// Opens the streams while the host's `/dev` is there. The results are not among the first three descriptors, which
    /// will be replaced. A process that `joins` a container gets `/dev/null` through a read-only mount, because the
    /// container may have none that can be put in its place.
    pub(crate) fn open(&self, joins: bool) -> Result<[Option<OwnedFd>; 3]> {
        let null = || match joins {
            true => read_only_null(),
            false => rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()),
        };
        let open = |stream: Stdio<'_>, own: BorrowedFd<'_>| -> std::result::Result<Option<OwnedFd>, Errno> {
            match stream {
                Stdio::Inherit if !(joins && is_null(own)) => Ok(None),
                Stdio::Fd(fd) if !(joins && is_null(fd)) => fcntl_dupfd_cloexec(fd, 3).map(Some),
                _ => fcntl_dupfd_cloexec(null()?, 3).map(Some),
            }
        };
        let own = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
        let all = || Ok([open(self.stdin, own.0)?, open(self.stdout, own.1)?, open(self.stderr, own.2)?]);
        all().map_err(Error::at::<Errno>("open", "standard streams"))
    }
}

/// Opens `/dev/null` through a mount of its own, so that nobody can change its mode or owner by the descriptor.
fn read_only_null() -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let sealed = || {
        let mount = Detached::copy(Path::new("/dev/null"), false).ok()?;
        mount.change(&Options::parse(["ro", "nosuid", "noexec"]), false).ok()?;
        Some(mount)
    };
    match sealed() {
        Some(mount) => rustix::fs::open(mount::resolve::proc_path(mount.as_fd()), flags, Mode::empty()),
        // An ordinary user may not mount, and cannot change the device either.
        None => rustix::fs::open("/dev/null", flags, Mode::empty()),
    }
}

fn is_null(stream: BorrowedFd<'_>) -> bool {
    fstat(stream).is_ok_and(|found| is_null_device(&found))
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

/// Whether a file is `/dev/null`, by its number (Documentation/admin-guide/devices.txt), wherever it lies.
pub fn is_null_device(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && found.st_rdev == rustix::fs::makedev(1, 3)
}

/// Puts the container's own `/dev/null` in place of the host's, whose mode and owner root in the container could change.
/// The process is in its root. Without one, one that `joins` keeps what it has (see [`Streams::open`]), and another one has
/// empty input.
///
/// # Errors
/// When output needs one, and a new container has none.
pub(crate) fn own_null(joins: bool) -> Result<()> {
    let [stdin, stdout, stderr] =
        [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()].map(is_null);
    if !(stdin || stdout || stderr) {
        return Ok(());
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let own = match rustix::fs::open("/dev/null", flags, Mode::empty()) {
        Ok(own) if is_null(own.as_fd()) => Ok(own),
        Ok(_) => Err(Errno::NODEV),
        Err(errno) => Err(errno),
    };
    let replace = |own: &OwnedFd| {
        stdin.then(|| rustix::stdio::dup2_stdin(own)).transpose()?;
        stdout.then(|| rustix::stdio::dup2_stdout(own)).transpose()?;
        stderr.then(|| rustix::stdio::dup2_stderr(own)).transpose().map(drop)
    };
    let replaced = match own {
        Ok(own) => replace(&own),
        Err(_) if joins => Ok(()),
        // The device list of the container leaves it out.
        Err(Errno::PERM | Errno::ACCESS) => Ok(()),
        Err(_) if !(stdout || stderr) => {
            pipe_with(PipeFlags::CLOEXEC).and_then(|(empty, _)| rustix::stdio::dup2_stdin(empty))
        }
        Err(errno) => return Err(Error::at("open", "\"/dev/null\" of the container")(errno)),
    };
    replaced.map_err(Error::at::<Errno>("replace", "standard streams"))
}

/// Gives pipes to the process's user, because `/dev/stdout` leads to them and opening it needs permission. A
/// file or a terminal keeps its owner, unless `all` are given, as in runc. `/dev/null` always does.
pub(crate) fn give(user: Uid, all: bool) {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if let Ok(stat) = fstat(stream)
            && (all && !is_null_device(&stat) || FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
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
