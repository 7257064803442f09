use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use document::Id;
use operation::{Error, Scope};
use runtime::Identity;

use crate::{Container, Result, keeper};

/// How long to wait for the end of a process to be on record if no monitor is known.
const PATIENCE: Duration = Duration::from_secs(2);

/// The pause between two looks for a monitor.
const LOOK: Duration = Duration::from_millis(100);

/// How long to wait for a monitor to write the end to the record.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// Waits until this process of the container has ended and its end is on record. Returns the exit status, if
/// it is known. If the monitor was killed, writes the end to the record, without an exit status if nobody
/// knows it.
///
/// # Errors
/// When the process or the record cannot be read, or the monitor does not write the end in time.
pub fn wait(scope: &Scope, id: &Id, identity: Identity) -> Result<Option<i32>> {
    let mut process = None;
    let (mut deadline, mut look) = (None, None);
    loop {
        let Some(container) = Container::find(scope, id)? else { return Ok(None) };
        if container.identity() != identity {
            // The container was started again meanwhile.
            return Ok(None);
        }
        if container.process.finished.is_some() {
            return Ok(container.process.exit_status);
        }
        let Some(deadline) = deadline else {
            process = identity.open()?;
            if let Some(process) = &process {
                runtime::ended(process, None)
                    .map_err(|errno| Error::new("wait", "for the process", errno))?;
            }
            deadline = Some(Instant::now() + PATIENCE);
            continue;
        };
        if Instant::now() > look.unwrap_or(deadline) {
            // A monitor that is alive writes the end soon.
            if !container.has_monitor(scope)? {
                return keeper::unseen(scope, &container, process.as_ref().and_then(runtime::status_of));
            }
            look = Some(Instant::now() + LOOK);
        }
        if Instant::now() > deadline + LONG_PATIENCE {
            return Err(Error::new(
                "wait",
                format_args!("for container \"{id}\""),
                "its end is not on record",
            ));
        }
        sleep(Duration::from_millis(2));
    }
}
