//! Namespaces shared with the host or with another container, named as in Docker and Podman.

use std::{path::Path, str::FromStr};

use clap::Args;
use document::{Id, name};
use life::Container;
use mount::MountOperation;
use operation::Scope;
use runtime::spec::{Owner, Owners, SharedMemory};
use toolkit::prelude::*;
use userns::Wanted;

use super::{network::host_name, operation::ContainerOperation, request::Request};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Sharing {
    /// Share the process list with the host, or with another container
    #[arg(long, value_name = "private|host|container:ID", conflicts_with = "join")]
    pub(crate) pid: Option<Whose>,
    /// Share memory, semaphores and message queues with the host, or with a shareable container; none: no
    /// /dev/shm
    #[arg(long, value_name = "private|shareable|none|host|container:ID", conflicts_with = "join")]
    pub(crate) ipc: Option<Ipc>,
    /// Share the host name with the host, or with another container
    #[arg(long, value_name = "private|host|container:ID", conflicts_with = "join")]
    pub(crate) uts: Option<Whose>,
    /// Share the view of cgroups with the host, or with another container, read-only
    #[arg(long, value_name = "private|host|container:ID", conflicts_with = "join")]
    pub(crate) cgroupns: Option<Whose>,
    /// Use a user namespace: the one for which union-mount --userns made the root file system; with --rootfs,
    /// this one. auto: ids that no other container has
    #[arg(long, value_name = "host|auto[:size=N]|CONTAINER:HOST:SIZE,…", conflicts_with = "join")]
    pub(crate) userns: Option<Wanted>,
}

/// The owner of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Whose {
    #[default]
    Private,
    Host,
    Container(Id),
}

/// The owner of the IPC namespace, and Docker's modes for `/dev/shm`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Ipc {
    #[default]
    Private,
    /// The container's own, which other containers may join.
    Shareable,
    /// The container's own, without `/dev/shm`.
    None,
    Host,
    Container(Id),
}

impl FromStr for Whose {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "private" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => container(text, "private, host or container:ID").map(Self::Container),
        }
    }
}

impl FromStr for Ipc {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "private" => Ok(Self::Private),
            "shareable" => Ok(Self::Shareable),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            _ => container(text, "private, shareable, none, host or container:ID").map(Self::Container),
        }
    }
}

fn container(text: &str, known: &str) -> Result<Id, String> {
    let id = text.strip_prefix("container:").ok_or_else(|| format!("it is {known}"))?;
    id.parse().map_err(|error: document::InvalidId| error.to_string())
}

/// Another container, by its id or its name, if it runs.
pub(crate) fn running(scope: &Scope, container: &Id) -> Result<Container> {
    Ok(Container::running(scope, &name::resolve(scope, container))?)
}

/// The namespaces that the flags ask for.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) owners: Owners,
    pub(crate) memory: SharedMemory,
    /// The host name, if it comes with a shared namespace.
    pub(crate) hostname: Option<String>,
    /// The operations that make a `/dev/shm` for sharing.
    pub(crate) operations: Vec<ContainerOperation>,
}

/// Finds the containers that the flags name.
pub(crate) fn choose(request: &Request, context: &Context) -> Result<Shared> {
    let Sharing { pid, ipc, uts, cgroupns, .. } = request.sharing.clone();
    let scope = &context.scope;
    let mut shared = Shared::default();
    shared.owners.cgroup = owner(cgroupns, scope)?;
    shared.owners.pid = owner(pid, scope)?;
    if let Owner::Container(first) = shared.owners.pid {
        life::refuse_tracers(scope, first)?;
    }
    if shared.owners.pid != Owner::Own && request.settings.die_with_parent {
        bail!("--die-with-parent needs a pid namespace that ends with its first process: leave out --pid");
    }
    shared.hostname = match &uts {
        None | Some(Whose::Private) => None,
        Some(_) if request.hostname.is_some() => {
            bail!("--hostname would change the name of others: leave out --uts")
        }
        Some(_) if request.settings.domainname.is_some() => {
            bail!("--domainname would change the domain name of others: leave out --uts")
        }
        Some(Whose::Host) => Some(host_name()),
        Some(Whose::Container(id)) => {
            let other = running(scope, id)?.operation;
            Some(other.spec.hostname().clone().unwrap_or_else(host_name))
        }
    };
    shared.owners.uts = owner(uts, scope)?;
    memory(ipc.unwrap_or_default(), request.settings.shm_size, context, &mut shared)?;
    Ok(shared)
}

