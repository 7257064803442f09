//! A process in the background. A supervisor stays as its parent; what it does there is up to its caller (`monitor`).

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use oci_spec::runtime::Spec;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{
    Error, Identity, Running, Streams,
    error::Result,
    launch::{Channel, Message},
    start, sys,
};

/// A process that a supervisor has forked, waiting before its command. If this is dropped, both end.
#[derive(Debug)]
pub struct Supervised {
    identity: Identity,
    channel: Channel,
}

/// Forks a supervisor in a new session, without terminal, current directory or open files of the caller, but for `kept` and
/// those of `streams`. It starts `spec` with these streams. Once the process is released and executes its command, the
/// supervisor calls `stay` with it, has no descriptors but `kept`, and ends when that returns.
///
/// # Errors
/// As [`start`].
pub fn supervise(
    spec: &Spec,
    streams: Streams<'_>,
    kept: &[RawFd],
    stay: impl FnOnce(Running),
) -> Result<Supervised> {
    let (channel, inside) = Channel::pair()?;
    let outer: Vec<RawFd> = streams
        .descriptors()
        .chain([inside.as_fd()])
        .map(|fd| fd.as_raw_fd())
        .chain(kept.iter().copied())
        .collect();
    background(&outer, || {
        match begin(spec, streams, &inside) {
            // The caller has gone.
            Ok(None) => 125,
            Ok(Some(running)) => {
                if let Err(error) = inside.ready() {
                    // The caller must not leave a process that it takes for one that never ran. It sees our end, if this does
                    // not arrive either.
                    running.kill();
                    inside.fail(&error);
                    return 125;
                }
                let mut own = [kept, &running.descriptors()].concat();
                sys::close_others(&mut own);
                stay(running);
                0
            }
            Err(error) => {
                inside.fail(&error);
                error.status()
            }
        }
    })?;
    drop(inside);
    match channel.receive()? {
        Some(Message::Identity(identity)) => Ok(Supervised { identity, channel }),
        Some(Message::Failure(error)) => Err(error),
        _ => Err(Error::new("start: the supervisor ended")),
    }
}

/// Forks a process in a new session, without terminal, current directory or open files of the caller, but for `kept`. It calls
/// `body`, ends when that returns, and has its result as exit status.
///
/// # Errors
/// When it cannot be forked.
pub fn background(kept: &[RawFd], body: impl FnOnce() -> u8) -> Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .map_err(Error::at("open", "\"/dev/null\""))?;
    let mut kept = [kept, &[null.as_raw_fd()]].concat();
    sys::fork(|| {
        sys::close_others(&mut kept);
        match detach(&null) {
            Ok(()) => body(),
            Err(error) => error.status(),
        }
    })
    .map_err(Error::at("fork", ""))?;
    Ok(())
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

fn begin(spec: &Spec, streams: Streams<'_>, channel: &Channel) -> Result<Option<Running>> {
    let started = start(spec, streams)?;
    channel.identify(started.identity())?;
    let Some(Message::Ready) = channel.receive()? else { return Ok(None) };
    let running = started.release()?;
    for warning in &running.warnings {
        channel.warn(&Error::new(warning));
    }
    Ok(Some(running))
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
