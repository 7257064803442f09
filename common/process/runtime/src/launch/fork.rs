//! Forks a new process, in its cgroup and pid namespace from the start.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{Process, Spec};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use seccomp::Program;

use super::{
    Birth, Channel, Contained, Filter, Message, Started, Streams, Surroundings, cgroups, child, gate,
    namespaces::Namespaces, reap, sources,
};
use crate::{Error, Identity, error::Result, spec::is_first_of_pids, sys::ProgramFile};

/// Forks the process. It makes its surroundings, and waits.
pub(super) fn fork(
    spec: &Spec,
    namespaces: &Namespaces,
    surroundings: Surroundings<'_>,
    process: &Process,
    streams: Streams<'_>,
    contained: Option<&Contained<'_>>,
) -> Result<Started> {
    let group = if contained.is_some() { None } else { cgroups::of(spec)? };
    let is_new = matches!(surroundings, Surroundings::New);
    let is_released = !is_new || contained.is_none_or(|contained| contained.start.is_none());
    let ready = if is_released { None } else { compiled(spec)? };
    let (gate_inside, gate) = gate::pair()?;
    let (channel, channel_inside) = Channel::pair()?;
    let prepared = match (contained, is_new) {
        (Some(_), true) => sources::prepared(spec, namespaces.owner())?,
        _ => Vec::new(),
    };
    let own = ProgramFile::open();
    let birth = Birth {
        spec,
        namespaces,
        surroundings: &surroundings,
        process,
        filter: filter(spec, ready.as_ref()),
        own: own.as_ref(),
        streams: &streams,
        gate: gate_inside.as_fd(),
        channel: &channel_inside,
        contained,
        prepared: &prepared,
    };
    let inside = match contained {
        Some(contained) => contained.unified()?,
        None => group.as_ref().map(|group| group.unified.as_fd()),
    };
    let forking = Forking { birth: &birth, group: group.as_ref(), inside, is_new };
    let (process, identity) = match forking.bear(inside) {
        // The process in between has sent its error.
        Err(error) if namespaces.has_owner() => {
            drop(channel_inside);
            return Err(match channel.receive()? {
                Some(Message::Failure(told)) => told,
                _ => error,
            });
        }
        born => born?,
    };
    let mut started = Started::born(process, identity, gate, channel);
    forking.tend(&mut started, is_released)?;
    started._program = own;
    started.rest = group.filter(|_| is_new && !is_first_of_pids(spec)).map(|group| group.unified);
    // Now only the new process has this side. It closes when the program is executed.
    drop(channel_inside);
    Ok(started)
}

fn policy(spec: &Spec) -> Option<&oci_spec::runtime::LinuxSeccomp> {
    spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref())
}

/// The seccomp policy, and its program if that is `ready`.
fn filter<'a>(spec: &Spec, ready: Option<&'a Program>) -> Filter<'a> {
    match ready {
        Some(program) => Filter::Ready(program),
        None if policy(spec).is_some() => Filter::Awaited,
        None => Filter::None,
    }
}

/// The program of the seccomp policy.
fn compiled(spec: &Spec) -> Result<Option<Program>> {
    policy(spec).map(Program::compile).transpose().map_err(Error::new)
}

/// A process at its birth.
struct Forking<'a> {
    birth: &'a Birth<'a>,
    /// The cgroup that the specification names, unless the creator has one for it.
    group: Option<&'a cgroups::Own>,
    /// The cgroup in which the process is born.
    inside: Option<BorrowedFd<'a>>,
    is_new: bool,
}

impl Forking<'_> {
    /// Whether the new process says so as soon as it runs.
    fn says_that_it_lives(&self) -> bool {
        self.inside.is_some() && !self.birth.namespaces.has_owner()
    }

    /// Enters the cgroups in which the process is not yet.
    fn enter(&self, is_inside: bool) -> Result<()> {
        match (self.birth.contained, self.group) {
            (Some(contained), _) => contained.enter(is_inside),
            (None, Some(group)) => group.enter(is_inside),
            (None, None) => Ok(()),
        }
    }

    /// Forks. `group` is the cgroup in which the process is born.
    fn bear(&self, group: Option<BorrowedFd<'_>>) -> Result<(OwnedFd, Identity)> {
        let Birth { namespaces, process, channel, .. } = *self.birth;
        let body = |is_inside| self.live(is_inside);
        let pid = if namespaces.has_owner() {
            let prepare = || self.enter(false).and_then(|()| child::adjust_oom(process, channel, true));
            namespaces.fork_inside(prepare, |error| channel.fail(error), body)
        } else if self.is_new {
            namespaces.fork(group, body)
        } else {
            Namespaces::fork_beside(group, body)
        }?;
        let process = Pid::from_raw(pid)
            .ok_or(Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(Error::at("open", format_args!("process {pid}")))?;
        Ok((process, Identity::of(pid)?))
    }

    /// All that the new process does. Returns its exit status if it executes nothing.
    fn live(&self, is_inside: bool) -> u8 {
        let Birth { namespaces, channel, .. } = *self.birth;
        let begin = || {
            if self.says_that_it_lives() {
                channel.ready()?;
            }
            // If a user namespace is entered first, the process in between has done this.
            if !namespaces.has_owner() {
                self.birth.start_on_processors()?;
                self.enter(is_inside)?;
            }
            self.birth.close_others();
            child::run(self.birth)
        };
        let Err(error) = begin() else { return 0 };
        channel.fail(&error);
        error.status()
    }

    /// What the creator does while the process makes its surroundings.
    fn tend(&self, started: &mut Started, is_released: bool) -> Result<()> {
        if let Some(group) = self.group.filter(|_| self.is_new) {
            // The process still makes its surroundings, and runs nothing of the container's yet.
            group.limit_devices()?;
        }
        if is_released {
            started.program = compiled(self.birth.spec)?;
        }
        // Since Linux 6.14 (and in older stable lines), the kernel kills a process at its birth into another cgroup if
        // `cgroup.kill` was ever written in its creator's cgroup or in the other one. It may move there later.
        if self.says_that_it_lives() && !started.channel.is_alive(&started.process)? {
            let _ = reap(&started.process);
            (started.process, started.identity) = self.bear(None)?;
            started.channel.is_alive(&started.process)?;
        }
        Ok(())
    }
}
