//! The document: the one JSON object that travels through a pipe of Stave's tools.
//!
//! A tool keeps members that it does not know: the same bytes, in the same order. Known members have types
//! ([`members`]). `docs/document.md` is the contract.

mod cni;
mod configuration;
mod format;
mod gateway_mode;
mod id;
pub mod kept;
mod lock;
pub mod members;
pub mod name;
mod network;
mod object;
mod on;
mod order;
pub mod record;
mod replace;
mod rootfs;
mod shared_lock;
mod steps;
mod sum;
pub mod table;
mod waiting;

use std::{
    io::{self, Read},
    path::PathBuf,
};

use object::Object;
use serde::de;
use serde_json::value::RawValue;

pub use id::{At, Id, Instance, InvalidId};
pub use members::{Contribution, Failure, Member, Stage, Step, StepState, Steps};
pub use name::Name;
pub use shared_lock::Sole;
pub use steps::{SplitOff, StepText};

/// The version of the contract: the value of the member `stave`.
pub const VERSION: u64 = 1;

/// The size limit of a document, in bytes. It is far above what a container needs.
pub const MAX_SIZE: usize = 64 << 20;

/// Why a document could not be read, or a member could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard input was empty.
    #[error("no document on standard input: did the previous command fail?")]
    Empty,
    /// Standard input could not be read.
    #[error("read standard input: {0}")]
    Read(io::Error),
    /// Standard input has more than [`MAX_SIZE`] bytes.
    #[error("document on standard input is larger than {} MiB", MAX_SIZE >> 20)]
    TooLarge,
    /// The text is not JSON, or not an object.
    #[error("standard input is not a document: {0}")]
    NotADocument(serde_json::Error),
    /// The document has another version of the contract. It is kept as it was read.
    #[error(
        "document has version {found}, this tool reads version {VERSION}: use tools of one release in a pipe"
    )]
    Version {
        /// The value of `stave`.
        found: String,
        /// The document.
        document: Box<Document>,
    },
    /// A required member is missing.
    #[error("no `{name}`: run {made_by} first")]
    Missing {
        /// The member's name.
        name: &'static str,
        /// The tools that make it.
        made_by: String,
    },
    /// A member does not have the form of its type.
    #[error("member `{name}`: {source}")]
    Malformed {
        /// The member's name.
        name: &'static str,
        /// The problem.
        source: serde_json::Error,
    },
}

/// The document: one JSON object with its members in order.
#[derive(Debug, Clone, Default)]
pub struct Document {
    members: Object,
}

impl Document {
    /// A document that holds only the version of the contract.
    pub fn new() -> Self {
        let mut document = Self::default();
        document.set_raw("stave", RawValue::from_string(VERSION.to_string()).unwrap_or_default());
        document
    }

    /// Reads a document from `source`, to the end.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Read`], [`Error::TooLarge`], [`Error::NotADocument`], [`Error::Version`].
    pub fn read(source: impl Read) -> Result<Self, Error> {
        let mut text = Vec::new();
        source.take(MAX_SIZE as u64 + 1).read_to_end(&mut text).map_err(Error::Read)?;
        if text.len() > MAX_SIZE {
            return Err(Error::TooLarge);
        }
        Self::parse(&text)
    }

