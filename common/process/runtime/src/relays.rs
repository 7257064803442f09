//! Streams of the caller that a process in a container must not have itself, and pipes in their place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Spec;
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat, fstatfs},
    io::{Errno, fcntl_dupfd_cloexec},
    pipe::{PipeFlags, pipe_with},
};

use crate::{
    Error, Stdio, Streams,
    error::Result,
    launch::{start, stdio},
    sys,
};

/// How many bytes are written to a pipe at once: one that is ready accepts this many (pipe(7), PIPE_BUF).
const AT_ONCE: usize = 4096;

/// The file system of anonymous pipes (linux/magic.h).
const PIPEFS_MAGIC: rustix::fs::FsWord = 0x5049_5045;

/// How much a pipe holds unless somebody has made it larger (pipe(7)).
const LAST: usize = 64 << 10;

/// Pipes between the caller's streams and the process, which never has a file, a terminal or a socket of the caller.
#[derive(Debug, Default)]
pub struct Relays {
    input: Option<Fed>,
    output: Vec<Relayed>,
    /// Why output was lost.
    lost: Option<Errno>,
    /// The process's ends of the pipes, for standard input, output and error.
    inside: [Option<OwnedFd>; 3],
}

/// Input that goes through the caller to the process.
#[derive(Debug)]
struct Fed {
    from: OwnedFd,
    /// None once the process has all of it, or reads no more.
    to: Option<OwnedFd>,
    held: Vec<u8>,
    is_at_end: bool,
}

/// Output that goes through the caller to its stream.
#[derive(Debug)]
struct Relayed {
    from: OwnedFd,
    to: OwnedFd,
    held: Vec<u8>,
    /// Whether no process has the other end of `from` any more.
    is_over: bool,
    is_terminal: bool,
}

/// The file behind a stream, if the process must not have the stream itself. It gets an anonymous pipe, and
/// `/dev/null`, in whose place it gets its own. Of anything else, its root could change the mode or the owner; a file
/// it could open again through `/proc/self/fd`, and write to what was opened for reading; from a terminal it could read
/// what is typed there later.
fn withheld(stream: BorrowedFd<'_>) -> Result<Option<(u64, u64)>> {
    let inspect = |errno| Error::system("inspect", "standard stream", errno);
    let found = match fstat(stream) {
        // The caller has closed it.
        Err(Errno::BADF) => return Ok(None),
        found => found.map_err(inspect)?,
    };
    let given = match FileType::from_raw_mode(found.st_mode) {
        FileType::Fifo => fstatfs(stream).map_err(inspect)?.f_type == PIPEFS_MAGIC,
        FileType::CharacterDevice => stdio::is_null_device(&found),
        _ => false,
    };
    Ok((!given).then_some((found.st_dev, found.st_ino)))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(Error::at("create", "pipe"))
}

fn duplicate(stream: BorrowedFd<'_>) -> Result<OwnedFd> {
    fcntl_dupfd_cloexec(stream, 3).map_err(Error::at("duplicate", "descriptor"))
}

impl Relays {
    /// Pipes for the caller's streams. `input`: whether the process reads the caller's input; `output`: whether it writes
    /// to the caller's output and errors. If both of these are the same file they share a pipe, so that the order is
    /// kept. Streams that are pipes already, and `/dev/null`, need no other one.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn of(input: bool, output: bool) -> Result<Self> {
        let mut relays = Self::default();
        let stdin = rustix::stdio::stdin();
        if input && withheld(stdin)?.is_some() {
            let (inside, to) = pipe()?;
            let fed = Fed { from: duplicate(stdin)?, to: Some(to), held: Vec::new(), is_at_end: false };
            (relays.input, relays.inside[0]) = (Some(fed), Some(inside));
        }
        if !output {
            return Ok(relays);
        }
        let streams = [rustix::stdio::stdout(), rustix::stdio::stderr()];
        let files = [withheld(streams[0])?, withheld(streams[1])?];
        for (at, stream) in streams.into_iter().enumerate().filter(|(at, _)| files[*at].is_some()) {
            if let (1, true, Some(first)) = (at, files[0] == files[1], &relays.inside[1]) {
                relays.inside[2] = Some(duplicate(first.as_fd())?);
                continue;
            }
            let (from, inside) = pipe()?;
            relays.output.push(Relayed::new(from, duplicate(stream)?)?);
            relays.inside[at + 1] = Some(inside);
        }
        Ok(relays)
    }

    /// The streams of the process: the pipes, and where there is none, `stdin` and the caller's output.
    pub fn streams<'fd>(&'fd self, stdin: Stdio<'fd>) -> Streams<'fd> {
        let or = |at: usize, other| self.inside[at].as_ref().map_or(other, |pipe| Stdio::Fd(pipe.as_fd()));
        Streams { stdin: or(0, stdin), stdout: or(1, Stdio::Inherit), stderr: or(2, Stdio::Inherit) }
    }

    /// Closes the process's ends, once the process has them.
    pub fn begin(&mut self) {
        self.inside = [None, None, None];
    }

    /// What to wait for.
    pub fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.output.iter().map(Relayed::interest).chain(self.input.iter().filter_map(Fed::interest))
    }

    /// Passes on what is available.
    pub fn turn(&mut self) {
        let lost = &mut self.lost;
        self.output.retain_mut(|relayed| {
            relayed.turn().unwrap_or_else(|errno| {
                lost.get_or_insert(errno);
                false
            })
        });
        if let Some(fed) = &mut self.input {
            fed.turn();
        }
        self.input = self.input.take().filter(|fed| fed.to.is_some());
    }

    /// Passes on what the process has written before its end.
    pub(crate) fn finish(&mut self) {
        for relayed in &mut self.output {
            if let Err(errno) = relayed.finish() {
                self.lost.get_or_insert(errno);
            }
        }
    }

    /// Why output of the process did not reach the caller's file. A reader that is gone is no reason: it wants no more.
    pub(crate) fn lost(&self) -> Option<Error> {
        self.lost.map(|errno| operation::Error::new("write", "the output of the process", errno).into())
    }
}

