//! Starting a process in its surroundings, and waiting for it.

mod channel;
mod child;
mod command;
mod credentials;
mod devices;
mod namespaces;
mod root;
mod stdio;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{Process, Spec};
use rustix::{
    io::Errno,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair},
    process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid},
};

use crate::{Error, Identity, error::Result, sys};
pub(crate) use channel::{Channel, Message};
pub(crate) use devices::{DevEntry, entries as dev_entries};
use namespaces::Namespaces;
pub use stdio::{Stdio, Streams};

/// What a new process finds around it.
pub(crate) enum Surroundings<'a> {
    /// Namespaces and a root file system of its own.
    New(&'a Spec),
    /// Those of a process that runs.
    Joined(BorrowedFd<'a>),
}

/// A process that has been forked, and waits before it executes its command. Dropped, it ends.
#[derive(Debug)]
pub struct Started {
    identity: Identity,
    process: OwnedFd,
    /// One byte lets it go on; that it closes ends it.
    gate: Option<OwnedFd>,
    channel: Channel,
    reaped: bool,
}

/// A process that executes its command.
#[derive(Debug)]
pub struct Running {
    identity: Identity,
    process: OwnedFd,
    /// The other side of its terminal, if it was asked to have one.
    pub terminal: Option<OwnedFd>,
    /// What could not be done, and was not worth failing for.
    pub warnings: Vec<String>,
}

/// Forks the process that `spec` describes, and lets it make its surroundings: namespaces, mounts, devices, credentials.
///
/// May be called from a program with several threads. The descriptors of `streams` become its standard streams; no
/// other descriptor stays open in it. With `process.terminal` it gets a pseudo-terminal instead.
///
/// # Errors
/// When it cannot be forked, or a namespace that it is to join cannot be opened. What goes wrong in the process itself
/// comes out of [`Started::release`].
pub fn start(spec: &Spec, streams: Streams<'_>) -> Result<Started> {
    let Some(process) = spec.process() else { return Err(Error::new("no process in the specification")) };
    let namespaces = Namespaces::open(spec)?;
    fork(&namespaces, Surroundings::New(spec), process, streams)
}

/// Forks a process that joins all namespaces of a running one, as `docker exec` does, with the root file system and the
/// working directory resolved there.
///
/// # Errors
/// As [`start`]; when `running` has ended.
pub fn join(running: BorrowedFd<'_>, process: &Process, streams: Streams<'_>) -> Result<Started> {
    let namespaces = Namespaces::of(running)?;
    fork(&namespaces, Surroundings::Joined(running), process, streams)
}

/// Starts `spec`, lets it run, and waits for its end.
///
/// # Errors
/// As [`start`] and [`Started::release`].
pub fn run(spec: &Spec, streams: Streams<'_>) -> Result<i32> {
    start(spec, streams)?.release()?.wait()
}

fn fork(
    namespaces: &Namespaces,
    surroundings: Surroundings<'_>,
    process: &Process,
    streams: Streams<'_>,
) -> Result<Started> {
    // A socket, not a pipe: who writes to one whose other side has gone may be told so by a signal that ends him.
    let (gate_inside, gate) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::at("create", "socket"))?;
    let (channel, channel_inside) = Channel::pair()?;
    let pid = namespaces.fork(|| {
        let gate_inside = gate_inside.as_fd();
        let begin = || {
            let mut kept = [gate_inside, channel_inside.as_fd()].to_vec();
            kept.extend(streams.descriptors());
            kept.extend(namespaces.descriptors());
            if let Surroundings::Joined(running) = surroundings {
                kept.push(running);
            }
            let mut kept: Vec<i32> = kept.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
            // The gate's other end among them: else it would not close when the caller dies.
            sys::close_others(&mut kept);
            child::run(namespaces, &surroundings, process, &streams, gate_inside, &channel_inside)
        };
        let Err(error) = begin();
        channel_inside.fail(&error);
        error.status()
    })?;
    // Ours alone from now on: that the other side closes tells that the program was executed.
    drop(channel_inside);
    let process = Pid::from_raw(pid)
        .ok_or(Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(Error::at("open", format_args!("process {pid}")))?;
    let identity = Identity::of(pid)?;
    Ok(Started { identity, process, gate: Some(gate), channel, reaped: false })
}

impl Started {
    /// Its pid and start time, to be written down before it is released.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Lets it execute its command; returns as soon as it does.
    ///
    /// # Errors
    /// What went wrong in it, with the exit status that a shell would give: 125, 126 or 127. It has ended then.
    pub fn release(mut self) -> Result<Running> {
        if let Some(gate) = self.gate.take() {
            // That nobody reads any more is told below.
            let _ = send(&gate, &[1], SendFlags::NOSIGNAL);
        }
        let mut warnings = Vec::new();
        let mut terminal = None;
        loop {
            match self.channel.receive()? {
                Some(Message::Warning(text)) => warnings.push(text),
                Some(Message::Terminal(master)) => terminal = Some(master),
                Some(Message::Failure(error)) => return Err(error),
                Some(Message::Ready | Message::Identity(_)) => {}
                None => break,
            }
        }
        self.reaped = true;
        let process = self.process.try_clone().map_err(Error::at("duplicate", "descriptor"))?;
        Ok(Running { identity: self.identity, process, terminal, warnings })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.gate.take();
        if !self.reaped {
            let _ = reap(&self.process);
        }
    }
}

impl Running {
    /// Its pid and start time.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// When it is no child of the caller.
    pub fn wait(&mut self) -> Result<i32> {
        reap(&self.process).map_err(Error::at("wait", format_args!("for process {}", self.identity.pid)))
    }
}

impl AsFd for Running {
    /// A descriptor of the process (pidfd_open(2)), which is readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// The exit status as a shell counts it.
fn reap(process: &OwnedFd) -> std::result::Result<i32, Errno> {
    loop {
        match waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) | Ok(None) => {}
            Err(errno) => return Err(errno),
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return Ok(status.exit_status().or(signal).unwrap_or(125));
            }
        }
    }
}
