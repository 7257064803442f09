//! Starting a container whose process has ended, or was never started.

use document::{Document, Id, Instance, kept, record::Record};
use monitor::Place;
use operation::{Error, Scope};

use crate::{Container, Recorded, Result, State, beside, keeper, unread};

/// Starts the container's process once more, in the background, and its monitor. Returns what failed without being important
/// enough to stop; none if the container runs already.
///
/// # Errors
/// When it is being made or unwound, or cannot be started; it is as before then.
pub fn start(scope: &Scope, id: &Id) -> Result<Option<Vec<String>>> {
    let before = Container::read(scope, id)?;
    let missing = || Error::new("start", format_args!("container \"{id}\""), "it is gone");
    let record = Record::lock_existing(&scope.run_dir, id)?.ok_or_else(missing)?;
    let document = record.read()?.ok_or_else(missing)?;
    let mut container = Container::of(id, document.clone())?.unwrap_or(before);
    if container.document.has_failed() {
        return Err(Error::new("start", format_args!("container \"{id}\""), "it is being unwound"));
    }
    match container.state()? {
        State::Running => return Ok(None),
        State::Restarting => return Err(waits(id)),
        State::Paused => {
            let error = Error::new("start", format_args!("container \"{id}\""), "it is paused");
            return Err(error.with_hint("`container-pause --resume` lets it go on"));
        }
        State::Created | State::Exited => {}
    }
    let has_ports = container.has_step_of(beside::PORTMAP);
    if has_ports && container.state()? == State::Exited {
        beside::run(beside::PORTMAP, beside::PORTS_TAKE, scope, id)?;
    }
    let started = run(scope, &record, &mut container);
    if started.is_err() {
        let _ = record.write(&document).map(|()| kept::write(scope, id, &document));
        if has_ports {
            let _ = beside::run(beside::PORTMAP, beside::PORTS_RELEASE, scope, id);
        }
    }
    started.map(Some)
}

fn waits(id: &Id) -> Error {
    Error::new("start", format_args!("container \"{id}\""), "it is about to be started again by itself")
        .with_hint(format!("`container-stop {id}` calls that off"))
}

fn run(scope: &Scope, record: &Record, container: &mut Container) -> Result<Vec<String>> {
    let instance = container.document.get::<Instance>().map_err(unread)?;
    let mut recorded = Recorded::new(scope, &container.id, instance);
    let place = Place::open(&scope.run_dir, container.id.as_str())?;
    let log = container.log();
    let (spec, stdin) = (&container.operation.spec, container.operation.interactive);
    let supervised = monitor::launch(place, spec, log, stdin, &mut recorded)?;
    container.begin(supervised.identity(), false)?;
    keeper::put(scope, record, container)?;
    Ok(supervised.release()?)
}

/// Makes a monitor for a container that runs in the background and has lost its own. Whether one was made.
///
/// # Errors
/// When the container cannot be looked at, or the monitor cannot be made.
pub fn adopt(scope: &Scope, id: &Id, document: &Document) -> Result<bool> {
    let Some(container) = Container::of(id, document.clone())? else { return Ok(false) };
    if container.operation.log.is_none() || !container.is_running()? {
        return Ok(false);
    }
    let place = Place::open(&scope.run_dir, id.as_str())?;
    if monitor::Connection::open(&place)?.is_some() {
        return Ok(false);
    }
    let instance = container.document.get::<Instance>().map_err(unread)?;
    let mut recorded = Recorded::new(scope, id, instance);
    let stdin = container.operation.interactive;
    monitor::take_over(place, container.identity(), container.log(), stdin, &mut recorded)
}
