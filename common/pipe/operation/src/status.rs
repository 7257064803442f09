//! A line on a terminal that says how far long work is.

use std::{
    io::{self, IsTerminal, Read, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Work that is done sooner shows nothing.
const AFTER: Duration = Duration::from_millis(500);
/// The least time between two changes of the line.
const BETWEEN: Duration = Duration::from_millis(100);
/// The width of a bar.
const WIDTH: u64 = 30;

static IS_QUIET: AtomicBool = AtomicBool::new(false);
/// Whether the line is there at the moment.
static IS_THERE: AtomicBool = AtomicBool::new(false);
/// Whether this process has shown a line.
static WAS_THERE: AtomicBool = AtomicBool::new(false);

/// From now on, no [`Status`] of this process shows anything: `--quiet`.
pub fn show_no_status() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// What a terminal needs before another line, so that it does not begin in the middle of a status.
pub(crate) fn before_a_line() -> &'static str {
    if IS_THERE.swap(false, Ordering::Relaxed) { "\r\x1b[K" } else { "" }
}

/// A line on standard error that replaces itself, and is gone at the end. It is only shown on a terminal, for work that
/// takes longer than half a second. The work tells how far it is ([`Status::at`]), so no thread is needed.
#[derive(Debug)]
pub struct Status {
    what: &'static str,
    /// The bytes in all. 0 if nobody knows.
    total: u64,
    done: u64,
    next: Option<Instant>,
    is_shown: bool,
}

impl Status {
    /// A status of this work, a word such as `packing`.
    pub fn new(what: &'static str) -> Self {
        Self::of(what, 0)
    }

    /// A status of this work on so many bytes: with a bar, unless there are none.
    pub fn of(what: &'static str, total: u64) -> Self {
        let is_wanted = !IS_QUIET.load(Ordering::Relaxed) && io::stderr().is_terminal();
        let next = is_wanted.then(|| Instant::now() + AFTER);
        Self { what, total, done: 0, next, is_shown: false }
    }

    /// A status of the end of long work, which tells nothing meanwhile. It is shown at once, if the work was long.
    pub fn last(what: &'static str) -> Self {
        let mut status = Self::new(what);
        if status.next.is_some() && WAS_THERE.load(Ordering::Relaxed) {
            status.show(what);
        }
        status
    }

    /// So many bytes are the whole work.
    pub fn expect(&mut self, total: u64) {
        self.total = total;
    }

    /// So many bytes are done.
    pub fn at(&mut self, bytes: u64) {
        self.done = bytes;
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + BETWEEN);
        self.show(&line(self.what, bytes, self.total));
    }

    /// So many more bytes are done.
    pub fn add(&mut self, bytes: u64) {
        self.at(self.done.saturating_add(bytes));
    }

    fn show(&mut self, line: &str) {
        self.is_shown = true;
        IS_THERE.store(true, Ordering::Relaxed);
        WAS_THERE.store(true, Ordering::Relaxed);
        // If the terminal is gone, the work still goes on.
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        if self.is_shown && IS_THERE.swap(false, Ordering::Relaxed) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// The line for `done` bytes of `total`.
fn line(what: &str, done: u64, total: u64) -> String {
    let megabytes = |bytes: u64| bytes / 1_000_000;
    if total == 0 {
        return format!("{what}: {} MB", megabytes(done));
    }
    let done = done.min(total);
    let filled = u128::from(done) * u128::from(WIDTH) / u128::from(total);
    let filled = usize::try_from(filled).unwrap_or_default();
    let head = if done == total { "" } else { ">" };
    let bar = format!("{}{head}", "=".repeat(filled));
    let width = usize::try_from(WIDTH).unwrap_or_default();
    format!("{what}: [{bar:width$}] {} of {} MB", megabytes(done), megabytes(total))
}

/// A [`Status`] that several readers, writers or threads tell how far they are. Without a terminal it costs nothing.
#[derive(Debug, Clone)]
pub struct Meter(Option<Arc<Mutex<Status>>>);

impl Meter {
    /// A meter of this work on so many bytes, or on 0 if nobody knows.
    pub fn new(what: &'static str, total: u64) -> Self {
        let status = Status::of(what, total);
        Self(status.next.is_some().then(|| Arc::new(Mutex::new(status))))
    }

    /// So many more bytes are done.
    pub fn add(&self, bytes: u64) {
        if let Some(status) = &self.0 {
            status.lock().unwrap_or_else(PoisonError::into_inner).add(bytes);
        }
    }

    /// Counts what is read from `inner`, or written to it.
    pub fn watch<T>(&self, inner: T) -> Watched<T> {
        Watched { inner, meter: self.clone() }
    }
}

/// A reader or writer whose bytes a [`Meter`] counts.
#[derive(Debug)]
pub struct Watched<T> {
    inner: T,
    meter: Meter,
}

impl<T: Read> Read for Watched<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.meter.add(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (done, total, expected) in [
            (0, 0, "loading: 0 MB"),
            (45_999_999, 0, "loading: 45 MB"),
            (0, 600_000_000, "loading: [>                             ] 0 of 600 MB"),
            (300_000_000, 600_000_000, "loading: [===============>              ] 300 of 600 MB"),
            (600_000_000, 600_000_000, "loading: [==============================] 600 of 600 MB"),
            (700_000_000, 600_000_000, "loading: [==============================] 600 of 600 MB"),
            (
                u64::MAX - 1,
                u64::MAX,
                "loading: [=============================>] 18446744073709 of 18446744073709 MB",
            ),
        ] {
            assert_eq!(line("loading", done, total), expected);
        }
    }
}
