//! Interrupts take effect between two operations, not inside one.
//!
//! SIGINT, SIGTERM and SIGHUP are blocked while a list of operations is applied. A signal stays pending.
//! [`checked`] looks for it before each operation, and now and then during a long one. A signal counts as a
//! failure, so everything is undone.

use nix::{
    sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask},
    sys::signalfd::{SfdFlags, SignalFd},
};

use crate::Error;

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The user, or the system, asked the tool to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted by {0}")]
pub struct Interrupted(Signal);

/// Blocks the signals in this thread and in threads that it starts later. Call [`unblock`] before executing
/// another program, which expects normal signals.
///
/// # Errors
/// No error of the kernel is known here.
pub fn block() -> nix::Result<()> {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::from_iter(SIGNALS)), None)
}

/// Unblocks the signals. A pending signal ends the process now.
///
/// # Errors
/// No error of the kernel is known here.
pub fn unblock() -> nix::Result<()> {
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from_iter(SIGNALS)), None)
}

/// Takes back that the caller ignores the end of its children, which this process inherited: otherwise the kernel
/// keeps no exit status of a child. Lets a write beyond the limit of file sizes (RLIMIT_FSIZE) fail like one on a full
/// disk; by default it ends the process.
///
/// # Errors
/// No error of the kernel is known here.
pub fn settle_signals() -> nix::Result<()> {
    // SAFETY: neither disposition runs code of this program.
    unsafe {
        signal(Signal::SIGCHLD, SigHandler::SigDfl)?;
        signal(Signal::SIGXFSZ, SigHandler::SigIgn)?;
    }
    Ok(())
}

/// A descriptor that becomes readable when one of the signals arrives, for a process that waits.
///
/// # Errors
/// When no descriptor is left.
pub fn descriptor() -> nix::Result<SignalFd> {
    SignalFd::with_flags(&SigSet::from_iter(SIGNALS), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Whether none of the signals has arrived since [`block`]. Takes a signal off the queue, so that it does not
/// disturb undo.
///
/// # Errors
/// [`Interrupted`], with the signal that arrived.
pub fn checked() -> Result<(), Error> {
    let blocked =
        SigSet::thread_get_mask().is_ok_and(|mask| SIGNALS.iter().all(|signal| mask.contains(*signal)));
    if !blocked {
        return Ok(());
    }
    let pending = || {
        let signal = descriptor()?.read_signal()?;
        signal.map(|signal| Signal::try_from(signal.ssi_signo as i32)).transpose()
    };
    match pending().map_err(Error::on("look for", "signals"))? {
        Some(signal) => Err(Interrupted(signal).into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_waits_until_it_is_asked_for() {
        block().unwrap();
        checked().unwrap();
        nix::sys::pthread::pthread_kill(nix::sys::pthread::pthread_self(), Signal::SIGTERM).unwrap();
        assert_eq!(checked().unwrap_err().to_string(), "interrupted by SIGTERM");
        checked().unwrap();
        unblock().unwrap();
    }
}
