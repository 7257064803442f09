use std::fmt;

/// A name from an archive, for messages: quoted, escaped, and shortened if it is very long.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(Vec<u8>);

impl Shown {
    const LONGEST: usize = 256;

    /// The name to show.
    pub fn new(name: &[u8]) -> Self {
        Self(name[..name.len().min(Self::LONGEST + 1)].to_vec())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let cut = self.0.len() > Self::LONGEST;
        let shown = &self.0[..self.0.len().min(Self::LONGEST)];
        f.write_str("\"")?;
        for chunk in shown.utf8_chunks() {
            write!(f, "{}", chunk.valid().escape_debug())?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        f.write_str(if cut { "…\"" } else { "\"" })
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_on_one_line() {
        for (name, shown) in [
            (&b"usr/bin"[..], r#""usr/bin""#),
            (b"a\nb\0", r#""a\nb\0""#),
            (b"caf\xc3\xa9 \xff", r#""café \xff""#),
        ] {
            assert_eq!(Shown::new(name).to_string(), shown);
        }
        assert_eq!(Shown::new(&[b'a'; 65536]).to_string(), format!("\"{}…\"", "a".repeat(256)));
    }
}
