//! `ID:PATH`, a path of the host, or `-`.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use document::Id;

/// Where files come from, or go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Side {
    /// A path in a container. One that is not absolute begins at its root.
    Container { id: Id, path: PathBuf },
    /// A path of the host.
    Host(PathBuf),
    /// A tar on standard input or standard output.
    Stream,
}

impl FromStr for Side {
    type Err = String;

    /// As with Docker: what begins with a slash or a dot is the host's, whatever colons it has.
    fn from_str(text: &str) -> Result<Self, String> {
        let host = || Self::Host(text.into());
        match text.split_once(':') {
            _ if text.is_empty() => Err("it names no file".to_owned()),
            _ if text == "-" => Ok(Self::Stream),
            _ if text.starts_with(['/', '.']) => Ok(host()),
            None => Ok(host()),
            Some((_, "")) => Err("there is no path behind the colon".to_owned()),
            Some((id, path)) => {
                let id = id.parse().map_err(|error: document::InvalidId| error.to_string())?;
                Ok(Self::Container { id, path: Path::new("/").join(path) })
            }
        }
    }
}

impl Side {
    /// The path; empty for a stream.
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
