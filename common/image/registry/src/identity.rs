//! Which names in a signature count for an image (`signedIdentity` of containers-policy.json(5)).

use oci::Reference;
use serde::Deserialize;

/// The rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum Identity {
    /// The image's own name, with its tag or digest.
    MatchExact {},
    /// The image's own name with its tag; for an image that is named by its digest, the repository.
    MatchRepoDigestOrExact {},
    /// The image's repository.
    MatchRepository {},
    /// This name.
    ExactReference { docker_reference: Name },
    /// This repository.
    ExactRepository { docker_repository: Name },
    /// The image's name, in which one prefix stands for another. Then as `MatchRepoDigestOrExact`.
    #[serde(rename = "remapIdentity")]
    Remap { prefix: String, signed_prefix: String },
}

impl Default for Identity {
    fn default() -> Self {
        Self::MatchRepoDigestOrExact {}
    }
}

/// A name of an image, and whether it has a tag or a digest. In a signature it may lack both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Name {
    reference: Reference,
    is_complete: bool,
}

impl TryFrom<String> for Name {
    type Error = oci::reference::InvalidReference;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::read(&text)
    }
}

impl Name {
    /// Reads a name. cosign calls Docker's registry by its old name.
    fn read(text: &str) -> Result<Self, oci::reference::InvalidReference> {
        let own = text.strip_prefix("index.docker.io/").map(|rest| format!("docker.io/{rest}"));
        let own = own.as_deref().unwrap_or(text);
        let last = own.rsplit('/').next().unwrap_or(own);
        Ok(Self { reference: own.parse()?, is_complete: last.contains([':', '@']) })
    }

    fn of(reference: &Reference) -> Self {
        Self { reference: reference.clone(), is_complete: true }
    }

    fn is_in(&self, other: &Self) -> bool {
        self.reference.name() == other.reference.name()
    }

    fn is(&self, other: &Self) -> bool {
        self.is_complete && other.is_complete && self.reference == other.reference
    }

    /// As [`Name::is`]; for an image with a digest, which the signature proves, any tag of the repository.
    fn is_or_has_digest_in(&self, image: &Self) -> bool {
        match image.reference.digest() {
            Some(_) => self.is_complete && self.is_in(image),
            None => self.is(image),
        }
    }
}

impl Identity {
    /// The rule of `img-pull --verify`: the repository of this name.
    pub(crate) fn repository_of(reference: &Reference) -> Self {
        Self::ExactRepository { docker_repository: Name::of(reference) }
    }

    /// Whether a signature for `claim` counts for the image.
    pub(crate) fn accepts(&self, image: &Reference, claim: &str) -> bool {
        let (Ok(claim), own) = (Name::read(claim), Name::of(image)) else { return false };
        match self {
            Self::MatchExact {} => claim.is(&own),
            Self::MatchRepoDigestOrExact {} => claim.is_or_has_digest_in(&own),
            Self::MatchRepository {} => claim.is_in(&own),
            Self::ExactReference { docker_reference } => claim.is(docker_reference),
            Self::ExactRepository { docker_repository } => claim.is_in(docker_repository),
            Self::Remap { prefix, signed_prefix } => {
                let remapped = remapped(image, prefix, signed_prefix);
                remapped.is_some_and(|own| claim.is_or_has_digest_in(&own))
            }
        }
    }
}

/// The name with another prefix: a host, with its port, or a part of a repository's name up to a slash. None if that is
/// no name.
fn remapped(image: &Reference, prefix: &str, signed_prefix: &str) -> Option<Name> {
    let rest = image.name().strip_prefix(prefix).map(str::to_owned);
    match rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        None => Some(Name::of(image)),
        Some(rest) => {
            let suffix = &image.canonical()[image.name().len()..];
            Name::read(&format!("{signed_prefix}{rest}{suffix}")).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_signatures() {
        let digest = format!("@sha256:{}", "a".repeat(64));
        let own = |rule: &str| serde_json::from_str::<Identity>(rule).unwrap();
        let usual = r#"{"type": "matchRepoDigestOrExact"}"#;
        let repository = r#"{"type": "matchRepository"}"#;
        let remap = r#"{"type": "remapIdentity", "prefix": "m:5000/copy", "signedPrefix": "vendor.example"}"#;
        let reference = r#"{"type": "exactReference", "dockerReference": "h/a:1"}"#;
        let place = r#"{"type": "exactRepository", "dockerRepository": "h/a"}"#;
        for (rule, image, claim, accepted) in [
            (r#"{"type": "matchExact"}"#, "h:5000/a:1", "h:5000/a:1", true),
            (r#"{"type": "matchExact"}"#, "h:5000/a:1", "h:5000/a:2", false),
            (r#"{"type": "matchExact"}"#, "h:5000/a", "h:5000/a", false),
            (r#"{"type": "matchExact"}"#, &format!("h:5000/a{digest}"), "h:5000/a:1", false),
            (usual, "h:5000/a:1", "h:5000/a:1", true),
            (usual, "h:5000/a:1", "h:5000/a:2", false),
            (usual, "h:5000/a", "h:5000/a", false),
            (usual, &format!("h:5000/a{digest}"), "h:5000/a:1", true),
            (usual, &format!("h:5000/a{digest}"), "h:5000/b:1", false),
            (usual, &format!("h:5000/a{digest}"), "h:5000/a", false),
            (repository, "h:5000/a:1", "h:5000/a:1", true),
            (repository, "h:5000/a:1", "h:5000/a:2", true),
            (repository, "h:5000/a:1", "h:5000/a", true),
            (repository, "debian", "index.docker.io/library/debian", true),
            (repository, "debian:12", "docker.io/library/debian", true),
            (repository, "h:5000/a:1", "h:5000/b", false),
            (repository, "h:5000/a:1", "", false),
            (repository, "h:5000/a:1", "h:5000/A", false),
            (reference, "x/y:3", "h/a:1", true),
            (reference, "h/a:1", "h/a", false),
            (reference, "h/a:2", "h/a:2", false),
            (place, "x/y:3", "h/a:7", true),
            (place, "h/b:3", "h/b:3", false),
            (remap, "m:5000/copy/a/b:1", "vendor.example/a/b:1", true),
            (remap, "m:5000/copy/a/b:1", "m:5000/copy/a/b:1", false),
            (remap, "m:5000/copied/a:1", "m:5000/copied/a:1", true),
            (remap, "m:5000/copy/a/b:1", "vendor.example/a/b:2", false),
            (remap, "m:5000/copy/a/b:1", "vendor.example/a/b", false),
            (remap, &format!("m:5000/copy/a{digest}"), "vendor.example/a:5", true),
        ] {
            assert_eq!(own(rule).accepts(&image.parse().unwrap(), claim), accepted, "{rule} {image} {claim}");
        }
        let any = Identity::repository_of(&"debian:12".parse().unwrap());
        assert!(any.accepts(&"h/a:1".parse().unwrap(), "index.docker.io/library/debian"));
        assert!(!Identity::default().accepts(&"h/a:1".parse().unwrap(), "h/a"));
    }
}
