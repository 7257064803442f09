//! Namespaces: new ones, those of a path, those of a process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::{
    fs::{Mode, OFlags},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use super::held;
use crate::{Error, Identity, error::Result, sys};

/// New and joined namespaces, opened before the fork.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    new: Vec<LinuxNamespaceType>,
    joined: Vec<(LinuxNamespaceType, OwnedFd)>,
    user: Option<User>,
}

/// A user namespace for the process alone. Its surroundings belong to the caller: it enters this one when they are made.
#[derive(Debug)]
pub(crate) struct User {
    /// What it maps.
    pub(crate) ids: userns::Namespace,
    pub(crate) namespace: OwnedFd,
}

fn flag(kind: LinuxNamespaceType) -> Option<UnshareFlags> {
    Some(match kind {
        LinuxNamespaceType::Mount => UnshareFlags::NEWNS,
        LinuxNamespaceType::Cgroup => UnshareFlags::NEWCGROUP,
        LinuxNamespaceType::Uts => UnshareFlags::NEWUTS,
        LinuxNamespaceType::Ipc => UnshareFlags::NEWIPC,
        LinuxNamespaceType::Network => UnshareFlags::NEWNET,
        LinuxNamespaceType::Pid => UnshareFlags::NEWPID,
        _ => return None,
    })
}

fn link_type(kind: LinuxNamespaceType) -> Option<LinkNameSpaceType> {
    Some(match kind {
        LinuxNamespaceType::Mount => LinkNameSpaceType::Mount,
        LinuxNamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
        LinuxNamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        LinuxNamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
        LinuxNamespaceType::Network => LinkNameSpaceType::Network,
        LinuxNamespaceType::Pid => LinkNameSpaceType::ProcessID,
        LinuxNamespaceType::User => LinkNameSpaceType::User,
        _ => return None,
    })
}

impl Namespaces {
    /// Those of a specification.
    pub(crate) fn open(spec: &Spec) -> Result<Self> {
        let mut namespaces = Self::default();
        let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        if let Some(ids) = crate::spec::userns(spec) {
            let namespace = ids.make()?;
            namespaces.user = Some(User { ids, namespace });
        }
        let mut shared: Vec<(Identity, Vec<LinuxNamespaceType>)> = Vec::new();
        for namespace in listed.into_iter().flatten() {
            let kind = namespace.typ();
            if kind == LinuxNamespaceType::User && namespaces.user.is_some() {
                continue;
            }
            if flag(kind).is_none() {
                return Err(Error::system(
                    "enter",
                    format_args!("{kind} namespace"),
                    rustix::io::Errno::OPNOTSUPP,
                ));
            }
            match (namespace.path(), crate::spec::owner(spec, kind)) {
                (None, _) => namespaces.new.push(kind),
                (Some(_), Some(owner)) => match shared.iter_mut().find(|(known, _)| *known == owner) {
                    Some((_, kinds)) => kinds.push(kind),
                    None => shared.push((owner, vec![kind])),
                },
                (Some(path), None) => {
                    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .map_err(Error::at("open", format_args!("{kind} namespace {path:?}")))?;
                    namespaces.joined.push((kind, fd));
                }
            }
        }
        for (owner, kinds) in shared {
            if owner.pid == 0 {
                let object = format_args!("the {} namespace of another container", kinds[0]);
                let why = "the machine was restarted since, and that one is gone";
                let error = Error::system("enter", object, why);
                return Err(error.with_hint("make this container again, when the other one runs".to_owned()));
            }
            let all = held::of(owner)?.into_iter();
            namespaces.joined.extend(all.filter(|(kind, _)| kinds.contains(kind)));
        }
        if !namespaces.is_new(LinuxNamespaceType::Mount) {
            return Err(Error::new("a process on a root file system of its own needs a new mount namespace"));
        }
        Ok(namespaces)
    }

    /// Those of a container that runs, by its specification and its first process.
    pub(crate) fn of(spec: &Spec, first: Identity) -> Result<Self> {
        let (mut joined, mut user) = (held::of(first)?, None);
        if let Some(ids) = crate::spec::userns(spec)
            && let Some(at) = joined.iter().position(|(kind, _)| *kind == LinuxNamespaceType::User)
        {
            user = Some(User { ids, namespace: joined.remove(at).1 });
        }
        Ok(Self { new: Vec::new(), joined, user })
    }

    /// The user namespace that is entered last.
    pub(crate) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Whether the process gets a new one.
    pub(crate) fn is_new(&self, kind: LinuxNamespaceType) -> bool {
        self.new.contains(&kind)
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let user = self.user.as_ref().map(|user| user.namespace.as_fd());
        self.joined.iter().map(|(_, fd)| fd.as_fd()).chain(user)
    }

    /// Forks into the pid namespace, and into the cgroup if there is one. Unlike other namespaces, a process can only be
    /// born into a pid namespace. The caller's later children are born in the caller's own, as before. `body` is told
    /// whether the process is in the cgroup; else it enters it itself.
    pub(crate) fn fork(
        &self,
        cgroup: Option<BorrowedFd<'_>>,
        body: impl FnOnce(bool) -> u8 + Send,
    ) -> Result<i32> {
        let enters = self.joined.iter().any(|(kind, _)| *kind == LinuxNamespaceType::Pid);
        let single = sys::has_one_thread();
        if enters {
            return self.fork_there(single, cgroup, body);
        }
        if !self.is_new(LinuxNamespaceType::Pid) {
            return fork_here(single, cgroup, body);
        }
        // At once in both. To move a process into a cgroup later, the kernel waits for all processors.
        match born(single, nix::libc::CLONE_NEWPID, cgroup, body) {
            Ok(pid) => Ok(pid),
            Err(body) => self.fork_there(false, cgroup, body),
        }
    }

