//! Starts a container whose process has ended or was never started.

use document::{Document, Id, kept, record::Record};
use monitor::{Connection, Input, MonitorOperation, Place};
use operation::{Error, Operation, Scope};

use crate::{Container, Recorded, Result, State, Turn, beside, keeper, output::Equipment, wait};

/// Whether the container could be started if its process had ended. Changes nothing.
///
/// # Errors
/// Why it could not be started.
pub fn may_start(scope: &Scope, id: &Id) -> Result<()> {
    let container = Container::read(scope, id)?;
    let failed = |why: &'static str| Error::new("start", format_args!("container \"{id}\""), why);
    if container.document.has_failed() {
        return Err(failed("it is being unwound"));
    }
    if container.has_lost_its_ground() {
        // The tools make it again first.
        return Ok(());
    }
    let spec = &container.operation.spec;
    let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
    let paths = namespaces.into_iter().filter_map(|namespace| namespace.path().clone());
    for path in [root].into_iter().chain(paths) {
        path.symlink_metadata().map_err(|error| Error::new("find", format_args!("{path:?}"), error))?;
    }
    Ok(())
}

/// Starts the container's process in the background, together with a monitor. Returns what failed but was not
/// important enough to stop. Returns `None` if the container runs already.
///
/// # Errors
/// When the container is being made or unwound, or cannot be started. Its record is then as before, with `error` in `process`.
pub fn start(scope: &Scope, id: &Id) -> Result<Option<Vec<String>>> {
    Ok(begin(scope, id, None)?.map(|started| started.warnings))
}

/// As [`start`], and attaches to the container before its process begins, so that no output is missed. With `stdin`, the
/// connection may send input to the process. Returns also the connection, on which the monitor answers.
///
/// # Errors
/// As [`start`].
pub fn start_attached(scope: &Scope, id: &Id, stdin: bool) -> Result<Option<(Vec<String>, Connection)>> {
    let Some(Started { warnings, connection }) = begin(scope, id, Some(stdin))? else { return Ok(None) };
    let none = || Error::new("attach", format_args!("to container \"{id}\""), "it has no monitor");
    Ok(Some((warnings, connection.ok_or_else(none)?)))
}

/// A container that was started.
struct Started {
    warnings: Vec<String>,
    /// A connection to its monitor, if one was asked for.
    connection: Option<Connection>,
}

/// Starts the process. `attach`: whether to connect to its monitor, and whether input is passed on.
fn begin(scope: &Scope, id: &Id, attach: Option<bool>) -> Result<Option<Started>> {
    // Reports what is missing before it takes a lock, which would leave a file.
    let found = Container::read(scope, id)?;
    if found.has_ended_unseen()? {
        // The process that saw the end writes it now, and needs the lock for that.
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
            let error = refused("it is about to be restarted");
            return Err(error.with_hint(format!("`container-stop {id}` cancels that")));
        }
        State::Paused => {
            return Err(refused("it is paused").with_hint("`container-pause --resume` resumes it"));
        }
        // `Restarting` without a monitor: nobody would start the container.
        State::Created | State::Exited | State::Restarting => {}
    }
    // Those that it still has stay its own.
    let takes_ports = container.has_step_of(beside::PORTMAP);
    if takes_ports {
        beside::run(beside::PORTMAP, beside::PORTS_TAKE, scope, id)?;
    }
    let mut missing = Equipment::of(scope, &mut container)?;
    let equipped = match missing.is_empty() {
        true => Ok(()),
        false => keeper::put(scope, &record, &container).and_then(|()| missing.apply(scope)),
    };
    let started = equipped.and_then(|()| run(scope, &record, &mut container, attach));
    if let Err(error) = &started {
        // The process may run if its monitor was killed at the wrong moment.
        let _ = container.operation.undo(scope);
        missing.undo(scope);
        let document = failed(id, &document, error).unwrap_or(document);
        let _ = record.write(&document).map(|()| kept::write(scope, id, &document));
        if takes_ports {
            let _ = beside::run(beside::PORTMAP, beside::PORTS_RELEASE, scope, id);
        }
    }
    started.map(Some)
}

/// The document with the reason why its container could not be started.
fn failed(id: &Id, document: &Document, why: &Error) -> Option<Document> {
    let mut container = Container::of(id, document.clone()).ok()??;
    container.edit(|process| drop(process.insert("error".into(), why.to_string().into()))).ok()?;
    Some(container.document)
}

/// Releases the ports of a container that was only created: it takes them when it is started. The caller holds the lock
/// of the record. What cannot be released now stays the container's.
///
/// # Errors
/// When the record cannot be read.
pub fn rest(scope: &Scope, id: &Id) -> Result<()> {
    if Container::read(scope, id)?.has_step_of(beside::PORTMAP) {
        let _ = beside::run(beside::PORTMAP, beside::PORTS_RELEASE, scope, id);
    }
    Ok(())
}

fn run(scope: &Scope, record: &Record, container: &mut Container, attach: Option<bool>) -> Result<Started> {
    let _turn = Turn::take(scope, &container.id, &container.operation.spec)?;
    // A start that was killed may have recorded the streams, and not made them.
    MonitorOperation { monitored: container.id.to_string() }.apply(scope)?;
    let mut recorded = Recorded::new(scope, &container.id, &container.document)?;
    let place = Place::open(&scope.run_dir, container.id.as_str())?;
    let log = container.log();
    let (spec, input) = (&container.operation.spec, Input::of(&container.operation));
    let supervised = monitor::launch(place, spec, log, (input, attach.is_some()), &mut recorded)?;
    container.begin(supervised.identity(), false)?;
    keeper::put(scope, record, container)?;
    let connection = attach.map(|_| container.monitor(scope)).transpose()?.flatten();
    if let (Some(connection), Some(stdin)) = (&connection, attach) {
        connection.attach(stdin)?;
    }
    Ok(Started { warnings: supervised.release()?, connection })
}
