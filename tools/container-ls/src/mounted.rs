//! What is mounted into a container besides the file systems that every container has.

use std::path::{Path, PathBuf};

use mount::MountOperation;
use operation::Scope;
use serde::{Deserialize, Serialize};

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
    /// `bind` or `tmpfs`, as the runtime specification has it, or `volume`.
    pub(crate) r#type: String,
    /// The name of the volume, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
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
    let mut mounts = below_the_root(scope, container);
    for mount in container.operation.spec.mounts().iter().flatten() {
        let kind = mount.typ().clone().unwrap_or_default();
        let source = mount.source().clone().filter(|_| kind == "bind");
        let destination = mount.destination().clone();
        let is_ours = source
            .as_ref()
            .is_none_or(|source| source.starts_with(&own) || source.parent() == Some("/etc".as_ref()));
        if STANDARD.iter().any(|standard| destination == Path::new(standard)) && is_ours {
            continue;
        }
        let options = mount.options().clone().unwrap_or_default();
        let readonly = options.iter().any(|option| option == "ro" || option.starts_with("ro="));
        mounts.push(Mounted { r#type: kind, name: None, source, destination, readonly, options });
    }
    mounts
}

/// The mounts of the root file system: volumes, and what union-mount mounts of the host.
fn below_the_root(scope: &Scope, container: &life::Container) -> Vec<Mounted> {
    let own = scope.container(container.id.as_str()).join("volumes");
    let steps = container.document.steps().unwrap_or_default();
    let operations = steps.iter().flat_map(|step| &step.operations);
    let bound = operations.filter_map(|operation| {
        let Ok(MountOperation::BindMount { source, target, readonly, .. }) =
            MountOperation::deserialize(operation)
        else {
            return None;
        };
        let name = volume::name_of(scope, &source);
        let is_volume = name.is_some() || source.parent() == Some(own.as_path());
        let kind = if is_volume { "volume" } else { "bind" };
        let options = readonly.then(|| "ro".to_owned()).into_iter().collect();
        Some(Mounted {
            r#type: kind.into(),
            name,
            source: Some(source),
            destination: target,
            readonly,
            options,
        })
    });
    bound.collect()
}