    /// Parses a document from its bytes.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotADocument`], [`Error::Version`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        if text.trim_ascii().is_empty() {
            return Err(Error::Empty);
        }
        let members = serde_json::from_slice(text).map_err(Error::NotADocument)?;
        let document = Self { members };
        match document.raw("stave").map(|value| value.get().to_owned()) {
            Some(version) if version == VERSION.to_string() => Ok(document),
            Some(found) => Err(Error::Version { found, document: Box::new(document) }),
            None => {
                let Some((first, _)) = document.members.0.first() else { return Ok(Self::new()) };
                // Other objects (a CNI result, an image manifest) start with members of their own. A
                // handwritten document may lack the version. Many begin with a name.
                if table::row(first).is_some() && first != Name::NAME {
                    let mut whole = Self::new();
                    whole.members.0.extend(document.members.0);
                    return Ok(whole);
                }
                Err(Error::NotADocument(de::Error::custom("an object without the member `stave`")))
            }
        }
    }

    /// The member, if the document has it.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the member does not have the form of `M`.
    pub fn get<M: Member>(&self) -> Result<Option<M>, Error> {
        self.raw(M::NAME)
            .map(|value| serde_json::from_str(value.get()))
            .transpose()
            .map_err(|source| Error::Malformed { name: M::NAME, source })
    }

    /// The member, which the caller needs.
    ///
    /// # Errors
    /// [`Error::Missing`], which names the tool to run first; [`Error::Malformed`].
    pub fn require<M: Member>(&self) -> Result<M, Error> {
        self.get()?.ok_or_else(missing::<M>)
    }

    /// The container's attachments, of which the caller needs at least one.
    ///
    /// # Errors
    /// As [`Document::require`].
    pub fn require_attachments(&self) -> Result<Vec<members::Attachment>, Error> {
        let all = self.attachments()?;
        if all.is_empty() { Err(missing::<members::Networks>()) } else { Ok(all) }
    }

    /// Replaces the member, or appends it if it is new.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the value cannot be written as JSON.
    pub fn set<M: Member>(&mut self, member: &M) -> Result<(), Error> {
        let value = serde_json::value::to_raw_value(member)
            .map_err(|source| Error::Malformed { name: M::NAME, source })?;
        self.set_raw(M::NAME, value);
        Ok(())
    }

    /// Changes the keys of a member that is an object. Keys that the type `M` does not know stay as they are.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the member is not an object.
    pub fn edit<M: Member>(
        &mut self,
        edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
    ) -> Result<(), Error> {
        let malformed = |source| Error::Malformed { name: M::NAME, source };
        let mut object = match self.raw(M::NAME) {
            Some(text) => serde_json::from_str(text.get()).map_err(malformed)?,
            None => serde_json::Map::new(),
        };
        edit(&mut object);
        let value = serde_json::value::to_raw_value(&object).map_err(malformed)?;
        self.set_raw(M::NAME, value);
        Ok(())
    }

    /// Removes the member with this name.
    pub fn remove(&mut self, name: &str) {
        self.members.remove(name);
    }

    /// The member with this name, as the text that was read.
    pub fn raw(&self, name: &str) -> Option<&RawValue> {
        self.members.get(name)
    }

    fn set_raw(&mut self, name: &str, value: Box<RawValue>) {
        self.members.set(name, value);
    }

    /// The container's id.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `id` exists and is not valid.
    pub fn id(&self) -> Result<Option<Id>, Error> {
        self.get()
    }

    /// Whether the document is only a plan (`--dry-run`): nothing of what it describes exists.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `planned` is neither true nor false.
    pub fn is_planned(&self) -> Result<bool, Error> {
        Ok(self.get::<members::Planned>()?.is_some_and(|planned| planned.0))
    }

    /// Whether the container's process has ended and will not be started again by itself. The container's
    /// ports are free then.
    pub fn has_ended(&self) -> bool {
        #[derive(serde::Deserialize)]
        struct Told {
            finished: Option<de::IgnoredAny>,
            #[serde(default)]
            restarting: bool,
        }
        let told =
            self.raw(members::Process::NAME).and_then(|text| serde_json::from_str::<Told>(text.get()).ok());
        told.is_some_and(|told| told.finished.is_some() && !told.restarting)
    }

    /// The tools whose work exists only as long as the container's process lives.
    pub const LETTING_GO: [&str; 1] = ["portmap"];

    /// Whether the work of this tool no longer exists because the container's process has ended.
    pub fn has_let_go(&self, tool: &str) -> bool {
        Self::LETTING_GO.contains(&tool) && self.has_ended()
    }

    /// Takes over what the container's record knows better: what it is called, which process it has, and how that ended. Both
    /// have the same steps.
    pub fn catch_up_with(&mut self, recorded: &Self) {
        self.be_called_as(recorded);
        #[derive(serde::Deserialize, PartialEq)]
        #[serde(rename_all = "camelCase")]
        struct Told {
            #[serde(default)]
            pid: i32,
            #[serde(default)]
            start_time: u64,
            #[serde(default)]
            finished: Option<String>,
            #[serde(default)]
            stopped: bool,
            #[serde(default)]
            restart: Option<String>,
        }
        let told = |document: &Self| -> Option<Told> {
            serde_json::from_str(document.raw(members::Process::NAME)?.get()).ok()
        };
        if told(recorded) == told(self) {
            return;
        }
        for name in [Steps::NAME, members::Process::NAME] {
            if let Some(text) = recorded.raw(name) {
                self.set_raw(name, text.to_owned());
            }
        }
    }

    /// Whether an earlier tool failed.
    pub fn has_failed(&self) -> bool {
        self.raw("error").is_some()
    }

    /// Whether both documents are of the same container. `None` if one of them has no `instance`, so that
    /// nobody can tell.
    ///
    /// # Errors
    /// [`Error::Malformed`] if an `instance` is not a string.
    pub fn is_of_one_container(&self, other: &Self) -> Result<Option<bool>, Error> {
        let instances = self.get::<Instance>()?.zip(other.get::<Instance>()?);
        Ok(instances.map(|(one, other)| one == other))
    }

    /// As [`Document::is_of_one_container`], but returns true if nobody can tell.
    ///
    /// # Errors
    /// As [`Document::is_of_one_container`].
    pub fn may_be_of_one_container(&self, other: &Self) -> Result<bool, Error> {
        Ok(self.is_of_one_container(other)?.unwrap_or(true))
    }

    /// The mount points inside the container that the document's steps made: the destinations of `mounts` in
    /// OCI runtime configurations, and `target` of each mount `within` the root file system.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list of steps.
    pub fn mount_points(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for operation in self.steps()?.iter().flat_map(|step| &step.operations) {
            let mounts = operation["spec"]["mounts"].as_array().into_iter().flatten();
            found.extend(mounts.filter_map(|mount| mount["destination"].as_str()).map(PathBuf::from));
            if operation["within"].is_string() {
                found.extend(operation["target"].as_str().map(PathBuf::from));
            }
        }
        Ok(found)
    }

    /// The document as one line of JSON, without a newline at the end.
    pub fn to_line(&self) -> String {
        format::line(&self.members.0)
    }

    /// The document as indented JSON, for a terminal.
    pub fn to_pretty(&self) -> String {
        format::indent(&self.to_line())
    }
}

