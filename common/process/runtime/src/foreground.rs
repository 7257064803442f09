//! Waits for a process in the foreground, and passes signals and typed input on to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, fcntl_dupfd_cloexec},
    pipe::{PipeFlags, pipe_with},
    process::pidfd_send_signal,
};

use crate::{Error, RawTerminal, Running, error::Result, sys};

/// The signals that are passed on. Those for a shell's job control are the caller's own.
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

/// The signals to pass on, blocked from now on. To be made before the process is started, so that none is lost.
#[derive(Debug)]
pub struct Foreground {
    signals: SignalFd,
    before: SigSet,
}

impl Foreground {
    /// Blocks the signals in this thread.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> Result<Self> {
        let errno = |errno: nix::errno::Errno| Error::system("wait", "for signals", errno);
        let set = SigSet::from_iter(FORWARDED);
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before)).map_err(errno)?;
        let signals =
            SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(errno)?;
        Ok(Self { signals, before })
    }

    /// The next signal that has come; none if there is none now.
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

/// Output of the process that goes through the caller, and where it goes on to: a file that the process's user may not open.
#[derive(Debug)]
pub struct Relayed {
    from: OwnedFd,
    to: OwnedFd,
}

impl Relayed {
    /// A pipe to the file `to`. The process gets the other value as a stream, and the caller drops it then.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new(to: BorrowedFd<'_>) -> Result<(Self, OwnedFd)> {
        let (from, inside) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::at("create", "pipe"))?;
        let to = fcntl_dupfd_cloexec(to, 3).map_err(Error::at("duplicate", "descriptor"))?;
        sys::set_nonblocking(&from);
        Ok((Self { from, to }, inside))
    }

    /// Passes on what there is. Returns whether that was the end.
    fn turn(&self) -> bool {
        let mut buffer = [0_u8; 64 << 10];
        loop {
            match rustix::io::read(&self.from, &mut buffer) {
                Ok(length @ 1..) => {
                    let mut rest = &buffer[..length];
                    while !rest.is_empty() {
                        match rustix::io::write(&self.to, rest) {
                            Ok(written) => rest = &rest[written..],
                            Err(Errno::INTR) => {}
                            // A full disk: what cannot be written is lost, as in a log.
                            Err(_) => break,
                        }
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                _ => return true,
            }
        }
    }
}

/// Waits for the process. Passes signals on to it, input and output if it has a terminal, and what is `relayed`. Returns
/// its exit status as a shell counts it.
///
/// # Errors
/// When it is not a child of the caller.
pub fn foreground(
    mut running: Running,
    foreground: &Foreground,
    outer: Option<&RawTerminal>,
    mut relayed: Vec<Relayed>,
) -> Result<i32> {
    let inner = running.terminal.take();
    if let (Some(outer), Some(inner)) = (outer, &inner) {
        outer.copy_size(inner);
    }
    let mut relay = inner.as_ref().zip(outer).map(|(inner, outer)| Relay::new(inner, outer));
    let waiting = |errno| Error::system("wait", "for the process", errno);
    loop {
        let ended = {
            let mut fds = vec![PollFd::new(&running, PollFlags::IN), PollFd::new(foreground, PollFlags::IN)];
            fds.extend(relay.iter().flat_map(Relay::interests));
            fds.extend(relayed.iter().map(|relayed| PollFd::new(&relayed.from, PollFlags::IN)));
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                result => result.map_err(waiting)?,
            };
            !fds[0].revents().is_empty()
        };
        pass_on(foreground, &running, outer, inner.as_ref());
        if let Some(relay) = &mut relay {
            relay.turn();
        }
        relayed.retain(|relayed| !relayed.turn());
        if ended {
            if let Some(relay) = &mut relay {
                relay.finish();
            }
            let status = running.wait();
            // Its last output, written between the two looks.
            relayed.retain(|relayed| !relayed.turn());
            return status;
        }
    }
}

fn pass_on(foreground: &Foreground, running: &Running, outer: Option<&RawTerminal>, inner: Option<&OwnedFd>) {
    while let Some(signal) = foreground.next() {
        match (signal, outer, inner) {
            // Setting the size notifies the programs on the other side.
            (rustix::process::Signal::WINCH, Some(outer), Some(inner)) => outer.copy_size(inner),
            // It may have ended just now.
            _ => drop(pidfd_send_signal(running, signal)),
        }
    }
}

/// A buffer between a terminal and our side of it. Neither side may block the other.
struct Relay<'a> {
    typed: Option<Pump<'a>>,
    shown: Pump<'a>,
}

struct Pump<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    held: Vec<u8>,
    /// The end was reached.
    closed: bool,
}

/// How much is written at once: a pipe that is ready accepts this much (pipe(7), PIPE_BUF).
const AT_ONCE: usize = 4096;

impl<'a> Relay<'a> {
    fn new(inner: &'a OwnedFd, outer: &'a RawTerminal) -> Self {
        sys::set_nonblocking(inner);
        let inner = inner.as_fd();
        let pump = |from, to| Pump { from, to, held: Vec::new(), closed: false };
        Self { typed: outer.typed().map(|typed| pump(typed, inner)), shown: pump(inner, outer.shown()) }
    }

    fn interests(&self) -> Vec<PollFd<'a>> {
        self.typed.iter().chain([&self.shown]).filter_map(Pump::interest).collect()
    }

    fn turn(&mut self) {
        self.typed.iter_mut().for_each(Pump::turn);
        self.shown.turn();
    }

    /// The remaining output of the ended process.
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
                Ok(length) => self.held.extend_from_slice(&buffer[..length]),
                Err(_) => return,
            }
        }
        if !self.held.is_empty() && ready(self.to, PollFlags::OUT | PollFlags::HUP | PollFlags::ERR) {
            match rustix::io::write(self.to, &self.held[..self.held.len().min(AT_ONCE)]) {
                Ok(length) => drop(self.held.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // The reader has gone, and the container continues.
                Err(_) => self.held.clear(),
            }
        }
    }
}
