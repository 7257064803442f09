//! Names of images, in Docker's form.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, InvalidDigest};

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// The maximum length of a repository name with its registry, in bytes.
const MAX_NAME: usize = 255;

/// A full reference: registry, repository, and a tag, a digest or both.
///
/// Missing parts are filled in as Docker does: `debian` is `docker.io/library/debian:latest`. `Display`
/// prints the short form; [`Reference::canonical`] returns the long one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A string that is not a [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be the name of an image: {reason}")]
pub struct InvalidReference {
    text: String,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("it is empty")]
    Empty,
    #[error("it must be lower case")]
    Case,
    #[error("it is longer than {MAX_NAME} characters")]
    Length,
    #[error("64 hexadecimal digits are an id")]
    LooksLikeId,
    #[error("it is a digest's algorithm, and with a tag would be read as the beginning of an id")]
    Algorithm,
    #[error("{0:?} is not a registry's host and port")]
    Registry(String),
    #[error("{0:?} is not a part of a name: letters and digits, between them `.`, `_`, `__` or `-`")]
    Component(String),
    #[error("{0:?} is not a tag: letters, digits, `_`, `.` and `-`, no `.` or `-` first, 128 at most")]
    Tag(String),
    #[error("{0}")]
    Digest(InvalidDigest),
}

impl Reference {
    /// The registry's host, with its port if there is one: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's name in its registry: `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; None if only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given. It takes precedence over a tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The last part of the manifest's URL: the digest if there is one, or else the tag.
    pub fn target(&self) -> String {
        let digest = self.digest.as_ref().map(Digest::to_string);
        digest.or(self.tag.clone()).unwrap_or_default()
    }

    /// Registry and repository in the long form: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Registry and repository in the short form: `debian`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix("library/") {
            // Without the prefix, "library/a/b" would be read as "a/b", and 64 digits or "sha256:a" as an id.
            Some(short) if !short.contains('/') && !looks_like_id(short) && !is_algorithm(short) => {
                short.to_owned()
            }
            // In the same way, "docker.io/a.b/c" needs its registry.
            _ if self.repository.split_once('/').is_some_and(|(first, _)| is_registry(first)) => self.name(),
            _ => self.repository.clone(),
        }
    }

    /// The long form: `docker.io/library/debian:latest`.
    pub fn canonical(&self) -> String {
        self.name() + &self.suffix()
    }

    /// The reference without its tag if it has a digest. The tag may point to another image by now, or may
    /// not exist.
    pub fn pinned(self) -> Self {
        if self.digest.is_some() { Self { tag: None, ..self } } else { self }
    }

    /// Parses a name to give to an image. It must have no digest, because the image has its own.
    ///
    /// # Errors
    /// When `text` is not a reference or has a digest.
    pub fn to_give(text: &str) -> Result<Self, String> {
        let reference: Self = text.parse().map_err(|error: InvalidReference| error.to_string())?;
        match reference.digest {
            Some(_) => Err("a name with a digest cannot be given".to_owned()),
            None => Ok(reference),
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}"));
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}"));
        tag.unwrap_or_default() + &digest.unwrap_or_default()
    }

    fn parse(text: &str) -> Result<Self, Reason> {
        if text.is_empty() {
            return Err(Reason::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(Reason::Digest)?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(parse_tag(tag)?)),
            _ => (rest, None),
        };
        let (registry, repository) = split_registry(name)?;
        if name.len() > MAX_NAME || registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(Reason::Length);
        }
        if looks_like_id(name) {
            return Err(Reason::LooksLikeId);
        }
        if is_algorithm(name) {
            return Err(Reason::Algorithm);
        }
        let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self { registry, repository, tag, digest })
    }
}

/// Whether the first part of a name is a registry: it is `localhost`, or it could not be part of a
/// repository's name (as in Docker's distribution/reference, normalize.go).
fn is_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.contains(|c: char| c.is_ascii_uppercase())
}

fn split_registry(name: &str) -> Result<(String, String), Reason> {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    if !is_host_and_port(registry) {
        return Err(Reason::Registry(registry.to_owned()));
    }
    if repository.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(Reason::Case);
    }
    if let Some(wrong) = repository.split('/').find(|part| !is_component(part)) {
        return Err(Reason::Component(wrong.to_owned()));
    }
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let prefix = if official { "library/" } else { "" };
    Ok((registry.to_owned(), format!("{prefix}{repository}")))
}

