//! Where an image is: skopeo's transports (containers-transports(5)), and Stave's own store.

use std::path::PathBuf;

use oci::{Reference, save::Format};
use toolkit::prelude::*;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// `docker://NAME`, or only `NAME`.
    Registry(Reference),
    /// `store:IMAGE`, with a name or an id.
    Store(String),
    /// `oci:DIRECTORY[:NAME]`.
    Layout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:NAME]` and `docker-archive:FILE[:NAME]`.
    Archive(Format, PathBuf, Option<String>),
}

/// skopeo's transports for the stores of other programs.
const FOREIGN: [&str; 6] = ["containers-storage", "dir", "docker-daemon", "ostree", "sif", "tarball"];

impl std::str::FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (transport, rest) = text.split_once(':').unwrap_or(("", text));
        match transport {
            "docker" => {
                let name =
                    rest.strip_prefix("//").ok_or_else(|| anyhow!("a registry's image is docker://NAME"))?;
                Ok(Self::Registry(name.parse::<Reference>()?.pinned()))
            }
            "store" => Ok(Self::Store(rest.to_owned())),
            "oci" => path_and_name(rest).map(|(path, name)| Self::Layout(path, name)),
            "oci-archive" => path_and_name(rest).map(|(path, name)| Self::Archive(Format::Oci, path, name)),
            "docker-archive" => {
                path_and_name(rest).map(|(path, name)| Self::Archive(Format::Docker, path, name))
            }
            other if FOREIGN.contains(&other) || rest.starts_with("//") => {
                bail!("{other:?} is none of docker://, store:, oci:, oci-archive: and docker-archive:")
            }
            _ => Ok(Self::Registry(text.parse::<Reference>()?.pinned())),
        }
    }
}

/// Splits `PATH[:NAME]`. The path ends at the first colon, as with skopeo.
fn path_and_name(text: &str) -> Result<(PathBuf, Option<String>)> {
    let (path, name) = match text.split_once(':') {
        Some((path, name)) => (path, Some(name.to_owned()).filter(|name| !name.is_empty())),
        None => (text, None),
    };
    match path.is_empty() {
        true => bail!("{text:?} has no path"),
        false => Ok((path.into(), name)),
    }
}

/// Prints the place as skopeo writes it.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (transport, path, name) = match self {
            Self::Registry(reference) => return write!(f, "docker://{}", reference.canonical()),
            Self::Store(image) => return write!(f, "store:{image}"),
            Self::Layout(path, name) => ("oci", path, name),
            Self::Archive(Format::Oci, path, name) => ("oci-archive", path, name),
            Self::Archive(Format::Docker, path, name) => ("docker-archive", path, name),
        };
        write!(f, "{transport}:{}", path.display())?;
        name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_of_skopeo_write() {
        let reference = |name: &str| Place::Registry(name.parse().unwrap());
        for (text, expected) in [
            ("docker://debian", reference("debian")),
            ("localhost:5000/a:1", reference("localhost:5000/a:1")),
            ("debian:12", reference("debian:12")),
            ("store:web", Place::Store("web".into())),
            ("oci:dir", Place::Layout("dir".into(), None)),
            ("oci:/a/b:docker.io/x:1", Place::Layout("/a/b".into(), Some("docker.io/x:1".into()))),
            ("oci-archive:a.tar:", Place::Archive(Format::Oci, "a.tar".into(), None)),
            ("docker-archive:a.tar:x:1", Place::Archive(Format::Docker, "a.tar".into(), Some("x:1".into()))),
        ] {
            assert_eq!(text.parse::<Place>().unwrap(), expected, "{text}");
        }
        for (text, expected) in [
            ("dir:x", "\"dir\" is none of docker://, store:, oci:, oci-archive: and docker-archive:"),
            ("http://x", "\"http\" is none of docker://, store:, oci:, oci-archive: and docker-archive:"),
            ("docker:x", "a registry's image is docker://NAME"),
            ("oci::x", "\":x\" has no path"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap_err().to_string(), expected, "{text}");
        }
    }
}
