//! Ends a container from outside: after a time limit, or when the program that started it ends.

use std::{
    os::unix::process::parent_id,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use runtime::{Identity, StopSignal};
use rustix::process::{Signal, pidfd_send_signal, set_parent_process_death_signal};
use toolkit::prelude::*;

/// The time between the stop signal and SIGKILL, as with `docker stop`.
const GRACE: Duration = Duration::from_secs(10);

/// Ends a process after a time limit.
#[derive(Debug)]
pub(crate) struct Timer(Arc<AtomicBool>);

impl Timer {
    /// Starts the timer in a thread. The thread ends with this program.
    pub(crate) fn start(identity: Identity, limit: Duration, signal: StopSignal) -> Self {
        let fired = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&fired);
        let count = move || {
            thread::sleep(limit);
            let Ok(Some(process)) = identity.open() else { return };
            told.store(true, Ordering::SeqCst);
            // An error means that the process has ended.
            let _ = signal.send(&process);
            thread::sleep(GRACE);
            let _ = pidfd_send_signal(&process, Signal::KILL);
        };
        if let Err(error) = thread::Builder::new().spawn(count) {
            // Without a thread the limit could not be kept, so kill the process at once.
            toolkit::print_error("ns-exec", &anyhow!(error).context("start the timer"));
            fired.store(true, Ordering::SeqCst);
            if let Ok(Some(process)) = identity.open() {
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        }
        Self(fired)
    }

    /// Whether the limit was reached before the process ended.
    pub(crate) fn has_fired(self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Makes the kernel kill this program when the program that started it ends. The container's process is bound
/// to this program in the same way.
pub(crate) fn end_with_parent() -> Result<()> {
    let parent = parent_id();
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("bind ns-exec to the program that started it")?;
    // The parent may have ended just before.
    if parent_id() != parent {
        bail!("the program that started ns-exec has ended");
    }
    Ok(())
}
