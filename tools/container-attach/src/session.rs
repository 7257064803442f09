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
    };
    session.resize()?;
    loop {
        let (typed, told, signalled) = session.wait(&signals)?;
        if signalled && let Some(outcome) = session.signals(&signals)? {
            return Ok(outcome);
        }
        if told && let Some(outcome) = session.output()? {
            return Ok(outcome);
        }
        if typed && session.input()? {
            return Ok(Outcome::Detached);
        }
    }
}

struct Session<'a> {
    connection: &'a Connection,
    container: &'a Container,
    tool: &'a ContainerAttach,
    raw: Option<RawTerminal>,
    watch: Watch<'a>,
    /// Standard input has more.
    types: bool,
}

impl Session<'_> {
    fn resize(&self) -> Result<()> {
        match self.raw.as_ref().and_then(RawTerminal::size) {
            Some((columns, rows)) => Ok(self.connection.resize(columns, rows)?),
            None => Ok(()),
        }
    }

    /// What is ready: standard input, the monitor, a signal.
    fn wait(&self, signals: &Foreground) -> Result<(bool, bool, bool)> {
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(self.connection, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if self.types {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok((false, false, false)),
            polled => polled.context("wait for the monitor")?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok((ready.get(2).copied().unwrap_or_default(), ready[0], ready[1]))
    }

    /// Passes signals on, or ends as by one of them.
    fn signals(&self, signals: &Foreground) -> Result<Option<Outcome>> {
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

    /// Passes on what was typed. Whether the keys were.
    fn input(&mut self) -> Result<bool> {
        let mut typed = [0_u8; 4096];
        match rustix::io::read(io::stdin(), &mut typed) {
            Ok(length @ 1..) => match self.watch.pass(&typed[..length]) {
                Some(passed) => self.connection.input(&passed)?,
                None => return Ok(true),
            },
            Err(Errno::INTR) => {}
            _ => self.types = false,
        }
        Ok(false)
    }
}
