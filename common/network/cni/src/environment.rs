//! The environment variables from the runtime (SPEC.md, "Parameters").

use std::path::PathBuf;

use crate::{Code, Error};

/// The command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Undo an attachment.
    Del,
    /// Compare an attachment with the machine.
    Check,
    /// Undo the attachments that the runtime no longer knows.
    Gc,
    /// Report whether ADD would work.
    Status,
    /// Report the supported versions.
    Version,
}

/// An attachment: a container, and one of its interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`.
    pub interface: String,
}

/// The variables.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Command,
    variables: Vec<(String, String)>,
}

impl Environment {
    /// Reads the variables. None if `CNI_COMMAND` is not set, so the caller is not a runtime.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`] if the specification has no such command.
    pub fn read(variables: impl Iterator<Item = (String, String)>) -> Result<Option<Self>, Error> {
        let variables: Vec<(String, String)> =
            variables.filter(|(name, _)| name.starts_with("CNI_")).collect();
        let Some((_, command)) = variables.iter().find(|(name, _)| name == "CNI_COMMAND") else {
            return Ok(None);
        };
        let command = match command.as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "GC" => Command::Gc,
            "STATUS" => Command::Status,
            "VERSION" => Command::Version,
            other => {
                let message =
                    format!("CNI_COMMAND is {other:?}, none of ADD, DEL, CHECK, GC, STATUS and VERSION");
                return Err(Error::new(Code::InvalidEnvironment, message));
            }
        };
        Ok(Some(Self { command, variables }))
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.variables.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    /// The attachment that the command is about.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`] if `CNI_CONTAINERID` or `CNI_IFNAME` is missing or malformed.
    pub fn attachment(&self) -> Result<Attachment, Error> {
        let (container, interface) = (self.get("CNI_CONTAINERID"), self.get("CNI_IFNAME"));
        let wrong = |name: &str, value: Option<&str>| {
            let message = match value {
                Some(value) => format!("{name} is {value:?}"),
                None => format!("{name} is not set"),
            };
            Error::new(Code::InvalidEnvironment, message)
        };
        let container =
            container.filter(|id| is_id(id)).ok_or_else(|| wrong("CNI_CONTAINERID", container))?;
        let interface =
            interface.filter(|name| is_interface(name)).ok_or_else(|| wrong("CNI_IFNAME", interface))?;
        Ok(Attachment { container: container.to_owned(), interface: interface.to_owned() })
    }

    /// `CNI_NETNS`, the path of the container's network namespace.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`] if it is not set, or not an absolute path.
    pub fn namespace(&self) -> Result<PathBuf, Error> {
        match self.get("CNI_NETNS").map(PathBuf::from) {
            Some(path) if path.is_absolute() => Ok(path),
            Some(path) => Err(Error::new(Code::InvalidEnvironment, format!("CNI_NETNS is {path:?}"))),
            None => Err(Error::new(Code::InvalidEnvironment, "CNI_NETNS is not set")),
        }
    }

    /// The value of a key in `CNI_ARGS`, which has the form `KEY=VALUE`, separated by semicolons.
    pub fn argument(&self, key: &str) -> Option<&str> {
        let pairs = self.get("CNI_ARGS").unwrap_or_default().split(';');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(own, _)| *own == key).map(|(_, value)| value)
    }
}

/// Whether the text is a container id as SPEC.md defines it.
fn is_id(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    text.bytes().all(is_word) && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// Whether the text is an interface name that the kernel accepts.
fn is_interface(text: &str) -> bool {
    let is_part = |c: char| c != '/' && c != ':' && !c.is_whitespace() && !c.is_control();
    !matches!(text, "." | "..") && text.len() < 16 && text.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Environment>, Error> {
        Environment::read(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn what_runtimes_set() {
        assert!(read(&[("HOME", "/")]).unwrap().is_none());
        let error = read(&[("CNI_COMMAND", "BACK")]).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        let pairs = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "a-1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_ARGS", "IgnoreUnknown=1;IP=10.0.0.9"),
        ];
        let environment = read(&pairs).unwrap().unwrap();
        assert_eq!(environment.command, Command::Add);
        let attachment = Attachment { container: "a-1".into(), interface: "eth0".into() };
        assert_eq!(environment.attachment().unwrap(), attachment);
        assert_eq!(environment.namespace().unwrap(), PathBuf::from("/run/netns/x"));
        assert_eq!((environment.argument("IP"), environment.argument("MAC")), (Some("10.0.0.9"), None));
        for (name, value, message) in [
            ("CNI_CONTAINERID", "", "CNI_CONTAINERID is not set"),
            ("CNI_CONTAINERID", "../x", "CNI_CONTAINERID is \"../x\""),
            ("CNI_IFNAME", "a/b", "CNI_IFNAME is \"a/b\""),
            ("CNI_IFNAME", "sixteencharacter", "CNI_IFNAME is \"sixteencharacter\""),
        ] {
            let changed = pairs.map(|(own, old)| (own, if own == name { value } else { old }));
            let error = read(&changed).unwrap().unwrap().attachment().unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (Code::InvalidEnvironment, message));
        }
    }
}
