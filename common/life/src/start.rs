//! Starting a container whose process has ended, or was never started.

use document::{Id, kept, record::Record};
use monitor::Place;
use operation::{Error, Operation, Scope};

use crate::{Container, Recorded, Result, State, beside, keeper, wait};

/// Starts the container's process once more, in the background, and its monitor. Returns what failed without being important
/// enough to stop; none if the container runs already.
///
/// # Errors
/// When it is being made or unwound, or cannot be started; it is as before then.
pub fn start(scope: &Scope, id: &Id) -> Result<Option<Vec<String>>> {
    // It says what is missing before there is a lock.
    let found = Container::read(scope, id)?;
    if found.has_ended_unseen()? {
        // Who has seen it writes it now, and needs the lock for that.
        wait(scope, id, found.identity())?;
    }
    let refused = |why: &'static str| Error::new("start", format_args!("container \"{id}\""), why);
    let missing = || refused("it is gone");
    let record = Record::lock_existing(&scope.run_dir, id)?.ok_or_else(missing)?;
    let document = record.read()?.ok_or_else(missing)?;
    let mut container = Container::of(id, document.clone())?.ok_or_else(missing)?;
    if document.has_failed() {
        return Err(refused("it is being unwound"));
    }
    let state = container.state()?;
    match state {
        State::Running => return Ok(None),
        State::Restarting if container.has_monitor(scope)? => {
            let error = refused("it is about to be started again by itself");
            return Err(error.with_hint(format!("`container-stop {id}` calls that off")));
        }
        State::Paused => {
            return Err(refused("it is paused").with_hint("`container-pause --resume` lets it go on"));
        }
        // One that waits for a monitor which is gone waits in vain.
        State::Created | State::Exited | State::Restarting => {}
    }
    // One that was only made has its ports.
    let takes_ports = state != State::Created && container.has_step_of(beside::PORTMAP);
    if takes_ports {
        beside::run(beside::PORTMAP, beside::PORTS_TAKE, scope, id)?;
    }
    let started = run(scope, &record, &mut container);
    if started.is_err() {
        // If its monitor was killed at the wrong moment, it may run.
        let _ = container.operation.undo(scope);
        let _ = record.write(&document).map(|()| kept::write(scope, id, &document));
        if takes_ports {
            let _ = beside::run(beside::PORTMAP, beside::PORTS_RELEASE, scope, id);
        }
    }
    started.map(Some)
}

fn run(scope: &Scope, record: &Record, container: &mut Container) -> Result<Vec<String>> {
    let mut recorded = Recorded::new(scope, &container.id, &container.document)?;
    let place = Place::open(&scope.run_dir, container.id.as_str())?;
    let log = container.log();
    let (spec, stdin) = (&container.operation.spec, container.operation.interactive);
    let supervised = monitor::launch(place, spec, log, stdin, &mut recorded)?;
    container.begin(supervised.identity(), false)?;
    keeper::put(scope, record, container)?;
    Ok(supervised.release()?)
}

/// Makes a monitor for a container that runs in the background and has lost its own. Whether one was made. If it has ended
/// meanwhile, that is put on record.
///
/// # Errors
/// When the container cannot be looked at, or the monitor cannot be made.
pub fn adopt(scope: &Scope, container: &Container) -> Result<bool> {
    if container.operation.log.is_none() || container.has_monitor(scope)? {
        return Ok(false);
    }
    if !container.is_running()? {
        if container.has_ended_unseen()? {
            keeper::unseen(scope, container, None)?;
        }
        return Ok(false);
    }
    let mut recorded = Recorded::new(scope, &container.id, &container.document)?;
    let place = Place::open(&scope.run_dir, container.id.as_str())?;
    let stdin = container.operation.interactive;
    monitor::take_over(place, container.identity(), container.log(), stdin, &mut recorded)
}
