//! A container of OCI runtime-spec (runtime.md, "Lifecycle"). It outlives its creator, runs hooks, and waits
//! until another process starts it.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use cgroup::Group;
use oci_spec::runtime::{Hooks, Spec};
use rustix::io::Errno;
use seccomp::Program;

use super::{
    Channel, Message, Running, Started, Surroundings, credentials, fork, namespaces::Namespaces, never_ran,
    reap,
};
use crate::{Error, HookState, Identity, Streams, error::Result, hooks};

/// How to start a process of such a container, beyond its specification.
///
/// A missing privilege is an error, and a user namespace owns the other namespaces.
#[derive(Debug)]
pub struct Contained<'a> {
    /// The cgroups that the process lives in. At most one of them is of version 2.
    pub cgroups: &'a [Group],
    /// The socket on which the process waits to be started. None if [`Started::release`] starts it.
    pub start: Option<&'a StartSocket>,
    /// The open descriptors that the process keeps besides its streams.
    pub preserved: &'a [i32],
    /// Whether the process keeps its caller's session keyring.
    pub keeps_keyring: bool,
    /// Whether the root file system is moved over `/` instead of using pivot_root(2), which an initial
    /// ramdisk does not allow.
    pub without_pivot: bool,
    /// The state that the hooks get.
    pub state: &'a HookState,
}

/// The socket on which a container waits for its start.
#[derive(Debug)]
pub struct StartSocket(OwnedFd);

impl StartSocket {
    /// Makes the socket, with this name, in a directory that nobody else may enter.
    ///
    /// # Errors
    /// EADDRINUSE if the socket exists.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        Channel::listen(directory, name).map(Self)
    }
}

impl AsFd for StartSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Contained<'_> {
    /// The cgroup of version 2, if there is one. A process can be born into it.
    pub(super) fn unified(&self) -> Result<Option<BorrowedFd<'_>>> {
        for group in self.cgroups {
            if group.is_unified()? {
                return Ok(Some(group.as_fd()));
            }
        }
        Ok(None)
    }

    /// Moves the calling process into the cgroups. With `is_inside`, it is in the one of version 2 already.
    pub(super) fn enter(&self, is_inside: bool) -> Result<()> {
        for group in self.cgroups {
            if !(is_inside && group.is_unified()?) {
                group.admit(0)?;
            }
        }
        Ok(())
    }

    /// Runs hooks in the container before its root directory changes: first asks for the runtime's hooks, and
    /// then runs those of the container.
    pub(super) fn run_hooks(&self, spec: &Spec, channel: &Channel) -> Result<()> {
        let Some(all) = spec.hooks() else { return Ok(()) };
        if has(all.create_runtime()) || has(prestart(all)) {
            channel.ask_for_hooks()?;
        }
        let state = self.state.with("creating", own_pid());
        hooks::run("createContainer", all.create_container().as_ref(), &state, Some(&[]))
    }

    /// Runs hooks in the container before its command is executed. They get the command's `variables`, and are confined
    /// like the command, as in runc: their programs are the container's own. `program` is the seccomp policy.
    pub(super) fn run_start_hooks(
        &self,
        spec: &Spec,
        variables: &[CString],
        program: Option<&Program>,
    ) -> Result<()> {
        let all = spec.hooks().as_ref().and_then(|all| all.start_container().as_ref());
        let (Some(_), Some(process)) = (all, spec.process().clone()) else { return Ok(()) };
        // Such a policy applies to this process already.
        let is_confined = program.is_some_and(Program::notifies);
        let program = program.cloned();
        let confine = move || match credentials::finish(&process, program.as_ref()) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.errno().map_or_else(|| std::io::Error::other(error), Into::into)),
        };
        let confine: Option<hooks::Confine> = if is_confined { None } else { Some(Arc::new(confine)) };
        let state = self.state.with("created", own_pid());
        let surroundings = hooks::Surroundings { variables: Some(variables), directory: None, confine };
        hooks::run_in("startContainer", all, &state, &surroundings)
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn has<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// The member is deprecated, but the specification still has it.
#[allow(deprecated)]
fn prestart(all: &Hooks) -> &Option<Vec<oci_spec::runtime::Hook>> {
    all.prestart()
}

