//! Gives a container another monitor when its own was killed.

use std::time::Duration;

use document::Id;
use monitor::{Input, Place};
use operation::Scope;

use crate::{Container, Recorded, Result, State, keeper};

/// Starts a new monitor for a container in the background whose monitor is gone. Returns whether it started
/// one. If the container has ended meanwhile, writes that to its record.
///
/// # Errors
/// When the container cannot be examined, or the monitor cannot be started.
pub fn adopt(scope: &Scope, container: &Container) -> Result<bool> {
    if !container.is_monitored() || container.has_monitor(scope)? {
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
    let input = Input::of(&container.operation);
    monitor::take_over(place, container.identity(), container.log(), input, &mut recorded)
}

/// The container `id`, as its record is now. If its monitor was killed, first starts another one: for a process
/// that runs, and for one that the restart policy is about to start again. Without a right to do so, or if that
/// fails, the container stays as it is, and the next tool tries again.
///
/// # Errors
/// As [`Container::read`].
pub fn attended(scope: &Scope, id: &Id) -> Result<Container> {
    let container = Container::read(scope, id)?;
    // A tool that only looks must work for those who may only read.
    let _ = adopt(scope, &container);
    let container = Container::read(scope, id)?;
    if container.process.restarting {
        let _ = resume(scope, &container);
    }
    Ok(container)
}

/// The container `id`, if its process runs. See [`attended`].
///
/// # Errors
/// As [`Container::running`].
pub fn running(scope: &Scope, id: &Id) -> Result<Container> {
    let container = Container::running(scope, id);
    match &container {
        Ok(container) => drop(adopt(scope, container)),
        Err(_) => drop(attended(scope, id)),
    }
    container
}

/// Starts a monitor that starts the container's process again, as its restart policy wants, if no monitor is left
/// to do it. Returns whether it started one.
fn resume(scope: &Scope, container: &Container) -> Result<bool> {
    // Without its mounts and namespaces, only container-start can make the container again.
    let is_due = container.state()? == State::Restarting && !container.has_lost_its_ground();
    if !is_due || container.has_monitor(scope)? {
        return Ok(false);
    }
    let mut recorded = Recorded::new(scope, &container.id, &container.document)?;
    let place = Place::open(&scope.run_dir, container.id.as_str())?;
    let pause = Duration::from_millis(container.process.pause.unwrap_or_default());
    monitor::resume(place, pause, container.log(), Input::of(&container.operation), &mut recorded)
}
