//! A process in the background. A supervisor stays as its parent: it takes the exit status, writes the output to the
//! log and, if there is a terminal, holds its other side.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use oci_spec::runtime::Spec;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

use crate::{
    Error, Identity, Log, Running, Started, Stdio, Streams,
    error::Result,
    launch::{Channel, Message},
    log::Open,
    start, sys,
};

/// The supervisor's sides of its process's streams.
struct Held {
    /// The read side of its output. Not the log itself: a program that opens `/dev/stdout` would truncate the log, and
    /// one that is not root could not open it.
    shown: OwnedFd,
    /// The other end of its standard input. It stays open, and nothing is written to it.
    typed: Option<OwnedFd>,
}

/// A process that a supervisor has forked, waiting before its command. If this is dropped, both end.
#[derive(Debug)]
pub struct Supervised {
    identity: Identity,
    channel: Channel,
}

/// Forks a supervisor in a new session, without terminal, current directory or open files of the caller. It starts
/// `spec` with its output appended to `log` (or discarded). Standard input is empty, or with `stdin` open
/// without content. When the process ends, the supervisor calls `ended` with the exit status, as a shell counts it, and
/// ends too.
///
/// # Errors
/// When the log cannot be opened; as [`start`].
pub fn supervise(
    spec: &Spec,
    log: Option<Log<'_>>,
    stdin: bool,
    ended: impl FnOnce(Identity, i32),
) -> Result<Supervised> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .map_err(Error::at("open", "\"/dev/null\""))?;
    let log = log.unwrap_or(Log { path: Path::new("/dev/null"), limit: None });
    let log = Open::new(log).map_err(Error::at("open", format_args!("{:?}", log.path)))?;
    let (channel, inside) = Channel::pair()?;
    sys::fork(|| {
        sys::close_others(&mut [null.as_raw_fd(), log.descriptor(), inside.as_fd().as_raw_fd()]);
        match detach(&null).and_then(|()| begin(spec, stdin, &inside)) {
            // The caller has gone.
            Ok(None) => 125,
            Ok(Some((running, held))) => {
                if let Err(error) = inside.ready() {
                    // The caller must not leave a process that it takes for one that never ran. It sees our end, if this does
                    // not arrive either.
                    running.kill();
                    inside.fail(&error);
                    return 125;
                }
                sys::close_others(&mut supervised_descriptors(&running, &held, &log));
                let identity = running.identity();
                ended(identity, attend(running, held, log));
                0
            }
            Err(error) => {
                inside.fail(&error);
                error.status()
            }
        }
    })
    .map_err(Error::at("fork", ""))?;
    drop(inside);
    match channel.receive()? {
        Some(Message::Identity(identity)) => Ok(Supervised { identity, channel }),
        Some(Message::Failure(error)) => Err(error),
        _ => Err(Error::new("start: the supervisor ended")),
    }
}

fn supervised_descriptors(running: &Running, held: &Held, log: &Open) -> Vec<i32> {
    let always = [running.as_fd().as_raw_fd(), held.shown.as_raw_fd(), log.descriptor()];
    let others = [&running.terminal, &held.typed].into_iter().flatten().chain(&running.namespaces);
    let rest = running.rest.as_ref().map(|group| group.as_fd().as_raw_fd());
    always.into_iter().chain(others.map(AsRawFd::as_raw_fd)).chain(rest).collect()
}

fn detach(null: &OwnedFd) -> Result<()> {
    let detach = || {
        rustix::process::setsid()?;
        rustix::process::chdir("/")?;
        rustix::stdio::dup2_stdin(null)?;
        rustix::stdio::dup2_stdout(null)?;
        rustix::stdio::dup2_stderr(null)?;
        sys::reset_signals()?;
        // It outlives the caller, whose arguments may hold secrets. What it still needs it has in variables.
        let _ = sys::forget_arguments();
        // The log may be a pipe, and its reader may go.
        sys::ignore_broken_pipes()
    };
    detach().map_err(Error::at::<Errno>("detach", "from the caller"))
}

fn begin(spec: &Spec, stdin: bool, channel: &Channel) -> Result<Option<(Running, Held)>> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(Error::at("create", "pipe"));
    let (shown, out) = pipe()?;
    let (input, typed) =
        if stdin { pipe().map(|(input, typed)| (Some(input), Some(typed)))? } else { (None, None) };
    let streams = Streams {
        stdin: input.as_ref().map_or(Stdio::Null, |input| Stdio::Fd(input.as_fd())),
        stdout: Stdio::Fd(out.as_fd()),
        stderr: Stdio::Fd(out.as_fd()),
    };
    let started: Started = start(spec, streams)?;
    channel.identify(started.identity())?;
    let Some(Message::Ready) = channel.receive()? else { return Ok(None) };
    let running = started.release()?;
    for warning in &running.warnings {
        channel.warn(&Error::new(warning));
    }
    Ok(Some((running, Held { shown, typed })))
}

/// How much output of an ended process is still read: more than a pipe holds. Another process may have the pipe open,
/// and write without end.
const LAST: usize = 1 << 20;

/// Waits until the process ends, and writes its output to the log.
fn attend(mut running: Running, held: Held, mut log: Open) -> i32 {
    let source = running.terminal.take().unwrap_or(held.shown);
    sys::set_nonblocking(&source);
    loop {
        let ended = {
            let mut fds = [PollFd::new(&running, PollFlags::IN), PollFd::new(&source, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(_) => break,
                Ok(_) => !fds[0].revents().is_empty(),
            }
        };
        if drain(&source, &mut log) || ended {
            break;
        }
    }
    running.wait().unwrap_or(125)
}

/// Appends the available output to the log. Returns whether that was the end.
fn drain(source: &OwnedFd, log: &mut Open) -> bool {
    let mut buffer = [0_u8; 64 << 10];
    let mut taken = 0;
    while taken < LAST {
        match rustix::io::read(source, &mut buffer) {
            Ok(length @ 1..) => {
                taken += length;
                log.append(&buffer[..length]);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            // The end; for a terminal it is EIO: the last program that had it open is gone.
            _ => return true,
        }
    }
    false
}

impl Supervised {
    /// The pid and start time of the process, to be recorded before its release.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Lets it execute its command; returns as soon as it does, with warnings about things that failed but did not
    /// matter enough.
    ///
    /// # Errors
    /// The error, with the exit status of a shell: 125, 126 or 127. The process has ended then.
    pub fn release(self) -> Result<Vec<String>> {
        self.channel.ready()?;
        let mut warnings = Vec::new();
        loop {
            match self.channel.receive()? {
                Some(Message::Warning(text)) => warnings.push(text),
                Some(Message::Ready) => return Ok(warnings),
                Some(Message::Failure(error)) => return Err(error),
                _ => return Err(Error::new("start: the supervisor ended")),
            }
        }
    }
}
