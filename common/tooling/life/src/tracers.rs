//! Who could take over a process that starts in a shared pid namespace.
//!
//! A new process is born into the namespace, and has the rights of the host's root until it has made its surroundings.
//! A process that sees it and has CAP_SYS_PTRACE could take it over (CVE-2016-9962, CVE-2019-5736).

use document::{
    Id,
    record::{self, Lock},
};
use oci_spec::runtime::{Capability, LinuxNamespaceType, Spec};
use operation::{Error, Namespace, Scope, is_gone};
use runtime::{Identity, spec};

use crate::{Container, Result};

/// Refuses the pid namespace of the process `first` to a new process, if a container in it has CAP_SYS_PTRACE.
///
/// # Errors
/// When there is such a container, or the records cannot be read.
pub fn refuse_tracers(scope: &Scope, first: Identity) -> Result<()> {
    refuse(scope, first, None)
}

/// A turn to start a process. If it shares a pid namespace, no other process starts there before this is dropped.
#[derive(Debug)]
pub struct Turn(Option<Lock>);

impl Turn {
    /// Waits for the turn to start the process of `spec` for the container `id`, and refuses as [`refuse_tracers`]. Who
    /// starts at the same time with CAP_SYS_PTRACE is on record by then, or begins when this process is out of reach.
    ///
    /// # Errors
    /// As [`refuse_tracers`]; when the lock cannot be taken.
    pub fn take(scope: &Scope, id: &Id, spec: &Spec) -> Result<Self> {
        let Some(first) = spec::owner(spec, LinuxNamespaceType::Pid) else { return Ok(Self(None)) };
        // If it is gone, nothing starts.
        let Some(shared) = namespace(first)? else { return Ok(Self(None)) };
        // One for each namespace: a container can stop the processes that start in its own.
        let turn = Self(Some(Lock::take(&scope.run_dir, &format!("pids-{shared}"))?));
        refuse(scope, first, Some(id))?;
        Ok(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A file that stays is used by the next one.
        let _ = self.0.take().map(Lock::remove);
    }
}

/// `own`: the container that starts, which has no process yet.
fn refuse(scope: &Scope, first: Identity, own: Option<&Id>) -> Result<()> {
    // If it is gone, so are the others there.
    let Some(shared) = namespace(first)? else { return Ok(()) };
    for id in record::list(&scope.run_dir)? {
        if own == Some(&id) {
            continue;
        }
        // One that does not run traces nothing.
        let Ok(other) = Container::running(scope, &id) else { continue };
        if traces(&other.operation.spec) && namespace(other.identity())? == Some(shared) {
            let what = format!("processes with container \"{id}\"");
            let why = "it has CAP_SYS_PTRACE, and could take over the new process before the command runs";
            let hint = "start that container without --cap-add SYS_PTRACE";
            return Err(Error::new("share", what, why).with_hint(hint));
        }
    }
    Ok(())
}

/// The inode of the pid namespace of a process, which cannot leave it. None if the process has ended. The owner on record
/// does not tell it: several containers may share a namespace by one another.
fn namespace(process: Identity) -> Result<Option<u64>> {
    let found = Namespace::Pids.of(process.pid);
    // Checked now: if the process is alive, the pid was its own all the time.
    match found {
        _ if !process.is_alive()? => Ok(None),
        Err(error) if is_gone(&error) => Ok(None),
        found => found.map(Some).map_err(|error| {
            let object = format!("the pid namespace of process {}", process.pid);
            Error::new("look at", object, error)
        }),
    }
}

/// Whether the container's root can trace processes of the host that it sees. One that may load modules is the host's root in
/// any case, and one in a user namespace has no rights over them.
fn traces(spec: &Spec) -> bool {
    let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let bounding = capabilities.and_then(|sets| sets.bounding().as_ref());
    let has = |one| bounding.is_some_and(|set| set.contains(&one));
    has(Capability::SysPtrace) && !has(Capability::SysModule) && spec::userns(spec).is_none()
}
