//! The container's name or id.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Member;

/// A container's id: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 64 characters. Safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$"))]
pub struct Id(String);

/// A string that cannot be an [`Id`].
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} cannot be an id: it takes letters, digits, `_`, `.` and `-`, a letter or digit first, 64 at most"
)]
pub struct InvalidId(String);

impl Id {
    /// A new random id of twelve hexadecimal digits, as Docker shows them.
    pub fn random() -> Self {
        Self(format!("{:012x}", drawn() >> 16))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let valid = text.len() <= 64
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(allowed);
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidId(text.to_owned())) }
    }
}

impl TryFrom<String> for Id {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Member for Id {
    const NAME: &'static str = "id";
}

/// `instance`: tells a container from a later one with its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Instance(String);

impl Instance {
    /// A new random one of sixteen hexadecimal digits.
    pub fn random() -> Self {
        Self(format!("{:016x}", drawn()))
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Member for Instance {
    const NAME: &'static str = "instance";
}

/// The standard library's hash keys come from the system's random source, once a process. A container needs a unique
/// name and not a secret.
fn drawn() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_safe_as_a_file_name() {
        for (text, valid) in [
            ("web", true),
            ("0", true),
            ("a_b.c-d", true),
            ("", false),
            (".", false),
            ("..", false),
            ("-x", false),
            ("a/b", false),
            ("a b", false),
            ("ä", false),
        ] {
            assert_eq!(text.parse::<Id>().is_ok(), valid, "{text}");
        }
        assert!("x".repeat(64).parse::<Id>().is_ok());
        assert!("x".repeat(65).parse::<Id>().is_err());
        let drawn = Id::random();
        assert_ne!(drawn, Id::random());
        assert_eq!(drawn.as_str().parse::<Id>().unwrap().as_str().len(), 12);
    }
}
