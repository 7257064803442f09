//! Interrupts take effect between two operations, not inside one.
//!
//! While a list is applied, SIGINT, SIGTERM and SIGHUP are blocked. A signal stays pending. It is checked before each
//! operation, and now and then during a long one. It counts as a failure, so everything is undone.

use nix::{
    sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    sys::signalfd::{SfdFlags, SignalFd},
};

use crate::Error;

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The user, or the system, asked the tool to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted by {0}")]
pub struct Interrupted(Signal);

/// Blocks the signals in this thread and in those that it starts later. Before a program with normal signals is
/// executed, [`unblock`] must be called.
///
/// # Errors
/// None that the kernel is known to give.
pub fn block() -> nix::Result<()> {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::from_iter(SIGNALS)), None)
}

/// Unblocks the signals. A pending one ends the process now.
///
/// # Errors
/// None that the kernel is known to give.
pub fn unblock() -> nix::Result<()> {
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from_iter(SIGNALS)), None)
}

/// A descriptor that is readable once one of the signals arrived since [`block`], for a process that waits.
///
/// # Errors
/// When there is no descriptor left.
pub fn descriptor() -> nix::Result<SignalFd> {
    SignalFd::with_flags(&SigSet::from_iter(SIGNALS), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Whether one of the signals arrived since [`block`]. Takes it off the queue, so that undo is not disturbed.
///
/// # Errors
/// [`Interrupted`], with the signal.
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
