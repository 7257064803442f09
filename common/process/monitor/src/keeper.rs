use std::{os::fd::OwnedFd, time::Duration};

use runtime::{Identity, Running, Streams};

/// What a monitor asks and tells of the container's record. All that is to outlive the monitor is there.
pub trait Keeper {
    /// The process has ended, with this status as a shell counts it if that is known. Says what comes next.
    fn ended(&mut self, identity: Identity, status: Option<i32>) -> Next;

    /// Starts the process again, with these streams, once it is on record.
    ///
    /// # Errors
    /// What comes next where it is not started: it could not be, and is on record as ended; or it is not wanted any more.
    fn again(&mut self, streams: Streams<'_>) -> Result<Running, Next>;

    /// Whether the container, whose process has ended, is still to be started again.
    fn is_wanted(&mut self) -> bool;

    /// Whether the container's processes are stopped for now.
    fn is_paused(&mut self) -> bool;

    /// The health check of the container; none without one.
    fn probe(&mut self) -> Option<Probe>;

    /// Starts a health check in the container of this first process, with this output. None where that fails; then `told` says
    /// why.
    fn ask(&mut self, identity: Identity, output: &OwnedFd, told: &mut String) -> Option<Running>;

    /// The result of a health check. Says whether the container is still starting.
    fn answered(&mut self, identity: Identity, outcome: &Outcome);
}

/// What comes after the end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the monitor ends.
    Leave,
    /// It is started again, after this time.
    Again(Duration),
}

/// How often a container is asked for its health, as with Docker's `HEALTHCHECK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// From the start, and from the end of a check, to the next one.
    pub interval: Duration,
    /// The same while the container is still starting.
    pub start_interval: Duration,
    /// How long it is starting.
    pub start_period: Duration,
    /// How long a check may take.
    pub timeout: Duration,
}

/// The result of a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit status; none if it took too long.
    pub status: Option<i32>,
    /// The end of what it printed.
    pub output: String,
    /// Whether the container may still be starting, so that a failure does not count.
    pub is_starting: bool,
}
