//! Errors in the form that runtimes read (SPEC.md, "Error").

use std::fmt;

use serde_json::{Value, json};

/// The error codes of the specification. Codes from 100 on belong to the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Incompatible CNI version.
    IncompatibleVersion = 1,
    /// Unsupported field in network configuration.
    UnsupportedField = 2,
    /// Container unknown or does not exist.
    UnknownContainer = 3,
    /// Invalid necessary environment variables.
    InvalidEnvironment = 4,
    /// I/O failure.
    Io = 5,
    /// Failed to decode content.
    Undecodable = 6,
    /// Invalid network config.
    InvalidConfiguration = 7,
    /// The plugin is not available.
    Unavailable = 50,
    /// The work itself failed.
    Failed = 100,
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The error code.
    pub code: Code,
    /// The message, one line.
    pub message: String,
    /// More text; may be empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// An unsupported field. The specification requires its key and value in the message.
    pub fn unsupported(key: &str, value: &Value) -> Self {
        Self::new(Code::UnsupportedField, format!("{key:?} with value {value} is not supported"))
    }

    /// A field with an invalid value.
    pub fn invalid(key: &str, value: &Value, wanted: &str) -> Self {
        Self::new(Code::InvalidConfiguration, format!("{key:?} with value {value}: {wanted} is wanted"))
    }

    /// The error as JSON, in the runtime's version.
    pub fn to_json(&self, version: &str) -> Value {
        let mut error = json!({"cniVersion": version, "code": self.code as u32, "msg": self.message});
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
