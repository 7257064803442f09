//! Waits for a process in the foreground, and passes signals and typed input on to it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::pidfd_send_signal,
};

use crate::{Error, KeyWatch, Keys, RawTerminal, Relays, Running, background, error::Result, sys};

/// The signals that are passed on. The signals for a shell's job control are for the caller itself.
const FORWARDED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

/// Receives the signals to pass on, which are blocked from now on. Make it before the process is started, so
/// that no signal is lost.
#[derive(Debug)]
pub struct Foreground {
    signals: SignalFd,
    before: SigSet,
}

impl Foreground {
    /// Blocks the signals in this thread.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn new() -> Result<Self> {
        let errno = |errno: nix::errno::Errno| Error::system("wait", "for signals", errno);
        let set = SigSet::from_iter(FORWARDED);
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before)).map_err(errno)?;
        let signals =
            SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(errno)?;
        Ok(Self { signals, before })
    }

    /// The next pending signal; none if there is none.
    pub fn next(&self) -> Option<rustix::process::Signal> {
        let signal = self.signals.read_signal().ok().flatten()?;
        i32::try_from(signal.ssi_signo).ok().and_then(rustix::process::Signal::from_named_raw)
    }
}

impl AsFd for Foreground {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

/// Waits for the process, and returns its exit status as a shell counts it, and an error if output in `relays` was
/// lost. Passes on signals, the input and output of its terminal if it has one, and the streams in `relays`.
///
/// # Errors
/// When the process is not a child of the caller.
pub fn foreground(
    mut running: Running,
    foreground: &Foreground,
    outer: Option<&RawTerminal>,
    mut relays: Relays,
) -> Result<(i32, Option<Error>)> {
    let inner = running.terminal.take();
    loop {
        // Without keys, the wait ends only with the process.
        if let Waited::Ended(status) =
            wait(&mut running, foreground, outer, inner.as_ref(), &mut relays, None)?
        {
            return Ok((status, relays.lost()));
        }
    }
}

/// How waiting for a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The process ended with this status, as a shell counts it.
    Ended(i32),
    /// The user typed the detach keys. The process goes on.
    Detached,
}

/// As [`foreground`], but the user can leave the process by typing `keys` on its terminal. A process in the
/// background then holds the terminal, and drops what is written to it.
///
/// # Errors
/// As [`foreground`], and when that process cannot be started.
pub fn foreground_or_detached(
    mut running: Running,
    foreground: &Foreground,
    outer: Option<&RawTerminal>,
    keys: &Keys,
) -> Result<Waited> {
    let inner = running.terminal.take();
    let waited = wait(&mut running, foreground, outer, inner.as_ref(), &mut Relays::default(), Some(keys))?;
    if let (Waited::Detached, Some(inner)) = (waited, inner) {
        background(&[inner.as_raw_fd()], move || {
            drain(&inner);
            0
        })?;
    }
    Ok(waited)
}

/// Reads and drops what a terminal shows until no process has its other side open.
fn drain(terminal: &OwnedFd) {
    let mut buffer = [0_u8; 8192];
    loop {
        match rustix::io::read(terminal, &mut buffer) {
            Ok(1..) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(terminal, PollFlags::IN)], None);
            }
            _ => return,
        }
    }
}

fn wait(
    running: &mut Running,
    foreground: &Foreground,
    outer: Option<&RawTerminal>,
    inner: Option<&OwnedFd>,
    relays: &mut Relays,
    keys: Option<&Keys>,
) -> Result<Waited> {
    relays.begin();
    if let (Some(outer), Some(inner)) = (outer, inner) {
        outer.copy_size(inner);
    }
    let mut relay = inner.zip(outer).map(|(inner, outer)| Relay::new(inner, outer, keys));
    let waiting = |errno| Error::system("wait", "for the process", errno);
    loop {
        let ended = {
            let mut fds = vec![PollFd::new(&*running, PollFlags::IN), PollFd::new(foreground, PollFlags::IN)];
            fds.extend(relay.iter().flat_map(Relay::interests));
            fds.extend(relays.interests());
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                result => result.map_err(waiting)?,
            };
            !fds[0].revents().is_empty()
        };
        pass_on(foreground, running, outer, inner);
        if let Some(relay) = &mut relay {
            relay.turn();
            if !ended && relay.is_left() {
                return Ok(Waited::Detached);
            }
        }
        relays.turn();
        if ended {
            if let Some(relay) = &mut relay {
                relay.finish();
            }
            let status = running.wait();
            // The last output may have been written after it was last read.
            relays.finish();
            return status.map(Waited::Ended);
        }
    }
}

