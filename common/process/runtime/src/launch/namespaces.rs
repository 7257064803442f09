//! Namespaces: new ones, and existing ones by a path or a process.

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
    /// A user namespace that is entered before all others, and so owns the new ones.
    owner: Option<OwnedFd>,
}

/// A user namespace for the process alone. The caller owns its surroundings, and the process enters this
/// namespace when they are made.
#[derive(Debug)]
pub(crate) struct User {
    /// Its mappings.
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
        LinuxNamespaceType::Time => UnshareFlags::NEWTIME,
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
        LinuxNamespaceType::Time => LinkNameSpaceType::Time,
    })
}

impl Namespaces {
    /// Opens the namespaces of a specification. With `owns`, a user namespace is entered first and owns the
    /// others, as in runc. Otherwise it is for the process alone, and the caller owns the surroundings.
    pub(crate) fn open(spec: &Spec, owns: bool) -> Result<Self> {
        let mut namespaces = Self::default();
        let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        if let Some(ids) = crate::spec::userns(spec) {
            let namespace = ids.make()?;
            match owns {
                true => namespaces.owner = Some(namespace),
                false => namespaces.user = Some(User { ids, namespace }),
            }
        }
        let mut shared: Vec<(Identity, Vec<LinuxNamespaceType>)> = Vec::new();
        for namespace in listed.into_iter().flatten() {
            let kind = namespace.typ();
            match (kind, namespace.path(), owns) {
                (LinuxNamespaceType::User, None, _) => continue,
                (LinuxNamespaceType::User, Some(path), true) => {
                    // A process cannot enter its own user namespace again.
                    namespaces.owner =
                        Some(open_path(kind, path)?).filter(|opened| !held::is_own(opened, "user"));
                    continue;
                }
                _ => {}
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
                    let opened = open_path(kind, path)?;
                    namespaces.joined.push((kind, opened));
                }
            }
        }
        for (owner, kinds) in shared {
            if owner.pid == 0 {
                let object = format_args!("the {} namespace of another container", kinds[0]);
                let why = "the machine was restarted since, and that one is gone";
                let error = Error::system("enter", object, why);
                return Err(error.with_hint("start the other container, then make this one again".to_owned()));
            }
            let all = held::of(owner)?.into_iter();
            namespaces.joined.extend(all.filter(|(kind, _)| kinds.contains(kind)));
        }
        if !namespaces.is_new(LinuxNamespaceType::Mount) {
            return Err(Error::new("a process on a root file system of its own needs a new mount namespace"));
        }
        Ok(namespaces)
    }

    /// Opens the namespaces of a running container, by its specification and its first process. `owns` is as
    /// in [`Namespaces::open`].
    pub(crate) fn of(spec: &Spec, first: Identity, owns: bool) -> Result<Self> {
        let (mut joined, mut user) = (held::of(first)?, None);
        if owns {
            // The time namespace is not held for others, because ns-exec makes none.
            joined.extend(held::time_of(first)?.map(|time| (LinuxNamespaceType::Time, time)));
            return Ok(Self { joined, ..Self::default() });
        }
        if let Some(ids) = crate::spec::userns(spec)
            && let Some(at) = joined.iter().position(|(kind, _)| *kind == LinuxNamespaceType::User)
        {
            user = Some(User { ids, namespace: joined.remove(at).1 });
        }
        Ok(Self { joined, user, ..Self::default() })
    }

    /// The user namespace that is entered last.
    pub(crate) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Whether the process gets a new namespace of this kind.
    pub(crate) fn is_new(&self, kind: LinuxNamespaceType) -> bool {
        self.new.contains(&kind)
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let user = self.user.as_ref().map(|user| user.namespace.as_fd());
        let owner = self.owner.as_ref().map(AsFd::as_fd);
        self.joined.iter().map(|(_, fd)| fd.as_fd()).chain(user).chain(owner)
    }

    /// The user namespace that is entered before all others.
    pub(crate) fn owner(&self) -> Option<BorrowedFd<'_>> {
        self.owner.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is a user namespace that is entered before all others.
    pub(crate) fn has_owner(&self) -> bool {
        self.owner.is_some()
    }

    /// Forks as [`Namespaces::fork`] does, but inside the user namespace that owns the others. A process in
    /// between enters it, forks, and ends. `prepare` runs in the process in between, with the caller's
    /// rights. `told` gets its error.
    pub(crate) fn fork_inside(
        &self,
        prepare: impl FnOnce() -> Result<()>,
        told: impl FnOnce(&Error),
        body: impl FnOnce(bool) -> u8,
    ) -> Result<i32> {
        let report = sys::Report::new().map_err(Error::at("map", "memory"))?;
        let has_pids = self.is_new(LinuxNamespaceType::Pid)
            || self.joined.iter().any(|(kind, _)| *kind == LinuxNamespaceType::Pid);
        let beside = sys::fork(|| {
            let enter = || -> Result<()> {
                prepare()?;
                if let Some(owner) = &self.owner {
                    move_into_link_name_space(owner.as_fd(), Some(LinkNameSpaceType::User))
                        .map_err(Error::at("enter", "user namespace"))?;
                }
                if has_pids { self.enter_pid() } else { Ok(()) }
            };
            let born = enter().and_then(|()| {
                let born = sys::bear(&report, false, || sys::exit(body(true)));
                born.map_err(Error::at("fork", ""))
            });
            born.inspect_err(|error| told(error)).map_or(1, |()| 0)
        })
        .map_err(Error::at("fork", ""))?;
        let ended = nix::sys::wait::waitpid(beside, None);
        ended.map_err(Error::at("wait", format_args!("for process {beside}")))?;
        report.pid().ok_or_else(|| Error::new("start: the process ended before its command ran"))
    }

    /// Forks into the pid namespace, and into the cgroup if there is one. Unlike other namespaces, a pid
    /// namespace can only be entered at birth. The caller's later children are born in the caller's own, as
    /// before. The argument of `body` says whether the process is in the cgroup; if not, `body` enters it.
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
        // Enter both at once. If a process is moved into a cgroup later, the kernel waits for all processors.
        match born(single, nix::libc::CLONE_NEWPID, cgroup, body) {
            Ok(pid) => Ok(pid),
            Err(body) => self.fork_there(false, cgroup, body),
        }
    }

    /// Forks outside of the container's pid namespace, in the caller's.
    pub(crate) fn fork_beside(cgroup: Option<BorrowedFd<'_>>, body: impl FnOnce(bool) -> u8) -> Result<i32> {
        fork_here(sys::has_one_thread(), cgroup, body)
    }

    /// Forks while the caller's children are born into the container's pid namespace.
    fn fork_there(
        &self,
        single: bool,
        cgroup: Option<BorrowedFd<'_>>,
        body: impl FnOnce(bool) -> u8 + Send,
    ) -> Result<i32> {
        if in_user_namespace()? {
            // Only root of the first user namespace can return, so a separate thread enters the namespace and
            // then ends.
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

    /// From now on, the calling thread's children are born into the pid namespace.
    fn enter_pid(&self) -> Result<()> {
        let joined = self.joined.iter().find(|(kind, _)| *kind == LinuxNamespaceType::Pid).map(|(_, fd)| fd);
        let enter = match joined {
            Some(fd) => move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::ProcessID)),
            None => sys::unshare(UnshareFlags::NEWPID),
        };
        enter.map_err(Error::at("enter", "pid namespace"))
    }

    /// Enters the user namespace of a container, if it is not the caller's. It gives the rights for the other
    /// namespaces.
    pub(crate) fn enter_user(&self) -> Result<()> {
        self.enter_those(|kind| kind == LinuxNamespaceType::User)
    }

    /// Enters all other namespaces of a container. The pid namespace is for the process's children.
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

    /// Enters all other namespaces, in the process itself.
    pub(crate) fn enter(&self, spec: &Spec) -> Result<()> {
        if self.owner.is_some() {
            become_root()?;
        }
        self.enter_those(|kind| kind != LinuxNamespaceType::Pid)?;
        let new =
            self.new.iter().filter_map(|kind| flag(*kind)).fold(UnshareFlags::empty(), |all, one| all | one);
        let new = new - UnshareFlags::NEWPID;
        if !new.is_empty() {
            sys::unshare(new).map_err(Error::at("create", "namespaces"))?;
        }
        if self.is_new(LinuxNamespaceType::Time) {
            super::clocks::enter(spec)?;
        }
        if self.is_new(LinuxNamespaceType::Network) {
            sys::raise_loopback().map_err(raising)?;
        }
        Ok(())
    }
}

