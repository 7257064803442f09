//! The user's credentials for registries, as Docker, podman and skopeo store them.

mod keep;
mod program;

pub use keep::{Place, keep, remove};

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::{Error, places::environment};

/// A user's name and password at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name. If it is `<token>`, the password is an identity token. Credential helpers use the same
    /// convention.
    pub name: String,
    /// The password.
    pub password: String,
}

/// Prints no secret.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}

impl From<Login> for Credentials {
    fn from(Login { name, password }: Login) -> Self {
        match name.as_str() {
            "<token>" => Self::IdentityToken(password),
            _ => Self::Password(name, password),
        }
    }
}

/// Credentials for a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A name and a password.
    Password(String, String),
    /// A token that the registry's token server exchanges for other tokens.
    IdentityToken(String),
    /// The credential helper that may have the credentials is not installed, or fails. Docker Desktop leaves
    /// its name in files that are also read elsewhere (WSL, a container, another machine), and public images
    /// need no credentials.
    Absent(Absence),
}

/// A credential helper that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Absence {
    /// The helper's name, without `docker-credential-`.
    program: String,
    /// Why it gave no answer.
    reason: String,
}

/// Prints no secret.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// Docker's `config.json`, and `auth.json` of containers-auth.json(5), which has the same form. Programs in
/// Go write it, so null means empty.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    #[serde(deserialize_with = "without_null")]
    auths: HashMap<String, Entry>,
    creds_store: Option<String>,
    #[serde(deserialize_with = "without_null")]
    cred_helpers: HashMap<String, String>,
}

/// The entries of an object that are not null. Null itself has no entries.
fn without_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<HashMap<String, T>, D::Error> {
    let entries: Option<HashMap<String, Option<T>>> = Option::deserialize(deserializer)?;
    Ok(entries.into_iter().flatten().filter_map(|(key, value)| Some((key, value?))).collect())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The names of Docker's own registry in these files.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

impl Credentials {
    /// The credentials for a repository; None if no file has any.
    pub(crate) fn find(
        authfile: Option<&Path>,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Self>, Error> {
        let mut absent = None;
        for path in files(authfile, environment) {
            let text = match fs::read(&path) {
                Ok(text) => text,
                // A file that the user named must exist. The others may be missing or unreadable.
                Err(_) if Some(path.as_path()) != authfile => continue,
                Err(error) => return Err(wrong(registry, path.display(), error)),
            };
            let file = File::read(&text).map_err(|error| wrong(registry, path.display(), error))?;
            match file.find(registry, repository, &path)? {
                Some(Self::Absent(absence)) => absent = absent.or(Some(Self::Absent(absence))),
                Some(found) => return Ok(Some(found)),
                None => {}
            }
        }
        Ok(absent)
    }

    /// Whether these are credentials that must be kept secret.
    pub(crate) fn are_secret(&self) -> bool {
        !matches!(self, Self::Absent(_))
    }

    /// An error about the credential helper that is missing or fails.
    pub(crate) fn absence(&self, registry: &str) -> Option<Error> {
        let Self::Absent(Absence { program, reason }) = self else { return None };
        Some(wrong(registry, format!("docker-credential-{program}"), reason))
    }

    /// The value of a Basic `Authorization` header; None without a password.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Self::Password(name, password) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
            }
            Self::IdentityToken(_) | Self::Absent(_) => None,
        }
    }
}

fn wrong(registry: &str, from: impl ToString, problem: impl ToString) -> Error {
    Error::Credentials { registry: registry.to_owned(), from: from.to_string(), problem: problem.to_string() }
}

