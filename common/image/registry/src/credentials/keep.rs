//! Stores and removes logins, in the files of Docker, podman and skopeo.

use std::{
    fs::{self, File as Opened},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use operation::Cause;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};

use super::{DOCKER_HUB, DOCKER_HUB_KEY, Login, files, members, normalised, of_file, program};
use crate::{Error, places::environment};

/// Where a login was stored or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file. Passwords in it are only encoded, not encrypted.
    File(PathBuf),
    /// `docker-credential-<name>`.
    Program(String),
}

/// Stores a login for `registry`: a host, with a port and a path if these matter.
///
/// The login goes into `authfile`. Without `authfile`, it goes into the first of the usual files that has a
/// login for this registry, because that one is read, or else into Docker's file. If the file names a
/// credential helper, the helper gets the login.
///
/// # Errors
/// When the file or the helper does not accept the login. The file is then unchanged.
pub fn keep(authfile: Option<&Path>, registry: &str, login: &Login) -> Result<Place, Error> {
    let candidates = files(authfile, environment);
    let has_entry = |path: &&PathBuf| {
        read(path)
            .is_ok_and(|file| keys(&file, registry).next().is_some() || helper(&file, registry).is_some())
    };
    let path = candidates.iter().find(has_entry).or(candidates.last());
    let path = path.ok_or_else(|| failed(registry, Path::new("~"), "HOME is not set"))?;
    edit(registry, path, |file| {
        if let Some(program) = helper(file, registry) {
            program::store(&program, server(registry), login)
                .map_err(|problem| at_program(registry, &program, problem))?;
            // As with Docker, the entry in the file only says that a login exists and holds no secret.
            entry(file, registry, json!({}));
            return Ok(Place::Program(program));
        }
        entry(
            file,
            registry,
            match login.name.as_str() {
                "<token>" => json!({"identitytoken": login.password}),
                name => json!({"auth": STANDARD.encode(format!("{name}:{}", login.password))}),
            },
        );
        Ok(Place::File(path.clone()))
    })
}

/// Removes the login for `registry` from `authfile`, or without `authfile` from all usual files. Returns the
/// places where there was one.
///
/// # Errors
/// When a file or a helper with the login cannot be changed. Earlier ones are changed already.
pub fn remove(authfile: Option<&Path>, registry: &str) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    for path in files(authfile, environment) {
        let file = read(&path).map_err(|problem| failed(registry, &path, problem))?;
        let program = helper(&file, registry);
        if keys(&file, registry).next().is_none() && program.is_none() {
            continue;
        }
        if let Some(program) = program {
            let erased = program::erase(&program, server(registry));
            let erased = erased.map_err(|problem| at_program(registry, &program, problem))?;
            places.extend(erased.then_some(Place::Program(program)));
        }
        let removed = edit(registry, &path, |file| {
            let found: Vec<String> = keys(file, registry).map(str::to_owned).collect();
            let auths = file.get_mut("auths").and_then(Value::as_object_mut);
            let had_secret = |entry: &Value| entry.as_object().is_some_and(|entry| !entry.is_empty());
            let removed =
                auths.into_iter().flat_map(|auths| found.iter().filter_map(|key| auths.shift_remove(key)));
            Ok(removed.filter(had_secret).count() > 0)
        })?;
        places.extend(removed.then_some(Place::File(path)));
    }
    Ok(places)
}

/// Changes a file, which need not exist. It is written by rename, and only its owner can read it.
fn edit<T>(
    registry: &str,
    path: &Path,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<T, Error>,
) -> Result<T, Error> {
    let wrong = |problem: io::Error| failed(registry, path, problem);
    // Keep a symbolic link: its target may be a file that several programs share.
    let target = through_links(path);
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    operation::make_directories(directory, 0o700).map_err(wrong)?;
    // Two logins at the same time must not overwrite each other.
    let lock = Opened::open(directory).map_err(wrong)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| wrong(error.into()))?;
    let mut file = read(&target).map_err(|problem| failed(registry, path, problem))?;
    let before = file.clone();
    let outcome = change(&mut file)?;
    if file == before {
        return Ok(outcome);
    }
    let mut new = tempfile::NamedTempFile::new_in(directory).map_err(wrong)?;
    let text = serde_json::to_string_pretty(&file);
    let text = text.map_err(|error| failed(registry, path, error.to_string()))?;
    new.write_all(text.as_bytes()).and_then(|()| new.write_all(b"\n")).map_err(wrong)?;
    if let Ok(old) = fs::metadata(&target) {
        let mode = fs::Permissions::from_mode(old.mode() & 0o600);
        new.as_file().set_permissions(mode).map_err(wrong)?;
        // Root may edit the file of another user. If the owner cannot be set, the file becomes ours.
        let _ = std::os::unix::fs::fchown(new.as_file(), Some(old.uid()), Some(old.gid()));
    }
    new.as_file().sync_all().map_err(wrong)?;
    new.persist(&target).map_err(|error| wrong(error.error))?;
    lock.sync_all().map_err(wrong)?;
    Ok(outcome)
}

/// The file to which a path leads. It need not exist: programs that manage such links make them first.
fn through_links(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    // As many links as the kernel follows.
    for _ in 0..40 {
        match fs::read_link(&target) {
            Ok(link) => target = target.parent().unwrap_or(Path::new("/")).join(link),
            Err(_) => break,
        }
    }
    fs::canonicalize(&target).unwrap_or(target)
}

/// Reads a file with all its members. A missing or empty file has none.
fn read(path: &Path) -> Result<Map<String, Value>, Cause> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        text => text?,
    };
    if text.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    Ok(members(&text).map_err(|error| error.to_string())?)
}

