//! Normalises the names of entries, or rejects them.

use super::EntryError;
use crate::whiteout::{OPAQUE, WHITEOUT};

/// The meaning of an entry's name. Paths are relative to the layer's root, without `.`, `..` and empty parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The layer's root.
    Root,
    /// The file `name` in the directory `parent`.
    Path { parent: Vec<u8>, name: Vec<u8> },
    /// A whiteout: `name` in `parent` is deleted.
    Whiteout { parent: Vec<u8>, name: Vec<u8> },
    /// An opaque whiteout: everything that lower layers have in `parent` is hidden.
    Opaque { parent: Vec<u8> },
    /// A file of AUFS itself, such as `.wh..wh.aufs`. Old versions of Docker wrote them. They are not part of
    /// the layer.
    Aufs,
    /// A file of AUFS in [`LINKED`]. It is not part of the layer, but hard links of the layer may lead to it.
    Linked { name: Vec<u8> },
    /// Something below a whiteout.
    BelowWhiteout,
}

/// The directory in which AUFS keeps files with several names.
pub(super) const LINKED: &[u8] = b".wh..wh.plnk";

/// PATH_MAX, less the space for a `/proc` path of the descriptor in some calls.
const LONGEST: usize = 4064;
const META: &[u8] = b".wh..wh.";

impl Target {
    /// Parses a name. A leading `/` is ignored, as tar does. `..` removes the name before it, whatever is there, and
    /// must not lead out of the root.
    pub(super) fn of(path: &[u8]) -> Result<Self, EntryError> {
        if path.contains(&0) {
            return Err(EntryError::Nul);
        }
        let plain = plain(path)?;
        let path = plain.as_deref().unwrap_or(path);
        let mut parent = Vec::with_capacity(path.len());
        let mut name: &[u8] = b"";
        for part in path.split(|&byte| byte == b'/') {
            if matches!(part, b"" | b".") {
                continue;
            }
            if !name.is_empty() {
                if name.starts_with(META) && !(parent.is_empty() && name == LINKED) || parent == LINKED {
                    return Ok(Self::Aufs);
                }
                if name.starts_with(WHITEOUT) && name != LINKED {
                    return Ok(Self::BelowWhiteout);
                }
                if !parent.is_empty() {
                    parent.push(b'/');
                }
                parent.extend_from_slice(name);
            }
            name = part;
        }
        if parent.len() + 1 + name.len() > LONGEST {
            return Err(EntryError::TooLong);
        }
        if name.is_empty() {
            return Ok(Self::Root);
        }
        if parent == LINKED {
            return Ok(Self::Linked { name: name.to_vec() });
        }
        if name == OPAQUE {
            return Ok(Self::Opaque { parent });
        }
        if name.starts_with(META) {
            return Ok(Self::Aufs);
        }
        match name.strip_prefix(WHITEOUT) {
            Some(b"" | b"." | b"..") => Err(EntryError::EmptyWhiteout),
            Some(hidden) => Ok(Self::Whiteout { parent, name: hidden.to_vec() }),
            None => Ok(Self::Path { parent, name: name.to_vec() }),
        }
    }
}

/// The name without `..`. None if there is none in it.
fn plain(path: &[u8]) -> Result<Option<Vec<u8>>, EntryError> {
    let parts = || path.split(|&byte| byte == b'/');
    if !parts().any(|part| part == b"..") {
        return Ok(None);
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in parts() {
        match part {
            b"" | b"." => {}
            b".." => kept.pop().map(drop).ok_or(EntryError::DotDot)?,
            _ => kept.push(part),
        }
    }
    Ok(Some(kept.join(&b'/')))
}

/// `directory/name`, or only `name` in the root.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// The directory of a path, and the name in it. The root has no name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let path = |parent: &str, name: &str| Target::Path { parent: parent.into(), name: name.into() };
        let whiteout =
            |parent: &str, name: &str| Target::Whiteout { parent: parent.into(), name: name.into() };
        for (text, target) in [
            ("", Some(Target::Root)),
            ("./", Some(Target::Root)),
            ("/", Some(Target::Root)),
            ("a", Some(path("", "a"))),
            ("/etc/passwd", Some(path("etc", "passwd"))),
            (".//a/./b//c/", Some(path("a/b", "c"))),
            ("..", None),
            ("../x", None),
            ("a/../../x", None),
            ("a/..", Some(Target::Root)),
            ("a/../b", Some(path("", "b"))),
            ("/a/b/../../c/d", Some(path("c", "d"))),
            ("/../a", None),
            ("a\0b", None),
            (".wh.x", Some(whiteout("", "x"))),
            ("a/b/.wh.x", Some(whiteout("a/b", "x"))),
            (".wh.", None),
            (".wh..", None),
            (".wh...", None),
            (".wh....", Some(whiteout("", "..."))),
            ("a/.wh..wh..opq", Some(Target::Opaque { parent: b"a".to_vec() })),
            (".wh..wh..opq", Some(Target::Opaque { parent: Vec::new() })),
            (".wh..wh.plnk", Some(Target::Aufs)),
            ("./.wh..wh.plnk//12.34", Some(Target::Linked { name: b"12.34".to_vec() })),
            (".wh..wh.plnk/12.34/x", Some(Target::Aufs)),
            (".wh..wh.plnk/../x", Some(path("", "x"))),
            ("a/.wh..wh.plnk/12.34", Some(Target::Aufs)),
            (".wh..wh.aufs", Some(Target::Aufs)),
            ("a/.wh.b/c", Some(Target::BelowWhiteout)),
            ("a/.wh.b/.wh.c", Some(Target::BelowWhiteout)),
            ("a.wh.b", Some(path("", "a.wh.b"))),
        ] {
            assert_eq!(Target::of(text.as_bytes()).ok(), target, "{text:?}");
        }
        assert!(Target::of(&[b'a'; 65536]).is_err());
    }
}
