//! containers-policy.json(5): which images may be pulled, and whose signatures they need.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use oci::Reference;
use serde::Deserialize;
use serde_json::Value;
use signing::PublicKey;

use crate::{Error, identity::Identity, places::environment};

/// Which policy says what images may be pulled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Policy {
    /// That of this machine, or of the user. Without one, every image may come in.
    #[default]
    Usual,
    /// That in this file.
    File(PathBuf),
    /// None.
    Ignored,
}

/// What an image must be signed with.
#[derive(Debug)]
pub(crate) struct Demand {
    /// One of these keys.
    pub(crate) keys: Vec<PublicKey>,
    /// Which names in a signature count.
    pub(crate) identity: Identity,
    /// The file with the policy.
    pub(crate) path: PathBuf,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: HashMap<String, HashMap<String, Vec<Requirement>>>,
}

/// A requirement. Those with members that are not used here are only recognized.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Requirement {
    InsecureAcceptAnything {},
    Reject {},
    SigstoreSigned(Box<SigstoreSigned>),
    #[allow(dead_code)] // Only its presence matters, here and below.
    SignedBy(Box<SignedBy>),
    #[allow(dead_code)]
    SignedBaseLayer(SignedBaseLayer),
}

/// Signatures with GPG, which are not checked. Only the names of its members matter, here and in [`SignedBaseLayer`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
struct SignedBy {
    key_type: Option<Value>,
    key_path: Option<Value>,
    key_paths: Option<Value>,
    key_data: Option<Value>,
    signed_identity: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
struct SignedBaseLayer {
    base_layer_identity: Option<Value>,
}

/// Signatures in cosign's form.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SigstoreSigned {
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    #[serde(default)]
    signed_identity: Identity,
    fulcio: Option<Value>,
    pki: Option<Value>,
    rekor_public_key_path: Option<Value>,
    rekor_public_key_paths: Option<Value>,
    rekor_public_key_data: Option<Value>,
    rekor_public_key_datas: Option<Value>,
}

impl Policy {
    /// Refuses an image that the policy never lets in. Returns the signatures that it must have, all of them.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Unsigned`], and when the file is no policy.
    pub(crate) fn demands(&self, reference: &Reference) -> Result<Vec<Demand>, Error> {
        let (path, must_exist) = match self {
            Self::Ignored => return Ok(Vec::new()),
            Self::File(path) => (path.clone(), true),
            Self::Usual => (usual(), false),
        };
        let wrong = |problem: String| Error::Places { path: path.clone(), problem };
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(Vec::new()),
            text => text.map_err(|error| wrong(error.to_string()))?,
        };
        let file: File = oci::json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let all = || [&file.default].into_iter().chain(file.transports.values().flat_map(HashMap::values));
        if all().any(Vec::is_empty) {
            return Err(wrong("a list of requirements is empty".to_owned()));
        }
        let mut demands = Vec::new();
        for requirement in file.requirements(reference) {
            let (name, path) = (reference.to_string(), path.clone());
            let unchecked = |kind: &str| {
                Err(Error::Unsigned { name: name.clone(), path: path.clone(), kind: kind.to_owned() })
            };
            match requirement {
                Requirement::InsecureAcceptAnything {} => {}
                Requirement::Reject {} => return Err(Error::Rejected { name, path }),
                Requirement::SignedBy(_) => return unchecked("signedBy"),
                Requirement::SignedBaseLayer(_) => return unchecked("signedBaseLayer"),
                Requirement::SigstoreSigned(signed) => match signed.unchecked() {
                    Some(member) => return unchecked(&format!("sigstoreSigned with {member}")),
                    None => demands.push(Demand {
                        keys: signed.keys().map_err(wrong)?,
                        identity: signed.signed_identity.clone(),
                        path,
                    }),
                },
            }
        }
        Ok(demands)
    }
}

/// The policy of this user, or of the machine.
fn usual() -> PathBuf {
    // The manual page knows no XDG_CONFIG_HOME here. A variable that moves other files must not loosen the policy.
    let own = environment("HOME").map(|home| Path::new(&home).join(".config/containers/policy.json"));
    own.filter(|path| path.exists()).unwrap_or_else(|| "/etc/containers/policy.json".into())
}

impl SigstoreSigned {
    /// The first member that is not carried out.
    fn unchecked(&self) -> Option<&'static str> {
        let members = [
            ("fulcio", &self.fulcio),
            ("pki", &self.pki),
            ("rekorPublicKeyPath", &self.rekor_public_key_path),
            ("rekorPublicKeyPaths", &self.rekor_public_key_paths),
            ("rekorPublicKeyData", &self.rekor_public_key_data),
            ("rekorPublicKeyDatas", &self.rekor_public_key_datas),
        ];
        members.into_iter().find(|(_, value)| value.is_some()).map(|(name, _)| name)
    }

    fn keys(&self) -> Result<Vec<PublicKey>, String> {
        let Self { key_path, key_paths, key_data, key_datas, .. } = self;
        let from_path = |path: &PathBuf| {
            let text = fs::read_to_string(path).map_err(|error| error.to_string());
            text.and_then(|text| PublicKey::read(&text).map_err(|error| error.to_string()))
                .map_err(|problem| format!("key {path:?}: {problem}"))
        };
        let from_data = |data: &String| {
            let text = BASE64_STANDARD.decode(data.trim()).ok().and_then(|text| String::from_utf8(text).ok());
            let text = text.ok_or("keyData is not a key in base64")?;
            PublicKey::read(&text).map_err(|error| format!("keyData: {error}"))
        };
        let keys: Vec<PublicKey> = match (key_path, key_paths, key_data, key_datas) {
            (Some(path), None, None, None) => vec![from_path(path)?],
            (None, Some(paths), None, None) => paths.iter().map(from_path).collect::<Result<_, _>>()?,
            (None, None, Some(data), None) => vec![from_data(data)?],
            (None, None, None, Some(datas)) => datas.iter().map(from_data).collect::<Result<_, _>>()?,
            _ => {
                return Err(
                    "sigstoreSigned has not exactly one of keyPath, keyPaths, keyData and keyDatas".into()
                );
            }
        };
        if keys.is_empty() { Err("sigstoreSigned has no key".to_owned()) } else { Ok(keys) }
    }
}

