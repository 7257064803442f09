use std::path::PathBuf;

use oci_spec::runtime::Spec;
use operation::{Condition, Scope};
use serde::{Deserialize, Serialize};

use crate::{Identity, explain, spec::is_first_of_pids};

/// A process of a container: `process-start`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "process-start", rename_all = "camelCase")]
pub struct ProcessOperation {
    /// The process and its surroundings.
    #[serde(
        serialize_with = "crate::spec::order::serialize",
        deserialize_with = "crate::spec::recorded::deserialize"
    )]
    pub spec: Box<Spec>,
    /// The file for its output; by default the output is the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// The size of the log, in bytes, at which it is rotated; unlimited by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_limit: Option<u64>,
    /// The number of files of a log that is rotated, the current one included; two by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_files: Option<u32>,
    /// Whether its input stays open, for a client that attaches to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,
    /// Whether that input ends with the client's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub input_ends: bool,
    /// Its identity after the start.
    #[serde(flatten)]
    pub identity: Identity,
}

impl ProcessOperation {
    /// A process that has not been started.
    pub fn new(spec: Spec, log: Option<PathBuf>) -> Self {
        Self {
            spec: Box::new(spec),
            log,
            log_limit: None,
            log_files: None,
            interactive: false,
            input_ends: false,
            identity: Identity::NONE,
        }
    }
}

impl operation::Operation for ProcessOperation {
    fn explain(&self) -> Vec<String> {
        explain(&self.spec)
    }

    /// Always fails: only `ns-exec` starts a process, and `container-start` starts it again.
    fn apply(&mut self, _: &Scope) -> Result<(), operation::Error> {
        let what = format!("process {} has ended", self.identity.pid);
        Err(operation::Error::new("", what, "start the container again").with_hint("container-start does"))
    }

    fn undo(&self, _: &Scope) -> Result<(), operation::Error> {
        let cgroup = self.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        match cgroup {
            // The pid namespace also has processes of others.
            Some(path) if !is_first_of_pids(&self.spec) => cgroup::end(path),
            _ => Ok(self.identity.kill()?),
        }
    }

    /// A process that was not started counts as present.
    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        Ok(match self.identity.pid == 0 || self.identity.is_alive()? {
            true => Condition::Present,
            false => Condition::Missing(format!("process {}", self.identity.pid)),
        })
    }
}
