//! The container's root file system, with all its mounts.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use mount::{
    Detached, FileSystem, Options,
    resolve::{self, Leaf},
};
use oci_spec::runtime::{Mount, Process, Spec};
use operation::Cause;
use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, makedev, openat2},
    io::Errno,
    mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags},
};

use super::{
    channel::Channel,
    devices,
    namespaces::{User, in_user_namespace},
};
use crate::{
    Error,
    error::Result,
    spec::{IDMAP, IDMAP_ROOTFS, is_annotated},
};

/// Makes the root directory of the specification the process's own. Returns its terminal, if it has one; the other side
/// goes to the channel. `user`: the user namespace that the process enters afterwards.
pub(super) fn make(
    spec: &Spec,
    terminal: Option<&Process>,
    channel: &Channel,
    user: Option<&User>,
) -> Result<Option<OwnedFd>> {
    let Some(wanted) = spec.root() else { return Err(Error::new("no root in the specification")) };
    let linux = spec.linux().as_ref();
    let propagation = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or("rslave");
    let peers = peers(spec, user)?;
    let kind = Options::parse([propagation]).propagation;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount::propagate(Path::new("/"), kind.unwrap_or(slave))?;

    let mapped = user.filter(|_| is_annotated(spec, IDMAP_ROOTFS));
    let root = attach_root(wanted.path(), devices::of_root(spec)?, mapped)?;
    rustix::process::umask(Mode::empty());
    let mut mounted = Mounted::default();
    for (mount, peer) in spec.mounts().iter().flatten().zip(peers) {
        mounted.0.extend(add(root.as_fd(), mount, peer, (channel, user))?);
    }
    devices::populate(root.as_fd(), spec)?;
    let terminal = match terminal {
        Some(process) => {
            let terminal = devices::open_terminal(root.as_fd(), process, channel)?;
            devices::mount_console(root.as_fd(), terminal.as_fd())?;
            Some(terminal)
        }
        None => None,
    };
    devices::confine(root.as_fd(), spec)?;
    if let Some(linux) = linux {
        for path in linux.readonly_paths().iter().flatten() {
            make_readonly(mounted.open(root.as_fd(), Path::new(path))?, path)?;
        }
        for path in linux.masked_paths().iter().flatten() {
            mask(root.as_fd(), mounted.open(root.as_fd(), Path::new(path))?, path)?;
        }
    }
    if wanted.readonly().unwrap_or_default() {
        root.change(&Options::parse(["ro"]), false).map_err(Error::at("make", "\"/\" read-only"))?;
    }
    pivot(root)?;
    Ok(terminal)
}

/// For each mount, its source if it is to be shared with the host. It is copied before this namespace's mounts become
/// slaves of the host's, so that the copy is a peer of the host's own.
fn peers(spec: &Spec, user: Option<&User>) -> Result<Vec<Option<Source>>> {
    let shared = |mount: &&Mount| {
        let propagation = Options::parse(mount.options().iter().flatten()).propagation;
        propagation.is_some_and(|kind| kind.contains(MountPropagationFlags::SHARED))
            && kind_of(mount) == "bind"
    };
    let peer = |mount: &Mount| Some(mount).filter(shared).map(|mount| detached(mount, user)).transpose();
    spec.mounts().iter().flatten().map(peer).collect()
}

/// pivot_root(2) needs a mount: a copy of the directory, on top of it. The copy also keeps changes here from the host's
/// mounts.
fn attach_root(path: &Path, devices: Option<bool>, mapped: Option<&User>) -> Result<Detached> {
    let attach = || {
        let place = resolve::place(path)?;
        let root = Detached::copy_of(&place, true)?;
        if let Some(user) = mapped {
            root.map_owners(user.namespace.as_fd())?;
        }
        let options = if devices == Some(false) { ["rprivate", "nodev"].as_slice() } else { &["rprivate"] };
        root.change(&Options::parse(options), true)?;
        if devices == Some(true) {
            root.change(&Options::parse(["dev"]), false)?;
        }
        root.attach(&place)?;
        Ok(root)
    };
    attach().map_err(Error::at::<Errno>("mount", format_args!("root file system {path:?}")))
}

fn pivot(root: Detached) -> Result<()> {
    let pivot = || {
        rustix::process::fchdir(root.as_fd())?;
        // The old root ends up on top of the new one, where it is unmounted (pivot_root(2), "pivot_root(".", ".")").
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    };
    pivot().map_err(Error::at::<Errno>("pivot_root", ""))
}

/// File systems of the kernel in the container, with their places: masks are laid over their own files, wherever another
/// container may have moved the way there in the meantime (CVE-2019-19921, CVE-2023-27561).
#[derive(Default)]
struct Mounted(Vec<(PathBuf, Detached)>);

