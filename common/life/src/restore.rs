//! After a restart of the machine: a container's record is gone, and all that was in the kernel with it.

use document::{Id, kept, record::Record};
use operation::{Error, Scope};

use crate::{Container, Result};

/// Writes the record of a container again from the second one, if it has no record. When the machine was restarted since, its process
/// has ended; if its policy says that it runs after a restart, it is about to be started again. Does nothing for a container without
/// a second record, or without a process. Whether the machine was restarted since.
///
/// # Errors
/// When it was being unwound; when a record cannot be read or written.
pub fn restore(scope: &Scope, id: &Id) -> Result<bool> {
    let record = Record::lock(&scope.run_dir, id)?;
    let made = make(scope, &record, id);
    // Without a record, it takes its lock along.
    record.release();
    made
}

fn make(scope: &Scope, record: &Record, id: &Id) -> Result<bool> {
    if record.read()?.is_some() {
        return Ok(false);
    }
    let Some(kept) = kept::read(scope, id)? else { return Ok(false) };
    let Some(mut container) = Container::of(id, kept.document)? else { return Ok(false) };
    if container.document.has_failed() {
        let error = Error::new("start", format_args!("container \"{id}\""), "it was being unwound");
        return Err(error.with_hint(format!("`unwind {id}` removes what is left of it")));
    }
    if !kept.is_of_this_boot {
        let wanted = container.outlives_machine();
        container.end_with_machine(wanted)?;
    }
    // The second record stays as it is until the container stands again: it tells that what was written may be lost.
    record.write(&container.document)?;
    Ok(!kept.is_of_this_boot)
}