/// The keys of `auths` that stand for this registry.
fn keys<'a>(file: &'a Map<String, Value>, registry: &'a str) -> impl Iterator<Item = &'a str> {
    let auths = file.get("auths").and_then(Value::as_object);
    let wanted = if DOCKER_HUB.contains(&registry) { "docker.io" } else { registry };
    let found = auths.into_iter().flat_map(Map::keys).map(String::as_str);
    found.filter(move |key| normalised(key) == wanted)
}

/// The credential helper that the file names for this registry.
fn helper(file: &Map<String, Value>, registry: &str) -> Option<String> {
    // Helpers are asked for hosts only, so they would never be asked for this login.
    if registry.contains('/') {
        return None;
    }
    let own = file.get("credHelpers").and_then(|helpers| helpers.get(server(registry)));
    let named = own.or(file.get("credsStore")).and_then(Value::as_str);
    named.filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Docker's name for the registry, in these files and towards helpers.
fn server(registry: &str) -> &str {
    if DOCKER_HUB.contains(&registry) { DOCKER_HUB_KEY } else { registry }
}

/// Sets the entry for a registry. Other entries for the same registry are removed.
fn entry(file: &mut Map<String, Value>, registry: &str, value: Value) {
    let old: Vec<String> = keys(file, registry).map(str::to_owned).collect();
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    if !auths.is_object() {
        *auths = json!({});
    }
    if let Some(auths) = auths.as_object_mut() {
        old.iter().for_each(|key| drop(auths.shift_remove(key)));
        auths.insert(server(registry).to_owned(), value);
    }
}

fn at_program(registry: &str, name: &str, problem: Cause) -> Error {
    failed(registry, Path::new(&format!("docker-credential-{name}")), problem)
}

fn failed(registry: &str, place: &Path, problem: impl Into<Cause>) -> Error {
    Error::Login {
        registry: registry.to_owned(),
        place: place.display().to_string(),
        source: of_file(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Credentials, *};

    fn login(name: &str, password: &str) -> Login {
        Login { name: name.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn a_login_and_what_others_wrote() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/config.json");
        assert_eq!(keep(Some(&path), "h:5000", &login("me", "a:b")).unwrap(), Place::File(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::write(
            &path,
            r#"{"HttpHeaders": {"X": "1"}, "auths": {"https://h:5000/v1/": {"auth": "b2xkOm9sZA=="}, "other": {"auth": "eDp5"}}}"#,
        )
        .unwrap();
        keep(Some(&path), "h:5000", &login("me", "new")).unwrap();
        keep(Some(&path), "docker.io", &login("<token>", "t")).unwrap();
        let file = Value::Object(read(&path).unwrap());
        let expected = json!({"HttpHeaders": {"X": "1"}, "auths": {"other": {"auth": "eDp5"},
            "h:5000": {"auth": STANDARD.encode("me:new")}, "https://index.docker.io/v1/": {"identitytoken": "t"}}});
        assert_eq!(file, expected);
        assert_eq!(remove(Some(&path), "h:5000").unwrap(), [Place::File(path.clone())]);
        assert_eq!(remove(Some(&path), "h:5000").unwrap(), []);
        assert_eq!(remove(Some(&path), "index.docker.io").unwrap(), [Place::File(path.clone())]);
        let file = Value::Object(read(&path).unwrap());
        assert_eq!(file, json!({"HttpHeaders": {"X": "1"}, "auths": {"other": {"auth": "eDp5"}}}));
    }

    /// What the system says keeps its number.
    #[test]
    fn a_place_that_is_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let path = file.join("below/config.json");
        let error = keep(Some(&path), "h", &login("me", "p")).unwrap_err();
        let place = path.display();
        assert_eq!(error.to_string(), format!("edit the login for h in {place}: Not a directory"));
        let errno = |error: &Error| operation::errno_of(error).map(|errno| errno as i32);
        let no_directory = rustix::io::Errno::NOTDIR.raw_os_error();
        assert_eq!(errno(&error), Some(no_directory));
        let error = Credentials::find(Some(&path), "h", "r").unwrap_err();
        assert_eq!(errno(&error), Some(no_directory), "{error}");
    }

    #[test]
    fn other_letters_and_a_link_whose_target_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::os::unix::fs::symlink("dot/none.json", &path).unwrap();
        keep(Some(&path), "h", &login("me", "p")).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("dot/none.json"));
        let target = directory.path().join("dot/none.json");
        fs::write(&target, r#"{"Auths": {"h": {"auth": "b2xkOm9sZA=="}}, "X": 1}"#).unwrap();
        keep(Some(&path), "h", &login("me", "new")).unwrap();
        let file: Value = serde_json::from_slice(&fs::read(&target).unwrap()).unwrap();
        assert_eq!(file, json!({"auths": {"h": {"auth": STANDARD.encode("me:new")}}, "X": 1}));
    }

    #[test]
    fn a_login_for_a_path_goes_past_the_helper() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, r#"{"credsStore": "stave-test-none"}"#).unwrap();
        assert_eq!(keep(Some(&path), "h/owner", &login("me", "p")).unwrap(), Place::File(path.clone()));
        let file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let auth = STANDARD.encode("me:p");
        assert_eq!(file, json!({"credsStore": "stave-test-none", "auths": {"h/owner": {"auth": auth}}}));
        assert!(keep(Some(&path), "h", &login("me", "p")).is_err(), "the helper is asked for the host");
        assert_eq!(remove(Some(&path), "h/owner").unwrap(), [Place::File(path)]);
    }

    #[test]
    fn a_damaged_file_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, "{").unwrap();
        let error = keep(Some(&path), "h", &login("me", "p")).unwrap_err().to_string();
        let place = path.display();
        assert_eq!(
            error,
            format!("edit the login for h in {place}: EOF while parsing an object at line 1 column 1")
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }
}
