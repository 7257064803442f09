//! A hash table of numbers. The keys are stored elsewhere, so each slot takes four bytes.

use std::hash::{BuildHasher, RandomState};

/// Gives access to the keys.
pub(crate) trait Keys {
    /// The key of the entry with this number.
    fn key(&self, index: u32) -> (u32, &[u8]);
}

/// Finds numbers by their keys. Entries are never removed. The hash differs in every run, because names are
/// untrusted.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The slots. Their number is a power of two, or 0.
    places: Vec<u32>,
    used: usize,
    hasher: RandomState,
}

const EMPTY: u32 = u32::MAX;
/// The minimum number of slots.
const LEAST: usize = 64;

impl Index {
    /// The size of the table in memory, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.places.len() * size_of::<u32>()
    }

    pub(crate) fn find(&self, key: (u32, &[u8]), keys: &impl Keys) -> Option<u32> {
        self.walk(key)
            .map(|place| self.places[place])
            .take_while(|index| *index != EMPTY)
            .find(|index| keys.key(*index) == key)
    }

    /// Adds a number. Its key must not be in the table yet.
    pub(crate) fn insert(&mut self, index: u32, keys: &impl Keys) {
        // At most three quarters of the slots are used.
        if self.places.len() < (self.used + 1).div_ceil(3) * 4 {
            let size = (self.places.len() * 2).max(LEAST);
            let old = std::mem::replace(&mut self.places, vec![EMPTY; size]);
            old.into_iter().filter(|index| *index != EMPTY).for_each(|index| self.place(index, keys));
        }
        self.place(index, keys);
        self.used += 1;
    }

    fn place(&mut self, index: u32, keys: &impl Keys) {
        let free = self.walk(keys.key(index)).find(|place| self.places[*place] == EMPTY);
        if let Some(free) = free {
            self.places[free] = index;
        }
    }

    /// The slots where a key can be, in the order of probing.
    fn walk(&self, key: (u32, &[u8])) -> impl Iterator<Item = usize> + use<> {
        let size = self.places.len();
        let first = self.hasher.hash_one(key) as usize;
        (0..size).map(move |step| first.wrapping_add(step) & (size - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Keys for Vec<String> {
        fn key(&self, index: u32) -> (u32, &[u8]) {
            (index % 7, self[index as usize].as_bytes())
        }
    }

    #[test]
    fn what_was_put_in_is_found() {
        let keys: Vec<String> = (0..5000).map(|number| format!("name {}", number / 7)).collect();
        let mut index = Index::default();
        assert_eq!(index.find((0, b"name 0"), &keys), None);
        for number in 0..4000 {
            index.insert(number, &keys);
        }
        for number in 0..5000 {
            let found = index.find(keys.key(number), &keys);
            assert_eq!(found, (number < 4000).then_some(number));
        }
        assert_eq!(index.kept(), 8192 * 4);
    }
}