fn missing<M: Member>() -> Error {
    Error::Missing { name: M::NAME, made_by: table::made_by(M::NAME) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_members_pass_to_the_byte_and_in_order() {
        let text = r#"{"z":1.000000000000000000001,"stave":1,"a":{"b":[1e400,"\u00e9"]},"id":"web"}"#;
        let mut document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.to_line(), text);
        document.set(&members::Ports(vec![])).unwrap();
        document.remove("id");
        assert_eq!(
            document.to_line(),
            r#"{"z":1.000000000000000000001,"stave":1,"a":{"b":[1e400,"\u00e9"]},"ports":[]}"#
        );
    }

    #[test]
    fn what_is_not_a_document_is_told_apart() {
        for (text, error) in [
            ("", "no document on standard input: did the previous command fail?"),
            (" \n", "no document on standard input: did the previous command fail?"),
            (
                "[]",
                "standard input is not a document: invalid type: sequence, expected a JSON object at line 1 column 0",
            ),
            ("{", "standard input is not a document: EOF while parsing an object at line 1 column 1"),
            (
                r#"{"cniVersion":"1.1.0"}"#,
                "standard input is not a document: an object without the member `stave`",
            ),
            (
                r#"{"stave":2}"#,
                "document has version 2, this tool reads version 1: use tools of one release in a pipe",
            ),
            (
                r#"{"stave":1}{"stave":1}"#,
                "standard input is not a document: trailing characters at line 1 column 12",
            ),
        ] {
            assert_eq!(Document::parse(text.as_bytes()).unwrap_err().to_string(), error, "{text}");
        }
        assert!(Document::parse(b"{}").is_ok(), "an empty object is an empty document");
        assert!(Document::parse(br#"{"id":"web"}"#).is_ok());
    }

    #[test]
    fn members_are_typed() {
        let document = Document::parse(br#"{"stave":1,"layers":7,"id":"a b"}"#).unwrap();
        let error = document.require::<members::Layers>().unwrap_err().to_string();
        assert_eq!(
            error,
            "member `layers`: invalid type: integer `7`, expected a sequence at line 1 column 1"
        );
        let error = document.require::<members::Rootfs>().unwrap_err().to_string();
        assert_eq!(error, "no `rootfs`: run union-mount first");
        assert!(document.id().is_err());
    }

    #[test]
    fn steps_of_others_are_kept_to_the_byte() {
        let theirs = r#"{"tool":"mine","version":"1","state":"done","operations":[{"n":12345678901234567890123,"x":1.0}],"extra":7}"#;
        let mut document =
            Document::parse(format!(r#"{{"stave":1,"steps":[{theirs}]}}"#).as_bytes()).unwrap();
        let step = |state| Step::new("portmap", "1", state, vec!["o"]);
        let text = |state| serde_json::to_string(&step(state)).unwrap();
        let raw = |document: &Document| document.raw("steps").unwrap().get().to_owned();
        assert_eq!(document.push_step(&step(StepState::Begun)).unwrap(), 1);
        assert_eq!(raw(&document), format!("[{theirs},{}]", text(StepState::Begun)));
        document.replace_step(1, &step(StepState::Done)).unwrap();
        assert_eq!(raw(&document), format!("[{theirs},{}]", text(StepState::Done)));
        let above = document.split_off_steps(1).unwrap();
        assert_eq!(raw(&document), format!("[{theirs}]"));
        document.append_steps(above).unwrap();
        assert_eq!(document.tools().unwrap(), ["mine", "portmap"]);
        let (at, last) = document.last_step_of("portmap").unwrap().unwrap();
        assert_eq!((at, last.state), (1, StepState::Done));
        assert_eq!(document.position_of(&last).unwrap(), Some(1));
        assert_eq!(document.position_of(&Step { state: StepState::Begun, ..last }).unwrap(), None);
        assert!(document.last_step_of("img-load").unwrap().is_none());
        document.remove_step(1).unwrap();
        assert_eq!(raw(&document), format!("[{theirs}]"));
    }

    #[test]
    fn depth_is_no_trouble() {
        let text = format!(r#"{{"stave":1,"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.to_line(), text);
        document.to_pretty();
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::parse(&bytes).map(|document| document.to_pretty());
        }

        #[test]
        fn what_is_written_reads_back_the_same(text in r#"[a-z"\\/{}\[\]:, \PC]{0,40}"#, number in any::<i64>()) {
            let value = serde_json::json!({"stave": 1, "t": text, "n": number, "l": [[], {}, [null, true]]});
            let document = Document::parse(value.to_string().as_bytes()).unwrap();
            for written in [document.to_line(), document.to_pretty()] {
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), value.clone());
            }
        }
    }
}
