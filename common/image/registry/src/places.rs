//! Where to look for an image: the user's mirrors, the mirrors and locations in
//! containers-registries.conf(5), and the registry itself.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use oci::Reference;
use serde::Deserialize;

use crate::Error;

/// A repository in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The host, with its port if there is one.
    pub(crate) registry: String,
    pub(crate) repository: String,
    /// Whether the registry may speak plain HTTP or have an untrusted certificate.
    pub(crate) insecure: bool,
    /// Whether this is the registry in the image's name. The user's login is for this one only, not for
    /// mirrors.
    pub(crate) own: bool,
}

/// The tables of registries.conf that say where images are. The other tables, such as short names, matter
/// only to podman: here a short name belongs to Docker's registry.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    registry: Vec<Registry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

/// The rule for an image, and the file it comes from.
struct Rule {
    file: PathBuf,
    registry: Registry,
}

/// The places to pull an image from, in order.
pub(crate) fn to_pull(mirrors: &[String], reference: &Reference) -> Result<Vec<Place>, Error> {
    let rule = Rule::find(files(environment), &reference.name())?;
    places(rule, mirrors, reference)
}

/// The place to push an image to. This is always its registry.
pub(crate) fn to_push(reference: &Reference) -> Result<Place, Error> {
    let rule = Rule::find(files(environment), &reference.name())?;
    let own = Place { insecure: rule.as_ref().is_some_and(|rule| rule.registry.insecure), ..own(reference) };
    match rule {
        Some(rule) => rule.allow(reference).map(|()| own),
        None => Ok(own),
    }
}

/// Whether registries.conf allows plain HTTP for a whole registry (a host).
pub(crate) fn is_insecure(registry: &str) -> Result<bool, Error> {
    let rule = Rule::find(files(environment), registry)?;
    Ok(rule.is_some_and(|rule| rule.registry.insecure))
}

fn own(reference: &Reference) -> Place {
    let (registry, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
    Place { registry, repository, insecure: false, own: true }
}

fn places(rule: Option<Rule>, mirrors: &[String], reference: &Reference) -> Result<Vec<Place>, Error> {
    let own = own(reference);
    let mut places = Vec::new();
    for mirror in mirrors {
        places.push(place(&format!("{}/{}", mirror.trim_end_matches('/'), own.repository), false)?);
    }
    let Some(rule) = rule else {
        places.push(own);
        return Ok(places);
    };
    rule.allow(reference)?;
    let Rule { registry, .. } = rule;
    let rest = reference.name()[matched(registry.prefix(), &reference.name()).unwrap_or(0)..].to_owned();
    for mirror in &registry.mirror {
        let by_digest_only = registry.mirror_by_digest_only || mirror.pull_from_mirror == "digest-only";
        let (digest, by_tag_only) = (reference.digest().is_some(), mirror.pull_from_mirror == "tag-only");
        if (by_digest_only && !digest) || (by_tag_only && digest) {
            continue;
        }
        places.push(place(&format!("{}{rest}", mirror.location), mirror.insecure)?);
    }
    places.push(match registry.location.as_str() {
        "" => Place { insecure: registry.insecure, ..own },
        location => place(&format!("{location}{rest}"), registry.insecure)?,
    });
    Ok(places)
}

/// Parses `host[:port]/path/of/the/repository`.
fn place(text: &str, insecure: bool) -> Result<Place, Error> {
    let wrong = || Error::Host(text.to_owned());
    let (registry, repository) = text.split_once('/').ok_or_else(wrong)?;
    // A string that cannot be an image's name cannot be part of an address either.
    text.parse::<Reference>().map_err(|_| wrong())?;
    Ok(Place { registry: registry.to_owned(), repository: repository.to_owned(), insecure, own: false })
}

impl Registry {
    fn prefix(&self) -> &str {
        if self.prefix.is_empty() { &self.location } else { &self.prefix }
    }
}

impl Rule {
    /// Finds the rule with the longest prefix in all files. Of two with the same prefix, the later one wins.
    fn find(files: Vec<PathBuf>, name: &str) -> Result<Option<Self>, Error> {
        let mut best: Option<(usize, Self)> = None;
        for file in files {
            let text = match fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::Places { path: file, problem: error.to_string() }),
            };
            let parsed: File = toml::from_str(&text).map_err(|error| {
                let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
                Error::Places { path: file.clone(), problem: format!("line {line}: {}", error.message()) }
            })?;
            for registry in parsed.registry {
                let Some(length) = matched(registry.prefix(), name) else { continue };
                if best.as_ref().is_none_or(|(other, _)| *other <= length) {
                    best = Some((length, Self { file: file.clone(), registry }));
                }
            }
        }
        Ok(best.map(|(_, rule)| rule))
    }

    fn allow(&self, reference: &Reference) -> Result<(), Error> {
        match self.registry.blocked {
            true => Err(Error::Blocked { name: reference.to_string(), path: self.file.clone() }),
            false => Ok(()),
        }
    }
}