fn owner(whose: Option<Whose>, scope: &Scope) -> Result<Owner> {
    Ok(match whose.unwrap_or_default() {
        Whose::Private => Owner::Own,
        Whose::Host => Owner::Host,
        Whose::Container(id) => Owner::Container(running(scope, &id)?.identity()),
    })
}

/// The default size of `/dev/shm` in bytes, as with Docker.
const SIZE: u64 = 64 << 20;

/// Follows Docker's rule: sharing the IPC namespace also shares `/dev/shm`, and the other container must
/// permit it.
fn memory(ipc: Ipc, size: Option<u64>, context: &Context, shared: &mut Shared) -> Result<()> {
    // 0 is the default, as with Docker.
    let size = size.filter(|size| *size != 0);
    if size.is_some() && !matches!(ipc, Ipc::Private | Ipc::Shareable) {
        bail!("--shm-size needs a /dev/shm of the container's own: leave out --ipc");
    }
    shared.memory = match ipc {
        Ipc::Private => size.map_or(SharedMemory::Own, SharedMemory::Sized),
        Ipc::None => SharedMemory::None,
        Ipc::Host => {
            shared.owners.ipc = Owner::Host;
            SharedMemory::At(SHM.into())
        }
        Ipc::Shareable => {
            let target = context.scope.container(&context.id).join("shm");
            let (source, size) = (format!("stave:{}", context.id), size.unwrap_or(SIZE));
            shared.operations = [
                MountOperation::DirectoryAdd { path: target.clone(), mode: 0o700, owner: None },
                MountOperation::MemoryMount { source, target: target.clone(), size },
            ]
            .map(ContainerOperation::from)
            .into();
            SharedMemory::At(target)
        }
        Ipc::Container(id) => {
            let other = running(&context.scope, &id)?;
            shared.owners.ipc = Owner::Container(other.identity());
            let other = other.operation;
            // The first mount on this path is the container's. A volume comes later in the list, and is not
            // shared.
            let mount =
                other.spec.mounts().iter().flatten().find(|mount| *mount.destination() == Path::new(SHM));
            let bound = mount.filter(|mount| mount.typ().as_deref() == Some("bind"));
            let source = bound.and_then(|mount| mount.source().clone()).ok_or_else(|| {
                hint(anyhow!("container \"{id}\" does not share its memory"), "start it with --ipc shareable")
            })?;
            SharedMemory::At(source)
        }
    };
    Ok(())
}

/// The directory of shared memory (shm_overview(7)).
const SHM: &str = "/dev/shm";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_docker_and_podman_take_them() {
        let id = || "web".parse::<Id>().unwrap();
        assert_eq!("private".parse(), Ok(Whose::Private));
        assert_eq!("container:web".parse(), Ok(Whose::Container(id())));
        assert_eq!("shareable".parse(), Ok(Ipc::Shareable));
        assert_eq!("container:web".parse(), Ok(Ipc::Container(id())));
        for text in ["", "Host", "shareable", "ns:/proc/1/ns/pid", "container", "container:", "container:a/b"]
        {
            assert!(text.parse::<Whose>().is_err(), "{text}");
        }
        assert_eq!(
            "pod".parse::<Ipc>(),
            Err("it is private, shareable, none, host or container:ID".to_owned())
        );
    }
}
