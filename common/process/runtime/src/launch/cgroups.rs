//! The process's own cgroup.

use cgroup::{DeviceProgram, Group, Hierarchy};
use oci_spec::runtime::Spec;
use rustix::io::Errno;

use super::namespaces::in_user_namespace;
use crate::{Error, error::Result};

/// The cgroup of a container, in each hierarchy where it is.
pub(super) struct Own {
    pub(super) unified: Group,
    /// Those of version 1, for limits whose controllers are there.
    separate: Vec<Group>,
}

impl Own {
    /// Moves the calling process into it: everywhere, or everywhere but version 2.
    pub(super) fn enter(&self, is_inside: bool) -> Result<()> {
        let unified = Some(&self.unified).filter(|_| !is_inside);
        Ok(self.separate.iter().chain(unified).try_for_each(|group| group.admit(0))?)
    }
}

/// The cgroup that the specification names, which was made before; none if it names none.
pub(super) fn of(spec: &Spec) -> Result<Option<Own>> {
    let linux = spec.linux().as_ref();
    let Some(path) = linux.and_then(|linux| linux.cgroups_path().as_ref()) else { return Ok(None) };
    let missing = || Error::system("enter", format_args!("cgroup {path:?}"), Errno::NOENT);
    let unified = Group::open(&Hierarchy::open()?, path)?.ok_or_else(missing)?;
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let hierarchies = resources.map(cgroup::separate_hierarchies).transpose()?.unwrap_or_default();
    let separate = hierarchies.iter().map(|hierarchy| Group::open(hierarchy, path)?.ok_or_else(missing));
    Ok(Some(Own { unified, separate: separate.collect::<Result<_>>()? }))
}

/// Limits the devices of the cgroup to the list of the specification, if it has one.
pub(super) fn limit_devices(group: &Group, spec: &Spec) -> Result<()> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let Some(rules) = resources.and_then(|resources| resources.devices().as_ref()) else { return Ok(()) };
    // In a user namespace no device can be made, and no program of this kind can be attached.
    if in_user_namespace()? {
        return Ok(());
    }
    Ok(DeviceProgram::compile(rules).attach(group)?)
}
