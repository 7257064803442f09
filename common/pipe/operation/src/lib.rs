//! Operations: what a tool does to the kernel or the disk, as plain values.
//!
//! A tool first makes a list of operations. `--explain` prints this list. The record contains it. The tool
//! applies it. `--undo` walks it backwards. `--check` compares it with the kernel. All of them use the same
//! list, so they cannot drift apart. See `docs/architecture.md` for the rules that an operation keeps.

mod any_of;
pub mod aside;
pub mod background;
mod boot;
mod claim;
mod descriptors;
mod directories;
mod error;
pub mod interrupt;
mod mask;
mod name;
mod namespace;
mod note;
mod own_names;
mod peer;
mod place;
pub mod quantity;
mod scope;
mod shared_directory;
mod shell;
mod status;

use serde::{Serialize, de::DeserializeOwned};

pub use boot::{BOOT, boot};
pub use claim::{Claim, Shared, holds_another};
pub use descriptors::close_descriptors;
pub use directories::make_directories;
pub use error::{Cause, Code, Error, Message, errno_of, hint_of, is_full, is_gone, is_known, unless_gone};
pub use mask::keep_others_out;
pub use name::{draw, is_name, random_name};
pub use namespace::{Namespace, Whereabouts};
pub use note::{note, printable, printable_word, tell_line};
pub use peer::{believed, has_hung_up, is_believed};
pub use place::{Place, needs_root};
pub use scope::{OutOfScope, Scope};
pub use shared_directory::remove_if_empty;
pub use shell::{quote, words};
pub use status::{Meter, Status, Watched, show_no_status};

/// The result of [`Operation::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The thing exists as the operation made it.
    Present,
    /// The thing, or a part of it, is gone. Applying the operation again makes it.
    Missing(String),
    /// Something else exists in its place. The text names what exists.
    Different(String),
}

/// One change of the kernel or the disk.
///
/// The document stores the value as JSON, internally tagged with `op`. The value contains facts (names,
/// addresses, paths), never a command line.
pub trait Operation: Serialize + DeserializeOwned {
    /// The command lines that a person would type for this operation: `ip`, `mount`, `nft`, `sysctl`, `mkdir`
    /// and the like. Usually one; a transaction gives one for each of its objects. They are only for reading.
    /// No tool runs them.
    fn explain(&self) -> Vec<String>;

    /// Applies the operation: wholly, or not at all. Fills in facts that only the kernel decides (an
    /// interface index, a pid).
    ///
    /// # Errors
    /// When something could not be made. [`apply_all`] then undoes the operation, unless somebody else's thing is in
    /// the place.
    fn apply(&mut self, scope: &Scope) -> Result<(), Error>;

    /// Undoes the operation. Succeeds when nothing is left to undo. Leaves alone what others made under the
    /// same name.
    ///
    /// # Errors
    /// When a part of it could not be removed, or it is not known whether the part is still there.
    fn undo(&self, scope: &Scope) -> Result<(), Error>;

    /// Compares the operation with the machine. Changes nothing.
    ///
    /// # Errors
    /// When the machine does not answer. An unknown state is an error, and not [`Condition::Missing`].
    fn check(&self, scope: &Scope) -> Result<Condition, Error>;
}

/// Applies the list in order. After an error, undoes the failed operation and all operations before it, in
/// reverse order.
///
/// # Errors
/// The error of the operation that failed, and a list of what could not be undone: pairs of index and error.
pub fn apply_all<O: Operation>(
    operations: &mut [O],
    scope: &Scope,
) -> Result<(), (Error, Vec<(usize, Error)>)> {
    for at in 0..operations.len() {
        if let Err(error) = interrupt::checked() {
            return Err((error, undo_all(&operations[..at], scope)));
        }
        if let Err(error) = operations[at].apply(scope) {
            let undone = if may_be_half_made(&error) { at + 1 } else { at };
            return Err((error, undo_all(&operations[..undone], scope)));
        }
    }
    Ok(())
}

/// Whether an operation that failed with this error may have made something. After EEXIST it made nothing:
/// somebody else's thing is in the place, and must stay. Without an errno, the operation was refused before
/// its first system call.
fn may_be_half_made(error: &Error) -> bool {
    error.errno().is_some_and(|errno| errno != nix::errno::Errno::EEXIST)
}

