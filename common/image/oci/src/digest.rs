//! Digests of content (OCI image-spec, descriptor.md, "Digests"), computed while the content is read or
//! written.

use std::{
    error::Error as _,
    fmt,
    io::{self, Read, Write},
    path::PathBuf,
    str::FromStr,
};

use oci_spec::image as spec;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A digest algorithm that the image-spec registers. Others are rejected, because their digests could not be
/// checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, the usual one.
    Sha256,
    /// SHA-512, which the image-spec allows too.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The algorithm's name in a digest. It is also the name of the algorithm's directory under `blobs`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The number of hexadecimal digits in a digest.
    fn length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// The digest of some content, e.g. `sha256:` and 64 lower case hexadecimal digits. Both parts are safe as
/// file names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

/// A string that is not a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: it takes \"sha256:\" and 64 hexadecimal digits, or \"sha512:\" and 128")]
pub struct InvalidDigest(String);

impl Digest {
    /// The SHA-256 digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self::by(Algorithm::Sha256, content)
    }

    /// The digest of `content` by `algorithm`.
    pub fn by(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal digits alone. They name a layer's directory.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve hexadecimal digits, for display.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest(text.chars().take(160).collect());
        let (name, hex) = text.split_once(':').ok_or_else(invalid)?;
        let algorithm = [Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|a| a.as_str() == name);
        let algorithm = algorithm.ok_or_else(invalid)?;
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match hex.len() == algorithm.length() && hex.bytes().all(lower_hex) {
            true => Ok(Self { algorithm, hex: hex.to_owned() }),
            false => Err(invalid()),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl TryFrom<&spec::Digest> for Digest {
    type Error = InvalidDigest;
    fn try_from(digest: &spec::Digest) -> Result<Self, InvalidDigest> {
        digest.as_ref().parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl From<Digest> for spec::Digest {
    fn from(digest: Digest) -> Self {
        match digest.to_string().parse() {
            Ok(digest) => digest,
            Err(_) => unreachable!("what this type accepts is what the image-spec accepts"),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A digest that is being computed.
#[derive(Debug, Clone)]
pub struct Hasher(State);

#[derive(Debug, Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Starts a digest of no content.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Adds `content` to what is hashed.
    pub fn update(&mut self, content: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(content),
            State::Sha512(state) => state.update(content),
        }
    }

    /// The digest of all content added so far.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest { algorithm: Algorithm::Sha256, hex: to_hex(&state.finalize()) },
            State::Sha512(state) => Digest { algorithm: Algorithm::Sha512, hex: to_hex(&state.finalize()) },
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A reader or writer that hashes and counts the bytes that pass through it.
#[derive(Debug)]
pub struct Hashing<T> {
    inner: T,
    hasher: Hasher,
    size: u64,
}

impl<T> Hashing<T> {
    /// Wraps a reader or a writer.
    pub fn new(inner: T, algorithm: Algorithm) -> Self {
        Self { inner, hasher: Hasher::new(algorithm), size: 0 }
    }

    /// The number of bytes that have passed.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The wrapped reader or writer.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Returns the wrapped reader or writer, the digest of all bytes that passed, and their number.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, self.hasher.finish(), self.size)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Content that does not match its descriptor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The content has another digest.
    #[error("content of {expected} has digest {found}")]
    Digest {
        /// The expected digest.
        expected: Digest,
        /// The actual digest.
        found: Digest,
    },
    /// The content has another size.
    #[error("content of {digest} has {}{found} bytes, its descriptor says {expected}", if *.more { "more than " } else { "" })]
    Size {
        /// The expected digest.
        digest: Digest,
        /// The expected size.
        expected: u64,
        /// The number of bytes read.
        found: u64,
        /// Whether the content goes on after `found` bytes.
        more: bool,
    },
}

/// Whose layout has the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The image store.
    Store,
    /// A layout of somebody else, in this directory.
    Layout(PathBuf),
}

/// Content in a layout that does not match its descriptor. A power cut, a failing disk or another program
/// changed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{mismatch}: {} is damaged", self.place())]
pub struct Damaged {
    /// The content.
    pub mismatch: Mismatch,
    /// The layout's directory; None for the image store.
    pub layout: Option<PathBuf>,
}

impl Damaged {
    fn place(&self) -> String {
        match &self.layout {
            Some(path) => format!("the layout {path:?}"),
            None => "the image store".to_owned(),
        }
    }

    const HINT: &str =
        "`img-verify --remove` removes damaged blobs; then pull, load or build the image again";
}

impl Mismatch {
    /// Wraps the mismatch in [`Damaged`], for content of a layout. For the image store, adds a hint.
    pub(crate) fn held_by(self, holder: &Holder) -> operation::Error {
        let damaged = |layout| operation::Error::caused_by(Damaged { mismatch: self, layout });
        match holder {
            Holder::Store => damaged(None).with_hint(Damaged::HINT),
            Holder::Layout(path) => damaged(Some(path.clone())),
        }
    }

    /// Finds the mismatch inside an I/O error, also inside an [`operation::Error`] there.
    pub fn within(error: &io::Error) -> Option<&Self> {
        let inner = error.get_ref()?;
        let damaged = || inner.downcast_ref::<operation::Error>()?.source()?.downcast_ref::<Damaged>();
        inner.downcast_ref().or_else(|| damaged().map(|damaged| &damaged.mismatch))
    }
}

/// A reader of content with a known digest and size. It fails at the end if the content does not match, and
/// earlier if the content is too long.
#[derive(Debug)]
pub struct Verifying<R> {
    inner: R,
    /// None once the content has been checked.
    hasher: Option<Hasher>,
    expected: Digest,
    size: u64,
    seen: u64,
    /// Whose layout has the content. A mismatch is then reported as [`Damaged`]. None for a stream, such as a
    /// registry's answer or an archive: its reader says where it is from.
    holder: Option<Holder>,
}

impl<R: Read> Verifying<R> {
    /// Wraps a reader of content that must have the digest `expected` and `size` bytes.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        let hasher = Some(Hasher::new(expected.algorithm()));
        Self { inner, hasher, expected, size, seen: 0, holder: None }
    }

    /// Like [`Verifying::new`], for content of a layout. Its errors hold [`Damaged`].
    pub(crate) fn held_by(holder: Holder, inner: R, expected: Digest, size: u64) -> Self {
        Self { holder: Some(holder), ..Self::new(inner, expected, size) }
    }

    /// Reads the rest and checks the whole content. Needed by readers such as tar, which stop before the
    /// content ends.
    ///
    /// # Errors
    /// When the content cannot be read or does not match. The error then holds a [`Mismatch`].
    pub fn finish(mut self) -> io::Result<R> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.inner)
    }

    fn wrong_size(&self, more: bool) -> io::Error {
        let (digest, expected, found) = (self.expected.clone(), self.size, self.seen);
        let found = if more { expected } else { found };
        self.error(Mismatch::Size { digest, expected, found, more })
    }

    fn error(&self, mismatch: Mismatch) -> io::Error {
        match &self.holder {
            None => io::Error::new(io::ErrorKind::InvalidData, mismatch),
            Some(holder) => io::Error::new(io::ErrorKind::InvalidData, mismatch.held_by(holder)),
        }
    }
}

impl<R: Read> Read for Verifying<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        self.seen += count as u64;
        if self.seen > self.size {
            return Err(self.wrong_size(true));
        }
        if count > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..count]);
            }
            return Ok(count);
        }
        if self.seen < self.size {
            return Err(self.wrong_size(false));
        }
        if let Some(hasher) = self.hasher.take() {
            let found = hasher.finish();
            if found != self.expected {
                return Err(self.error(Mismatch::Digest { expected: self.expected.clone(), found }));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_registered_algorithms_in_their_one_spelling() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
        for wrong in [
            "",
            "sha256",
            "sha256:",
            "sha256:abc",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &EMPTY.to_uppercase(),
            &EMPTY.replace('e', "E"),
            &EMPTY.replace('e', "/"),
            &format!("{EMPTY}0"),
            "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
        let error = "sha256:../../x".parse::<Digest>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"sha256:../../x\" is not a digest: it takes \"sha256:\" and 64 hexadecimal digits, or \"sha512:\" and 128"
        );
    }

    #[test]
    fn what_is_read_is_what_was_promised() {
        let content = b"some content";
        let cases = [
            (Digest::of(content), 12, None),
            (Digest::of(content), 11, Some("has more than 11 bytes, its descriptor says 11")),
            (Digest::of(content), 13, Some("has 12 bytes, its descriptor says 13")),
            (
                Digest::of(b"x"),
                12,
                Some("has digest sha256:290f493c44f5d63d06b374d0a5abd292fae38b92cab2fae5efefe1b0e9347f56"),
            ),
        ];
        for (digest, size, problem) in cases {
            let read = Verifying::new(&content[..], digest.clone(), size).finish();
            match problem {
                None => assert!(read.is_ok()),
                Some(text) => {
                    assert_eq!(read.unwrap_err().to_string(), format!("content of {digest} {text}"));
                }
            }
        }
        let mut sha512 = Hasher::new(Algorithm::Sha512);
        sha512.update(content);
        assert!(Verifying::new(&content[..], sha512.finish(), 12).finish().is_ok());
    }
}
