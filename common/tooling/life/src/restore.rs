//! Restores a container's record after a restart of the machine, which removed it.

use document::{
    Document, Id, kept, name,
    record::{self, Record},
};
use operation::{Error, Scope};

use crate::{Container, Result};

/// The ids of all containers that have a record or a second record, sorted.
///
/// # Errors
/// When a directory cannot be read.
pub fn every(scope: &Scope) -> Result<Vec<Id>> {
    let mut ids = record::list(&scope.run_dir)?;
    ids.extend(kept::list(scope)?);
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// The document of a container: that of its record, or of its second record if it has no record. After a restart
/// of the machine, the process of the latter counts as ended. `None` if there is neither.
///
/// # Errors
/// When a record cannot be read.
pub fn known(scope: &Scope, id: &Id) -> Result<Option<Document>> {
    if let Some(document) = record::read(&scope.run_dir, id)? {
        return Ok(Some(document));
    }
    let Some(kept) = kept::read(scope, id)? else { return Ok(None) };
    if kept.is_of_this_boot {
        return Ok(Some(kept.document));
    }
    let document = kept.document.clone();
    let Some(mut container) = Container::of(id, kept.document)? else { return Ok(Some(document)) };
    let finished = container.process.finished.is_some();
    container.end_with_machine(false)?;
    if !finished {
        // Nobody knows when.
        container.edit(|process| drop(process.remove("finished")))?;
    }
    Ok(Some(container.document))
}

/// Writes the record of a container again from its second record, if it has no record. Returns whether the
/// machine was restarted since the second record was written. If so, the process counts as ended, and as
/// restarting if the restart policy wants that. Does nothing for a container without a second record or
/// without a process.
///
/// # Errors
/// When the container was being unwound, or a record cannot be read or written.
pub fn restore(scope: &Scope, id: &Id) -> Result<bool> {
    let record = Record::lock(&scope.run_dir, id)?;
    let made = make(scope, &record, id);
    // Also removes the lock's file if there is no record.
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
    name::claim_again(&scope.run_dir, id, &mut container.document)?;
    // The second record stays unchanged until the container is made again: it tells that written files may be
    // lost.
    record.write(&container.document)?;
    Ok(!kept.is_of_this_boot)
}