/// Undoes the list backwards, and continues after errors. Returns the operations that could not be undone,
/// with the reason: pairs of index and error, in the order of the list.
pub fn undo_all<O: Operation>(operations: &[O], scope: &Scope) -> Vec<(usize, Error)> {
    let mut left: Vec<_> = operations
        .iter()
        .enumerate()
        .rev()
        .filter_map(|(at, operation)| operation.undo(scope).err().map(|error| (at, error)))
        .collect();
    left.reverse();
    left
}

/// The errors to report of what [`undo_all`] left, the first failure first. A later EBUSY is left out,
/// because it only follows from an earlier failure: a directory below a mount that stayed, for example.
pub fn causes(left: Vec<(usize, Error)>) -> impl Iterator<Item = Error> {
    let told = |(at, (_, error)): (usize, (usize, Error))| {
        (at == 0 || error.errno() != Some(nix::errno::Errno::EBUSY)).then_some(error)
    };
    left.into_iter().rev().enumerate().filter_map(told)
}

/// The operations of a tool that changes nothing in the kernel (img-build, img-load): there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub enum Nothing {}

impl Operation for Nothing {
    fn explain(&self) -> Vec<String> {
        match *self {}
    }
    fn apply(&mut self, _: &Scope) -> Result<(), Error> {
        match *self {}
    }
    fn undo(&self, _: &Scope) -> Result<(), Error> {
        match *self {}
    }
    fn check(&self, _: &Scope) -> Result<Condition, Error> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use nix::errno::Errno;
    use serde::Deserialize;

    use super::*;

    /// Makes a file, and then fails.
    #[derive(Debug, Serialize, Deserialize)]
    struct Half {
        path: PathBuf,
        errno: Option<i32>,
    }

    impl Operation for Half {
        fn explain(&self) -> Vec<String> {
            Vec::new()
        }
        fn apply(&mut self, _: &Scope) -> Result<(), Error> {
            fs::write(&self.path, "").map_err(Error::on("write", "file"))?;
            match self.errno {
                None => Ok(()),
                Some(0) => Err(Error::new("refuse", "it", "it is not ours")),
                Some(errno) => Err(Error::new("make", "it", Errno::from_raw(errno))),
            }
        }
        fn undo(&self, _: &Scope) -> Result<(), Error> {
            fs::remove_file(&self.path).map_err(Error::on("remove", "file"))
        }
        fn check(&self, _: &Scope) -> Result<Condition, Error> {
            Ok(Condition::Present)
        }
    }

    #[test]
    fn what_failed_half_way_is_undone_too_unless_it_is_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope { root: dir.path().into(), run_dir: dir.path().into() };
        for (errno, stays) in [
            (Errno::EIO as i32, false),
            (Errno::ENOBUFS as i32, false),
            (Errno::EEXIST as i32, true),
            (0, true),
        ] {
            let path = |name: &str| dir.path().join(name);
            let mut list =
                [Half { path: path("a"), errno: None }, Half { path: path("b"), errno: Some(errno) }];
            let (_, left) = apply_all(&mut list, &scope).unwrap_err();
            assert!(left.is_empty());
            assert_eq!((path("a").exists(), path("b").exists()), (false, stays), "{errno}");
        }
    }

    #[test]
    fn the_first_failure_is_told_and_what_follows_from_it_is_not() {
        let failed = |errnos: &[Errno]| {
            let left = errnos.iter().map(|errno| (0, Error::new("remove", "it", *errno)));
            causes(left.collect()).filter_map(|error| error.errno()).collect::<Vec<_>>()
        };
        // Undo goes backwards.
        assert_eq!(failed(&[Errno::EBUSY, Errno::EIO]), [Errno::EIO]);
        assert_eq!(failed(&[Errno::EPERM, Errno::EBUSY, Errno::EIO]), [Errno::EIO, Errno::EPERM]);
        assert_eq!(failed(&[Errno::EBUSY]), [Errno::EBUSY]);
        assert_eq!(failed(&[Errno::EBUSY, Errno::EBUSY]), [Errno::EBUSY]);
    }
}
