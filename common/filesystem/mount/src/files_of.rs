//! Creates files as a user that a user namespace maps.

use std::thread;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::{
    io::Errno,
    thread::{CapabilitySets, capabilities, set_capabilities},
};

use crate::{Error, Result};

/// Runs `work` in a thread that creates files as this user and group, with all capabilities of the caller.
/// Without this, the kernel creates no file where the caller has no mapping, as on a mount with mapped owners
/// (EOVERFLOW).
///
/// # Errors
/// The errors of `work`; when no thread can be started, or the caller may not change its user.
pub fn files_of<T: Send>((user, group): (u32, u32), work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let object = || format!("user {user}");
    // These ids belong to one thread, and end with it.
    let begin = || {
        act_for(user, group).map_err(Error::on("act for", object()))?;
        work()
    };
    thread::scope(|scope| {
        let worker = thread::Builder::new().spawn_scoped(scope, begin);
        let worker = worker.map_err(Error::on("start a thread for", object()))?;
        worker.join().unwrap_or_else(|_| Err(Error::new("act for", object(), "the thread ended too soon")))
    })
}

/// Lets the calling thread access files as this user and group from now on.
///
/// # Errors
/// When the thread may not change its user.
pub fn act_for(user: u32, group: u32) -> std::result::Result<(), Errno> {
    let had = capabilities(None)?;
    setfsgid(Gid::from_raw(group));
    setfsuid(Uid::from_raw(user));
    // The kernel drops the effective file capabilities of a user other than root, but keeps them permitted.
    set_capabilities(None, CapabilitySets { effective: had.effective, ..capabilities(None)? })?;
    // The two calls report no error. With an invalid id they change nothing, and return the current id.
    let of_nobody = (Uid::from_raw(u32::MAX), Gid::from_raw(u32::MAX));
    match (setfsuid(of_nobody.0).as_raw(), setfsgid(of_nobody.1).as_raw()) {
        found if found == (user, group) => Ok(()),
        _ => Err(Errno::PERM),
    }
}
