//! The namespaces of a process, and who owns them.

use std::{collections::HashMap, path::PathBuf};

use oci_spec::{
    OciSpecError,
    runtime::{
        LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceBuilder,
        LinuxNamespaceType as Kind, Spec,
    },
};

use ::userns::{Mapping, Namespace};

use super::{Network, Overrides};
use crate::Identity;

/// The owner of a namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owner {
    /// The process itself: the namespace is new.
    #[default]
    Own,
    /// The caller.
    Host,
    /// The container with this first process.
    Container(Identity),
}

/// The owners of a process's namespaces. The network is apart ([`Network`]), and the mount namespace is
/// always the process's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owners {
    /// Processes. If this namespace is shared, the kernel does not end the container's other processes with
    /// the first one; its cgroup tells which they are.
    pub pid: Owner,
    /// Message queues, semaphores and shared memory of System V, and message queues of POSIX.
    pub ipc: Owner,
    /// The host name.
    pub uts: Owner,
    /// The view of cgroups.
    pub cgroup: Owner,
}

/// What a container has as `/dev/shm`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SharedMemory {
    /// A file system of its own, of 64 MiB.
    #[default]
    Own,
    /// A file system of its own, of this size in bytes.
    Sized(u64),
    /// This directory of the host, which other containers may share.
    At(PathBuf),
    /// Nothing.
    None,
}

/// The prefix of the annotation with the pid and start time of the process whose namespace is shared. A path
/// in `/proc` alone would mean another process after that one has ended.
const OWNER: &str = "stave.namespaceOf.";

/// The namespaces in the form of the specification, and their annotations.
pub(super) fn all(
    overrides: &Overrides,
) -> Result<(Vec<LinuxNamespace>, HashMap<String, String>), OciSpecError> {
    let Owners { pid, ipc, uts, cgroup } = overrides.namespaces;
    let mut list = vec![LinuxNamespaceBuilder::default().typ(Kind::Mount).build()?];
    if overrides.userns.is_some() {
        list.push(LinuxNamespaceBuilder::default().typ(Kind::User).build()?);
    }
    let mut annotations = HashMap::new();
    let network = match &overrides.network {
        Network::None => Owner::Own,
        Network::Host => Owner::Host,
        Network::Container(identity) => Owner::Container(*identity),
        Network::Own(path) | Network::Shared(path) => {
            list.push(LinuxNamespaceBuilder::default().typ(Kind::Network).path(path.clone()).build()?);
            Owner::Host
        }
    };
    let owners = [
        (Kind::Pid, pid),
        (Kind::Ipc, ipc),
        (Kind::Cgroup, cgroup),
        (Kind::Uts, uts),
        (Kind::Network, network),
    ];
    for (kind, owner) in owners {
        let namespace = LinuxNamespaceBuilder::default().typ(kind);
        match owner {
            Owner::Own => list.push(namespace.build()?),
            Owner::Host => {}
            Owner::Container(Identity { pid, start_time, .. }) => {
                let path = format!("/proc/{pid}/ns/{}", file(kind));
                list.push(namespace.path(path).build()?);
                annotations.insert(format!("{OWNER}{}", file(kind)), format!("{pid} {start_time}"));
            }
        }
    }
    Ok((list, annotations))
}

/// The name of this kind in `/proc/PID/ns`.
fn file(kind: Kind) -> &'static str {
    match kind {
        Kind::Network => "net",
        Kind::Mount => "mnt",
        Kind::Cgroup => "cgroup",
        Kind::Uts => "uts",
        Kind::Ipc => "ipc",
        Kind::User => "user",
        Kind::Pid => "pid",
        Kind::Time => "time",
    }
}

/// Forgets whose namespaces are shared, after a restart of the machine: another process may now have the same
/// pid and start time. A process of this specification cannot be started any more.
pub fn forget_owners(spec: &mut Spec) {
    for (name, value) in spec.annotations_mut().iter_mut().flatten() {
        if name.starts_with(OWNER) {
            "0 0".clone_into(value);
        }
    }
}

/// The process whose namespace of this kind is shared; none if the specification names the namespace in
/// another way. The pid 0 means that the process is gone ([`forget_owners`]).
pub fn owner(spec: &Spec, kind: Kind) -> Option<Identity> {
    let text = spec.annotations().as_ref()?.get(&format!("{OWNER}{}", file(kind)))?;
    let (pid, start_time) = text.split_once(' ')?;
    Some(Identity { pid: pid.parse().ok()?, start_time: start_time.parse().ok()?, ..Identity::NONE })
}

pub(super) fn mappings(runs: &[Mapping]) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    let one = |run: &Mapping| {
        LinuxIdMappingBuilder::default().container_id(run.inside).host_id(run.outside).size(run.size).build()
    };
    runs.iter().map(one).collect()
}

/// Converts mappings of the specification.
pub(crate) fn runs(list: &Option<Vec<LinuxIdMapping>>) -> Vec<Mapping> {
    let one = |run: &LinuxIdMapping| Mapping {
        inside: run.container_id(),
        outside: run.host_id(),
        size: run.size(),
    };
    list.iter().flatten().map(one).collect()
}

/// The user namespace of the specification, if it has one.
pub fn userns(spec: &Spec) -> Option<Namespace> {
    let linux = spec.linux().as_ref()?;
    let is_new = |one: &LinuxNamespace| one.typ() == Kind::User && one.path().is_none();
    linux.namespaces().iter().flatten().find(|one| is_new(one))?;
    Some(Namespace { uid_mappings: runs(linux.uid_mappings()), gid_mappings: runs(linux.gid_mappings()) })
}

/// Whether the process is the first of a new pid namespace. Everything that it has started ends with it.
pub(crate) fn is_first_of_pids(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|one| one.typ() == Kind::Pid && one.path().is_none())
}