/// The files that may have credentials, in the order of containers-auth.json(5).
fn files(authfile: Option<&Path>, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Vec<PathBuf> {
    if let Some(path) = authfile {
        return vec![path.to_owned()];
    }
    if let Some(path) = variable("REGISTRY_AUTH_FILE") {
        return vec![path.into()];
    }
    let path = |name: &str| variable(name).map(PathBuf::from);
    let home = path("HOME");
    let runtime = path("XDG_RUNTIME_DIR")
        .unwrap_or_else(|| format!("/run/containers/{}", rustix::process::geteuid().as_raw()).into());
    let config = path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let docker = path("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let runtime = match path("XDG_RUNTIME_DIR") {
        Some(runtime) => runtime.join("containers/auth.json"),
        None => runtime.join("auth.json"),
    };
    let rest = [
        Some(runtime),
        config.map(|config| config.join("containers/auth.json")),
        docker.map(|docker| docker.join("config.json")),
    ];
    rest.into_iter().flatten().collect()
}

/// The members of a file. Those that we know get our spelling: decoders in Go take any letters.
fn members(text: &[u8]) -> serde_json::Result<Map<String, Value>> {
    let file: Option<Map<String, Value>> = serde_json::from_slice(text)?;
    let spelled = |(key, value): (String, Value)| {
        let known =
            ["auths", "credsStore", "credHelpers"].iter().find(|known| known.eq_ignore_ascii_case(&key));
        (known.map_or(key, |known| (*known).to_owned()), value)
    };
    Ok(file.into_iter().flatten().map(spelled).collect())
}

impl File {
    /// Parses a file. An empty file has no entries, as with Docker.
    fn read(text: &[u8]) -> serde_json::Result<Self> {
        match text.trim_ascii().is_empty() {
            true => Ok(Self::default()),
            false => Self::deserialize(Value::Object(members(text)?)),
        }
    }

    fn find(&self, registry: &str, repository: &str, path: &Path) -> Result<Option<Credentials>, Error> {
        let hub = DOCKER_HUB.contains(&registry);
        let keys: &[&str] = if hub { &[DOCKER_HUB_KEY, "docker.io", "index.docker.io"] } else { &[registry] };
        let helper = keys.iter().find_map(|key| Some((*key, self.cred_helpers.get(*key)?.as_str())));
        let store = self.creds_store.as_deref().map(|store| (keys[0], store));
        let programs = helper.into_iter().chain(store).filter(|(_, program)| !program.is_empty());
        let mut absent = None;
        for (server, program) in programs {
            match program::ask(program, server) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(reason) => {
                    absent = Some(Credentials::Absent(Absence { program: program.to_owned(), reason }));
                }
            }
        }
        let Some((key, entry)) = self.entry(registry, repository, hub) else { return Ok(absent) };
        let found = entry
            .credentials()
            .map_err(|problem| wrong(registry, path.display(), format!("auths of {key:?}: {problem}")))?;
        Ok(found.or(absent))
    }

    /// The most specific entry for the repository: the first of `host/a/b`, `host/a`, `host` that exists.
    fn entry(&self, registry: &str, repository: &str, hub: bool) -> Option<(&str, &Entry)> {
        let registry = if hub { "docker.io" } else { registry };
        let full = format!("{registry}/{repository}");
        let mut wanted = full.as_str();
        loop {
            let found = self.auths.iter().find(|(key, _)| normalised(key) == wanted);
            match (found, wanted.rsplit_once('/')) {
                (Some((key, entry)), _) => return Some((key, entry)),
                (None, Some((parent, _))) => wanted = parent,
                (None, None) => return None,
            }
        }
    }
}

