//! The id of a container, and the instance that tells two containers with one id apart.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Member;

/// A container's id: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 64 characters. It is safe as a file name.
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
        if operation::is_name(text, 64) { Ok(Self(text.to_owned())) } else { Err(InvalidId(text.to_owned())) }
    }
}

/// A container, as it is or as it was at one of its snapshots: `web`, `web@2`. `web@0` is what it was before anything was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The container.
    pub id: Id,
    /// The number of the snapshot.
    pub snapshot: Option<u32>,
}

impl FromStr for At {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (id, snapshot) = match text.split_once('@') {
            None => (text, None),
            Some((id, number)) => {
                let digits = number.bytes().all(|byte| byte.is_ascii_digit());
                let parsed = number.parse().ok().filter(|_| digits);
                (id, Some(parsed.ok_or_else(|| format!("{number:?} is not the number of a snapshot"))?))
            }
        };
        Ok(Self { id: id.parse().map_err(|error: InvalidId| error.to_string())?, snapshot })
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.snapshot {
            Some(number) => write!(f, "{}@{number}", self.id),
            None => write!(f, "{}", self.id),
        }
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

/// `instance`: tells a container from a later one with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Instance(String);

impl Instance {
    /// A new random instance of sixteen hexadecimal digits.
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

/// A random number. The standard library takes its hash keys from the system's random source, once in a
/// process. That is enough here: an id must be unique, not secret.
fn drawn() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_a_number() {
        for text in ["web", "web@0", "web@12"] {
            assert_eq!(text.parse::<At>().unwrap().to_string(), text);
        }
        for (text, error) in [
            ("web@", "\"\" is not the number of a snapshot"),
            ("web@+1", "\"+1\" is not the number of a snapshot"),
            ("web@1@2", "\"1@2\" is not the number of a snapshot"),
            ("web@4294967296", "\"4294967296\" is not the number of a snapshot"),
        ] {
            assert_eq!(text.parse::<At>().unwrap_err(), error);
        }
        assert!("@1".parse::<At>().is_err());
    }

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