/// How many bytes of the name a prefix covers. A prefix covers whole path components; `*.` covers hosts below
/// a domain.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    let host = name.split('/').next().unwrap_or_default();
    if let Some(domain) = prefix.strip_prefix('*') {
        return (domain.starts_with('.') && host.ends_with(domain) && host.len() > domain.len())
            .then_some(host.len());
    }
    let rest = name.strip_prefix(prefix).filter(|_| !prefix.is_empty())?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

/// The value of an environment variable; None if it is unset or empty.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The configuration files; later ones override. First comes the user's file, or else the system's, then the
/// files in registries.conf.d.
fn files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    if let Some(path) = variable("CONTAINERS_REGISTRIES_CONF") {
        return vec![path.into()];
    }
    let home = variable("HOME").map(|home| Path::new(&home).join(".config"));
    let user = variable("XDG_CONFIG_HOME").map(PathBuf::from).or(home).map(|path| path.join("containers"));
    let system = PathBuf::from("/etc/containers");
    let own = user.iter().map(|user| user.join("registries.conf")).find(|path| path.exists());
    let mut files = vec![own.unwrap_or_else(|| system.join("registries.conf"))];
    for directory in [Some(system), user].into_iter().flatten() {
        let entries = fs::read_dir(directory.join("registries.conf.d")).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "conf"))
            .collect();
        found.sort();
        files.extend(found);
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places for an image, as `registry|repository`, with `!` if they are insecure.
    fn found(conf: &str, mirrors: &[&str], name: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        fs::write(&path, conf).unwrap();
        let reference: Reference = name.parse().unwrap();
        let mirrors: Vec<String> = mirrors.iter().map(|mirror| (*mirror).to_owned()).collect();
        let places = Rule::find(vec![path.clone()], &reference.name())
            .and_then(|rule| places(rule, &mirrors, &reference))
            .map_err(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"))?;
        let shown = |place: Place| {
            format!("{}|{}{}", place.registry, place.repository, if place.insecure { "!" } else { "" })
        };
        Ok(places.into_iter().map(shown).collect())
    }

    const CONF: &str = r#"
        unqualified-search-registries = ["example.org"]
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "cache:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "tags.example"
        pull-from-mirror = "tag-only"
        [[registry]]
        prefix = "docker.io/library/own"
        location = "inner.example/mine/own"
        [[registry]]
        prefix = "*.evil.example"
        blocked = true
        [[registry]]
        prefix = "plain.example"
        insecure = true
    "#;

    #[test]
    fn mirrors_first_and_the_longest_prefix() {
        let digest = format!("debian@{}", oci::Digest::of(b""));
        for (name, expected) in [
            (
                "debian",
                vec![
                    "cache:5000|hub/library/debian!",
                    "tags.example|library/debian",
                    "docker.io|library/debian",
                ],
            ),
            (&digest, vec!["cache:5000|hub/library/debian!", "docker.io|library/debian"]),
            ("own", vec!["inner.example|mine/own"]),
            ("own/a", vec!["cache:5000|hub/own/a!", "tags.example|own/a", "docker.io|own/a"]),
            ("plain.example/a/b", vec!["plain.example|a/b!"]),
            ("plain.example:5000/a", vec!["plain.example:5000|a"]),
            ("evil.example/a", vec!["evil.example|a"]),
        ] {
            assert_eq!(found(CONF, &[], name).unwrap(), expected, "{name}");
        }
        assert_eq!(
            found("", &["m:1", "n.example/hub/"], "debian").unwrap(),
            ["m:1|library/debian", "n.example|hub/library/debian", "docker.io|library/debian"]
        );
    }

    #[test]
    fn what_is_refused() {
        for (conf, name, expected) in [
            (CONF, "x.evil.example/a", "x.evil.example/a:latest is blocked by FILE"),
            ("a = [", "debian", "read FILE: line 1: unclosed array, expected `]`"),
            (
                "\n[[registry]]\nlocation = 7",
                "debian",
                "read FILE: line 3: invalid type: integer `7`, expected a string",
            ),
            (
                "[[registry]]\nprefix = \"docker.io\"\nlocation = \"../x\"",
                "debian",
                "\"../x/library/debian\" is not a registry's host and port",
            ),
        ] {
            let error = found(conf, &[], name).unwrap_err();
            assert_eq!(error.replace('"', ""), expected.replace('"', ""), "{conf}");
        }
    }
}
