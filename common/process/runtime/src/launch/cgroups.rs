//! The process's own cgroup.

use cgroup::{DeviceProgram, Group, Hierarchy, device_list};
use oci_spec::runtime::{LinuxDeviceCgroup, Spec};
use rustix::io::Errno;

use super::namespaces::in_user_namespace;
use crate::{Error, error::Result};

/// The cgroup of a container, in each hierarchy that has it.
pub(super) struct Own {
    pub(super) unified: Group,
    /// The cgroups of version 1, for limits whose controllers are there.
    separate: Vec<Group>,
    /// Limits the container's devices. None if a cgroup of version 1 limits them, or if they are not limited.
    program: Option<DeviceProgram>,
}

impl Own {
    /// Moves the calling process into all of these cgroups. With `is_inside`, it is in the cgroup of version
    /// 2 already.
    pub(super) fn enter(&self, is_inside: bool) -> Result<()> {
        let unified = Some(&self.unified).filter(|_| !is_inside);
        Ok(self.separate.iter().chain(unified).try_for_each(|group| group.admit(0))?)
    }

    /// Limits the devices to the specification's list, if there is one.
    pub(super) fn limit_devices(&self) -> Result<()> {
        Ok(self.program.as_ref().map_or(Ok(()), |program| program.attach(&self.unified))?)
    }
}

/// The cgroup that the specification names, which must exist; none if it names none.
pub(super) fn of(spec: &Spec) -> Result<Option<Own>> {
    let linux = spec.linux().as_ref();
    let Some(path) = linux.and_then(|linux| linux.cgroups_path().as_ref()) else { return Ok(None) };
    let missing = || Error::system("enter", format_args!("cgroup {path:?}"), Errno::NOENT);
    let unified = Group::open(&Hierarchy::open()?, path)?.ok_or_else(missing)?;
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let hierarchies = resources.map(cgroup::separate_hierarchies).transpose()?.unwrap_or_default();
    let mut separate = Vec::new();
    for hierarchy in &hierarchies {
        separate.push(Group::open(hierarchy, path)?.ok_or_else(missing)?);
    }
    let mut program = None;
    if let Some(rules) = device_rules(spec)? {
        match device_list::hierarchy()? {
            Some(hierarchy) => separate.push(Group::open(&hierarchy, path)?.ok_or_else(missing)?),
            None => program = Some(DeviceProgram::compile(rules)),
        }
    }
    Ok(Some(Own { unified, separate, program }))
}

/// The specification's device list. In a user namespace it is not needed, because no device nodes can be made
/// there.
pub fn device_rules(spec: &Spec) -> Result<Option<&Vec<LinuxDeviceCgroup>>> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_ref());
    if in_user_namespace()? { Ok(None) } else { Ok(rules) }
}
