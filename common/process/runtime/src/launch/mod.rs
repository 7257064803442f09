//! Starts a process in its surroundings, and waits for it.

mod cgroup_mounts;
mod cgroups;
mod channel;
mod child;
mod clocks;
mod command;
mod contained;
mod credentials;
mod devices;
mod fork;
mod gate;
mod held;
mod init;
mod join;
mod kernel;
mod moved;
mod namespaces;
mod parameters;
mod profile;
mod root;
mod running;
mod scheduling;
mod sources;
pub(crate) mod stdio;

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use cgroup::Group;
use oci_spec::runtime::{Process, Spec};
use rustix::process::{Signal, pidfd_send_signal};

use running::{never_ran, reap};
use seccomp::Program;

use crate::{
    Error, Identity, ended,
    error::Result,
    sys::{self, ProgramFile, Report},
};
pub use cgroups::device_rules;
pub(crate) use channel::{Channel, Message};
pub use contained::{Contained, Created, Handed, StartSocket, begin, create, join as join_contained};
pub(crate) use devices::{DevEntry, entries as dev_entries};
use fork::fork;
pub use held::is_own_namespace;
use namespaces::Namespaces;
pub use profile::has_apparmor;
pub(crate) use root::kind_of;
pub use stdio::{Stdio, Streams, is_null_device};

/// The surroundings of a new process.
pub(crate) enum Surroundings<'a> {
    /// New namespaces and a root file system.
    New,
    /// The namespaces of a running container.
    Joined(&'a Joined),
}

/// What a process that joins a container has, besides its namespaces.
#[derive(Debug)]
pub(crate) struct Joined {
    report: Report,
    /// The program file of the container's first process. The joining process's `/proc/self/exe` leads to it until
    /// the command is executed.
    program: Option<OwnedFd>,
}

/// The seccomp policy of a new process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Filter<'a> {
    None,
    /// The program for a process that its creator does not release.
    Ready(&'a Program),
    /// The program comes when the process is released. It is compiled while the process makes its surroundings.
    Awaited,
}

/// Everything that a new process begins with.
pub(crate) struct Birth<'a> {
    spec: &'a Spec,
    namespaces: &'a Namespaces,
    surroundings: &'a Surroundings<'a>,
    process: &'a Process,
    filter: Filter<'a>,
    own: Option<&'a ProgramFile>,
    streams: &'a Streams<'a>,
    gate: BorrowedFd<'a>,
    channel: &'a Channel,
    contained: Option<&'a Contained<'a>>,
    /// Mounts that the caller has made, at their positions in the specification.
    prepared: &'a [Option<root::Source>],
}

impl Birth<'_> {
    /// Closes what the process does not need. This includes the other end of the gate: otherwise it would not
    /// close when the caller dies.
    fn close_others(&self) {
        let mut kept = vec![self.gate, self.channel.as_fd()];
        kept.extend(self.streams.descriptors());
        kept.extend(self.own.map(AsFd::as_fd));
        kept.extend(self.namespaces.descriptors());
        kept.extend(self.prepared.iter().flatten().map(|(mount, _)| mount.as_fd()));
        kept.extend(self.contained.and_then(|contained| contained.start).map(AsFd::as_fd));
        if let Surroundings::Joined(Joined { program: Some(program), .. }) = self.surroundings {
            kept.push(program.as_fd());
        }
        let mut kept: Vec<i32> = kept.iter().map(AsRawFd::as_raw_fd).collect();
        kept.extend(self.preserved());
        sys::close_others(&mut kept);
    }

    /// Limits a process that joins a container to the processors on which it begins. The command may run on
    /// others.
    fn start_on_processors(&self) -> Result<()> {
        let joins = self.contained.is_some() && matches!(self.surroundings, Surroundings::Joined(_));
        let affinity = self.process.exec_cpu_affinity().as_ref().filter(|_| joins);
        scheduling::affinity(affinity.and_then(|affinity| affinity.initial().as_ref()))
    }

    /// The descriptors that the command gets besides its streams.
    fn preserved(&self) -> &[i32] {
        self.contained.map_or(&[], |contained| contained.preserved)
    }
}

/// A forked process that waits before it executes its command. If this value is dropped, the process ends.
#[derive(Debug)]
pub struct Started {
    identity: Identity,
    process: OwnedFd,
    /// A message releases the process, and closing ends it (see [`gate`]).
    gate: Option<OwnedFd>,
    /// The seccomp program that the process awaits.
    program: Option<Program>,
    channel: Channel,
    joined: Option<Joined>,
    rest: Option<Group>,
    /// Dropped when the process runs (see [`ProgramFile`]).
    _program: Option<ProgramFile>,
    reaped: bool,
    /// By when the command must run, and how long that was.
    until: Option<(Instant, Duration)>,
}

/// A process that executes its command.
#[derive(Debug)]
pub struct Running {
    identity: Identity,
    process: OwnedFd,
    /// The outer side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    /// Warnings about failures that did not stop it.
    pub warnings: Vec<String>,
    /// The namespaces of the container, if this is its first process. They are held for processes that join
    /// (see `held`).
    pub(crate) namespaces: Vec<OwnedFd>,
    /// The cgroup of a container that shares its pid namespace. It has the processes that are left when the
    /// first one has ended.
    pub(crate) rest: Option<Group>,
}