    /// Forks beside the container, in the caller's pid namespace.
    pub(crate) fn fork_beside(cgroup: Option<BorrowedFd<'_>>, body: impl FnOnce(bool) -> u8) -> Result<i32> {
        fork_here(sys::has_one_thread(), cgroup, body)
    }

    /// With the pid namespace for the caller's children, for a moment.
    fn fork_there(
        &self,
        single: bool,
        cgroup: Option<BorrowedFd<'_>>,
        body: impl FnOnce(bool) -> u8 + Send,
    ) -> Result<i32> {
        if in_user_namespace()? {
            // Only root of the first user namespace can return, so a separate thread enters and then ends.
            return crate::isolated::aside(|| {
                self.enter_pid()?;
                fork_here(false, cgroup, body)
            });
        }
        let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::at("open", "pid namespace \"/proc/self/ns/pid\""))?;
        self.enter_pid()?;
        let child = fork_here(single, cgroup, body);
        let back = move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID));
        back.map_err(Error::at("leave", "pid namespace"))?;
        child
    }

    /// Makes the calling thread's children be born in the pid namespace.
    fn enter_pid(&self) -> Result<()> {
        let joined = self.joined.iter().find(|(kind, _)| *kind == LinuxNamespaceType::Pid).map(|(_, fd)| fd);
        let enter = match joined {
            Some(fd) => move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::ProcessID)),
            None => sys::unshare(UnshareFlags::NEWPID),
        };
        enter.map_err(Error::at("enter", "pid namespace"))
    }

    /// Enters the user namespace of a container, if it is not the caller's. It gives the rights for the others.
    pub(crate) fn enter_user(&self) -> Result<()> {
        self.enter_those(|kind| kind == LinuxNamespaceType::User)
    }

    /// Enters all others of a container, the pid namespace for its children.
    pub(crate) fn enter_all(&self) -> Result<()> {
        self.enter_those(|kind| kind != LinuxNamespaceType::User)
    }

    fn enter_those(&self, wanted: impl Fn(LinuxNamespaceType) -> bool) -> Result<()> {
        for (kind, fd) in self.joined.iter().filter(|(kind, _)| wanted(*kind)) {
            move_into_link_name_space(fd.as_fd(), link_type(*kind))
                .map_err(Error::at("enter", format_args!("{kind} namespace")))?;
        }
        Ok(())
    }

    /// Enters all others, in the process itself.
    pub(crate) fn enter(&self) -> Result<()> {
        self.enter_those(|kind| kind != LinuxNamespaceType::Pid)?;
        let new =
            self.new.iter().filter_map(|kind| flag(*kind)).fold(UnshareFlags::empty(), |all, one| all | one);
        let new = new - UnshareFlags::NEWPID;
        if !new.is_empty() {
            sys::unshare(new).map_err(Error::at("create", "namespaces"))?;
        }
        if self.is_new(LinuxNamespaceType::Network) {
            sys::raise_loopback().map_err(raising)?;
        }
        Ok(())
    }
}

fn raising(errno: rustix::io::Errno) -> Error {
    let error = Error::system("set", "link lo up", errno);
    match errno {
        // As root of a container that was given CAP_SYS_ADMIN alone.
        rustix::io::Errno::PERM => error.with_hint("this needs CAP_NET_ADMIN, or --network host".to_owned()),
        _ => error,
    }
}

impl User {
    /// Lets the process make files and mounts as its root, from outside.
    pub(super) fn act_for_root(&self) -> Result<()> {
        let (user, group) = self.ids.root().unwrap_or_default();
        mount::act_for(user, group).map_err(Error::at("act for", format_args!("user {user}")))
    }

    pub(super) fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::User))
            .map_err(Error::at("enter", "user namespace"))
    }
}

/// Whether the caller is in a user namespace other than the machine's first one.
pub(super) fn in_user_namespace() -> Result<bool> {
    Ok(!userns::is_first()?)
}

/// A process by clone3(2), if the caller has one thread; else, or where the kernel refuses that call, `body` again. What
/// else is wrong shows again then.
fn born<B: FnOnce(bool) -> u8>(
    single: bool,
    flags: nix::libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    body: B,
) -> std::result::Result<i32, B> {
    if !single || (flags == 0 && cgroup.is_none()) {
        return Err(body);
    }
    sys::clone(flags, cgroup, body).map(nix::unistd::Pid::as_raw).map_err(|(_, body)| body)
}

/// A process by [`born`], or else by fork(2).
fn fork_here(single: bool, cgroup: Option<BorrowedFd<'_>>, body: impl FnOnce(bool) -> u8) -> Result<i32> {
    match born(single, 0, cgroup, body) {
        Ok(pid) => Ok(pid),
        Err(body) => sys::fork(|| body(false)).map(nix::unistd::Pid::as_raw).map_err(Error::at("fork", "")),
    }
}
