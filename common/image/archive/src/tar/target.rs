//! What an entry means in a layer, by its name and links alone. Who stores layers and who unpacks them go by the same rules.

use super::{Entry, Kind, Shown};

/// The prefix of a whiteout (OCI image-spec, layer.md, "Whiteouts"). The rest of the name was deleted.
pub const WHITEOUT: &[u8] = b".wh.";

/// The name of an opaque whiteout. Everything that lower layers have in its directory was deleted.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// The directory in which AUFS keeps files with several names.
pub const LINKED: &[u8] = b".wh..wh.plnk";

const META: &[u8] = b".wh..wh.";
/// PATH_MAX, less the space for a `/proc` path of the descriptor in some calls.
const LONGEST: usize = 4064;
/// NAME_MAX.
const LONGEST_PART: usize = 255;
/// The longest target of a symbolic link: PATH_MAX without its NUL.
const LONGEST_LINK: usize = 4095;

/// The meaning of an entry's name. Paths are relative to the layer's root, without `.`, `..` and empty parts.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// The layer's root.
    Root,
    /// The file `name` in the directory `parent`.
    Path {
        /// The directory.
        parent: Vec<u8>,
        /// The name in it.
        name: Vec<u8>,
    },
    /// A whiteout: `name` in `parent` is deleted.
    Whiteout {
        /// The directory.
        parent: Vec<u8>,
        /// The name in it.
        name: Vec<u8>,
    },
    /// An opaque whiteout: everything that lower layers have in `parent` is hidden.
    Opaque {
        /// The directory.
        parent: Vec<u8>,
    },
    /// A file of AUFS itself, such as `.wh..wh.aufs`. Old versions of Docker wrote them. They are not part of
    /// the layer.
    Aufs,
    /// A file of AUFS in [`LINKED`]. It is not part of the layer, but hard links of the layer may lead to it.
    Linked {
        /// The name in that directory.
        name: Vec<u8>,
    },
    /// Something below a whiteout.
    BelowWhiteout,
}

/// Why no layer may have such an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name contains `..`.
    #[error("name with \"..\" that leads out of the root")]
    DotDot,
    /// The name contains a NUL byte.
    #[error("name with a NUL")]
    Nul,
    /// The name is too long for a path.
    #[error("name longer than a path may be")]
    TooLong,
    /// A part of the name is too long for a file.
    #[error("name with a part longer than 255 bytes")]
    LongPart,
    /// An entry for the root is not a directory.
    #[error("the root must be a directory")]
    Root,
    /// A whiteout names nothing, `.` or `..`.
    #[error("whiteout of no file")]
    EmptyWhiteout,
    /// The target of a hard link does not exist, or is not a file of a layer.
    #[error("hard link to {0}, which does not exist")]
    NoTarget(Shown),
    /// The target of a hard link is a directory.
    #[error("hard link to {0}, which is a directory")]
    DirectoryTarget(Shown),
    /// The target of a hard link is not a valid name in a layer.
    #[error("hard link to {name}: {source}")]
    Target {
        /// The target.
        name: Shown,
        /// The problem.
        source: Box<NameError>,
    },
    /// A symbolic link has no target.
    #[error("symbolic link to nothing")]
    EmptyLink,
    /// The target of a symbolic link is too long.
    #[error("symbolic link to a name longer than a path may be")]
    LongLink,
    /// overlayfs would treat the device as a whiteout.
    #[error("character device 0:0 is a whiteout of overlayfs")]
    WhiteoutDevice,
}

impl Entry {
    /// What the entry means in a layer.
    ///
    /// # Errors
    /// When no layer may have it, whatever other entries there are.
    pub fn target(&self) -> Result<Target, NameError> {
        let target = Target::of(&self.path)?;
        match (&target, self.kind) {
            (Target::Root, Kind::Directory) => {}
            (Target::Root, _) => return Err(NameError::Root),
            (Target::Path { .. }, Kind::HardLink) => drop(self.first_name()?),
            (Target::Path { .. }, Kind::Symlink) if self.link.is_empty() => return Err(NameError::EmptyLink),
            (Target::Path { .. }, Kind::Symlink) if self.link.len() > LONGEST_LINK => {
                return Err(NameError::LongLink);
            }
            (Target::Path { .. }, Kind::CharDevice) if self.device == (0, 0) => {
                return Err(NameError::WhiteoutDevice);
            }
            _ => {}
        }
        Ok(target)
    }

    /// What the target of a hard link means: [`Target::Path`] or [`Target::Linked`].
    ///
    /// # Errors
    /// When no file of a layer can have that name.
    pub fn first_name(&self) -> Result<Target, NameError> {
        let shown = || Shown::new(&self.link);
        match Target::of(&self.link) {
            Ok(target @ (Target::Path { .. } | Target::Linked { .. })) => Ok(target),
            Ok(Target::Root) => Err(NameError::DirectoryTarget(shown())),
            // A whiteout is not a file, and AUFS's other files are not part of the layer.
            Ok(_) => Err(NameError::NoTarget(shown())),
            Err(source) => Err(NameError::Target { name: shown(), source: Box::new(source) }),
        }
    }
}