fn looks_like_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `sha256:4a` is an image's id. Docker rejects such names too.
fn is_algorithm(name: &str) -> bool {
    matches!(name, "sha256" | "sha512")
}

fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // "[::1]" without a port ends with its bracket.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match literal {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    host && port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'))
}

/// Letters and digits; between them one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last()).is_some_and(|(a, b)| alphanumeric(*a) && alphanumeric(*b));
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && separators
        .into_iter()
        .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

fn parse_tag(text: &str) -> Result<String, Reason> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = text.bytes().next().is_some_and(word);
    let valid = first && text.len() <= 128 && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    valid.then(|| text.to_owned()).ok_or_else(|| Reason::Tag(text.to_owned()))
}

impl FromStr for Reference {
    type Err = InvalidReference;
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        Self::parse(text)
            .map_err(|reason| InvalidReference { text: text.chars().take(512).collect(), reason })
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;
    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// The short form: `debian:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.familiar_name(), self.suffix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalised_as_docker_does_it() {
        let long_tag = format!("a:{}", "t".repeat(128));
        let at = format!("@{DIGEST}");
        for (text, canonical, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("localhost:5000/a:T.1", "localhost:5000/a:T.1", "localhost:5000/a:T.1"),
            ("Host/a", "Host/a:latest", "Host/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("[fe80::1]/a", "[fe80::1]/a:latest", "[fe80::1]/a:latest"),
            ("quay.io/a/b.c_d__e--f", "quay.io/a/b.c_d__e--f:latest", "quay.io/a/b.c_d__e--f:latest"),
            ("library/sha256:4a", "docker.io/library/sha256:4a", "library/sha256:4a"),
            ("a:5000", "docker.io/library/a:5000", "a:5000"),
            (&format!("debian{at}"), &format!("docker.io/library/debian{at}"), &format!("debian{at}")),
            (&format!("h:1/a:t{at}"), &format!("h:1/a:t{at}"), &format!("h:1/a:t{at}")),
            (&long_tag, &format!("docker.io/library/{long_tag}"), &long_tag),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.canonical(), *canonical, "{text}");
            assert_eq!(reference.to_string(), *familiar, "{text}");
            assert_eq!(canonical.parse::<Reference>().unwrap(), reference);
            assert_eq!(familiar.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn what_is_wrong_with_a_name() {
        for (text, reason) in [
            ("", "it is empty"),
            ("Debian", "it must be lower case"),
            ("a/B", "it must be lower case"),
            (
                "-a/b",
                "\"-a\" is not a part of a name: letters and digits, between them `.`, `_`, `__` or `-`",
            ),
            ("a//b", "\"\" is not a part of a name: letters and digits, between them `.`, `_`, `__` or `-`"),
            (
                "a/..",
                "\"..\" is not a part of a name: letters and digits, between them `.`, `_`, `__` or `-`",
            ),
            (
                "a..b",
                "\"a..b\" is not a part of a name: letters and digits, between them `.`, `_`, `__` or `-`",
            ),
            (
                "a___b",
                "\"a___b\" is not a part of a name: letters and digits, between them `.`, `_`, `__` or `-`",
            ),
            ("../a", "\"..\" is not a registry's host and port"),
            ("a.b:99999/c", "\"a.b:99999\" is not a registry's host and port"),
            ("a:", "\"\" is not a tag: letters, digits, `_`, `.` and `-`, no `.` or `-` first, 128 at most"),
            (
                "a:.b",
                "\".b\" is not a tag: letters, digits, `_`, `.` and `-`, no `.` or `-` first, 128 at most",
            ),
            (
                "a:b:c",
                "\"a:b\" is not a part of a name: letters and digits, between them `.`, `_`, `__` or `-`",
            ),
            (
                "a@sha256:1",
                "\"sha256:1\" is not a digest: it takes \"sha256:\" and 64 hexadecimal digits, or \"sha512:\" and 128",
            ),
            (DIGEST.split_once(':').unwrap().1, "64 hexadecimal digits are an id"),
            (
                "sha256:4a",
                "it is a digest's algorithm, and with a tag would be read as the beginning of an id",
            ),
            (&"a".repeat(256), "it is longer than 255 characters"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert_eq!(error, format!("{text:?} cannot be the name of an image: {reason}"));
        }
    }
}
