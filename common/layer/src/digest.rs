//! Digests of bytes (OCI image-spec, descriptor.md, "Digests").

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256, Sha512};

/// `sha256:` or `sha512:` and the hash in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    text: String,
}

/// Text that is no digest of an algorithm that OCI registers.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a digest: expected sha256: or sha512: and the hash in lower-case hexadecimal")]
pub struct InvalidDigest(String);

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The hash in hexadecimal, without the algorithm.
    pub fn hex(&self) -> &str {
        &self.text[7..]
    }

    /// The whole: `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let length = match text.get(..7) {
            Some("sha256:") => 64,
            Some("sha512:") => 128,
            _ => return Err(InvalidDigest(text.to_owned())),
        };
        let hex = &text[7..];
        if hex.len() != length || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidDigest(text.to_owned()));
        }
        Ok(Self { text: text.to_owned() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A hash being made.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Default for Hasher {
    fn default() -> Self {
        Self::Sha256(Sha256::new())
    }
}

impl Hasher {
    /// A hash of the algorithm of `expected`; SHA-256 where nothing is expected.
    pub(crate) fn like(expected: Option<&Digest>) -> Self {
        match expected {
            Some(digest) if digest.text.starts_with("sha512:") => Self::Sha512(Box::default()),
            _ => Self::default(),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        let (name, hash) = match self {
            Self::Sha256(hasher) => ("sha256:", hasher.finalize().to_vec()),
            Self::Sha512(hasher) => ("sha512:", hasher.finalize().to_vec()),
        };
        let hex = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| b"0123456789abcdef"[digit as usize]);
        Digest { text: name.chars().chain(hex.map(char::from)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap().hex(), &empty[7..]);
        assert!(format!("sha512:{}", "a".repeat(128)).parse::<Digest>().is_ok());
        for text in ["", "sha256:", "sha256:E3", "md5:00", &empty[7..], &empty.to_uppercase(), "sha256é"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