/// Runs the process of `spec` to its end, without input, and with all its output to `output`, which it does not get itself
/// unless it may have it (see [`Relays`]). Returns its exit status as a shell counts it.
///
/// # Errors
/// As [`start`] and [`Started::release`](crate::Started::release); when the output cannot be passed on.
pub fn run_into(spec: &Spec, output: BorrowedFd<'_>) -> Result<i32> {
    let mut relays = Relays::default();
    if withheld(output)?.is_some() {
        let (from, inside) = pipe()?;
        relays.output.push(Relayed::new(from, duplicate(output)?)?);
        relays.inside[2] = Some(inside);
    }
    let output = Stdio::Fd(relays.inside[2].as_ref().map_or(output, OwnedFd::as_fd));
    let streams = Streams { stdin: Stdio::Null, stdout: output, stderr: output };
    let mut running = start(spec, streams)?.release()?;
    relays.begin();
    loop {
        let has_ended = {
            let mut polled = vec![PollFd::new(&running, PollFlags::IN)];
            polled.extend(relays.interests());
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                ready => ready.map_err(Error::at("wait", "for the process"))?,
            };
            !polled[0].revents().is_empty()
        };
        relays.turn();
        if has_ended {
            let status = running.wait()?;
            relays.finish();
            return relays.lost().map_or(Ok(status), Err);
        }
    }
}

impl Fed {
    fn interest(&self) -> Option<PollFd<'_>> {
        match (&self.to, self.held.is_empty()) {
            (Some(to), false) => Some(PollFd::new(to, PollFlags::OUT)),
            // Also tells when the process reads no more.
            (Some(_), true) => Some(PollFd::new(&self.from, PollFlags::IN)),
            (None, _) => None,
        }
    }

    fn turn(&mut self) {
        if self.held.is_empty() && !self.is_at_end && is_ready(&self.from, PollFlags::IN) {
            self.held.reserve(16 * AT_ONCE);
            match rustix::io::read(&self.from, spare_capacity(&mut self.held)) {
                Ok(1..) | Err(Errno::INTR | Errno::AGAIN) => {}
                _ => self.is_at_end = true,
            }
        }
        while let (Some(to), false) = (&self.to, self.held.is_empty()) {
            if !is_ready(to, PollFlags::OUT) {
                return;
            }
            match rustix::io::write(to, &self.held[..self.held.len().min(AT_ONCE)]) {
                Ok(written) => drop(self.held.drain(..written)),
                Err(Errno::INTR | Errno::AGAIN) => return,
                Err(_) => self.to = None,
            }
        }
        if self.is_at_end && self.held.is_empty() {
            self.to = None;
        }
    }
}

fn is_ready(fd: impl AsFd, flags: PollFlags) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(&fd, flags)], Some(&now)), Ok(1..))
}

impl Relayed {
    fn new(from: OwnedFd, to: OwnedFd) -> Result<Self> {
        sys::set_nonblocking(&from);
        let found = fstat(&to).map_err(Error::at("inspect", "standard stream"))?;
        let is_terminal = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
        Ok(Self { from, to, held: Vec::new(), is_over: false, is_terminal })
    }

    fn interest(&self) -> PollFd<'_> {
        match self.held.is_empty() {
            true => PollFd::new(&self.from, PollFlags::IN),
            false => PollFd::new(&self.to, PollFlags::OUT),
        }
    }

    /// Passes on what is available, but waits for nobody: signals for the process are read between the turns. Returns
    /// whether more may come: not after the end, nor when nobody takes more; then the process has nobody to write to either.
    ///
    /// # Errors
    /// When the caller's file takes no more.
    fn turn(&mut self) -> std::result::Result<bool, Errno> {
        if self.held.is_empty() {
            self.read();
        }
        while !self.held.is_empty() && is_ready(&self.to, PollFlags::OUT) {
            if !self.write()? {
                return Ok(false);
            }
        }
        Ok(!(self.is_over && self.held.is_empty()))
    }

    /// Passes on what the process has written before its end, and waits until it is taken. Others may write on.
    ///
    /// # Errors
    /// As [`Relayed::turn`].
    fn finish(&mut self) -> std::result::Result<(), Errno> {
        let mut left = LAST;
        loop {
            while !self.held.is_empty() {
                if !self.write()? {
                    return Ok(());
                }
            }
            self.read();
            if self.held.is_empty() || left == 0 {
                return Ok(());
            }
            left = left.saturating_sub(self.held.len());
        }
    }

    fn read(&mut self) {
        self.held.reserve(16 * AT_ONCE);
        match rustix::io::read(&self.from, spare_capacity(&mut self.held)) {
            Ok(1..) | Err(Errno::INTR | Errno::AGAIN) => {}
            _ => self.is_over = true,
        }
    }

    /// Writes a piece. Returns whether somebody is there to take more.
    fn write(&mut self) -> std::result::Result<bool, Errno> {
        match rustix::io::write(&self.to, &self.held[..self.held.len().min(AT_ONCE)]) {
            Ok(written) => drop(self.held.drain(..written)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&self.to, PollFlags::OUT)], None);
            }
            Err(Errno::PIPE) => return Ok(false),
            // The terminal is gone.
            Err(Errno::IO) if self.is_terminal => return Ok(false),
            Err(errno) => return Err(errno),
        }
        Ok(true)
    }
}
