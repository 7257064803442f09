//! A process in the background: somebody has to stay who is its parent, takes its exit status and, if it has a terminal,
//! holds the other side of it.

use std::{
    io::Write,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use oci_spec::runtime::Spec;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{
    Error, Identity, Running, Started, Stdio, Streams,
    error::Result,
    launch::{Channel, Message},
    start, sys,
};

/// A process that a supervisor has forked, and that waits before it executes its command. Dropped, both end.
#[derive(Debug)]
pub struct Supervised {
    identity: Identity,
    channel: Channel,
}

/// Forks a supervisor in a session of its own, without terminal, current directory or open files of the caller, which
/// starts `spec` with its output appended to the file `log` (or written for nobody). When the process ends, `ended` is
/// called with its exit status, as a shell counts it, in the supervisor, which then ends too.
///
/// # Errors
/// When the log cannot be opened; as [`start`].
pub fn supervise(spec: &Spec, log: Option<&Path>, ended: impl FnOnce(Identity, i32)) -> Result<Supervised> {
    let open = |path: &Path, flags| {
        rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::from_raw_mode(0o640))
            .map_err(Error::at(format_args!("open {path:?}")))
    };
    let null = open(Path::new("/dev/null"), OFlags::RDWR)?;
    let log = match log {
        Some(path) => open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?,
        None => open(Path::new("/dev/null"), OFlags::WRONLY)?,
    };
    let (channel, inside) = Channel::pair()?;
    sys::fork(|| {
        sys::close_others(&mut [null.as_raw_fd(), log.as_raw_fd(), inside.as_fd().as_raw_fd()]);
        match detach(&null).and_then(|()| begin(spec, &log, &inside)) {
            // Whoever asked for it has gone.
            Ok(None) => 125,
            Ok(Some(running)) => {
                inside.ready();
                sys::close_others(&mut supervised_descriptors(&running, &log));
                let identity = running.identity();
                ended(identity, attend(running, log));
                0
            }
            Err(error) => {
                inside.fail(&error);
                error.status()
            }
        }
    })
    .map_err(Error::at("fork"))?;
    drop(inside);
    match channel.receive()? {
        Some(Message::Identity(identity)) => Ok(Supervised { identity, channel }),
        Some(Message::Failure(error)) => Err(error),
        _ => Err(Error::new("start: the supervisor ended")),
    }
}

fn supervised_descriptors(running: &Running, log: &OwnedFd) -> Vec<i32> {
    let mut list = vec![running.as_fd().as_raw_fd(), log.as_raw_fd()];
    list.extend(running.terminal.as_ref().map(AsRawFd::as_raw_fd));
    list
}

fn detach(null: &OwnedFd) -> Result<()> {
    let detach = || {
        rustix::process::setsid()?;
        rustix::process::chdir("/")?;
        rustix::stdio::dup2_stdin(null)?;
        rustix::stdio::dup2_stdout(null)?;
        rustix::stdio::dup2_stderr(null)?;
        sys::reset_signals()
    };
    detach().map_err(Error::at::<Errno>("detach from the caller"))
}

fn begin(spec: &Spec, log: &OwnedFd, channel: &Channel) -> Result<Option<Running>> {
    let out = Stdio::Fd(log.as_fd());
    let started: Started = start(spec, Streams { stdin: Stdio::Null, stdout: out, stderr: out })?;
    channel.identify(started.identity());
    let Some(Message::Ready) = channel.receive()? else { return Ok(None) };
    let running = started.release()?;
    for warning in &running.warnings {
        channel.warn(&Error::new(warning));
    }
    Ok(Some(running))
}

/// Stays until the process ends.
fn attend(mut running: Running, log: OwnedFd) -> i32 {
    if let Some(terminal) = running.terminal.take() {
        let mut log = std::fs::File::from(log);
        let mut buffer = [0_u8; 8192];
        loop {
            match rustix::io::read(&terminal, &mut buffer) {
                // A log that is full is no reason to hold the process up.
                Ok(length @ 1..) => drop(log.write_all(&buffer[..length])),
                Err(Errno::INTR) => {}
                // EIO: the last program that had it open is gone.
                _ => break,
            }
        }
    }
    running.wait().unwrap_or(125)
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
