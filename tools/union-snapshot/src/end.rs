//! Stops a container's processes during a snapshot.

use std::time::Duration;

use life::{Container, Restart};
use operation::Scope;
use toolkit::prelude::*;

/// How long the container has to react to its stop signal, as with `docker stop`.
const GRACE: Duration = Duration::from_secs(10);

/// Ends the container's processes, and waits until that is recorded. Returns whether to start it again: it
/// ran, and its restart policy says so.
pub(crate) fn end(scope: &Scope, document: &Document) -> Result<bool> {
    let Some(id) = document.id()? else { return Ok(false) };
    let Some(container) = Container::find(scope, &id)? else { return Ok(false) };
    if !container.is_running()? && !container.process.restarting {
        return Ok(false);
    }
    life::stop(scope, &id, None, Some(GRACE))?;
    Ok(container.policy() != Restart::No)
}

/// Starts the container again.
pub(crate) fn start_again(scope: &Scope, document: &Document) -> Result<()> {
    let Some(id) = document.id()? else { return Ok(()) };
    for warning in life::start(scope, &id)?.unwrap_or_default() {
        operation::tell!("union-snapshot: warning: {warning}");
    }
    Ok(())
}
