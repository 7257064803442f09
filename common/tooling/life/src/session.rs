//! Connects the caller's standard streams and terminal with the monitor of a container.

use std::io::{self, Write};

use monitor::{Connection, Event, Source};
use operation::Error;
use runtime::{Foreground, KeyWatch, Keys, RawTerminal, Terminal};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Signal, pidfd_send_signal},
};

use crate::{Container, Result};

/// How the session ended.
#[derive(Debug)]
pub enum Outcome {
    /// The container's process has ended, with this status if it is known.
    Ended(Option<i32>),
    /// The detach keys were typed.
    Detached,
    /// The monitor is gone.
    Lost,
}

/// How to attach to a container.
#[derive(Debug)]
pub struct Attachment<'a> {
    /// Whether to pass standard input on to the process.
    pub stdin: bool,
    /// Whether to pass signals on to the process.
    pub signals: bool,
    /// The keys that leave the container.
    pub keys: &'a Keys,
}

/// Prints the container's output, and passes input and signals on, until the container ends, the monitor ends, or the
/// detach keys are typed. The monitor has been asked for the output ([`Connection::attach`]).
///
/// # Errors
/// When the monitor cannot be reached, or the output cannot be written.
pub fn attend(connection: &Connection, container: &Container, how: &Attachment<'_>) -> Result<Outcome> {
    let signals = Foreground::new()?;
    let has_terminal = match connection.next()? {
        Event::Attached { terminal } => terminal,
        Event::Ended(status) => return Ok(Outcome::Ended(status)),
        _ => return Ok(Outcome::Lost),
    };
    let is_terminal = io::IsTerminal::is_terminal(&io::stdin());
    let raw = (has_terminal && is_terminal && how.stdin)
        .then(|| Terminal::open(true).and_then(Terminal::into_raw))
        .transpose()?;
    let mut session = Session {
        connection,
        container,
        how,
        raw,
        watch: KeyWatch::new(how.keys),
        types: how.stdin,
        is_over: false,
        is_resized: false,
        typed: Vec::new(),
    };
    session.resize()?;
    loop {
        let Ready { typed, told, has_room, signalled } = session.wait(&signals)?;
        if signalled && let Some(outcome) = session.signals(&signals)? {
            return Ok(outcome);
        }
        if told && let Some(outcome) = session.output()? {
            return Ok(outcome);
        }
        if has_room {
            if session.is_resized {
                session.resize()?;
            }
            session.pass_on();
        }
        if typed && session.input()? {
            return Ok(Outcome::Detached);
        }
    }
}

/// What is ready after waiting.
#[derive(Default)]
struct Ready {
    /// Standard input has data, or has ended.
    typed: bool,
    /// The monitor has sent something.
    told: bool,
    /// The monitor can take more input.
    has_room: bool,
    signalled: bool,
}

struct Session<'a> {
    connection: &'a Connection,
    container: &'a Container,
    how: &'a Attachment<'a>,
    raw: Option<RawTerminal>,
    watch: KeyWatch<'a>,
    /// Standard input has not ended.
    types: bool,
    /// Standard input has ended, and the monitor does not know it yet.
    is_over: bool,
    /// The monitor does not know the terminal's size yet.
    is_resized: bool,
    /// Input that was read and not passed on yet, because the process may be busy.
    typed: Vec<u8>,
}

impl Session<'_> {
    fn resize(&mut self) -> Result<()> {
        if let Some((columns, rows)) = self.raw.as_ref().and_then(RawTerminal::size) {
            self.is_resized = !self.connection.resize(columns, rows)?;
        }
        Ok(())
    }

    /// Waits. While there is input that the process has no room for, no more input is read.
    fn wait(&self, signals: &Foreground) -> Result<Ready> {
        let stdin = io::stdin();
        let is_quiet = self.typed.is_empty() && !self.is_resized && !self.is_over;
        let out = if is_quiet { PollFlags::empty() } else { PollFlags::OUT };
        let mut fds =
            vec![PollFd::new(self.connection, PollFlags::IN | out), PollFd::new(signals, PollFlags::IN)];
        if self.types && self.typed.is_empty() {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(Ready::default()),
            polled => polled.map_err(|errno| Error::new("wait", "for the monitor", errno))?,
        };
        let monitor = fds[0].revents();
        Ok(Ready {
            typed: fds.get(2).is_some_and(|fd| !fd.revents().is_empty()),
            told: !monitor.difference(PollFlags::OUT).is_empty(),
            has_room: monitor.contains(PollFlags::OUT),
            signalled: !fds[1].revents().is_empty(),
        })
    }

    /// Passes signals on, or ends as if killed by the signal.
    fn signals(&mut self, signals: &Foreground) -> Result<Option<Outcome>> {
        while let Some(signal) = signals.next() {
            if signal == Signal::WINCH {
                self.resize()?;
            } else if !self.how.signals {
                return Ok(Some(Outcome::Ended(Some(128 + signal.as_raw()))));
            } else if let Some(process) = self.container.identity().open()? {
                // The process may have just ended.
                let _ = pidfd_send_signal(process, signal);
            }
        }
        Ok(None)
    }

    /// Prints the next output. Returns the outcome if the session has ended.
    fn output(&self) -> Result<Option<Outcome>> {
        let written = match self.connection.next()? {
            Event::Output(Source::Stdout, bytes) => {
                io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush())
            }
            Event::Output(Source::Stderr, bytes) => io::stderr().write_all(&bytes),
            Event::Attached { .. } => Ok(()),
            Event::Ended(status) => return Ok(Some(Outcome::Ended(status))),
            Event::Gone => return Ok(Some(Outcome::Lost)),
        };
        written.map_err(|error| Error::new("write", "the output", error))?;
        Ok(None)
    }

    /// Reads input and passes it on. Returns whether the detach keys were typed.
    fn input(&mut self) -> Result<bool> {
        let mut typed = [0_u8; 4096];
        match rustix::io::read(io::stdin(), &mut typed) {
            Ok(length @ 1..) => match self.watch.pass(&typed[..length]) {
                Some(passed) => {
                    self.typed = passed;
                    self.pass_on();
                }
                None => return Ok(true),
            },
            Ok(_) => (self.types, self.is_over) = (false, true),
            // Another program has made the input non-blocking.
            Err(Errno::INTR | Errno::AGAIN) => {}
            // This is no end: the process keeps its input for others.
            Err(_) => self.types = false,
        }
        Ok(false)
    }

    /// Passes input on. If the monitor takes none, it has ended, and its last message says why.
    fn pass_on(&mut self) {
        match self.connection.input(&self.typed) {
            Ok(passed) => drop(self.typed.drain(..passed)),
            Err(_) => (self.types, self.typed) = (false, Vec::new()),
        }
        if self.is_over && self.typed.is_empty() {
            self.is_over = matches!(self.connection.end_input(), Ok(false));
        }
    }
}
