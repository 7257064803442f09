//! Addresses of repositories, as used in Dockerfiles and on command lines
//! (docs.docker.com/build/concepts/context, "Git repositories").

use std::fmt;

use operation::quantity::truth;
use registry::without_user;

/// Why an address is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A parameter has no value, several values, or an invalid one.
    #[error("query {0:?} {1}")]
    Query(String, &'static str),
    /// Two parts of the address contradict each other.
    #[error("{0} conflicts: {1:?} and {2:?}")]
    Conflict(&'static str, String, String),
    /// A parameter is unknown.
    #[error("unexpected query {0:?}")]
    Unknown(String),
}

/// The address of a repository, and what to use of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// The repository's address, without the parts after `#` and `?`.
    pub remote: String,
    /// A branch, a tag or a commit. The default is the server's HEAD.
    pub reference: Option<String>,
    /// The subdirectory of the repository to use, without slashes at its ends.
    pub subdirectory: String,
    /// The expected commit, or the start of its name.
    pub commit: Option<String>,
    /// Whether to keep `.git`, if the address says so.
    pub keep: Option<bool>,
    /// Whether to leave out submodules.
    pub without_submodules: bool,
    /// Whether the address was written without `https://`: `github.com/…`, which may also be the name of a
    /// file.
    pub bare: bool,
}

impl Address {
    /// Parses an address. None if the text does not mean a repository; it is then a file, or something on a
    /// web server.
    ///
    /// # Errors
    /// [`AddressError`], if the text means a repository but is not valid.
    pub fn parse(text: &str) -> Option<Result<Self, AddressError>> {
        if text.starts_with("./") || text.starts_with("../") {
            return None;
        }
        let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (address, query) = address.split_once('?').unwrap_or((address, ""));
        let bare = address.starts_with("github.com/");
        let remote = match bare {
            true => format!("https://{address}"),
            false => address.to_owned(),
        };
        let scheme = remote.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let is_meant = match scheme.as_deref() {
            Some("http" | "https") => bare || remote.ends_with(".git"),
            Some("git" | "ssh") => true,
            Some(_) => false,
            None => is_of_scp(&remote),
        };
        is_meant.then(|| {
            let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
            let mut parsed = Self {
                remote,
                reference: Some(reference.to_owned()).filter(|reference| !reference.is_empty()),
                subdirectory: clean(subdirectory),
                bare,
                ..Self::default()
            };
            parsed.query(query)?;
            Ok(parsed)
        })
    }

    fn query(&mut self, query: &str) -> Result<(), AddressError> {
        let mut seen: Vec<&str> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for field in query.split('&').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let wrong = |problem| AddressError::Query(name.to_owned(), problem);
            if seen.contains(&name) {
                return Err(wrong("has multiple values"));
            }
            seen.push(name);
            let boolean = || match value {
                "" => Ok(true),
                value => truth(value).ok_or_else(|| wrong("is not true or false")),
            };
            let text = || match value {
                "" => Err(wrong("has no value")),
                value => Ok(value.to_owned()),
            };
            match name {
                "ref" => self.set_reference(text()?)?,
                "tag" => tag = Some(below("refs/tags/", &text()?)),
                "branch" => branch = Some(below("refs/heads/", &text()?)),
                "subdir" => {
                    let value = clean(&text()?);
                    if !self.subdirectory.is_empty() && self.subdirectory != value {
                        return Err(AddressError::Conflict("subdir", self.subdirectory.clone(), value));
                    }
                    self.subdirectory = value;
                }
                "checksum" | "commit" => self.commit = Some(text()?),
                "keep-git-dir" => self.keep = Some(boolean()?),
                "submodules" => self.without_submodules = !boolean()?,
                // A given commit is fetched by its name anyway.
                "fetch-by-commit" => drop(boolean()?),
                "mtime" => match value {
                    // Files get the time of the commit or the image, never that of the checkout.
                    "checkout" | "commit" => {}
                    _ => return Err(wrong("must be checkout or commit")),
                },
                _ => return Err(AddressError::Unknown(name.to_owned())),
            }
        }
        if let (Some(tag), Some(branch)) = (&tag, &branch) {
            return Err(AddressError::Conflict("ref", tag.clone(), branch.clone()));
        }
        tag.or(branch).map_or(Ok(()), |reference| self.set_reference(reference))
    }

    fn set_reference(&mut self, reference: String) -> Result<(), AddressError> {
        match &self.reference {
            Some(own) if *own != reference => Err(AddressError::Conflict("ref", own.clone(), reference)),
            _ => {
                self.reference = Some(reference);
                Ok(())
            }
        }
    }

    /// The repository's name, without `.git`.
    pub fn name(&self) -> &str {
        let last = self.remote.rsplit(['/', ':']).next().unwrap_or_default();
        last.strip_suffix(".git").unwrap_or(last)
    }

    /// The commit, if the address contains its full name. For a branch, the server must be asked.
    pub fn full_commit(&self) -> Option<&str> {
        let named = self.reference.as_deref().filter(|reference| is_full(reference))?;
        self.commit.as_deref().is_none_or(|commit| commit == named).then_some(named)
    }
}

