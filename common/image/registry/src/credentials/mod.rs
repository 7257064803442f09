//! The user's credentials for registries, as Docker, podman and skopeo store them.

mod keep;
mod program;

pub use keep::{Place, keep, remove};

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
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
    /// There may be credentials that could not be read. Docker Desktop leaves the names of its helpers in files that
    /// are also read elsewhere (WSL, a container, another machine), and files are edited by hand. Public images need
    /// no credentials.
    Absent(Absence),
}

/// Why there may be credentials that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Absence {
    /// The file, or the credential helper.
    from: String,
    /// The problem.
    reason: String,
}

/// Prints no secret.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// Docker's `config.json`, and `auth.json` of containers-auth.json(5), which has the same form. Programs in
/// Go write it, so null means empty. Only what belongs to the wanted registry is read further.
#[derive(Debug, Default)]
struct File {
    auths: Map<String, Value>,
    creds_store: Option<String>,
    cred_helpers: Map<String, Value>,
    /// What is wrong with a member of the file.
    problem: Option<String>,
}

/// An entry of `auths`.
#[derive(Default)]
struct Entry<'a> {
    auth: &'a str,
    username: &'a str,
    password: Option<&'a str>,
    identitytoken: &'a str,
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
            let named = Some(path.as_path()) == authfile;
            let text = match fs::read(&path) {
                Ok(text) => text,
                // A file that the user named must exist. The others may be missing or unreadable.
                Err(_) if !named => continue,
                Err(error) => return Err(wrong(registry, path.display(), error)),
            };
            let found = match File::read(&text) {
                Ok(file) => file.find(registry, repository, &path),
                Err(error) if named => return Err(wrong(registry, path.display(), error.to_string())),
                Err(error) => Some(Self::absent(path.display(), error)),
            };
            match found {
                Some(Self::Absent(absence)) => absent = absent.or(Some(Self::Absent(absence))),
                Some(found) => return Ok(Some(found)),
                None => {}
            }
        }
        Ok(absent)
    }

    fn absent(from: impl ToString, reason: impl ToString) -> Self {
        Self::Absent(Absence { from: from.to_string(), reason: reason.to_string() })
    }

    /// Whether these are credentials that must be kept secret.
    pub(crate) fn are_secret(&self) -> bool {
        !matches!(self, Self::Absent(_))
    }

    /// An error about the file or the credential helper that could not be read.
    pub(crate) fn absence(&self, registry: &str) -> Option<Error> {
        let Self::Absent(Absence { from, reason }) = self else { return None };
        Some(wrong(registry, from, reason.clone()))
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

fn wrong(registry: &str, from: impl ToString, problem: impl Into<operation::Cause>) -> Error {
    Error::Credentials { registry: registry.to_owned(), from: from.to_string(), source: of_file(problem) }
}

/// A problem with a file of logins, or with the helper that it names.
fn of_file(problem: impl Into<operation::Cause>) -> operation::Error {
    operation::Error::new("", "", problem).of(operation::Place::File)
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

/// The members of a file. Those that we know get our spelling.
fn members(text: &[u8]) -> serde_json::Result<Map<String, Value>> {
    let file: Option<Map<String, Value>> = serde_json::from_slice(text)?;
    Ok(oci::json::spelled(file.unwrap_or_default(), &["auths", "credsStore", "credHelpers"]))
}

impl File {
    /// Parses a file. An empty file has no entries, as with Docker.
    fn read(text: &[u8]) -> serde_json::Result<Self> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let mut members = members(text)?;
        let mut taken = |key: &str| members.get_mut(key).map_or(Value::Null, Value::take);
        let mut file = Self::default();
        for (key, place) in [("auths", &mut file.auths), ("credHelpers", &mut file.cred_helpers)] {
            match taken(key) {
                Value::Null => {}
                Value::Object(entries) => *place = entries,
                _ => file.problem = Some(format!("{key:?} is not an object")),
            }
        }
        match taken("credsStore") {
            Value::Null => {}
            Value::String(name) => file.creds_store = Some(name),
            _ => file.problem = Some("\"credsStore\" is not a string".to_owned()),
        }
        Ok(file)
    }

    fn find(&self, registry: &str, repository: &str, path: &Path) -> Option<Credentials> {
        let at_file = |problem: &dyn fmt::Display| Credentials::absent(path.display(), problem);
        let mut absent = self.problem.as_ref().map(|problem| at_file(problem));
        let hub = DOCKER_HUB.contains(&registry);
        let keys: &[&str] = if hub { &[DOCKER_HUB_KEY, "docker.io", "index.docker.io"] } else { &[registry] };
        let helper = match keys.iter().find_map(|key| Some((*key, self.cred_helpers.get(*key)?))) {
            Some((_, Value::Null)) | None => None,
            Some((key, Value::String(program))) => Some((key, program.as_str())),
            Some((key, _)) => {
                absent = Some(at_file(&format_args!("credHelpers of {key:?}: it is not a string")));
                None
            }
        };
        let store = self.creds_store.as_deref().map(|store| (keys[0], store));
        let programs = helper.into_iter().chain(store).filter(|(_, program)| !program.is_empty());
        let entry = self.entry(registry, repository, hub);
        // A login for a part of the registry says more than the helpers, which know only hosts.
        let programs = programs.filter(|_| !entry.is_some_and(|(key, _)| normalised(key).contains('/')));
        for (server, program) in programs {
            match program::ask(program, server) {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {}
                Err(reason) => {
                    absent = Some(Credentials::absent(format_args!("docker-credential-{program}"), reason));
                }
            }
        }
        let Some((key, entry)) = entry else { return absent };
        match Entry::read(entry).and_then(|entry| entry.credentials()) {
            Ok(found) => found.or(absent),
            Err(problem) => Some(at_file(&format_args!("auths of {key:?}: {problem}"))),
        }
    }

    /// The most specific entry for the repository: the first of `host/a/b`, `host/a`, `host` that exists.
    fn entry(&self, registry: &str, repository: &str, hub: bool) -> Option<(&str, &Value)> {
        let registry = if hub { "docker.io" } else { registry };
        let full = format!("{registry}/{repository}");
        let mut wanted = full.as_str();
        loop {
            let found = self.auths.iter().find(|(key, entry)| normalised(key) == wanted && !entry.is_null());
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

impl<'a> Entry<'a> {
    fn read(entry: &'a Value) -> Result<Self, String> {
        let entry = entry.as_object().ok_or("it is not an object")?;
        let text = |key: &str| match entry.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(format!("{key:?} is not a string")),
        };
        Ok(Self {
            auth: text("auth")?.unwrap_or_default(),
            username: text("username")?.unwrap_or_default(),
            password: text("password")?,
            identitytoken: text("identitytoken")?.unwrap_or_default(),
        })
    }

    fn credentials(&self) -> Result<Option<Credentials>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identitytoken.to_owned())));
        }
        if !self.auth.is_empty() {
            // Go's decoder, which wrote and reads these files, passes over ends of lines.
            let auth = self.auth.replace(['\r', '\n'], "");
            let decoded = STANDARD.decode(auth).map_err(|_| "\"auth\" is not base64")?;
            let text = String::from_utf8(decoded).map_err(|_| "\"auth\" is not UTF-8")?;
            let (name, password) = text.split_once(':').ok_or("\"auth\" is not a name and a password")?;
            return Ok(Some(Credentials::Password(
                name.to_owned(),
                password.trim_end_matches('\0').to_owned(),
            )));
        }
        let password = self.password.filter(|_| !self.username.is_empty());
        Ok(password.map(|password| Credentials::Password(self.username.to_owned(), password.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, registry: &str, repository: &str) -> Option<Credentials> {
        File::read(json.as_bytes()).unwrap().find(registry, repository, Path::new("/f"))
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
            assert_eq!(found(&file, registry, repository), expected, "{registry}/{repository}");
        }
        let absent = found(r#"{"credsStore": "../evil"}"#, "h", "a").unwrap();
        assert_eq!(
            absent.absence("h").unwrap().to_string(),
            "read credentials for h from docker-credential-../evil: this cannot be the name of a program"
        );
        let lines = r#"{"auths": {"h": {"auth": "dT\r\npw\n"}}}"#;
        assert_eq!(found(lines, "h", "a"), password("u", "p"));
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
            assert_eq!(found(json, "h", "a"), None, "{json}");
        }
        let absent = Credentials::Absent(Absence {
            from: "docker-credential-stave-test-none.exe".into(),
            reason: "there is no such program".into(),
        });
        for json in
            [r#"{"credsStore": "stave-test-none.exe"}"#, r#"{"credHelpers": {"h": "stave-test-none.exe"}}"#]
        {
            assert_eq!(found(json, "h", "a"), Some(absent.clone()), "{json}");
        }
        let file = format!(
            r#"{{"auths": {{"h": {{"auth": "{}"}}}}, "credsStore": "stave-test-none.exe"}}"#,
            STANDARD.encode("me:p")
        );
        let own = Credentials::Password("me".into(), "p".into());
        assert_eq!(found(&file, "h", "a"), Some(own), "the file's own entry");
        assert!(File::read(b"1").is_err() && File::read(b"{").is_err());
    }

    #[test]
    fn what_is_wrong_elsewhere_does_not_matter() {
        let own = Credentials::Password("u".into(), "p".into());
        for others in [
            r#""other": "x""#,
            r#""other": {"auth": "dXA="}, "more": {"auth": 5}, "none": null"#,
            r#""other": [], "H": {"auth": "?"}"#,
        ] {
            let file = format!(
                r#"{{"auths": {{{others}, "h": {{"auth": "dTpw"}}}}, "credHelpers": {{"other": 5, "more": {{}}}}}}"#
            );
            assert_eq!(found(&file, "h", "a"), Some(own.clone()), "{others}");
            assert_eq!(found(&file, "g", "a"), None, "{others}");
        }
        let file = r#"{"credHelpers": [], "credsStore": 1, "auths": {"h": {"auth": "dTpw"}}}"#;
        assert_eq!(found(file, "h", "a"), Some(own));
    }

    #[test]
    fn what_cannot_be_read_is_told_when_it_is_needed() {
        for (json, problem) in [
            (r#"{"auths": {"h": {"auth": "?"}}}"#, r#"auths of "h": "auth" is not base64"#),
            (r#"{"auths": {"h": {"auth": "dXA="}}}"#, r#"auths of "h": "auth" is not a name and a password"#),
            (r#"{"auths": {"h": "x"}}"#, r#"auths of "h": it is not an object"#),
            (r#"{"auths": {"h": {"auth": 5}}}"#, r#"auths of "h": "auth" is not a string"#),
            (r#"{"auths": []}"#, r#""auths" is not an object"#),
            (r#"{"credHelpers": "x"}"#, r#""credHelpers" is not an object"#),
            (r#"{"credHelpers": {"h": 5}}"#, r#"credHelpers of "h": it is not a string"#),
            (r#"{"credsStore": {}}"#, r#""credsStore" is not a string"#),
        ] {
            let absent = found(json, "h", "a").unwrap_or_else(|| panic!("{json}"));
            assert!(!absent.are_secret() && absent.basic().is_none(), "{json}");
            let error = absent.absence("h").unwrap().to_string();
            assert_eq!(error, format!("read credentials for h from /f: {problem}"), "{json}");
        }
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