/// Forks the process that `spec` describes, and lets it make its surroundings: namespaces, mounts, devices,
/// credentials.
///
/// A program with several threads may call this. The descriptors of `streams` become the process's standard
/// streams; it keeps no others. With `process.terminal`, it gets a pseudo-terminal instead.
///
/// # Errors
/// When the process cannot be forked, or a namespace to join cannot be opened. [`Started::release`] returns
/// the errors of the process itself.
pub fn start(spec: &Spec, streams: Streams<'_>) -> Result<Started> {
    let Some(process) = spec.process() else { return Err(Error::new("no process in the specification")) };
    let namespaces = Namespaces::open(spec, false)?;
    fork(spec, &namespaces, Surroundings::New, process, streams, None)
}

/// Forks a process that joins a running container, as `docker exec` does: the cgroup of `spec`, and the
/// namespaces that the container was started with. `first` is the container's first process. The root file
/// system and the working directory are resolved in the container.
///
/// # Errors
/// As [`start`]; when `first` has ended.
pub fn join(spec: &Spec, first: Identity, process: &Process, streams: Streams<'_>) -> Result<Started> {
    join_with(spec, first, process, streams, None)
}

fn join_with(
    spec: &Spec,
    first: Identity,
    process: &Process,
    streams: Streams<'_>,
    contained: Option<&Contained<'_>>,
) -> Result<Started> {
    let namespaces = Namespaces::of(spec, first, contained.is_some())?;
    let program = std::fs::File::open(format!("/proc/{}/exe", first.pid)).ok().map(OwnedFd::from);
    let report = Report::new().map_err(Error::at("map", "memory"))?;
    let joined = Joined { report, program };
    let mut started = fork(spec, &namespaces, Surroundings::Joined(&joined), process, streams, contained)?;
    started.joined = Some(joined);
    Ok(started)
}

/// Starts the process of `spec`, lets it run, and waits for its end. Returns its exit status as a shell
/// counts it.
///
/// # Errors
/// As [`start`] and [`Started::release`].
pub fn run(spec: &Spec, streams: Streams<'_>) -> Result<i32> {
    start(spec, streams)?.release()?.wait()
}

impl Started {
    /// A process that has just been born.
    fn born(process: OwnedFd, identity: Identity, gate: OwnedFd, channel: Channel) -> Self {
        Self {
            identity,
            process,
            gate: Some(gate),
            program: None,
            channel,
            joined: None,
            rest: None,
            _program: None,
            reaped: false,
            until: None,
        }
    }

    /// The pid and start time of the process, to record before its release.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Lets the process execute its command. Returns as soon as it does.
    ///
    /// # Errors
    /// When the command is not executed: the error, with the exit status 125, 126 or 127, as of a shell. The
    /// process has ended then.
    pub fn release(self) -> Result<Running> {
        self.release_with(|_| {
            Err(operation::Error::new("answer", "system calls of the process", "nobody does"))
        })
    }

    /// As [`Started::release`], but gives up after this time: the processes of a container can stop one that joins.
    ///
    /// # Errors
    /// As [`Started::release`]; when the command does not run by then.
    pub fn release_within(mut self, limit: Duration) -> Result<Running> {
        self.until = Some((Instant::now() + limit, limit));
        self.release()
    }

    /// Waits until something can be read, as long as the process may take.
    fn in_time(&self, from: impl AsFd) -> Result<()> {
        let Some((until, limit)) = self.until else { return Ok(()) };
        match ended(from, Some(until.saturating_duration_since(Instant::now()))) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(format_args!("start: the command did not run within {limit:?}"))),
            Err(errno) => Err(Error::system("wait", "for the process", errno)),
        }
    }

    /// As [`Started::release`]. `on_notifications` gets the descriptor on which system calls arrive that the
    /// seccomp policy passes to another program.
    ///
    /// # Errors
    /// As [`Started::release`].
    pub fn release_with(
        mut self,
        mut on_notifications: impl FnMut(OwnedFd) -> std::result::Result<(), operation::Error>,
    ) -> Result<Running> {
        if let Some(gate) = self.gate.take() {
            gate::open(&gate, self.program.take().as_ref())?;
        }
        let (mut warnings, mut terminal, mut namespaces) = (Vec::new(), None, Vec::new());
        let (mut command, mut has_begun) = (String::new(), false);
        loop {
            self.in_time(&self.channel)?;
            match self.channel.receive()? {
                Some(Message::Warning(text)) => warnings.push(text),
                Some(Message::Terminal(master)) => terminal = Some(master),
                Some(Message::Namespaces(own)) => namespaces = held::in_a_row(&own)?,
                Some(Message::Command(path)) => command = path,
                Some(Message::Failure(error)) => return Err(error),
                // From an init process, which stays and has started the command.
                Some(Message::Ready) => has_begun = true,
                Some(Message::Notifications(listener)) => {
                    on_notifications(listener)?;
                    self.channel.ready()?;
                }
                Some(Message::Identity(_) | Message::Hooks) => {}
                None => break,
            }
        }
        let process = self.process.try_clone().map_err(Error::at("duplicate", "descriptor"))?;
        let rest = self.rest.take();
        let running = Running { identity: self.identity, process, terminal, warnings, namespaces, rest };
        if let Some(joined) = self.joined.take() {
            return join::taken_over(self, &joined.report, &command, running);
        }
        // A killed process closes its side just like one that executes its command.
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
            // The process would end by itself at the gate, but it may be anywhere.
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
            let _ = reap(&self.process);
        }
    }
}
