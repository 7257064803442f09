//! Between the terminal and the monitor.

use std::io::{self, Write};

use life::Container;
use monitor::{Connection, Event, Source};
use runtime::{Foreground, RawTerminal, Terminal};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Signal, pidfd_send_signal},
};
use toolkit::prelude::*;

use crate::{ContainerAttach, keys::Watch};

/// How it ended.
pub(crate) enum Outcome {
    /// The container's process has ended, with this status if it is known.
    Ended(Option<i32>),
    Detached,
    /// The monitor is gone.
    Lost,
}

/// Until the container ends, the monitor does, or the keys are typed.
pub(crate) fn run(connection: &Connection, container: &Container, tool: &ContainerAttach) -> Result<Outcome> {
    let signals = Foreground::new()?;
    connection.attach(!tool.no_stdin)?;
    let has_terminal = match connection.next()? {
        Event::Attached { terminal } => terminal,
        Event::Ended(status) => return Ok(Outcome::Ended(status)),
        _ => return Ok(Outcome::Lost),
    };
    let is_terminal = io::IsTerminal::is_terminal(&io::stdin());
    let raw = (has_terminal && is_terminal && !tool.no_stdin)
        .then(|| Terminal::open(true)?.into_raw())
        .transpose()?;
    let mut session = Session {
        connection,
        container,
        tool,
        raw,
        watch: Watch::new(&tool.detach_keys),
        types: !tool.no_stdin,
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

/// What there is to do.
#[derive(Default)]
struct Ready {
    /// Standard input has more, or has ended.
    typed: bool,
    /// The monitor has said something.
    told: bool,
    /// It takes more input.
    has_room: bool,
    signalled: bool,
}

struct Session<'a> {
    connection: &'a Connection,
    container: &'a Container,
    tool: &'a ContainerAttach,
    raw: Option<RawTerminal>,
    watch: Watch<'a>,
    /// Standard input has more.
    types: bool,
    /// The monitor has still to be told the size of the terminal.
    is_resized: bool,
    /// What was read of it and is not passed on yet: the process may be busy.
    typed: Vec<u8>,
}

impl Session<'_> {
    fn resize(&mut self) -> Result<()> {
        if let Some((columns, rows)) = self.raw.as_ref().and_then(RawTerminal::size) {
            self.is_resized = !self.connection.resize(columns, rows)?;
        }
        Ok(())
    }

    /// Waits. While the process has no room for what was typed, nothing more is read.
    fn wait(&self, signals: &Foreground) -> Result<Ready> {
        let stdin = io::stdin();
        let out = if self.typed.is_empty() && !self.is_resized { PollFlags::empty() } else { PollFlags::OUT };
        let mut fds =
            vec![PollFd::new(self.connection, PollFlags::IN | out), PollFd::new(signals, PollFlags::IN)];
        if self.types && self.typed.is_empty() {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(Ready::default()),
            polled => polled.context("wait for the monitor")?,
        };
        let monitor = fds[0].revents();
        Ok(Ready {
            typed: fds.get(2).is_some_and(|fd| !fd.revents().is_empty()),
            told: !monitor.difference(PollFlags::OUT).is_empty(),
            has_room: monitor.contains(PollFlags::OUT),
            signalled: !fds[1].revents().is_empty(),
        })
    }

    /// Passes signals on, or ends as by one of them.
    fn signals(&mut self, signals: &Foreground) -> Result<Option<Outcome>> {
        while let Some(signal) = signals.next() {
            if signal == Signal::WINCH {
                self.resize()?;
            } else if !self.tool.sig_proxy {
                return Ok(Some(Outcome::Ended(Some(128 + signal.as_raw()))));
            } else if let Some(process) = self.container.identity().open()? {
                // It may have ended just now.
                let _ = pidfd_send_signal(process, signal);
            }
        }
        Ok(None)
    }

    /// Prints what came; how it ended, if it did.
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
        written.context("write the output")?;
        Ok(None)
    }

    /// Reads what was typed, and passes it on. Whether the keys were.
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
            Err(Errno::INTR) => {}
            _ => self.types = false,
        }
        Ok(false)
    }

    /// A monitor that does not take it has said before why it ended.
    fn pass_on(&mut self) {
        match self.connection.input(&self.typed) {
            Ok(passed) => drop(self.typed.drain(..passed)),
            Err(_) => (self.types, self.typed) = (false, Vec::new()),
        }
    }
}
