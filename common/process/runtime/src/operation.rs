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
    /// The destination of its output; by default the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// How many bytes of output the log may have before it is rotated; unlimited by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_limit: Option<u64>,
    /// Whether its input stays open, for somebody who attaches to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,
    /// Its identity, after the start.
    #[serde(flatten)]
    pub identity: Identity,
}

impl ProcessOperation {
    /// A process that was not started yet.
    pub fn new(spec: Spec, log: Option<PathBuf>) -> Self {
        Self {
            spec: Box::new(spec),
            log,
            log_limit: None,
            interactive: false,
            identity: Identity { pid: 0, start_time: 0 },
        }
    }
}

impl operation::Operation for ProcessOperation {
    fn explain(&self) -> Vec<String> {
        explain(&self.spec)
    }

    /// A process that has ended has done its work: who starts it is `ns-exec`, and `container-start` after that.
    fn apply(&mut self, _: &Scope) -> Result<(), operation::Error> {
        let what = format!("process {} has ended", self.identity.pid);
        Err(operation::Error::new("", what, "start the container again").with_hint("container-start does"))
    }

    fn undo(&self, _: &Scope) -> Result<(), operation::Error> {
        let cgroup = self.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        match cgroup {
            // Its pid namespace has processes of others.
            Some(path) if !is_first_of_pids(&self.spec) => cgroup::end(path),
            _ => Ok(self.identity.kill()?),
        }
    }

    /// One that was not started is as it is on record.
    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        Ok(match self.identity.pid == 0 || self.identity.is_alive()? {
            true => Condition::Present,
            false => Condition::Missing(format!("process {}", self.identity.pid)),
        })
    }
}
