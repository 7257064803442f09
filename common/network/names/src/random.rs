//! Numbers that nobody guesses.

use std::hash::{BuildHasher, RandomState};

/// A source of numbers: the keyed hash of a counter, with a key of the system's.
#[derive(Debug, Default)]
pub(crate) struct Random {
    key: RandomState,
    count: u64,
}

impl Random {
    /// The next one.
    pub(crate) fn draw(&mut self) -> u16 {
        self.count += 1;
        (self.key.hash_one(self.count) >> 48) as u16
    }
}
