use std::path::PathBuf;

use operation::{Condition, Scope};
use serde::{Deserialize, Serialize};

use crate::{Group, Hierarchy};

/// A container's own cgroup of version 2: `cgroup-add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "cgroup-add", rename_all = "camelCase")]
pub struct CgroupOperation {
    /// Its path in the hierarchy. The name is the container's id and instance, so it is nobody else's.
    pub path: PathBuf,
}

impl CgroupOperation {
    /// Where the cgroups of all containers are.
    pub const TOP: &str = "/stave";

    /// The cgroup of the container `id`, with its `instance`.
    pub fn new(id: &str, instance: Option<&str>) -> Self {
        let name = [Some(id), instance].into_iter().flatten().collect::<Vec<_>>().join(".");
        Self { path: PathBuf::from(Self::TOP).join(name) }
    }

    /// A document may name any cgroup; those of containers lie right below [`Self::TOP`].
    fn is_own(&self) -> bool {
        self.path.parent() == Some(std::path::Path::new(Self::TOP)) && self.path.file_name().is_some()
    }
}

/// A document names a cgroup that is no container's.
#[derive(Debug, thiserror::Error)]
#[error("remove cgroup {0:?}: it is no container's, those are right below \"/stave\"")]
struct Foreign(PathBuf);

impl operation::Operation for CgroupOperation {
    fn explain(&self) -> Vec<String> {
        let path = PathBuf::from("/sys/fs/cgroup").join(self.path.strip_prefix("/").unwrap_or(&self.path));
        vec![operation::words(["mkdir", "-p", &path.to_string_lossy()])]
    }

    fn apply(&mut self, _: &Scope) -> Result<(), operation::Error> {
        Group::create(&Hierarchy::open()?, &self.path)?;
        Ok(())
    }

    fn undo(&self, _: &Scope) -> Result<(), operation::Error> {
        if !self.is_own() {
            return Err(operation::Error::caused_by(Foreign(self.path.clone())));
        }
        let hierarchy = Hierarchy::open()?;
        Group::remove(&hierarchy, &self.path)
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        Ok(match Group::open(&Hierarchy::open()?, &self.path)? {
            Some(_) => Condition::Present,
            None => Condition::Missing(format!("cgroup {:?}", self.path)),
        })
    }
}