/// What a container hands over during its creation.
#[derive(Debug)]
pub enum Handed {
    /// Nothing yet: the process exists. Its messages are handled once the caller has returned from this.
    Process,
    /// The outer side of its terminal.
    Terminal(OwnedFd),
    /// The descriptor on which system calls arrive that the seccomp policy passes to another program.
    Notifications(OwnedFd),
}

/// Makes the process of such a container, which waits in its surroundings until [`begin`]. `receive` gets
/// what the process hands over.
///
/// Returns the process and warnings about failures that did not stop it. If the process is dropped before
/// [`Created::keep`], it ends.
///
/// # Errors
/// As [`super::start`]; also any error in making the surroundings.
pub fn create(
    spec: &Spec,
    streams: Streams<'_>,
    contained: &Contained<'_>,
    mut receive: impl FnMut(Identity, Handed) -> std::result::Result<(), operation::Error>,
) -> Result<Created> {
    let Some(process) = spec.process() else { return Err(Error::new("no process in the specification")) };
    let namespaces = Namespaces::open(spec, true)?;
    let started = fork(spec, &namespaces, Surroundings::New, process, streams, Some(contained))?;
    receive(started.identity, Handed::Process)?;
    let mut warnings = Vec::new();
    loop {
        match started.channel.receive()? {
            Some(Message::Warning(text)) => warnings.push(text),
            Some(Message::Terminal(master)) => receive(started.identity, Handed::Terminal(master))?,
            Some(Message::Notifications(listener)) => {
                receive(started.identity, Handed::Notifications(listener))?;
                started.channel.ready()?;
            }
            Some(Message::Hooks) => {
                let state = contained.state.with("creating", started.identity.pid);
                let all = spec.hooks().as_ref();
                // As in runc, which enters the bundle directory first.
                let directory = contained.state.bundle();
                let place = hooks::Surroundings { directory, ..hooks::Surroundings::default() };
                let (first, second) = (all.map(prestart), all.map(Hooks::create_runtime));
                hooks::run_in("prestart", first.and_then(Option::as_ref), &state, &place)?;
                hooks::run_in("createRuntime", second.and_then(Option::as_ref), &state, &place)?;
                started.channel.ready()?;
            }
            Some(Message::Failure(error)) => return Err(error),
            Some(Message::Ready) => {
                started.channel.ready()?;
                return Ok(Created { started, warnings });
            }
            Some(_) => {}
            None => {
                let status = reap(&started.process);
                return Err(never_ran(status));
            }
        }
    }
}

/// The process of a container that waits for its start.
#[derive(Debug)]
pub struct Created {
    started: Started,
    /// Warnings about failures that did not stop it.
    pub warnings: Vec<String>,
}

impl Created {
    /// Its pid and start time.
    pub fn identity(&self) -> Identity {
        self.started.identity
    }

    /// Lets the process outlive this value. The caller is its parent, and may wait for it.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn keep(mut self) -> Result<Running> {
        let process = self.started.process.try_clone().map_err(Error::at("duplicate", "descriptor"))?;
        self.started.reaped = true;
        Ok(Running {
            identity: self.started.identity,
            process,
            terminal: None,
            warnings: std::mem::take(&mut self.warnings),
            namespaces: Vec::new(),
            rest: None,
        })
    }
}

/// Joins such a container with another process, as [`super::join`] does.
///
/// # Errors
/// As [`super::join`].
pub fn join(
    spec: &Spec,
    first: Identity,
    process: &oci_spec::runtime::Process,
    streams: Streams<'_>,
    contained: &Contained<'_>,
) -> Result<Started> {
    super::join_with(spec, first, process, streams, Some(contained))
}

/// Starts the container that waits on the socket with this name.
///
/// # Errors
/// ECONNREFUSED and ENOENT if no container waits. If the command is not executed: the container's own error,
/// with the exit status of a shell. The container has ended then.
pub fn begin(directory: &Path, name: &str, identity: Identity) -> Result<()> {
    let channel = Channel::connect(directory, name)?;
    let mut is_ready = false;
    loop {
        match channel.receive()? {
            Some(Message::Failure(error)) => return Err(error),
            Some(Message::Ready) => is_ready = true,
            Some(_) => {}
            None => break,
        }
    }
    match identity.stat()?.map_or(is_ready, |stat| stat.has_executed) {
        true => Ok(()),
        // It was killed. Its exit status is for its parent.
        false => Err(never_ran(Err(Errno::CHILD))),
    }
}
