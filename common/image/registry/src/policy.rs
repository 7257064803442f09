//! containers-policy.json(5): which images may be pulled.

use std::{collections::HashMap, fs, io, path::Path};

use oci::Reference;
use serde::Deserialize;

use crate::{Error, places::environment};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: HashMap<String, HashMap<String, Vec<Requirement>>>,
}

/// What is required of an image. Its other members, such as keys, are not read.
#[derive(Debug, Deserialize)]
struct Requirement {
    r#type: String,
}

/// Refuses an image that the policy of this machine does not let in. Without a policy, every image may come in.
///
/// # Errors
/// [`Error::Rejected`], [`Error::Unsigned`], and when the file is no policy.
pub(crate) fn check(reference: &Reference) -> Result<(), Error> {
    // The manual page knows no XDG_CONFIG_HOME here. A variable that moves other files must not loosen the policy.
    let own = environment("HOME").map(|home| Path::new(&home).join(".config/containers/policy.json"));
    let own = own.filter(|path| path.exists());
    check_by(&own.unwrap_or_else(|| "/etc/containers/policy.json".into()), reference)
}

fn check_by(path: &Path, reference: &Reference) -> Result<(), Error> {
    let wrong = |problem: String| Error::Places { path: path.to_owned(), problem };
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(|error| wrong(error.to_string()))?,
    };
    let policy: Policy = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let requirements = policy.requirements(reference);
    if requirements.is_empty() {
        return Err(wrong("a list of requirements is empty".to_owned()));
    }
    for Requirement { r#type } in requirements {
        let (name, path) = (reference.to_string(), path.to_owned());
        match r#type.as_str() {
            "insecureAcceptAnything" => {}
            "reject" => return Err(Error::Rejected { name, path }),
            "signedBy" | "sigstoreSigned" | "signedBaseLayer" => {
                return Err(Error::Unsigned { name, path, kind: r#type.clone() });
            }
            other => return Err(wrong(format!("there is no requirement {other:?}"))),
        }
    }
    Ok(())
}

impl Policy {
    /// The requirements of the most specific scope ("docker:" in the manual page).
    fn requirements(&self, reference: &Reference) -> &[Requirement] {
        let Some(scopes) = self.transports.get("docker") else { return &self.default };
        let name = reference.name();
        let parents = name.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| name[..at].to_owned());
        let exact = match reference.digest() {
            Some(digest) => format!("{name}@{digest}"),
            None => format!("{name}:{}", reference.tag().unwrap_or("latest")),
        };
        let mut wanted = vec![exact, name.clone()];
        wanted.extend(parents.collect::<Vec<_>>().into_iter().rev());
        // A wildcard is about names only, without the port.
        let host = reference.registry();
        let host = host.split_once(':').map_or(host, |(name, _)| name);
        let domains =
            host.char_indices().filter(|(_, c)| *c == '.').map(|(at, _)| format!("*{}", &host[at..]));
        wanted.extend(domains);
        wanted.push(String::new());
        wanted.iter().find_map(|scope| scopes.get(scope)).unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_scope_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.json");
        let policy = r#"{"default": [{"type": "reject"}], "transports": {"docker-daemon": {"": [{"type": "reject"}]}, "docker": {
            "docker.io": [{"type": "insecureAcceptAnything"}],
            "docker.io/library/evil": [{"type": "reject"}],
            "docker.io/library/evil:1.2": [{"type": "insecureAcceptAnything"}],
            "h:5000/ours": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}],
            "*.example.com": [{"type": "insecureAcceptAnything"}],
            "*.bad.example.com": [{"type": "reject"}]}}}"#;
        fs::write(&path, policy).unwrap();
        for (name, said) in [
            ("busybox", None),
            ("evil", Some("evil:latest is rejected by FILE")),
            ("evil:1.2", None),
            (
                "h:5000/ours/a",
                Some(
                    "h:5000/ours/a:latest needs a signature by FILE (signedBy), and signatures are not checked",
                ),
            ),
            ("h:5000/other", Some("h:5000/other:latest is rejected by FILE")),
            ("a.example.com/x", None),
            ("a.example.com:5000/x", None),
            ("b.bad.example.com:5000/x", Some("b.bad.example.com:5000/x:latest is rejected by FILE")),
            ("a.bad.example.com/x", Some("a.bad.example.com/x:latest is rejected by FILE")),
        ] {
            let outcome = check_by(&path, &name.parse().unwrap());
            let error = outcome.err().map(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"));
            assert_eq!(error.as_deref(), said, "{name}");
        }
        for (text, said) in [
            ("{}", "missing field `default`"),
            (r#"{"default": []}"#, "a list of requirements is empty"),
            (r#"{"default": [{"type": "maybe"}]}"#, "there is no requirement \"maybe\""),
            (r#"{"default": [], "x": 1}"#, "unknown field `x`"),
        ] {
            fs::write(&path, text).unwrap();
            let error = check_by(&path, &"a".parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(check_by(&path, &"a".parse().unwrap()).is_ok(), "no policy");
    }
}