fn pass_on(foreground: &Foreground, running: &Running, outer: Option<&RawTerminal>, inner: Option<&OwnedFd>) {
    while let Some(signal) = foreground.next() {
        match (signal, outer, inner) {
            // Setting the size notifies the programs on the other side.
            (rustix::process::Signal::WINCH, Some(outer), Some(inner)) => outer.copy_size(inner),
            // The process may have just ended.
            _ => drop(pidfd_send_signal(running, signal)),
        }
    }
}

/// Copies between the caller's terminal and the container's. Neither side may block the other.
struct Relay<'a> {
    typed: Option<Pump<'a>>,
    shown: Pump<'a>,
}

struct Pump<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    held: Vec<u8>,
    /// Whether the end was reached.
    closed: bool,
    /// Looks for the detach keys.
    watch: Option<KeyWatch<'a>>,
    /// Whether they were typed.
    left: bool,
}

/// How many bytes are written at once: a pipe that is ready accepts this many (pipe(7), PIPE_BUF).
const AT_ONCE: usize = 4096;

impl<'a> Relay<'a> {
    fn new(inner: &'a OwnedFd, outer: &'a RawTerminal, keys: Option<&'a Keys>) -> Self {
        sys::set_nonblocking(inner);
        let inner = inner.as_fd();
        let pump = |from, to, watch| Pump { from, to, held: Vec::new(), closed: false, watch, left: false };
        let typed = outer.typed().map(|typed| pump(typed, inner, keys.map(KeyWatch::new)));
        Self { typed, shown: pump(inner, outer.shown(), None) }
    }

    fn interests(&self) -> Vec<PollFd<'a>> {
        self.typed.iter().chain([&self.shown]).filter_map(Pump::interest).collect()
    }

    /// Whether the detach keys were typed.
    fn is_left(&self) -> bool {
        self.typed.as_ref().is_some_and(|typed| typed.left)
    }

    fn turn(&mut self) {
        self.typed.iter_mut().for_each(Pump::turn);
        self.shown.turn();
    }

    /// Passes on the remaining output of the ended process.
    fn finish(&mut self) {
        for _ in 0..1024 {
            self.shown.turn();
            if self.shown.closed || self.shown.held.is_empty() && !ready(self.shown.from, PollFlags::IN) {
                return;
            }
        }
    }
}

fn ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    matches!(poll(&mut fds, Some(&now)), Ok(1..)) && fds[0].revents().intersects(flags)
}

impl<'a> Pump<'a> {
    /// Holds bytes until they are written. After the detach keys, nothing more is read.
    fn take(&mut self, bytes: &[u8]) {
        match self.watch.as_mut().map(|watch| watch.pass(bytes)) {
            None => self.held.extend_from_slice(bytes),
            Some(Some(passed)) => self.held.extend(passed),
            Some(None) => (self.left, self.closed) = (true, true),
        }
    }

    fn interest(&self) -> Option<PollFd<'a>> {
        match (self.held.is_empty(), self.closed) {
            (false, _) => Some(PollFd::from_borrowed_fd(self.to, PollFlags::OUT)),
            (true, false) => Some(PollFd::from_borrowed_fd(self.from, PollFlags::IN)),
            (true, true) => None,
        }
    }

    fn turn(&mut self) {
        if self.held.is_empty() && !self.closed {
            if !ready(self.from, PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                return;
            }
            let mut buffer = [0_u8; 8192];
            match rustix::io::read(self.from, &mut buffer) {
                // EIO: no process has the other side of the terminal open.
                Ok(0) | Err(Errno::IO) => self.closed = true,
                Ok(length) => self.take(&buffer[..length]),
                Err(_) => return,
            }
        }
        if !self.held.is_empty() && ready(self.to, PollFlags::OUT | PollFlags::HUP | PollFlags::ERR) {
            match rustix::io::write(self.to, &self.held[..self.held.len().min(AT_ONCE)]) {
                Ok(length) => drop(self.held.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // The reader is gone, and the container continues.
                Err(_) => self.held.clear(),
            }
        }
    }
}
