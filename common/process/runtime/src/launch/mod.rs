//! Starts a process in its surroundings, and waits for it.

mod cgroups;
mod channel;
mod child;
mod command;
mod credentials;
mod devices;
mod held;
mod init;
mod join;
mod namespaces;
mod parameters;
mod root;
mod stdio;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use cgroup::Group;
use oci_spec::runtime::{Process, Spec};
use rustix::{
    io::Errno,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};

use seccomp::Program;

use crate::{
    Error, Identity,
    error::Result,
    spec::is_first_of_pids,
    sys::{self, ProgramFile, Report},
};
pub use cgroups::device_rules;
pub(crate) use channel::{Channel, Message};
pub(crate) use devices::{DevEntry, entries as dev_entries};
use namespaces::Namespaces;
pub(crate) use root::kind_of;
pub use stdio::{Stdio, Streams};

/// The surroundings of a new process.
pub(crate) enum Surroundings<'a> {
    /// New namespaces and a root file system.
    New(&'a Spec),
    /// Those of a running container.
    Joined(&'a Joined),
}

/// What a process that joins a container has besides its namespaces.
#[derive(Debug)]
pub(crate) struct Joined {
    report: Report,
    /// The file of the container's first process: where the joining one's `/proc/self/exe` leads until it executes its own.
    program: Option<OwnedFd>,
}

/// A forked process that waits before it executes its command. If this is dropped, it ends.
#[derive(Debug)]
pub struct Started {
    identity: Identity,
    process: OwnedFd,
    /// One byte releases it; closing ends it.
    gate: Option<OwnedFd>,
    channel: Channel,
    joined: Option<Joined>,
    rest: Option<Group>,
    /// Dropped when the process runs: see there.
    _program: Option<ProgramFile>,
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
    /// The namespaces of the container that it is the first process of, held for others that join (see `held`).
    pub(crate) namespaces: Vec<OwnedFd>,
    /// The cgroup of a container that shares its pid namespace: what is left in it when its first process has ended.
    pub(crate) rest: Option<Group>,
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
    fork(spec, &namespaces, Surroundings::New(spec), process, streams)
}

/// Forks a process that joins the cgroup of `spec` and the namespaces that the container of `first`, its first process, was
/// started with: as `docker exec` does. The root file system and the working directory are resolved there.
///
/// # Errors
/// As [`start`]; when `first` has ended.
pub fn join(spec: &Spec, first: Identity, process: &Process, streams: Streams<'_>) -> Result<Started> {
    let namespaces = Namespaces::of(spec, first)?;
    let program = std::fs::File::open(format!("/proc/{}/exe", first.pid)).ok().map(OwnedFd::from);
    let report = Report::new().map_err(Error::at("map", "memory"))?;
    let joined = Joined { report, program };
    let mut started = fork(spec, &namespaces, Surroundings::Joined(&joined), process, streams)?;
    started.joined = Some(joined);
    Ok(started)
}

/// Starts `spec`, lets it run, and waits for its end.
///
/// # Errors
/// As [`start`] and [`Started::release`].
pub fn run(spec: &Spec, streams: Streams<'_>) -> Result<i32> {
    start(spec, streams)?.release()?.wait()
}

fn fork(
    spec: &Spec,
    namespaces: &Namespaces,
    surroundings: Surroundings<'_>,
    process: &Process,
    streams: Streams<'_>,
) -> Result<Started> {
    let own_group = cgroups::of(spec)?;
    let group = own_group.as_ref();
    let policy = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let program = policy.map(Program::compile).transpose().map_err(Error::new)?;
    let is_new = matches!(surroundings, Surroundings::New(_));
    // A socket, not a pipe: writing to a pipe without a reader can send a signal that ends the writer.
    let (gate_inside, gate) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::at("create", "socket"))?;
    let (channel, channel_inside) = Channel::pair()?;
    let own = ProgramFile::open();
    let body = |is_inside: bool| {
        let gate_inside = gate_inside.as_fd();
        let begin = || {
            if let Some(group) = group {
                group.enter(is_inside)?;
            }
            let mut kept = [gate_inside, channel_inside.as_fd()].to_vec();
            kept.extend(streams.descriptors());
            kept.extend(own.as_ref().map(AsFd::as_fd));
            kept.extend(namespaces.descriptors());
            if let Surroundings::Joined(Joined { program: Some(program), .. }) = surroundings {
                kept.push(program.as_fd());
            }
            let mut kept: Vec<i32> = kept.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
            // This includes the other end of the gate: otherwise it would not close when the caller dies.
            sys::close_others(&mut kept);
            child::run(
                namespaces,
                &surroundings,
                process,
                (program.as_ref(), own.as_ref()),
                &streams,
                gate_inside,
                &channel_inside,
            )
        };
        let Err(error) = begin() else { return 0 };
        channel_inside.fail(&error);
        error.status()
    };
    let group_inside = group.map(|group| group.unified.as_fd());
    let pid = match is_new {
        true => namespaces.fork(group_inside, body),
        false => Namespaces::fork_beside(group_inside, body),
    }?;
    // Only this process has it from now on: when the other side closes, the program was executed.
    drop(channel_inside);
    let process = Pid::from_raw(pid)
        .ok_or(Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(Error::at("open", format_args!("process {pid}")))?;
    let identity = Identity::of(pid)?;
    let mut started = Started {
        identity,
        process,
        gate: Some(gate),
        channel,
        joined: None,
        rest: None,
        _program: own,
        reaped: false,
    };
    if let Some(group) = own_group.filter(|_| is_new) {
        // While the process makes its surroundings: it runs nothing of the container's yet.
        group.limit_devices()?;
        started.rest = Some(group.unified).filter(|_| !is_first_of_pids(spec));
    }
    Ok(started)
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
            match send(&gate, &[1], SendFlags::NOSIGNAL) {
                // It has ended, and says why below.
                Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
                Err(errno) => return Err(Error::system("release", "the process", errno)),
            }
        }
        let (mut warnings, mut terminal, mut namespaces) = (Vec::new(), None, Vec::new());
        let (mut command, mut has_begun) = (String::new(), false);
        loop {
            match self.channel.receive()? {
                Some(Message::Warning(text)) => warnings.push(text),
                Some(Message::Terminal(master)) => terminal = Some(master),
                Some(Message::Namespaces(own)) => namespaces = held::in_a_row(&own)?,
                Some(Message::Command(path)) => command = path,
                Some(Message::Failure(error)) => return Err(error),
                // Of a first process that stays what it is, and has started the command.
                Some(Message::Ready) => has_begun = true,
                Some(Message::Identity(_)) => {}
                None => break,
            }
        }
        let process = self.process.try_clone().map_err(Error::at("duplicate", "descriptor"))?;
        let rest = self.rest.take();
        let running = Running { identity: self.identity, process, terminal, warnings, namespaces, rest };
        if let Some(joined) = self.joined.take() {
            return join::taken_over(self, &joined.report, &command, running);
        }
        // A process that is killed closes its side as one that executes its command does.
        if !has_begun && !self.identity.has_executed()? {
            self.reaped = true;
            return Err(never_ran(reap(&self.process)));
        }
        self.reaped = true;
        Ok(running)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.gate.take();
        if !self.reaped {
            // It would end by itself where it waits at the gate, but it may be anywhere.
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
            let _ = reap(&self.process);
        }
    }
}

