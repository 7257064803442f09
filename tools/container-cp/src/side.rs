//! `CONTAINER:PATH`, a path on the host, or `-`.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use document::{Id, name};
use operation::Scope;

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Side {
    /// A path in a container. A relative path begins at the container's root directory.
    Container { id: Id, path: PathBuf },
    /// A path on the host.
    Host(PathBuf),
    /// A tar on standard input or standard output.
    Stream,
}

impl FromStr for Side {
    type Err = String;

    /// Parses a side as Docker does: a text that begins with a slash or a dot is a path on the host, even if
    /// it has colons.
    fn from_str(text: &str) -> Result<Self, String> {
        let host = || Self::Host(text.into());
        match text.split_once(':') {
            _ if text.is_empty() => Err("it names no file".to_owned()),
            _ if text == "-" => Ok(Self::Stream),
            _ if text.starts_with(['/', '.']) => Ok(host()),
            None => Ok(host()),
            Some((_, "")) => Err("there is no path after the colon".to_owned()),
            Some((id, path)) => {
                let id = id.parse().map_err(|error: document::InvalidId| error.to_string())?;
                Ok(Self::Container { id, path: Path::new("/").join(path) })
            }
        }
    }
}

impl Side {
    /// The same side, with the container's id if it was given by its name.
    pub(crate) fn found(&self, scope: &Scope) -> Self {
        match self {
            Self::Container { id, path } => {
                Self::Container { id: name::resolve(scope, id), path: path.clone() }
            }
            other => other.clone(),
        }
    }

    /// The path. Empty for a stream.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Container { path, .. } | Self::Host(path) => path,
            Self::Stream => Path::new(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_as_docker_takes_them() {
        let container = |id: &str, path: &str| Side::Container { id: id.parse().unwrap(), path: path.into() };
        for (text, side) in [
            ("web:/etc", container("web", "/etc")),
            ("web:etc/x:y", container("web", "/etc/x:y")),
            ("web:/etc/.", container("web", "/etc/.")),
            ("./web:x", Side::Host("./web:x".into())),
            ("/a:b", Side::Host("/a:b".into())),
            ("a/", Side::Host("a/".into())),
            ("-", Side::Stream),
        ] {
            assert_eq!(text.parse(), Ok(side), "{text}");
        }
        for text in ["", "web:", ":x", "a/b:c"] {
            assert!(text.parse::<Side>().is_err(), "{text}");
        }
    }
}
