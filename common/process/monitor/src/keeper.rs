use std::{os::fd::OwnedFd, time::Duration};

use runtime::{Identity, Running, Streams};

/// A monitor's access to the container's record. Everything that must outlive the monitor is kept there.
pub trait Keeper {
    /// Records the end of the process, with its exit status as a shell counts it; none if it is unknown.
    /// Returns what comes next.
    fn ended(&mut self, identity: Identity, status: Option<i32>) -> Next;

    /// Starts the process again with these streams, and records it first.
    ///
    /// # Errors
    /// What comes next if the process was not started: either the start failed, and the process is recorded
    /// as ended, or the container is not wanted any more.
    fn again(&mut self, streams: Streams<'_>) -> Result<Running, Next>;

    /// Whether the container, whose process has ended, is still to be started again.
    fn is_wanted(&mut self) -> bool;

    /// Whether the container's processes are paused.
    fn is_paused(&mut self) -> bool;

    /// The container's health check, if it has one.
    fn probe(&mut self) -> Option<Probe>;

    /// Starts a health check in the container with this first process. The check writes to `output`. Returns
    /// none if the start fails; `told` then says why.
    fn ask(&mut self, identity: Identity, output: &OwnedFd, told: &mut String) -> Option<Running>;

    /// Records the result of a health check. `outcome` also says whether the container is still starting.
    fn answered(&mut self, identity: Identity, outcome: &Outcome);
}

/// What comes after the end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the monitor ends.
    Leave,
    /// The process is started again after this time.
    Again(Duration),
}

/// The times of a container's health check, as in Docker's `HEALTHCHECK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The time from the start, or from the end of a check, to the next check.
    pub interval: Duration,
    /// The same while the container is still starting.
    pub start_interval: Duration,
    /// How long the container counts as starting.
    pub start_period: Duration,
    /// How long a check may take.
    pub timeout: Duration,
}

/// The result of a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit status of the check; none if it took too long.
    pub status: Option<i32>,
    /// When the check began, since 1970.
    pub began: Duration,
    /// What the check printed, or why it failed.
    pub output: String,
    /// Whether the container may still be starting. Then a failure does not count.
    pub is_starting: bool,
}
