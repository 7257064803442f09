//! The program that started a container in the foreground: its streams, its terminal and its signals.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{Foreground, RawTerminal, Relays};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat},
    io::{Errno, fcntl_dupfd_cloexec},
    process::{Signal, pidfd_send_signal},
};

use crate::{
    Next, Result, Source, failed,
    run::{Watched, is_readable, pass_on},
    streams::ends_with_reader,
};

/// How many bytes are written at once: a pipe that is ready accepts this many (pipe(7), PIPE_BUF).
const AT_ONCE: usize = 4096;

/// How many typed bytes are read at once.
const TYPED: usize = 4096;

/// What a monitor in the foreground serves beside its clients.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    signals: &'a Foreground,
    terminal: Option<&'a RawTerminal>,
    stdout: Output,
    stderr: Output,
    /// Input that goes through the caller.
    relays: Relays,
    /// Whether typed input has not ended.
    types: bool,
    /// Typed input that the process's terminal has no room for yet.
    typed: Vec<u8>,
    /// The exit status of the process, and what comes next, once it has ended.
    pub(crate) ended: Option<(Option<i32>, Next)>,
}

/// One of the caller's streams.
#[derive(Debug)]
struct Output {
    to: OwnedFd,
    /// Whether writing never waits for a reader.
    is_file: bool,
    /// Whether writing fails without a reader.
    ends_with_reader: bool,
    /// Output that the stream had no room for yet.
    held: Vec<u8>,
    /// Why nothing more is written.
    broken: Option<Errno>,
}

impl Output {
    fn of(stream: BorrowedFd<'_>, name: &str) -> Result<Self> {
        let to = fcntl_dupfd_cloexec(stream, 3).map_err(failed("open", name))?;
        let is_file =
            fstat(&to).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile);
        let ends_with_reader = ends_with_reader(to.as_fd());
        Ok(Self { to, is_file, ends_with_reader, held: Vec::new(), broken: None })
    }

    /// Writes as much as there is room for. Returns whether the stream has just failed.
    fn flush(&mut self) -> bool {
        while !self.held.is_empty() {
            let length = if self.is_file { self.held.len() } else { self.held.len().min(AT_ONCE) };
            if !self.is_file && !has_room(&self.to) {
                return false;
            }
            match rustix::io::write(&self.to, &self.held[..length]) {
                Ok(written) => drop(self.held.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(errno) => {
                    (self.held, self.broken) = (Vec::new(), Some(errno));
                    return true;
                }
            }
        }
        false
    }
}

fn has_room(fd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&now)), Ok(1..))
}

impl<'a> Caller<'a> {
    pub(crate) fn new(
        signals: &'a Foreground,
        terminal: Option<&'a RawTerminal>,
        relays: Relays,
    ) -> Result<Self> {
        let stdout = match terminal {
            Some(terminal) => Output::of(terminal.shown(), "the terminal")?,
            None => Output::of(rustix::stdio::stdout(), "standard output")?,
        };
        let stderr = Output::of(rustix::stdio::stderr(), "standard error")?;
        Ok(Self { signals, terminal, stdout, stderr, relays, types: true, typed: Vec::new(), ended: None })
    }

    fn typed(&self) -> Option<BorrowedFd<'a>> {
        self.terminal.and_then(RawTerminal::typed).filter(|_| self.types)
    }

    /// Gives the process's terminal the size of the caller's.
    pub(crate) fn copy_size(&self, inner: impl AsFd) {
        self.terminal.into_iter().for_each(|terminal| terminal.copy_size(&inner));
    }

    /// Whether a stream has no room for what was read already.
    pub(crate) fn is_behind(&self) -> bool {
        !self.stdout.held.is_empty() || !self.stderr.held.is_empty()
    }

    /// Whether there is typed input that the process's terminal had no room for.
    pub(crate) fn types_on(&self) -> bool {
        !self.typed.is_empty()
    }

    /// What to wait for. `types`: whether the process has a terminal.
    pub(crate) fn interests(&self, types: bool) -> impl Iterator<Item = PollFd<'_>> {
        let typed = self.typed().filter(|_| types && self.typed.is_empty());
        let held = [&self.stdout, &self.stderr].into_iter().filter(|output| !output.held.is_empty());
        let read = [self.signals.as_fd()].into_iter().chain(typed);
        let read = read.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        read.chain(held.map(|output| PollFd::new(&output.to, PollFlags::OUT))).chain(self.relays.interests())
    }

    /// Passes pending signals on. A new size of the terminal is copied instead: that tells the programs there.
    pub(crate) fn signals(&self, process: Option<&Watched>, terminal: Option<&OwnedFd>) {
        while let Some(signal) = self.signals.next() {
            match (signal, self.terminal, terminal) {
                (Signal::WINCH, Some(outer), Some(inner)) => outer.copy_size(inner),
                // The process may have just ended.
                _ => process.into_iter().for_each(|process| {
                    let _ = pidfd_send_signal(process, signal);
                }),
            }
        }
    }

    /// Reads what was typed, and writes it to the process's terminal.
    pub(crate) fn type_to(&mut self, terminal: Option<&OwnedFd>) {
        self.relays.turn();
        let Some(terminal) = terminal else { return };
        if let Some(typed) = self.typed().filter(|typed| self.typed.is_empty() && is_readable(typed)) {
            let mut buffer = [0_u8; TYPED];
            match rustix::io::read(typed, &mut buffer) {
                Ok(length @ 1..) => self.typed.extend_from_slice(&buffer[..length]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                _ => self.types = false,
            }
        }
        pass_on(Some(terminal.as_fd()), &mut self.typed);
    }

    /// Writes output to the caller's stream.
    pub(crate) fn show(&mut self, source: Source, output: &[u8]) {
        let stream = match source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        };
        if stream.broken.is_none() {
            stream.held.extend_from_slice(output);
        }
    }

    /// Writes held output. Returns the streams whose reader is gone since the last call.
    pub(crate) fn flush(&mut self) -> Vec<Source> {
        let mut gone = Vec::new();
        for (source, stream) in [(Source::Stdout, &mut self.stdout), (Source::Stderr, &mut self.stderr)] {
            if stream.flush() && stream.ends_with_reader {
                gone.push(source);
            }
        }
        gone
    }

    /// Writes the rest, or gives up at a signal that would end the caller. Returns why output was lost, if the
    /// reason is another than a reader that left.
    pub(crate) fn finish(mut self) -> Option<(&'static str, Errno)> {
        loop {
            self.flush();
            if !self.is_behind() {
                break;
            }
            self.relays = Relays::default();
            let _ = poll(&mut self.interests(false).collect::<Vec<_>>(), None);
            let ends = |signal| [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT].contains(&signal);
            if std::iter::from_fn(|| self.signals.next()).any(ends) {
                break;
            }
        }
        // What becomes of output to a terminal matters only to the one who looks at it.
        let lost = |output: &Output| output.broken.filter(|errno| ![Errno::PIPE, Errno::IO].contains(errno));
        let stdout = lost(&self.stdout).map(|errno| ("standard output", errno));
        stdout.or_else(|| lost(&self.stderr).map(|errno| ("standard error", errno)))
    }
}
