use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use document::Id;
use operation::{Error, Scope};
use runtime::Identity;

use crate::{Container, Result};

/// How long the end of a process may take to be on record when nobody is known who writes it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits until this process of the container has ended, and that is on record. Returns its exit status, if it is known: who knew
/// it may have been killed.
///
/// # Errors
/// When the process or the record cannot be looked at.
pub fn wait(scope: &Scope, id: &Id, identity: Identity) -> Result<Option<i32>> {
    if let Some(process) = identity.open()? {
        runtime::ended(&process, None).map_err(|errno| Error::new("wait", "for the process", errno))?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(container) = Container::find(scope, id)? else { return Ok(None) };
        if container.identity() != identity {
            // It was started again meanwhile.
            return Ok(None);
        }
        if container.process.finished.is_some() {
            return Ok(container.process.exit_status);
        }
        // A monitor that answers writes it soon.
        if Instant::now() > deadline && container.monitor(scope)?.is_none() {
            return Ok(None);
        }
        if Instant::now() > deadline + 10 * PATIENCE {
            return Err(Error::new(
                "wait",
                format_args!("for container \"{id}\""),
                "its end is not on record",
            ));
        }
        sleep(Duration::from_millis(2));
    }
}
