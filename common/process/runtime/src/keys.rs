//! Detach keys, written as in Docker.

use std::str::FromStr;

/// A sequence of keys, as the bytes that a terminal sends for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

impl FromStr for Keys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = |word: &str| match word.strip_prefix("ctrl-").map(str::as_bytes) {
            Some(&[letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
            Some(&[sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(sign - b'@'),
            None if word.len() == 1 => Ok(word.as_bytes()[0]),
            _ => Err(format!("{word:?} is no key: one character, or ctrl- and a letter or one of @[\\]^_")),
        };
        let words = text.split(',').filter(|_| !text.is_empty());
        words.map(key).collect::<Result<_, _>>().map(Self)
    }
}

/// Looks for the detach keys in the input.
#[derive(Debug)]
pub struct KeyWatch<'a> {
    keys: &'a Keys,
    /// How many of the keys have been typed so far.
    seen: usize,
}

impl<'a> KeyWatch<'a> {
    /// Nothing has been typed yet.
    pub fn new(keys: &'a Keys) -> Self {
        Self { keys, seen: 0 }
    }

    /// The part of `typed` to pass on, after any input that was held back before. None if all the keys were
    /// typed.
    pub fn pass(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let keys = &self.keys.0;
        let mut passed = Vec::new();
        for byte in typed {
            if !keys.is_empty() && *byte == keys[self.seen] {
                self.seen += 1;
                if self.seen == keys.len() {
                    return None;
                }
                continue;
            }
            passed.extend_from_slice(&keys[..self.seen]);
            self.seen = usize::from(keys.first() == Some(byte));
            if self.seen == 0 {
                passed.push(*byte);
            }
        }
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_wherever_they_are_cut() {
        let keys: Keys = "ctrl-p,ctrl-q".parse().unwrap();
        assert_eq!(keys, Keys(vec![16, 17]));
        let mut watch = KeyWatch::new(&keys);
        assert_eq!(watch.pass(b"a\x10").unwrap(), b"a");
        assert_eq!(watch.pass(b"b").unwrap(), b"\x10b");
        assert_eq!(watch.pass(b"\x10\x10").unwrap(), b"\x10");
        assert_eq!(watch.pass(b"\x11"), None);
        let none: Keys = "".parse().unwrap();
        assert_eq!(KeyWatch::new(&none).pass(b"\x10\x11").unwrap(), b"\x10\x11");
        assert_eq!("ctrl-\\,x".parse(), Ok(Keys(vec![28, b'x'])));
        for text in ["ctrl-", "ctrl-P", "ab", "a,,b"] {
            assert!(text.parse::<Keys>().is_err(), "{text}");
        }
    }
}