impl Mounted {
    /// A missing path needs no mask.
    fn open(&self, root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
        let below = |(target, mount)| Some((mount, path.strip_prefix(target).ok()?));
        let of_kernel = self.0.iter().rev().find_map(|(target, mount)| below((target, mount)));
        let opened = match of_kernel {
            Some((mount, rest)) => {
                let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                openat2(mount, rest, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
            }
            None => resolve::open_in(root, path, OFlags::PATH),
        };
        match opened {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            opened => opened.map(Some).map_err(Error::at("open", format_args!("{path:?}"))),
        }
    }
}

/// One of the specification's mounts. Returns it with its place if it shows the kernel.
fn add(
    root: BorrowedFd<'_>,
    mount: &Mount,
    peer: Option<Source>,
    (channel, user): (&Channel, Option<&User>),
) -> Result<Option<(PathBuf, Detached)>> {
    use nix::errno::Errno::{EBUSY, ENODEV, EPERM};
    match attach(root, mount, peer, user) {
        // A container in its caller's cgroup has nothing to see there, and a kernel may have no cgroups.
        Err(error)
            if mount.typ().as_deref() == Some(CGROUP)
                && matches!(error.errno(), Some(EBUSY | ENODEV | EPERM)) =>
        {
            Ok(None)
        }
        // In a container of somebody else's, which sees a part of the kernel's files only, the kernel shows no more of them.
        Err(error) if error.errno() == Some(EPERM) && in_user_namespace()? => {
            let (what, why) = match kind_of(mount) {
                "proc" => (
                    "procfs",
                    "the kernel refuses it, as in a container with masked paths; the container sees the processes of its surroundings",
                ),
                "sysfs" => {
                    ("sysfs", "the kernel refuses it, as in a container; /sys stays as it is in the image")
                }
                // Queues work without: the files only show them.
                "mqueue" => (
                    "mqueue",
                    "the kernel refuses it, because the ipc namespace is another user's; /dev/mqueue stays as it is in the image",
                ),
                _ => return Err(error),
            };
            let attached = match what {
                "procfs" => Some(attach(root, mount, Some(surrounding(mount)?), user)?),
                _ => None,
            };
            channel.warn(&Error::system("mount", what, why));
            Ok(attached.map(|attached| (mount.destination().clone(), attached)))
        }
        attached => {
            let attached = attached?;
            Ok(shows_kernel(mount).then(|| (mount.destination().clone(), attached)))
        }
    }
}

/// The `/proc` of the surroundings, with everything that is mounted below: what is masked or read-only there stays so.
fn surrounding(mount: &Mount) -> Result<Source> {
    let detached = Detached::copy(Path::new("/proc"), true)?;
    let mut options = Options::parse(mount.options().iter().flatten());
    options.bind = Some(true);
    options.propagation = Options::parse(["rprivate"]).propagation;
    detached.change(&options, true).map_err(Error::at("mount", "\"/proc\""))?;
    Ok((detached, options))
}

/// Whether it is a `/proc` or a `/sys`, which a rootless container may have from the host.
fn shows_kernel(mount: &Mount) -> bool {
    matches!(kind_of(mount), "proc" | "sysfs") || mount.destination() == Path::new("/sys")
}

/// The source of a mount, not attached yet, and its options.
type Source = (Detached, Options);

fn detached(mount: &Mount, user: Option<&User>) -> Result<Source> {
    let target = mount.destination();
    let kind = kind_of(mount);
    let mut options = Options::parse(mount.options().iter().flatten());
    if kind == "bind" {
        options.bind.get_or_insert(false);
    }
    let source = mount.source().as_deref();
    let detached = match options.bind {
        Some(recursive) => {
            let detached = Detached::copy(source.unwrap_or(Path::new("")), recursive)?;
            if options.data.iter().any(|option| option == IDMAP) {
                map_owners(&detached, target, user)?;
            }
            detached.change(&options, recursive).map_err(Error::at("mount", format_args!("{target:?}")))?;
            detached
        }
        None => {
            let file_system = FileSystem::open(kind)?;
            file_system.set("source", source.unwrap_or(Path::new(kind)))?;
            let data = options.data.iter().map(|option| outside(option, user)).collect::<Result<Vec<_>>>()?;
            file_system.set_data(data.iter().map(String::as_str))?;
            // Device nodes are made in it first; later it is closed to others (see `devices::confine`).
            let later = if target == Path::new("/dev") {
                MountAttrFlags::MOUNT_ATTR_NODEV
            } else {
                MountAttrFlags::empty()
            };
            file_system.mount(options.attributes - later)?
        }
    };
    Ok((detached, options))
}

fn map_owners(mount: &Detached, target: &Path, user: Option<&User>) -> Result<()> {
    let object = format!("{target:?}");
    match user {
        None => Err(Error::system("map owners of", object, "the container has no user namespace of its own")),
        Some(user) => mount.map_owners(user.namespace.as_fd()).map_err(Error::at("map owners of", object)),
    }
}

/// An option of a file system, as it is for a mount from outside of the process's user namespace.
fn outside(option: &str, user: Option<&User>) -> Result<String> {
    let number = |text: &str| text.parse::<u32>().ok();
    let found = match (option.split_once('='), user) {
        (Some(("uid", id)), Some(user)) => number(id).map(|id| ("uid", user.ids.user_outside(id))),
        (Some(("gid", id)), Some(user)) => number(id).map(|id| ("gid", user.ids.group_outside(id))),
        _ => None,
    };
    match found {
        None => Ok(option.to_owned()),
        Some((name, Some(id))) => Ok(format!("{name}={id}")),
        Some((_, None)) => {
            Err(Error::system("set", option, "it has no mapping in the container's user namespace"))
        }
    }
}

/// The type of `/sys/fs/cgroup` in OCI runtime-spec, whatever the host has there. Here it is the hierarchy of version 2: it
/// shows the container's own cgroup, and those of version 1 would show its caller's.
const CGROUP: &str = "cgroup";

pub(crate) fn kind_of(mount: &Mount) -> &str {
    match mount.typ().as_deref() {
        Some(CGROUP) => "cgroup2",
        kind => kind.unwrap_or("bind"),
    }
}

fn attach(
    root: BorrowedFd<'_>,
    mount: &Mount,
    peer: Option<Source>,
    user: Option<&User>,
) -> Result<Detached> {
    let (target, kind) = (mount.destination(), kind_of(mount));
    let (detached, options) = match peer {
        Some(peer) => peer,
        None => detached(mount, user)?,
    };
    if shows_kernel(mount) {
        is_plain_directory(root, target).map_err(Error::at("mount", format_args!("{kind} on {target:?}")))?;
    }
    let place = || {
        let leaf = match FileType::from_raw_mode(rustix::fs::fstat(&detached)?.st_mode) {
            FileType::Directory => Leaf::Directory,
            _ => Leaf::File,
        };
        detached.attach(resolve::create_in(root, target, leaf)?)
    };
    place().map_err(|errno| refused(kind, target, errno))?;
    if options.bind.is_none() && options.propagation.is_some() {
        let spread = Options { propagation: options.propagation, ..Options::default() };
        detached
            .change(&spread, options.is_recursive())
            .map_err(Error::at("set", format_args!("propagation of {target:?}")))?;
    }
    Ok(detached)
}

/// Adds a hint when a read-only root file system has no mount point for a volume.
fn refused(kind: &str, target: &Path, errno: Errno) -> Error {
    let error = Error::system("mount", format_args!("{kind} on {target:?}"), errno);
    match (kind, errno) {
        ("bind", Errno::ROFS) => error.with_hint(format!(
            "the root file system is read-only and has no {target:?}: `union-mount -v` makes a place for a volume, and mounts it"
        )),
        _ => error,
    }
}

/// What the image has in its place must not lead elsewhere.
fn is_plain_directory(root: BorrowedFd<'_>, target: &Path) -> std::result::Result<(), Cause> {
    let relative = target.strip_prefix("/").unwrap_or(target);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(root, relative, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
    {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::LOOP | Errno::NOTDIR) => Err("the image has no directory there".into()),
        Err(errno) => Err(errno.into()),
    }
}

fn make_readonly(place: Option<OwnedFd>, path: &str) -> Result<()> {
    let Some(place) = place else { return Ok(()) };
    let cover = || {
        let copy = Detached::copy_of(&place, true)?;
        copy.change(&Options::parse(["ro"]), true)?;
        copy.attach(&place)
    };
    cover().map_err(Error::at("make", format_args!("{path:?} read-only")))
}

/// A directory looks empty, a file looks like `/dev/null`.
fn mask(root: BorrowedFd<'_>, place: Option<OwnedFd>, path: &str) -> Result<()> {
    let Some(place) = place else { return Ok(()) };
    let object = || format!("{path:?}");
    let kind = rustix::fs::fstat(&place).map_err(Error::at("mask", object()))?.st_mode;
    if FileType::from_raw_mode(kind) == FileType::Directory {
        let empty = FileSystem::open("tmpfs")?;
        empty.set("source", "tmpfs")?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        return empty.mount(attributes)?.attach(place).map_err(Error::at("mask", object()));
    }
    let null = resolve::open_in(root, Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW)
        .map_err(Error::at("mask", object()))?;
    // A `/dev` of somebody's own may have anything there (CVE-2025-31133).
    let found = rustix::fs::fstat(&null).map_err(Error::at("mask", object()))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice || found.st_rdev != makedev(1, 3) {
        return Err(Error::system("mask", object(), "\"/dev/null\" of the container is not the null device"));
    }
    let cover = || Detached::copy_of(null, false)?.attach(&place);
    cover().map_err(Error::at("mask", object()))
}
