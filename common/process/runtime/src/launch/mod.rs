//! Starts a process in its surroundings, and waits for it.

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

/// The surroundings of a new process.
pub(crate) enum Surroundings<'a> {
    /// New namespaces and a root file system.
    New(&'a Spec),
    /// Those of a running process.
    Joined(BorrowedFd<'a>),
}

/// A forked process that waits before it executes its command. If this is dropped, it ends.
#[derive(Debug)]
pub struct Started {
    identity: Identity,
    process: OwnedFd,
    /// One byte releases it; closing ends it.
    gate: Option<OwnedFd>,
    channel: Channel,
    reaped: bool,
}

/// A process that executes its command.
#[derive(Debug)]
pub struct Running {
    identity: Identity,
    process: OwnedFd,
    /// The other side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    /// What failed without being important enough to stop.
    pub warnings: Vec<String>,
}

/// Forks the process that `spec` describes, and lets it make its surroundings: namespaces, mounts, devices, credentials.
///
/// May be called from a program with several threads. The descriptors of `streams` become its standard streams; it
/// keeps no others. With `process.terminal` it gets a pseudo-terminal instead.
///
/// # Errors
/// When it cannot be forked, or a namespace to join cannot be opened. Errors in the process itself come from
/// [`Started::release`].
pub fn start(spec: &Spec, streams: Streams<'_>) -> Result<Started> {
    let Some(process) = spec.process() else { return Err(Error::new("no process in the specification")) };
    let namespaces = Namespaces::open(spec)?;
    fork(&namespaces, Surroundings::New(spec), process, streams)
}

/// Forks a process that joins all namespaces of a running one, as `docker exec` does. The root file system and the
/// working directory are resolved there.
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
    // A socket, not a pipe: writing to a pipe without a reader can send a signal that ends the writer.
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
            // This includes the other end of the gate: otherwise it would not close when the caller dies.
            sys::close_others(&mut kept);
            child::run(namespaces, &surroundings, process, &streams, gate_inside, &channel_inside)
        };
        let Err(error) = begin();
        channel_inside.fail(&error);
        error.status()
    })?;
    // Only this process has it from now on: when the other side closes, the program was executed.
    drop(channel_inside);
    let process = Pid::from_raw(pid)
        .ok_or(Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(Error::at("open", format_args!("process {pid}")))?;
    let identity = Identity::of(pid)?;
    Ok(Started { identity, process, gate: Some(gate), channel, reaped: false })
}

impl Started {
    /// Its pid and start time, to be recorded before its release.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Lets it execute its command; returns as soon as it does.
    ///
    /// # Errors
    /// Its error, with the exit status of a shell: 125, 126 or 127. It has ended then.
    pub fn release(mut self) -> Result<Running> {
        if let Some(gate) = self.gate.take() {
            // A closed gate is reported below.
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
    /// When it is not a child of the caller.
    pub fn wait(&mut self) -> Result<i32> {
        reap(&self.process).map_err(Error::at("wait", format_args!("for process {}", self.identity.pid)))
    }
}

impl AsFd for Running {
    /// A descriptor of the process (pidfd_open(2)), which becomes readable when it has ended.
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
