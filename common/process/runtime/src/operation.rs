use std::path::PathBuf;

use oci_spec::runtime::Spec;
use operation::{Condition, Scope};
use serde::{Deserialize, Serialize};

use crate::{Identity, Log, explain, spec::is_first_of_pids, supervise};

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
    /// Its identity, after the start.
    #[serde(flatten)]
    pub identity: Identity,
}

impl ProcessOperation {
    /// The destination of its output, as [`supervise`] takes it.
    pub fn log(&self) -> Option<Log<'_>> {
        self.log.as_deref().map(|path| Log { path, limit: self.log_limit })
    }

    /// A process that was not started yet.
    pub fn new(spec: Spec, log: Option<PathBuf>) -> Self {
        Self { spec: Box::new(spec), log, log_limit: None, identity: Identity { pid: 0, start_time: 0 } }
    }
}

impl operation::Operation for ProcessOperation {
    fn explain(&self) -> Vec<String> {
        explain(&self.spec)
    }

    /// Starts it in the background. (`ns-exec` does more, and starts it itself.) A process that was started before has
    /// done its work and is not started again.
    fn apply(&mut self, _: &Scope) -> Result<(), operation::Error> {
        if self.identity.pid != 0 {
            let pid = self.identity.pid;
            return Err(operation::Error::new(
                "",
                format_args!("process {pid} has ended"),
                "start the container again",
            ));
        }
        let supervised = supervise(&self.spec, self.log(), false, |_, _| {})?;
        self.identity = supervised.identity();
        supervised.release()?;
        Ok(())
    }

    fn undo(&self, _: &Scope) -> Result<(), operation::Error> {
        let cgroup = self.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        match cgroup {
            // Its pid namespace has processes of others.
            Some(path) if !is_first_of_pids(&self.spec) => cgroup::end(path),
            _ => Ok(self.identity.kill()?),
        }
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        Ok(match self.identity.is_alive()? {
            true => Condition::Present,
            false => Condition::Missing(format!("process {}", self.identity.pid)),
        })
    }
}