impl Target {
    /// Parses a name by the rules of [`inside`].
    ///
    /// # Errors
    /// As [`inside`]; when it is a whiteout of nothing.
    pub fn of(path: &[u8]) -> Result<Self, NameError> {
        let parts = parts(path)?;
        let Some((&name, parents)) = parts.split_last() else { return Ok(Self::Root) };
        for (at, part) in parents.iter().enumerate() {
            let is_linked = at == 0 && *part == LINKED;
            if part.starts_with(META) && !is_linked || at == 1 && parents[0] == LINKED {
                return Ok(Self::Aufs);
            }
            if part.starts_with(WHITEOUT) && !is_linked {
                return Ok(Self::BelowWhiteout);
            }
        }
        hold_length(parents)?;
        // A whiteout is no file, so its name may be longer than a file's.
        hold_length(&[name.strip_prefix(WHITEOUT).unwrap_or(name)])?;
        let parent = parents.join(&b'/');
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
            Some(b"" | b"." | b"..") => Err(NameError::EmptyWhiteout),
            Some(hidden) => Ok(Self::Whiteout { parent, name: hidden.to_vec() }),
            None => Ok(Self::Path { parent, name: name.to_vec() }),
        }
    }
}

/// The path of an entry below the place where an archive is unpacked; empty for that place. A leading `/` is ignored, as tar
/// does. `..` removes the name before it, whatever is there.
///
/// # Errors
/// When the name leads out of that place, or no file can have it.
pub fn inside(path: &[u8]) -> Result<Vec<u8>, NameError> {
    let parts = parts(path)?;
    hold_length(&parts)?;
    Ok(parts.join(&b'/'))
}

fn hold_length(parts: &[&[u8]]) -> Result<(), NameError> {
    match parts.iter().any(|part| part.len() > LONGEST_PART) {
        true => Err(NameError::LongPart),
        false => Ok(()),
    }
}

fn parts(path: &[u8]) -> Result<Vec<&[u8]>, NameError> {
    if path.contains(&0) {
        return Err(NameError::Nul);
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => parts.pop().map(drop).ok_or(NameError::DotDot)?,
            _ => parts.push(part),
        }
    }
    let length: usize = parts.iter().map(|part| part.len() + 1).sum();
    if length > LONGEST + 1 { Err(NameError::TooLong) } else { Ok(parts) }
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
        for (long, expected) in [
            (vec![b'a'; 255], None),
            (vec![b'a'; 256], Some(NameError::LongPart)),
            ([&[b'a'; 256][..], b"/b"].concat(), Some(NameError::LongPart)),
            ([WHITEOUT, &[b'a'; 255][..]].concat(), None),
            ([WHITEOUT, &[b'a'; 256][..]].concat(), Some(NameError::LongPart)),
            ("x/".repeat(2031).into_bytes(), None),
            ("x/".repeat(2034).into_bytes(), Some(NameError::TooLong)),
        ] {
            assert_eq!(Target::of(&long).err(), expected, "{} bytes", long.len());
        }
    }

    #[test]
    fn entries() {
        let link = |kind, link: &[u8]| Entry { link: link.to_vec(), ..Entry::new(kind, "x") };
        let said = |entry: Entry| entry.target().map_err(|error| error.to_string()).err();
        for (entry, expected) in [
            (Entry::new(Kind::Directory, "./"), None),
            (Entry::new(Kind::File, "./"), Some("the root must be a directory")),
            (link(Kind::HardLink, b"a/../b"), None),
            (
                link(Kind::HardLink, b"a/../../b"),
                Some(r#"hard link to "a/../../b": name with ".." that leads out of the root"#),
            ),
            (link(Kind::HardLink, b"."), Some(r#"hard link to ".", which is a directory"#)),
            (link(Kind::HardLink, b"a/.wh.b"), Some(r#"hard link to "a/.wh.b", which does not exist"#)),
            (link(Kind::Symlink, b"../../.."), None),
            (link(Kind::Symlink, b""), Some("symbolic link to nothing")),
            (link(Kind::Symlink, &[b'a'; 4096]), Some("symbolic link to a name longer than a path may be")),
            (Entry::new(Kind::CharDevice, "x"), Some("character device 0:0 is a whiteout of overlayfs")),
            (Entry::new(Kind::BlockDevice, "x"), None),
        ] {
            assert_eq!(said(entry.clone()).as_deref(), expected, "{entry:?}");
        }
    }
}
