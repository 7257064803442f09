//! The text that is signed.

use oci::Digest;
use serde_json::{Value, json};

/// What a payload says it is.
const TYPE: &str = "cosign container image signature";

/// What a signature says: a repository, and the digest of an image in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The repository, with its host: `registry.example/web`.
    pub repository: String,
    /// The digest of the image's manifest or index.
    pub digest: Digest,
}

impl Payload {
    /// The text to sign. The same payload always has the same text.
    pub fn text(&self) -> Vec<u8> {
        let critical = json!({
            "identity": {"docker-reference": self.repository},
            "image": {"docker-manifest-digest": self.digest},
            "type": TYPE,
        });
        json!({"critical": critical, "optional": null}).to_string().into_bytes()
    }

    /// Reads a signed text. None if it is none of these.
    pub fn read(text: &[u8]) -> Option<Self> {
        let value: Value = oci::json::from_slice(text).ok()?;
        let critical = &value["critical"];
        let repository = critical["identity"]["docker-reference"].as_str()?.to_owned();
        let digest = critical["image"]["docker-manifest-digest"].as_str()?.parse().ok()?;
        (critical["type"] == TYPE).then_some(Self { repository, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let payload = Payload { repository: "h:5000/a".to_owned(), digest: Digest::of(b"x") };
        let text = payload.text();
        assert_eq!(Payload::read(&text), Some(payload));
        let other = String::from_utf8(text).unwrap().replace("cosign container", "atomic container");
        assert_eq!(Payload::read(other.as_bytes()), None);
        assert_eq!(Payload::read(b"{}"), None);
        assert_eq!(Payload::read(br#"{"critical":1,"critical":2}"#), None);
    }
}
