//! A process in the background: somebody has to stay who is its parent, takes its exit status, writes down what it prints
//! and, if it has a terminal, holds the other side of it.

use std::{
    io::Write,
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
    Error, Identity, Running, Started, Stdio, Streams,
    error::Result,
    launch::{Channel, Message},
    start, sys,
};

/// What the supervisor has of its process's streams.
struct Held {
    /// What the process prints comes out of it. Not the log itself: a program that opens `/dev/stdout` would truncate that,
    /// and one that is not root could not.
    shown: OwnedFd,
    /// The other end of its standard input, which stays open, and into which nobody writes.
    typed: Option<OwnedFd>,
}

/// A process that a supervisor has forked, and that waits before it executes its command. Dropped, both end.
#[derive(Debug)]
pub struct Supervised {
    identity: Identity,
    channel: Channel,
}

/// Forks a supervisor in a session of its own, without terminal, current directory or open files of the caller, which
/// starts `spec` with its output appended to the file `log` (or written for nobody). Its standard input is at its end, or,
/// with `stdin`, open without ever giving anything. When the process ends, `ended` is called with its exit status, as a
/// shell counts it, in the supervisor, which then ends too.
///
/// # Errors
/// When the log cannot be opened; as [`start`].
pub fn supervise(
    spec: &Spec,
    log: Option<&Path>,
    stdin: bool,
    ended: impl FnOnce(Identity, i32),
) -> Result<Supervised> {
    let open = |path: &Path, flags| {
        rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::from_raw_mode(0o640))
            .map_err(Error::at("open", format_args!("{path:?}")))
    };
    let null = open(Path::new("/dev/null"), OFlags::RDWR)?;
    let log = match log {
        Some(path) => open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?,
        None => open(Path::new("/dev/null"), OFlags::WRONLY)?,
    };
    let (channel, inside) = Channel::pair()?;
    sys::fork(|| {
        sys::close_others(&mut [null.as_raw_fd(), log.as_raw_fd(), inside.as_fd().as_raw_fd()]);
        match detach(&null).and_then(|()| begin(spec, stdin, &inside)) {
            // Whoever asked for it has gone.
            Ok(None) => 125,
            Ok(Some((running, held))) => {
                inside.ready();
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

fn supervised_descriptors(running: &Running, held: &Held, log: &OwnedFd) -> Vec<i32> {
    let always = [running.as_fd().as_raw_fd(), held.shown.as_raw_fd(), log.as_raw_fd()];
    let others = [&running.terminal, &held.typed].into_iter().flatten().map(AsRawFd::as_raw_fd);
    always.into_iter().chain(others).collect()
}

fn detach(null: &OwnedFd) -> Result<()> {
    let detach = || {
        rustix::process::setsid()?;
        rustix::process::chdir("/")?;
        rustix::stdio::dup2_stdin(null)?;
        rustix::stdio::dup2_stdout(null)?;
        rustix::stdio::dup2_stderr(null)?;
        sys::reset_signals()?;
        // The log may be a pipe, and whoever reads it go.
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
    channel.identify(started.identity());
    let Some(Message::Ready) = channel.receive()? else { return Ok(None) };
    let running = started.release()?;
    for warning in &running.warnings {
        channel.warn(&Error::new(warning));
    }
    Ok(Some((running, Held { shown, typed })))
}

/// How much is still taken of what a process has printed that is gone: more than a pipe holds. Somebody else may have it
/// open, and print without end.
const LAST: usize = 1 << 20;

/// Stays until the process ends, and writes down what it prints.
fn attend(mut running: Running, held: Held, log: OwnedFd) -> i32 {
    let source = running.terminal.take().unwrap_or(held.shown);
    let mut log = std::fs::File::from(log);
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

/// Appends to the log what there is. Returns whether that was the last.
fn drain(source: &OwnedFd, log: &mut std::fs::File) -> bool {
    let mut buffer = [0_u8; 64 << 10];
    let mut taken = 0;
    while taken < LAST {
        match rustix::io::read(source, &mut buffer) {
            Ok(length @ 1..) => {
                taken += length;
                // A log that is full is no reason to hold the process up.
                let _ = log.write_all(&buffer[..length]);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            // The end; of a terminal it is EIO: the last program that had it open is gone.
            _ => return true,
        }
    }
    false
}

impl Supervised {
    /// The pid and start time of the process, to be written down before it is released.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Lets it execute its command; returns as soon as it does, with what could not be done and was not worth failing
    /// for.
    ///
    /// # Errors
    /// What went wrong, with the exit status that a shell would give: 125, 126 or 127. It has ended then.
    pub fn release(self) -> Result<Vec<String>> {
        self.channel.ready();
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
