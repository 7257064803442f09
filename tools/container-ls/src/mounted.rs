//! What is mounted into a container besides the file systems that every container has.

use std::path::PathBuf;

use operation::Scope;
use serde::Serialize;

/// Where every container has file systems of its own, or files that the tools made.
const STANDARD: [&str; 10] = [
    "/proc",
    "/dev",
    "/dev/pts",
    "/sys",
    "/sys/fs/cgroup",
    "/dev/mqueue",
    "/dev/shm",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
];

/// One mount.
#[derive(Debug, Serialize)]
pub(crate) struct Mounted {
    /// `bind` or `tmpfs`, as the runtime specification has it.
    pub(crate) r#type: String,
    /// What is mounted there; none for a file system in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<PathBuf>,
    /// Where it is in the container.
    pub(crate) destination: PathBuf,
    /// Whether it can only be read.
    pub(crate) readonly: bool,
    /// Its options.
    pub(crate) options: Vec<String>,
}

/// The mounts of a container, in the order in which they are made.
pub(crate) fn of(scope: &Scope, container: &life::Container) -> Vec<Mounted> {
    let own = scope.container(container.id.as_str()).join("etc");
    let mut mounts = Vec::new();
    for mount in container.operation.spec.mounts().iter().flatten() {
        let kind = mount.typ().clone().unwrap_or_default();
        let source = mount.source().clone().filter(|_| kind == "bind");
        let destination = mount.destination().clone();
        let is_ours = source
            .as_ref()
            .is_none_or(|source| source.starts_with(&own) || source.parent() == Some("/etc".as_ref()));
        if STANDARD.iter().any(|standard| destination == std::path::Path::new(standard)) && is_ours {
            continue;
        }
        let options = mount.options().clone().unwrap_or_default();
        let readonly = options.iter().any(|option| option == "ro" || option.starts_with("ro="));
        mounts.push(Mounted { r#type: kind, source, destination, readonly, options });
    }
    mounts
}
