//! A line on a terminal that says how far long work is.

use std::{
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Work that is done sooner shows nothing.
const AFTER: Duration = Duration::from_millis(500);
/// The least time between two changes of the line.
const BETWEEN: Duration = Duration::from_millis(100);

static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// From now on, no [`Status`] of this process shows anything: `--quiet`.
pub fn show_no_status() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// A line on standard error that replaces itself, and is gone at the end. It is only shown on a terminal, for work that
/// takes longer than half a second. The work tells how far it is ([`Status::at`]), so no thread is needed.
#[derive(Debug)]
pub struct Status {
    what: &'static str,
    next: Option<Instant>,
    is_shown: bool,
}

impl Status {
    /// A status of this work, a word such as `packing`.
    pub fn new(what: &'static str) -> Self {
        let is_wanted = !IS_QUIET.load(Ordering::Relaxed) && io::stderr().is_terminal();
        Self { what, next: is_wanted.then(|| Instant::now() + AFTER), is_shown: false }
    }

    /// So many bytes are done.
    pub fn at(&mut self, bytes: u64) {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + BETWEEN);
        self.is_shown = true;
        // If the terminal is gone, the work still goes on.
        let _ = write!(io::stderr(), "\r\x1b[K{}: {} MB", self.what, bytes / 1_000_000);
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