/// A key of `auths` without the parts that old versions of Docker added: `https://host/v1/` is `host`.
fn normalised(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let name = match rest {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => key.trim_end_matches('/'),
    };
    if DOCKER_HUB.contains(&name) { "docker.io" } else { name }
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, String> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::IdentityToken(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            // Go's decoder, which wrote and reads these files, passes over ends of lines.
            let auth = auth.replace(['\r', '\n'], "");
            let decoded = STANDARD.decode(auth).map_err(|_| "\"auth\" is not base64")?;
            let text = String::from_utf8(decoded).map_err(|_| "\"auth\" is not UTF-8")?;
            let (name, password) = text.split_once(':').ok_or("\"auth\" is not a name and a password")?;
            return Ok(Some(Credentials::Password(
                name.to_owned(),
                password.trim_end_matches('\0').to_owned(),
            )));
        }
        match (&self.username, &self.password) {
            (Some(name), Some(password)) if !name.is_empty() => {
                Ok(Some(Credentials::Password(name.clone(), password.clone())))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, registry: &str, repository: &str) -> Result<Option<Credentials>, String> {
        let file = File::read(json.as_bytes()).unwrap();
        file.find(registry, repository, Path::new("/f")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_entry_that_says_most() {
        let file = format!(
            r#"{{"auths": {{"h:5000": {{"auth": "{}"}}, "h:5000/a/b": {{"auth": "{}"}}, "https://old/v1/": {{"auth": "{}"}},
                "https://index.docker.io/v1/": {{"identitytoken": "t"}}, "none": {{}}}}, "HttpHeaders": {{}}}}"#,
            STANDARD.encode("host:p:w"),
            STANDARD.encode("path:p"),
            STANDARD.encode("old:p"),
        );
        let password = |name: &str, password: &str| Some(Credentials::Password(name.into(), password.into()));
        for (registry, repository, expected) in [
            ("h:5000", "a", password("host", "p:w")),
            ("h:5000", "a/b", password("path", "p")),
            ("h:5000", "a/b/c", password("path", "p")),
            ("h:5000", "a/bc", password("host", "p:w")),
            ("old", "a", password("old", "p")),
            ("docker.io", "library/debian", Some(Credentials::IdentityToken("t".into()))),
            ("h", "a", None),
            ("none", "a", None),
        ] {
            assert_eq!(found(&file, registry, repository), Ok(expected), "{registry}/{repository}");
        }
        let error = found(r#"{"auths": {"h": {"auth": "?"}}}"#, "h", "a").unwrap_err();
        assert_eq!(error, "read credentials for h from /f: auths of \"h\": \"auth\" is not base64");
        let absent = found(r#"{"credsStore": "../evil"}"#, "h", "a").unwrap().unwrap();
        assert_eq!(
            absent.absence("h").unwrap().to_string(),
            "read credentials for h from docker-credential-../evil: this cannot be the name of a program"
        );
        let lines = r#"{"auths": {"h": {"auth": "dT\r\npw\n"}}}"#;
        assert_eq!(found(lines, "h", "a"), Ok(password("u", "p")));
    }

    #[test]
    fn what_docker_takes_for_nothing() {
        for json in [
            "",
            " \n",
            "null",
            "{}",
            r#"{"auths": null}"#,
            r#"{"auths": {"h": null}}"#,
            r#"{"auths": {"h": {"auth": null, "username": null}}}"#,
            r#"{"credHelpers": null, "credsStore": null}"#,
            r#"{"credHelpers": {"h": null}}"#,
            r#"{"credHelpers": {"h": ""}, "credsStore": ""}"#,
        ] {
            assert_eq!(found(json, "h", "a"), Ok(None), "{json}");
        }
        let absent = Credentials::Absent(Absence {
            program: "stave-test-none.exe".into(),
            reason: "there is no such program".into(),
        });
        for json in
            [r#"{"credsStore": "stave-test-none.exe"}"#, r#"{"credHelpers": {"h": "stave-test-none.exe"}}"#]
        {
            assert_eq!(found(json, "h", "a"), Ok(Some(absent.clone())), "{json}");
        }
        let file = format!(
            r#"{{"auths": {{"h": {{"auth": "{}"}}}}, "credsStore": "stave-test-none.exe"}}"#,
            STANDARD.encode("me:p")
        );
        let own = Credentials::Password("me".into(), "p".into());
        assert_eq!(found(&file, "h", "a"), Ok(Some(own)), "the file's own entry");
        assert!(File::read(b"1").is_err() && File::read(b"{").is_err());
    }

    #[test]
    fn files_in_their_order() {
        let environment = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).into())
        };
        let paths = |authfile: Option<&str>, pairs| {
            let files = files(authfile.map(Path::new), environment(pairs));
            files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths(Some("/x"), &[("REGISTRY_AUTH_FILE", "/y")]), ["/x"]);
        assert_eq!(paths(None, &[("REGISTRY_AUTH_FILE", "/y"), ("HOME", "/h")]), ["/y"]);
        assert_eq!(
            paths(None, &[("XDG_RUNTIME_DIR", "/r"), ("HOME", "/h")]),
            ["/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]
        );
        let own = format!("/run/containers/{}/auth.json", rustix::process::geteuid().as_raw());
        assert_eq!(paths(None, &[("DOCKER_CONFIG", "/d")]), [own.as_str(), "/d/config.json"]);
    }
}