fn open_path(kind: LinuxNamespaceType, path: &std::path::Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::at("open", format_args!("{kind} namespace {path:?}")))
}

/// Becomes root. A process that enters a user namespace is nobody there, with all capabilities. If root has no
/// mapping, it stays so.
fn become_root() -> Result<()> {
    use rustix::{
        io::Errno,
        process::{Gid, Uid},
        thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
    };
    if !userns::denies_setgroups() {
        set_thread_groups(&[]).map_err(Error::at("set", "supplementary groups"))?;
    }
    let (group, user) = (Gid::ROOT, Uid::ROOT);
    let unless_unmapped = |result| if result == Err(Errno::INVAL) { Ok(()) } else { result };
    unless_unmapped(set_thread_res_gid(group, group, group)).map_err(Error::at("become", "group 0"))?;
    unless_unmapped(set_thread_res_uid(user, user, user)).map_err(Error::at("become", "user 0"))
}

fn raising(errno: rustix::io::Errno) -> Error {
    let error = Error::system("set", "link lo up", errno);
    match errno {
        // The caller may be root of a container with no capability but CAP_SYS_ADMIN.
        rustix::io::Errno::PERM => error.with_hint("this needs CAP_NET_ADMIN, or --network host".to_owned()),
        _ => error,
    }
}

impl User {
    /// Lets the process create files and mounts as the namespace's root, from outside of it.
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

/// Forks with clone3(2). Returns `body` if the caller has several threads or the kernel rejects the call. Any
/// other problem will show again in the next attempt.
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

/// Forks with [`born`], or else with fork(2).
fn fork_here(single: bool, cgroup: Option<BorrowedFd<'_>>, body: impl FnOnce(bool) -> u8) -> Result<i32> {
    match born(single, 0, cgroup, body) {
        Ok(pid) => Ok(pid),
        Err(body) => sys::fork(|| body(false)).map(nix::unistd::Pid::as_raw).map_err(Error::at("fork", "")),
    }
}
