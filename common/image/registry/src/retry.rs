//! Repeats attempts that failed.

use std::{thread, time::Duration};

use crate::Error;

/// The first pause.
const FIRST: Duration = Duration::from_millis(250);
/// The longest pause, unless the registry asks for a longer one.
const LONGEST: Duration = Duration::from_secs(30);
/// If a registry asks for a longer pause than this, its error is reported at once.
const PATIENCE: Duration = Duration::from_secs(300);

/// Counts the attempts that are left.
#[derive(Debug)]
pub(crate) struct Attempts {
    left: u32,
    pause: Duration,
    limit: u32,
}

impl Attempts {
    pub(crate) fn new(limit: u32) -> Self {
        Self { left: limit, pause: FIRST, limit }
    }

    /// Starts counting again, because the last attempt made progress.
    pub(crate) fn progressed(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `error` itself, if a retry cannot help or no attempt is left.
    pub(crate) fn wait(&mut self, error: Error, tell: impl FnOnce(&Error, Duration)) -> Result<(), Error> {
        let wanted = match &error {
            Error::Refused { retry_after, .. } => *retry_after,
            _ => None,
        };
        if !error.is_passing() || self.left == 0 || wanted.is_some_and(|wanted| wanted > PATIENCE) {
            return Err(error);
        }
        let pause = wanted.unwrap_or(self.pause);
        self.left -= 1;
        self.pause = (self.pause * 2).min(LONGEST);
        tell(&error, pause);
        thread::sleep(pause);
        Ok(())
    }
}
