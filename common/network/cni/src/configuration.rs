//! The network configuration on standard input (SPEC.md, "Plugin configuration objects").

use std::io::Read;

use serde_json::{Map, Value};

use crate::{Attachment, Code, Error, Version};

/// The largest configuration, in bytes.
const MAX: u64 = 4 << 20;

/// A network configuration.
#[derive(Debug, Clone)]
pub struct Configuration {
    members: Map<String, Value>,
}

impl Configuration {
    /// Reads a configuration up to the end of the input.
    ///
    /// # Errors
    /// [`Code::Io`] and [`Code::Undecodable`].
    pub fn read(source: impl Read) -> Result<Self, Error> {
        let mut text = Vec::new();
        let count = source.take(MAX + 1).read_to_end(&mut text);
        let count = count.map_err(|error| Error::new(Code::Io, format!("read standard input: {error}")))?;
        if count as u64 > MAX {
            return Err(Error::new(Code::Undecodable, format!("it has more than {} MiB", MAX >> 20)));
        }
        match serde_json::from_slice(&text) {
            Ok(members) => Ok(Self { members }),
            Err(error) => Err(Error::new(Code::Undecodable, format!("read the configuration: {error}"))),
        }
    }

    /// The value of a member. None if it is missing or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.members.get(key).filter(|value| !value.is_null())
    }

    /// All members.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// `runtimeConfig.<key>`: a value from the runtime for a capability.
    pub fn capability(&self, key: &str) -> Option<&Value> {
        self.get("runtimeConfig")?.get(key).filter(|value| !value.is_null())
    }

    /// `prevResult`: the result of the previous plugins.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`].
    pub fn previous(&self) -> Result<Option<&Value>, Error> {
        let key = "prevResult";
        match self.get(key) {
            None => Ok(None),
            Some(value)
                if value.is_object()
                    && value.get("dns").is_none_or(|dns| dns.is_object() || dns.is_null()) =>
            {
                Ok(Some(value))
            }
            Some(other) => Err(Error::invalid(key, other, "a result")),
        }
    }

    /// A string member.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] if it has another type.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Error::invalid(key, other, "a text")),
        }
    }

    /// A boolean member.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] if it has another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(Error::invalid(key, other, "true or false")),
        }
    }

    /// `cniVersion` as text, for the answer.
    pub fn version_text(&self) -> &str {
        self.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0")
    }

    /// `cniVersion`. The specification says that the default is 0.1.0.
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`].
    pub fn version(&self) -> Result<Version, Error> {
        Version::named(self.text("cniVersion")?.unwrap_or("0.1.0"))
    }

    /// The network's name.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`].
    pub fn name(&self) -> Result<&str, Error> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        match self.text("name")?.unwrap_or_default() {
            "" => Err(Error::new(Code::InvalidConfiguration, "the network has no name")),
            name if name.bytes().all(is_word) && name.as_bytes()[0].is_ascii_alphanumeric() => Ok(name),
            name => Err(Error::new(
                Code::InvalidConfiguration,
                format!("{name:?} cannot be the name of a network"),
            )),
        }
    }

    /// The attachments that GC must keep.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`]: an unreadable list must not remove all attachments.
    pub fn valid_attachments(&self) -> Result<Vec<Attachment>, Error> {
        let key = "cni.dev/valid-attachments";
        let Some(list) = self.get(key) else {
            return Err(Error::new(Code::InvalidConfiguration, format!("{key:?} is missing")));
        };
        let wrong = || Error::invalid(key, list, "a list of containerID and ifname");
        let entries = list.as_array().ok_or_else(wrong)?.iter();
        let text = |entry: &Value, key: &str| entry[key].as_str().map(str::to_owned);
        let entries = entries.map(|entry| {
            Some(Attachment { container: text(entry, "containerID")?, interface: text(entry, "ifname")? })
        });
        entries.collect::<Option<Vec<_>>>().ok_or_else(wrong)
    }
}

/// A list of strings.
///
/// # Errors
/// [`Code::InvalidConfiguration`].
pub fn strings<'a>(key: &str, value: &'a Value) -> Result<Vec<&'a str>, Error> {
    let list = value.as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    list.flatten().ok_or_else(|| Error::invalid(key, value, "a list of texts"))
}
