//! What an unpacked layer took from the lower layers.

use std::os::fd::{AsFd, BorrowedFd};

use archive::Time;
use oci::digest::{Algorithm, Digest, Hasher};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use serde::{Deserialize, Serialize};

use super::{
    EntryError,
    below::{Below, Found, error},
    form::Facts,
    name,
};
use crate::overlay;

/// A path in the lower layers, and what was found there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dependency {
    /// The path relative to the root, in the form of `escape_ascii`; empty for the root.
    pub path: String,
    /// What was examined.
    pub aspect: Aspect,
    /// What was found, as one line. Different content gives different lines.
    pub seen: String,
}

/// What an unpacked layer depends on at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    /// The attributes of a directory that the layer's archive does not list.
    Attributes,
    /// Whether there is a directory, in which a whiteout would have an effect.
    Directory,
    /// The target of a symbolic link among the parents of an entry.
    Link,
    /// The file that is the target of a hard link.
    Content,
    /// The names in the root. An opaque root hides all of them.
    Names,
}

impl Dependency {
    pub(super) fn new(path: &[u8], aspect: Aspect, seen: String) -> Self {
        Self { path: path.escape_ascii().to_string(), aspect, seen }
    }

    /// Whether the lower layers still have the same at the path.
    pub(crate) fn holds(&self, below: &Below) -> Result<bool, EntryError> {
        // The path was escaped when it was written. If it cannot be unescaped, it matches nothing.
        let Some(path) = unescape(&self.path) else { return Ok(false) };
        Ok(look(below, &path, self.aspect)? == self.seen)
    }
}

/// What the lower layers have at a path, as one line.
pub(super) fn look(below: &Below, path: &[u8], aspect: Aspect) -> Result<String, EntryError> {
    if aspect == Aspect::Names {
        let names = below.root_names()?;
        return Ok(names.iter().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>().join("/"));
    }
    let found = below.find(path)?;
    Ok(match (aspect, found) {
        (Aspect::Attributes, Found::Directory(fd)) => {
            let mut facts = facts(fd.as_fd(), path)?;
            if path.is_empty() {
                // Each copy of a layer has a new root, so its time has no meaning.
                facts.mtime = Time::default();
            }
            line(&facts)
        }
        // An entry below a symbolic link would have gone to the link's target.
        (Aspect::Attributes, Found::Symlink(target, _)) => format!("-> {}", target.escape_ascii()),
        (Aspect::Directory, Found::Directory(_)) => "directory".into(),
        (Aspect::Link, Found::Symlink(target, _)) => target.escape_ascii().to_string(),
        (Aspect::Content, Found::File(directory) | Found::Symlink(_, directory)) => {
            content(directory.as_fd(), path)?
        }
        _ => "-".into(),
    })
}

/// The attributes of a directory in the lower layers.
pub(super) fn facts(directory: BorrowedFd, path: &[u8]) -> Result<Facts, EntryError> {
    let stat = fstat(directory).map_err(error("stat", path))?;
    Ok(Facts {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        atime: None,
        xattrs: overlay::xattrs(directory, b".").map_err(error("list attributes of", path))?,
    })
}

/// The facts as one line.
pub(super) fn line(facts: &Facts) -> String {
    let Facts { mode, uid, gid, mtime, xattrs, .. } = facts;
    let mut line = format!("{mode:o} {uid}:{gid} {}.{:09}", mtime.seconds, mtime.nanoseconds);
    for (name, value) in xattrs {
        line += &attribute(name, value);
    }
    line
}

/// An attribute as text. A long value is replaced by its hash, because the text is kept in memory and in the
/// note.
fn attribute(name: &[u8], value: &[u8]) -> String {
    const LONG: usize = 64;
    match value.len() {
        ..=LONG => format!(" {}={}", name.escape_ascii(), value.escape_ascii()),
        _ => format!(" {}#{}", name.escape_ascii(), Digest::of(value).hex()),
    }
}

/// A file's attributes, without its access time, and the hash of its content.
fn content(directory: BorrowedFd, path: &[u8]) -> Result<String, EntryError> {
    let (_, name) = name::split(path);
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(error("stat", path))?;
    let xattrs = overlay::xattrs(directory, name).map_err(error("list attributes of", path))?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(directory, name, flags, Mode::empty()).map_err(error("open", path))?;
            let mut buffer = vec![0; 128 << 10];
            loop {
                match rustix::io::read(&file, &mut buffer[..]).map_err(error("read", path))? {
                    0 => break,
                    count => hasher.update(&buffer[..count]),
                }
            }
        }
        FileType::Symlink => {
            hasher.update(readlinkat(directory, name, Vec::new()).map_err(error("read", path))?.as_bytes());
        }
        _ => {}
    }
    let attributes: String = xattrs.iter().map(|(name, value)| attribute(name, value)).collect();
    Ok(format!(
        "{:o} {}:{} {} {}.{:09} {}{}",
        stat.st_mode,
        stat.st_uid,
        stat.st_gid,
        stat.st_rdev,
        stat.st_mtime,
        stat.st_mtime_nsec,
        hasher.finish().hex(),
        attributes
    ))
}

/// Reverses `escape_ascii`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next()? {
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let mut digit = || char::from(bytes.next()?).to_digit(16);
                    (digit()? * 16 + digit()?) as u8
                }
                other => other,
            },
            plain => plain,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&all.escape_ascii().to_string()), Some(all));
    }
}
