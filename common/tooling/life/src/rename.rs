//! Gives a container another name.

use document::{Document, Id, Member, Name, kept, name, record, record::Record};
use operation::{Error, Scope};

use crate::{Container, Result, unread};

/// Gives a container another name, and returns the old one. Whenever this is killed, each of its records has the old name or the new one, and the first
/// record's counts.
///
/// # Errors
/// When the name is the container's already or another one's, there is no such container, or a record cannot be written. The
/// container then keeps its name.
pub fn rename(scope: &Scope, id: &Id, new: &Name) -> Result<Id> {
    may_rename(scope, id, new)?;
    if new.as_id() == id {
        return write(scope, id, new);
    }
    // Until the end, no container with this id begins, and nobody else claims the name.
    let place = Record::lock(&scope.run_dir, new.as_id())?;
    let renamed = may_rename(scope, id, new).and_then(|()| write(scope, id, new));
    place.release();
    renamed
}

/// Whether the container can get this name. Changes nothing.
///
/// # Errors
/// Why it cannot.
pub fn may_rename(scope: &Scope, id: &Id, new: &Name) -> Result<()> {
    let document = record::read_existing(&scope.run_dir, id)?;
    if document.called(id).map_err(unread)? == *new.as_id() {
        return Err(failed(id, format!("\"{new}\" is its name already")));
    }
    match name::find(scope, new.as_id())? {
        Some(other) if other != *id => {
            let what = if other == *new.as_id() { "id" } else { "name" };
            let error = failed(id, format!("\"{new}\" is the {what} of container \"{other}\""));
            Err(error.with_hint("choose another name, or remove that container"))
        }
        _ => Ok(()),
    }
}

fn failed(id: &Id, why: impl Into<operation::Cause>) -> Error {
    Error::new("rename", format_args!("container \"{id}\""), why)
}

/// Claims the name, and writes both records. Returns the old name.
fn write(scope: &Scope, id: &Id, new: &Name) -> Result<Id> {
    let missing = || record::missing(&scope.run_dir, id);
    let record = Record::lock_existing(&scope.run_dir, id)?.ok_or_else(missing)?;
    let before = record.read()?.ok_or_else(missing)?;
    if before.has_failed() {
        return Err(failed(id, "it is being unwound"));
    }
    let old = before.called(id).map_err(unread)?;
    let mut document = before.clone();
    // Its id is a name that nobody else can have.
    let keep = match new.as_id() == id {
        true => {
            document.remove(Name::NAME);
            None
        }
        false => {
            name::claim(&scope.run_dir, id, new)?;
            document.set(new).map_err(unread)?;
            Some(new)
        }
    };
    if let Err(error) = put(scope, &record, id, &document) {
        // If the first record keeps the new name, so must its link.
        if record.write(&before).is_ok() && keep.is_some() {
            let _ = name::take_back(&scope.run_dir, new);
        }
        return Err(error);
    }
    // A link that stays counts for nothing.
    let _ = name::release(&scope.run_dir, id, keep);
    Ok(old)
}

fn put(scope: &Scope, record: &Record, id: &Id, document: &Document) -> Result<()> {
    record.write(document)?;
    // Of a container that a restart of the machine has ended, the second record must stay of its own boot until the container
    // is made again.
    match Container::of(id, document.clone())?.is_some_and(|container| container.has_lost_its_ground()) {
        true => Ok(()),
        false => kept::write(scope, id, document),
    }
}