impl File {
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

    /// What the policy in a file says to an image: an error, with FILE for its path, or the number of demands.
    fn said(path: &Path, text: &str, name: &str) -> Result<usize, String> {
        fs::write(path, text).unwrap();
        let demands = Policy::File(path.to_owned()).demands(&name.parse().unwrap());
        demands
            .map(|demands| demands.len())
            .map_err(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"))
    }

    const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEIoHfk3srheJNje/WYBWHx0LWZbhr
FNWCyoKnyt3D22xcLCKOM/6z9VqfXuZnXqBWiG64JVBT6mH0sP+1c+BIkQ==
-----END PUBLIC KEY-----
";

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
        for (name, expected) in [
            ("busybox", None),
            ("evil", Some("evil:latest is rejected by FILE")),
            ("evil:1.2", None),
            (
                "h:5000/ours/a",
                Some("h:5000/ours/a:latest needs a signature by FILE that is not checked here (signedBy)"),
            ),
            ("h:5000/other", Some("h:5000/other:latest is rejected by FILE")),
            ("a.example.com/x", None),
            ("a.example.com:5000/x", None),
            ("b.bad.example.com:5000/x", Some("b.bad.example.com:5000/x:latest is rejected by FILE")),
            ("a.bad.example.com/x", Some("a.bad.example.com/x:latest is rejected by FILE")),
        ] {
            assert_eq!(said(&path, policy, name).err().as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_no_policy_lets_nothing_in() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.json");
        for (text, words) in [
            ("{}", "missing field `default`"),
            (r#"{"default": []}"#, "a list of requirements is empty"),
            (
                r#"{"default": [{"type": "reject"}], "transports": {"oci": {"/a": []}}}"#,
                "a list of requirements is empty",
            ),
            (r#"{"default": [{"type": "maybe"}]}"#, "unknown variant `maybe`"),
            (r#"{"default": [{"type": "reject", "type": "reject"}]}"#, "\"type\""),
            (r#"{"default": [{"type": "insecureAcceptAnything", "if": 1}]}"#, "unknown field `if`"),
            (r#"{"default": [], "x": 1}"#, "unknown field `x`"),
            (r#"{"default": [], "default": []}"#, "\"default\""),
        ] {
            let error = said(&path, text, "a").unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(Policy::File(path).demands(&"a".parse().unwrap()).is_err());
        assert!(Policy::Ignored.demands(&"a".parse().unwrap()).unwrap().is_empty());
    }

    #[test]
    fn keys_of_signatures() {
        let directory = tempfile::tempdir().unwrap();
        let (path, key) = (directory.path().join("policy.json"), directory.path().join("key"));
        fs::write(&key, KEY).unwrap();
        let (key, data) = (key.to_str().unwrap(), BASE64_STANDARD.encode(KEY));
        for (members, expected) in [
            (format!(r#""keyPath": "{key}""#), Ok(1)),
            (format!(r#""keyPaths": ["{key}", "{key}"]"#), Ok(1)),
            (format!(r#""keyData": "{data}""#), Ok(1)),
            (format!(r#""keyDatas": ["{data}"], "signedIdentity": {{"type": "matchRepository"}}"#), Ok(1)),
            (format!(r#""keyPath": "{key}", "keyData": "{data}""#), Err("exactly one of keyPath")),
            (r#""keyPaths": []"#.to_owned(), Err("sigstoreSigned has no key")),
            (String::new(), Err("exactly one of keyPath")),
            (r#""keyData": "AAAA""#.to_owned(), Err("keyData: it is no public key")),
            (r#""keyData": "?""#.to_owned(), Err("keyData is not a key in base64")),
            (
                r#""keyPath": "/nonexistent""#.to_owned(),
                Err("key \"/nonexistent\": No such file or directory"),
            ),
            (
                format!(r#""keyPath": "{key}", "rekorPublicKeyPath": "/k""#),
                Err("by FILE that is not checked here (sigstoreSigned with rekorPublicKeyPath)"),
            ),
            (format!(r#""keyPath": "{key}", "fulcio": {{}}"#), Err("(sigstoreSigned with fulcio)")),
            (
                format!(r#""keyPath": "{key}", "signedIdentity": {{"type": "matchAny"}}"#),
                Err("unknown variant `matchAny`"),
            ),
            (
                format!(r#""keyPath": "{key}", "signedIdentity": {{"type": "exactReference"}}"#),
                Err("missing field `dockerReference`"),
            ),
        ] {
            let comma = if members.is_empty() { "" } else { "," };
            let text = format!(r#"{{"default": [{{"type": "sigstoreSigned"{comma} {members}}}]}}"#);
            match (said(&path, &text, "a"), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(words)) => assert!(found.contains(words), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
