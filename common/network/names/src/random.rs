//! Unpredictable numbers.

use std::hash::{BuildHasher, RandomState};

/// A source of unpredictable numbers: the keyed hash of a counter, with a key from the system.
#[derive(Debug, Default)]
pub(crate) struct Random {
    key: RandomState,
    count: u64,
}

impl Random {
    /// The next number.
    pub(crate) fn draw(&mut self) -> u16 {
        self.count += 1;
        (self.key.hash_one(self.count) >> 48) as u16
    }
}