/// Prints the address without user and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_user(&self.remote))?;
        match &self.reference {
            Some(reference) => write!(f, "#{reference}"),
            None => Ok(()),
        }
    }
}

/// Whether a text is the full name of an object, in either of git's two lengths.
pub(crate) fn is_full(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether the address has the form `user@host:path`.
fn is_of_scp(text: &str) -> bool {
    let Some((authority, path)) = text.split_once(':') else { return false };
    let Some((user, host)) = authority.split_once('@') else { return false };
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    plain(user) && plain(host) && !path.is_empty()
}

fn below(start: &str, name: &str) -> String {
    if name.starts_with(start) { name.to_owned() } else { format!("{start}{name}") }
}

/// The path without `.`, `..` and slashes at its ends.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Address {
        Address::parse(text).unwrap().unwrap()
    }

    #[test]
    fn what_means_a_repository() {
        for text in
            ["a/b.git", "https://h/x", "ftp://h/x.git", "./git@h:x", "h:x", "@h:x", "https://h/x.git/y"]
        {
            assert!(Address::parse(text).is_none(), "{text}");
        }
        for (text, name) in [
            ("https://h/a/x.git", "x"),
            ("http://h/x.git#v1", "x"),
            ("git://h/x", "x"),
            ("git@h:a/x.git", "x"),
            ("ssh://git@h/x.git", "x"),
            ("github.com/a/x", "x"),
        ] {
            assert_eq!(parsed(text).name(), name, "{text}");
        }
    }

    #[test]
    fn references_and_directories() {
        let address = parsed("https://h/x.git#v1:/a/../b/");
        assert_eq!((address.reference.as_deref(), address.subdirectory.as_str()), (Some("v1"), "b"));
        let address = parsed("https://h/x.git#:docs");
        assert_eq!((address.reference, address.subdirectory.as_str()), (None, "docs"));
        let address = parsed("https://h/x.git?branch=b&subdir=d&checksum=ab&keep-git-dir&submodules=false");
        assert_eq!(address.reference.as_deref(), Some("refs/heads/b"));
        assert_eq!(
            (address.commit.as_deref(), address.keep, address.without_submodules),
            (Some("ab"), Some(true), true)
        );
        for (text, message) in [
            ("https://h/x.git?ref", "query \"ref\" has no value"),
            ("https://h/x.git?ref=a&ref=b", "query \"ref\" has multiple values"),
            ("https://h/x.git?ref=a#b", "ref conflicts: \"b\" and \"a\""),
            ("https://h/x.git?tag=a&branch=b", "ref conflicts: \"refs/tags/a\" and \"refs/heads/b\""),
            ("https://h/x.git?mtime=now", "query \"mtime\" must be checkout or commit"),
            ("https://h/x.git?y=1", "unexpected query \"y\""),
        ] {
            assert_eq!(Address::parse(text).unwrap().unwrap_err().to_string(), message, "{text}");
        }
        assert_eq!(parsed("https://me:secret@h/x.git").to_string(), "https://h/x.git");
    }

    #[test]
    fn whole_commits() {
        let (one, other) = ("0123456789012345678901234567890123456789", "1".repeat(40));
        for (text, whole) in [
            (format!("#{one}"), Some(one)),
            (format!("?checksum={one}#{one}"), Some(one)),
            (format!("?checksum={other}#{one}"), None),
            (format!("?checksum=01234567#{one}"), None),
            (format!("?checksum={one}"), None),
            (format!("?checksum={one}#v1"), None),
            ("#0123456".to_owned(), None),
        ] {
            assert_eq!(parsed(&format!("https://h/x.git{text}")).full_commit(), whole, "{text}");
        }
    }
}
