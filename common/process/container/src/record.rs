use std::path::PathBuf;

use cgroup::Homes;
use oci_spec::runtime::Spec;
use runtime::{HookState, Identity};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Result, VERSION};

/// The stored record of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The id of the container.
    pub id: String,
    /// The bundle directory.
    pub bundle: PathBuf,
    /// The time of creation (RFC 3339).
    pub created: String,
    /// The first process; pid 0 before it exists.
    #[serde(flatten)]
    pub process: Identity,
    /// The process that creates the container, until it is done. If it ended earlier, `delete` removes what
    /// it has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator: Option<Identity>,
    /// The container's cgroups. Before the process exists: only those that the creation makes.
    pub cgroups: Homes,
    /// The user id of the creator.
    pub owner: u32,
    /// The configuration as JSON.
    pub config: Value,
}

/// The status of a container (runtime.md, "State"). `Paused` is in addition to the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The container is being created.
    Creating,
    /// The container waits to be started.
    Created,
    /// The container runs.
    Running,
    /// All processes of the container are frozen.
    Paused,
    /// The first process has ended.
    Stopped,
}

impl Status {
    /// The name in states and for hooks.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl Record {
    /// Returns the current status.
    ///
    /// # Errors
    /// When the process or its cgroup cannot be examined.
    pub fn status(&self) -> Result<Status> {
        if let Some(creator) = self.creator {
            // A container whose creator has ended early can never start.
            return Ok(if creator.is_alive()? { Status::Creating } else { Status::Stopped });
        }
        // Read once: the process may end meanwhile.
        let Some(stat) = self.process.stat()?.filter(|stat| !stat.has_ended()) else {
            return Ok(Status::Stopped);
        };
        let is_frozen = self.cgroups.freezer()?.map_or(Ok(false), |group| group.is_frozen())?;
        Ok(match (is_frozen, stat.has_executed) {
            (true, _) => Status::Paused,
            (false, false) => Status::Created,
            (false, true) => Status::Running,
        })
    }

    /// Returns the parsed configuration.
    ///
    /// # Errors
    /// When the record is damaged.
    pub fn spec(&self) -> Result<Box<Spec>> {
        crate::bundle::again(&self.config)
    }

    /// Returns the state that hooks receive.
    pub(crate) fn hook_state(&self) -> HookState {
        hook_state(&self.id, &self.bundle, &self.config)
    }

    /// Returns the state that the command `state` prints.
    ///
    /// # Errors
    /// When the status cannot be determined.
    pub fn state(&self) -> Result<Value> {
        let status = self.status()?;
        let pid = if status == Status::Stopped { 0 } else { self.process.pid };
        let mut state = json!({
            "ociVersion": VERSION,
            "id": self.id,
            "pid": pid,
            "status": status.name(),
            "bundle": self.bundle,
            "rootfs": self.config["root"]["path"],
            "created": self.created,
        });
        if let Some(annotations) = self.config.get("annotations") {
            state["annotations"] = annotations.clone();
        }
        state["owner"] = json!(owner(self.owner));
        Ok(state)
    }
}

/// The name of a user of the machine; empty if the user has no name.
fn owner(uid: u32) -> String {
    nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name).unwrap_or_default()
}

/// Returns the state that hooks receive, for a container of which only this is known.
pub(crate) fn hook_state(id: &str, bundle: &std::path::Path, config: &Value) -> HookState {
    let mut state = json!({"ociVersion": VERSION, "id": id, "bundle": bundle});
    if let Some(annotations) = config.get("annotations") {
        state["annotations"] = annotations.clone();
    }
    HookState::new(state)
}
