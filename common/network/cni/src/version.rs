//! The versions of the specification.

use std::fmt;

use crate::{Code, Error};

/// A supported version. Older versions compare less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1: results with interfaces, chains.
    V031,
    /// 0.4.0: CHECK.
    V040,
    /// 1.0.0: addresses without a version of their own.
    V100,
    /// 1.1.0: GC, STATUS, the MTU of interfaces.
    V110,
}

impl Version {
    /// All supported versions, the oldest first.
    pub const ALL: [Self; 4] = [Self::V031, Self::V040, Self::V100, Self::V110];

    /// The version as in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// Parses a version.
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`].
    pub fn named(name: &str) -> Result<Self, Error> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL.into_iter().find(|version| version.as_str() == name).ok_or_else(|| {
            Error::new(Code::IncompatibleVersion, format!("version {name:?} is none of {}", known()))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
