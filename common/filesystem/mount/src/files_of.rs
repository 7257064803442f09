//! Files with owners that another user namespace maps.

use std::thread;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::{
    io::Errno,
    thread::{CapabilitySets, capabilities, set_capabilities},
};

use crate::{Error, Result};

/// Does `work` so that what it makes belongs to this user and this group, with all rights that the caller has. Where an owner has no
/// mapping, as on a mount with mapped owners, the kernel makes no file (EOVERFLOW).
///
/// # Errors
/// Those of `work`; when there is no thread for it, or the caller may not act for others.
pub fn files_of<T: Send>((user, group): (u32, u32), work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let object = || format!("user {user}");
    // Rights of a thread: they end with it.
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

/// The same from now on, for the calling thread.
///
/// # Errors
/// When it may not act for others.
pub fn act_for(user: u32, group: u32) -> std::result::Result<(), Errno> {
    let had = capabilities(None)?;
    setfsgid(Gid::from_raw(group));
    setfsuid(Uid::from_raw(user));
    // The kernel takes the rights over files from who is not root any more, and leaves the permission to have them.
    set_capabilities(None, CapabilitySets { effective: had.effective, ..capabilities(None)? })?;
    // The two calls do not tell: asked for an id that there is not, they say who it is.
    let of_nobody = (Uid::from_raw(u32::MAX), Gid::from_raw(u32::MAX));
    match (setfsuid(of_nobody.0).as_raw(), setfsgid(of_nobody.1).as_raw()) {
        found if found == (user, group) => Ok(()),
        _ => Err(Errno::PERM),
    }
}
