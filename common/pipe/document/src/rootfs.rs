//! The member `rootfs`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Id, Instance, members::member};

/// `rootfs`: the union mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rootfs {
    /// Absolute path of the merged file system.
    pub path: PathBuf,
    /// The lower directories, lowest first.
    pub lower: Vec<PathBuf>,
    /// The writable top; none if the mount is read-only and nothing is mounted in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<PathBuf>,
    /// overlayfs's work directory, on the same file system as `upper`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<PathBuf>,
    /// Whether the file system is mounted read-only.
    #[serde(default)]
    pub readonly: bool,
    /// Whether what is written there survives a crash of the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
    /// Tops that snapshots have frozen, lowest first: lower directories above `lower`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<PathBuf>,
    /// The container on whose snapshot it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<Fork>,
    /// The user namespace that it is for, if that is not the caller's: `path` shows the files' owners as it maps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<UserNamespace>")]
    pub userns: Option<userns::Namespace>,
}
member!(Rootfs, "rootfs");

/// `fork` of `rootfs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fork {
    /// The other container.
    pub container: Id,
    /// Its instance.
    pub instance: Instance,
    /// The number of its snapshot; 0 for what it was before anything was written.
    pub snapshot: u32,
    /// How many of `levels` it has from there.
    pub levels: usize,
}

impl Rootfs {
    /// How many snapshots of it there are.
    pub fn snapshots(&self) -> usize {
        self.levels.len() - self.inherited()
    }

    /// How many of `levels` are another container's.
    fn inherited(&self) -> usize {
        self.fork.as_ref().map_or(0, |fork| fork.levels.min(self.levels.len()))
    }

    /// The tops that make what was written at a snapshot, lowest first; for none, what is written now. None if there is no such
    /// snapshot.
    pub fn tops(&self, snapshot: Option<u32>) -> Option<Vec<PathBuf>> {
        match snapshot {
            None => Some(self.levels.iter().chain(&self.upper).cloned().collect()),
            Some(number) => {
                let count = self.inherited() + usize::try_from(number).ok()?;
                self.levels.get(..count).map(<[PathBuf]>::to_vec)
            }
        }
    }
}

/// The mappings of a user namespace, as OCI runtime-spec has them.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // It describes the type of another crate.
struct UserNamespace {
    /// Its users.
    uid_mappings: Vec<IdMapping>,
    /// Its groups.
    gid_mappings: Vec<IdMapping>,
}

/// One run of ids.
#[derive(JsonSchema)]
#[allow(dead_code)] // As above.
struct IdMapping {
    /// The first id inside.
    #[serde(rename = "containerID")]
    container_id: u32,
    /// The first id outside.
    #[serde(rename = "hostID")]
    host_id: u32,
    /// How many ids.
    size: u32,
}
