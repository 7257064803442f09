//! Processes of a build beside it.

use nix::{
    sys::{prctl, signal::Signal},
    unistd::{ForkResult, Pid},
};

/// Forks a process that ends when the build ends, however that ends: it must not keep the build's locks.
/// Returns None in that process, which then exits: values of the build must not be dropped there. The caller
/// must have one thread.
pub(crate) fn fork() -> nix::Result<Option<Pid>> {
    let parent = nix::unistd::getpid();
    // SAFETY: a build has one thread, so the child may do what the parent may.
    if let ForkResult::Parent { child } = unsafe { nix::unistd::fork() }? {
        return Ok(Some(child));
    }
    let ends = prctl::set_pdeathsig(Signal::SIGKILL);
    // The build may have ended before prctl.
    if ends.is_err() || nix::unistd::getppid() != parent {
        std::process::exit(0);
    }
    Ok(None)
}