impl Running {
    /// Its pid and start time.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Waits for its end and reaps it. If it was a container's first process, all others of the container end too.
    ///
    /// # Errors
    /// When it is not a child of the caller.
    pub fn wait(&mut self) -> Result<i32> {
        let status = reap(&self.process)
            .map_err(Error::at("wait", format_args!("for process {}", self.identity.pid)))?;
        self.end_rest();
        Ok(status)
    }

    /// The same without waiting: none while it runs, and while its end is kept by another process that traces it (ptrace(2)).
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub fn try_wait(&mut self) -> Result<Option<i32>> {
        let status = reap_now(&self.process, WaitIdOptions::NOHANG)
            .map_err(Error::at("wait", format_args!("for process {}", self.identity.pid)))?;
        if status.is_some() {
            self.end_rest();
        }
        Ok(status)
    }

    /// What it keeps open: for a process that closes everything else.
    pub(crate) fn descriptors(&self) -> Vec<i32> {
        let rest = self.rest.as_ref().map(|group| group.as_fd().as_raw_fd());
        let others = self.terminal.iter().chain(&self.namespaces).chain([&self.process]);
        others.map(AsRawFd::as_raw_fd).chain(rest).collect()
    }

    /// Ends it and all others of its container.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        self.end_rest();
    }

    /// The kernel does this in a pid namespace of its own. What cannot be ended here still ends when the container is undone.
    fn end_rest(&self) {
        let _ = self.rest.as_ref().map(Group::kill);
    }
}

impl AsFd for Running {
    /// A descriptor of the process (pidfd_open(2)), which becomes readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// The error of a process that ended before its command ran, and could not say why.
fn never_ran(status: std::result::Result<i32, Errno>) -> Error {
    match status {
        Ok(status @ 129..) => Error::new(format_args!(
            "start: signal {} ended the process before its command ran",
            status - 128
        )),
        _ => Error::new("start: the process ended before its command ran"),
    }
}

/// The exit status as a shell counts it.
fn reap(process: impl AsFd) -> std::result::Result<i32, Errno> {
    loop {
        if let Some(status) = reap_now(&process, WaitIdOptions::empty())? {
            return Ok(status);
        }
    }
}

fn reap_now(process: impl AsFd, options: WaitIdOptions) -> std::result::Result<Option<i32>, Errno> {
    loop {
        match waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED | options) {
            Err(Errno::INTR) => {}
            ended => {
                return Ok(ended?.map(|status| {
                    let signal = status.terminating_signal().map(|signal| 128 + signal);
                    status.exit_status().or(signal).unwrap_or(125)
                }));
            }
        }
    }
}
