use oci_spec::runtime::Spec;
use rustix::io::Errno;

use crate::{Container, Record, Result, Status, end, of_container, store::START};

/// Lets a created container execute its command, and then runs its `poststart` hooks.
///
/// # Errors
/// For a container that does not wait to be started. When its command cannot be executed: the source has a
/// shell's exit status.
pub fn start(container: &Container) -> Result<()> {
    let lock = container.lock()?;
    let record = container.record()?;
    match record.status()? {
        Status::Created => {}
        Status::Stopped => {
            return Err(of_container("start", container.id())("cannot start a container that has stopped"));
        }
        _ => return Err(of_container("start", container.id())("cannot start an already running container")),
    }
    let spec = record.spec()?;
    runtime::begin(container.directory(), START, record.process).map_err(|error| match error.errno() {
        Some(nix::errno::Errno::ECONNREFUSED) => {
            of_container("start", container.id())("its process has ended")
        }
        _ => crate::not_executed(spec.process().as_ref(), error),
    })?;
    match rustix::fs::unlink(container.directory().join(START)) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(of_container("start", container.id())(errno)),
    }
    // Hooks may change the container.
    drop(lock);
    after(&spec, &record).inspect_err(|_| {
        // A container whose hook fails is destroyed (OCI runtime-spec, runtime.md, "Lifecycle", 9). The first
        // error is reported.
        if let Ok(Some(_lock)) = container.hold() {
            let _ = end::destroy(container, &record);
        }
    })
}

fn after(spec: &Spec, record: &Record) -> Result<()> {
    let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref());
    let state = record.hook_state().with(Status::Running.name(), record.process.pid);
    Ok(runtime::hooks::run("poststart", hooks, &state, None)?)
}
