//! Starts a process in the background. A supervisor stays as its parent; the caller decides what it does
//! there (`monitor`).

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use oci_spec::runtime::Spec;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

use crate::{
    Error, Identity, Running, Streams,
    error::Result,
    launch::{Channel, Message},
    start, sys,
};

/// A process that a supervisor has forked. It waits before its command. If this value is dropped, both end.
#[derive(Debug)]
pub struct Supervised {
    identity: Identity,
    channel: Channel,
}

/// Forks a supervisor in a new session, without the caller's terminal, current directory and open files,
/// except for `kept` and `streams`. It starts `spec` with these streams. Once the process is released and
/// executes its command, the supervisor closes all descriptors but `kept` and those of the process, calls
/// `stay` with the process, and ends when that returns.
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
            // The caller is gone.
            Ok(None) => 125,
            Ok(Some(running)) => {
                if let Err(error) = inside.ready() {
                    // The caller would take this process for one that never ran, so the process must not
                    // stay. If the error does not arrive either, the caller sees the end of this supervisor.
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

/// Forks a process in a new session, without the caller's terminal, current directory and open files, except
/// for `kept`. It calls `body`, and ends with the result as its exit status.
///
/// # Errors
/// When the process cannot be forked.
pub fn background(kept: &[RawFd], body: impl FnOnce() -> u8) -> Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .map_err(Error::at("open", "\"/dev/null\""))?;
    let (has_left, leaves) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::at("create", "pipe"))?;
    let mut kept = [kept, &[null.as_raw_fd(), leaves.as_raw_fd()]].concat();
    sys::fork(move || {
        sys::close_others(&mut kept);
        match detach(&null) {
            Ok(()) => {
                drop(leaves);
                body()
            }
            Err(errno) => {
                let _ = rustix::io::write(&leaves, &errno.raw_os_error().to_ne_bytes());
                125
            }
        }
    })
    .map_err(Error::at("fork", ""))?;
    // The caller's end may close its terminal, whose signal must not reach the new process any more.
    let mut why = [0; size_of::<i32>()];
    match rustix::io::retry_on_intr(|| rustix::io::read(&has_left, &mut why)) {
        Ok(length) if length == why.len() => {
            let errno = Errno::from_raw_os_error(i32::from_ne_bytes(why));
            Err(Error::system("detach", "from the caller", errno))
        }
        _ => Ok(()),
    }
}

fn detach(null: &OwnedFd) -> std::result::Result<(), Errno> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(null)?;
    rustix::stdio::dup2_stderr(null)?;
    sys::reset_signals()?;
    // This process outlives the caller, whose arguments may hold secrets. It has what it still needs in
    // variables.
    let _ = sys::forget_arguments();
    // The log may be a pipe whose reader goes away.
    sys::ignore_broken_pipes()
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

    /// Lets the process execute its command. Returns as soon as it does, with warnings about failures that
    /// did not stop it.
    ///
    /// # Errors
    /// When the command is not executed: the error, with the exit status 125, 126 or 127, as of a shell. The
    /// process has ended then.
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
