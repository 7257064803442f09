//! The container's root file system, with all its mounts.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use mount::{
    Detached, FileSystem, Options,
    resolve::{self, Leaf},
};
use oci_spec::runtime::{LinuxNamespaceType, Mount, Process, Spec};
use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
    mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags},
};

use super::{
    Birth, cgroup_mounts,
    channel::Channel,
    devices,
    kernel::{self, Mounted},
    moved,
    namespaces::{User, in_user_namespace},
    sources, stdio,
};
use crate::{
    Error,
    error::Result,
    spec::{IDMAP, IDMAP_ROOTFS, RECURSIVE_IDMAP, is_annotated},
};

/// Makes the root directory of the specification the process's own. Returns the process's terminal, if it has
/// one; the outer side goes to the channel.
pub(super) fn make(terminal: Option<&Process>, birth: &Birth<'_>) -> Result<Option<OwnedFd>> {
    let spec = birth.spec;
    let Some(wanted) = spec.root() else { return Err(Error::new("no root in the specification")) };
    // `user` is the user namespace that the process enters afterwards.
    let (channel, user, contained) = (birth.channel, birth.namespaces.user(), birth.contained);
    let linux = spec.linux().as_ref();
    let propagation = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or("rslave");
    // The sources of a container's mounts are prepared by its creator, or made where they are attached.
    let peers = if contained.is_some() { Vec::new() } else { peers(spec, user)? };
    let kind = Options::parse([propagation]).propagation;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    // A shared root cannot be pivoted, and an unbindable one cannot be copied, so these are set last.
    let last = MountPropagationFlags::SHARED | MountPropagationFlags::UNBINDABLE;
    let first = kind.filter(|kind| contained.is_none() || !kind.intersects(last));
    mount::propagate(Path::new("/"), first.unwrap_or(slave))?;

    let mapped = user.filter(|_| is_annotated(spec, IDMAP_ROOTFS));
    let root = attach_root(wanted.path(), devices::of_root(spec)?, mapped)?;
    rustix::process::umask(Mode::empty());
    let mounted = mount_all(root.as_fd(), birth, peers)?;
    devices::populate(root.as_fd(), spec, contained.is_some())?;
    let terminal = match terminal {
        Some(process) => {
            let terminal = devices::open_terminal(root.as_fd(), process, channel)?;
            devices::mount_console(root.as_fd(), terminal.as_fd())?;
            Some(terminal)
        }
        None => None,
    };
    devices::confine(root.as_fd(), spec)?;
    if let Some(contained) = contained {
        // As in runc, the container's root directory is the working directory of its hooks.
        rustix::process::fchdir(&root).map_err(Error::at("enter", format_args!("{:?}", wanted.path())))?;
        contained.run_hooks(spec, channel)?;
    }
    // As Docker does: before the root file system becomes read-only.
    if let Some(process) = spec.process() {
        let path = process.cwd();
        resolve::create_in(&root, path, Leaf::Directory)
            .map_err(Error::at("enter", format_args!("directory {path:?}")))?;
    }
    seal(&root, spec, &mounted)?;
    match contained.is_some_and(|contained| contained.without_pivot) {
        true => moved::enter(&root)?,
        false => pivot(root)?,
    }
    // Only if the specification asks for it: by default, the container's mounts are shared with nobody.
    if contained.is_some() && linux.is_some_and(|linux| linux.rootfs_propagation().is_some()) {
        mount::propagate(Path::new("/"), kind.unwrap_or(slave))?;
    }
    Ok(terminal)
}

/// Makes the mounts of the specification. `peers` are the sources of [`peers`].
fn mount_all(root: BorrowedFd<'_>, birth: &Birth<'_>, mut peers: Vec<Option<Source>>) -> Result<Mounted> {
    let mut mounted = Mounted::default();
    for (index, mount) in birth.spec.mounts().iter().flatten().enumerate() {
        mounted.add(match birth.contained {
            Some(_) => add_as_told(root, mount, birth.prepared.get(index).and_then(Option::as_ref), birth)?,
            None => {
                let peer = peers.get_mut(index).and_then(Option::take);
                add(root, mount, peer, (birth.channel, birth.namespaces.user()))?
            }
        });
    }
    Ok(mounted)
}

/// The sources of mounts that are shared with the host; none for other mounts. They are copied before this
/// namespace's mounts become slaves of the host's, so that each copy is a peer of the host's mount.
fn peers(spec: &Spec, user: Option<&User>) -> Result<Vec<Option<Source>>> {
    let shared = |mount: &&Mount| {
        let propagation = Options::parse(mount.options().iter().flatten()).propagation;
        propagation.is_some_and(|kind| kind.contains(MountPropagationFlags::SHARED))
            && kind_of(mount) == "bind"
    };
    let peer =
        |mount: &Mount| Some(mount).filter(shared).map(|mount| detached(mount, user, true)).transpose();
    spec.mounts().iter().flatten().map(peer).collect()
}

/// Copies the directory as a mount on top of it: pivot_root(2) needs a mount. The copy also keeps changes
/// here from the host's mounts.
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

/// Masks paths and makes paths read-only, as the specification says.
fn seal(root: &Detached, spec: &Spec, mounted: &Mounted) -> Result<()> {
    if let Some(linux) = spec.linux() {
        for path in linux.readonly_paths().iter().flatten() {
            make_readonly(mounted.open(root.as_fd(), Path::new(path))?, path)?;
        }
        let mut empty = None;
        for path in linux.masked_paths().iter().flatten().collect::<BTreeSet<_>>() {
            mask(root.as_fd(), mounted.open(root.as_fd(), Path::new(path))?, (path, &mut empty))?;
        }
    }
    devices::seal(root.as_fd(), spec)?;
    if spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or_default()) {
        root.change(&Options::parse(["ro"]), false).map_err(Error::at("make", "\"/\" read-only"))?;
    }
    Ok(())
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

/// Adds a mount of the specification. Returns it with its place if it shows the kernel.
fn add(
    root: BorrowedFd<'_>,
    mount: &Mount,
    peer: Option<Source>,
    (channel, user): (&Channel, Option<&User>),
) -> Result<Option<(PathBuf, Detached)>> {
    use nix::errno::Errno::{EBUSY, ENODEV, EPERM};
    let mount = &*with_mode_below(root, mount);
    match attach(root, mount, peer, user) {
        // A container in its caller's cgroup has nothing to see there, and a kernel may have no cgroups.
        Err(error)
            if mount.typ().as_deref() == Some(CGROUP)
                && matches!(error.errno(), Some(EBUSY | ENODEV | EPERM)) =>
        {
            Ok(None)
        }
        // In somebody else's container, which sees only a part of the kernel's files, the kernel refuses to
        // show more of them.
        Err(error) if error.errno() == Some(EPERM) && in_user_namespace()? => {
            let (what, why) = match kind_of(mount) {
                "proc" => (
                    "procfs",
                    "the kernel refuses it, as in a container with masked paths; the container sees the processes of its surroundings",
                ),
                "sysfs" => {
                    ("sysfs", "the kernel refuses it, as in a container; /sys stays as it is in the image")
                }
                // Queues work without it: the files only show them.
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
            Ok(attached.flatten())
        }
        attached => attached,
    }
}

/// Adds a mount exactly as the specification says, or fails.
fn add_as_told(
    root: BorrowedFd<'_>,
    mount: &Mount,
    prepared: Option<&Source>,
    birth: &Birth<'_>,
) -> Result<Option<(PathBuf, Detached)>> {
    let target = mount.destination();
    let options = Options::parse(mount.options().iter().flatten());
    if options.remounts {
        return remount(root, target, &options).map(|()| None);
    }
    if mount.typ().as_deref() == Some(CGROUP) && options.bind.is_none() {
        let own = birth.namespaces.is_new(LinuxNamespaceType::Cgroup);
        return cgroup_mounts::add(root, target, options, own).map(|()| None);
    }
    if is_bind(mount) {
        let is_unknown = |option: &&String| {
            let option = option.as_str();
            // These are flags of a whole file system, which a bind mount does not change (mount(2), MS_BIND).
            ![IDMAP, RECURSIVE_IDMAP].contains(&option) && !mount::options::FILE_SYSTEM.contains(&option)
        };
        if let Some(option) = options.data.iter().find(is_unknown) {
            let cause = format!("a bind mount has no option {option:?}");
            return Err(Error::system("mount", format_args!("bind on {target:?}"), cause));
        }
    }
    let source = match prepared {
        Some((source, options)) => {
            let copy = source.as_fd().try_clone_to_owned().map_err(Error::at("duplicate", "descriptor"))?;
            (Detached::from(copy), options.clone())
        }
        None => detached(&with_mode_below(root, mount), None, false)?,
    };
    let readonly = source.1.is_readonly();
    let below = options.copies_up.then(|| resolve::open_in(root, target, OFlags::RDONLY | OFlags::DIRECTORY));
    let attached = attach(root, mount, Some(source), None)?;
    if let Some(Ok(below)) = below {
        let copied = resolve::open_in(root, target, OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(|top| mount::tree::copy(&below, &top));
        copied.map_err(Error::at("copy", format_args!("what is in {target:?}")))?;
    }
    if options.copies_up && readonly {
        let top = resolve::open_in(root, target, OFlags::PATH | OFlags::DIRECTORY);
        top.and_then(|top| Detached::from(top).change(&Options::parse(["ro"]), false))
            .map_err(Error::at("make", format_args!("{target:?} read-only")))?;
    }
    Ok(attached)
}

/// A tmpfs without a mode gets the mode of the directory below it, as in runc and Docker.
fn with_mode_below<'a>(root: BorrowedFd<'_>, mount: &'a Mount) -> Cow<'a, Mount> {
    let mut options = mount.options().iter().flatten();
    if kind_of(mount) != "tmpfs" || options.any(|option| option.starts_with("mode=")) {
        return Cow::Borrowed(mount);
    }
    let below = resolve::open_in(root, mount.destination(), OFlags::PATH | OFlags::DIRECTORY);
    let Ok(found) = below.and_then(rustix::fs::fstat) else { return Cow::Borrowed(mount) };
    let mode = format!("mode={:o}", found.st_mode & 0o7777);
    let mut with_mode = mount.clone();
    with_mode.set_options(Some(mount.options().iter().flatten().cloned().chain([mode]).collect()));
    Cow::Owned(with_mode)
}

/// Changes a mount that exists already.
fn remount(root: BorrowedFd<'_>, target: &Path, options: &Options) -> Result<()> {
    let object = || format!("{target:?}");
    let place = resolve::open_in(root, target, OFlags::PATH).map_err(Error::at("remount", object()))?;
    if options.bind.is_none() && !options.data.is_empty() {
        mount::reconfigure(place.as_fd(), options.data.iter().map(String::as_str))
            .map_err(Error::at("remount", object()))?;
    }
    Detached::from(place).change(options, false).map_err(Error::at("remount", object()))
}

/// Copies the caller's `/proc` with everything that is mounted below. What is masked or read-only there stays
/// so.
fn surrounding(mount: &Mount) -> Result<Source> {
    let detached = Detached::copy(Path::new("/proc"), true)?;
    let mut options = Options::parse(mount.options().iter().flatten());
    options.bind = Some(true);
    options.propagation = Options::parse(["rprivate"]).propagation;
    detached.change(&options, true).map_err(Error::at("mount", "\"/proc\""))?;
    Ok((detached, options))
}

/// The source of a mount, which is not attached yet, and its options.
pub(super) type Source = (Detached, Options);

/// Makes the source of a mount. With `deep`, the attributes of a recursive bind mount apply to all mounts
/// below, as with Docker.
fn detached(mount: &Mount, user: Option<&User>, deep: bool) -> Result<Source> {
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
            sources::change(&detached, &options, deep)
                .map_err(Error::at("mount", format_args!("{target:?}")))?;
            detached
        }
        None => {
            let file_system = FileSystem::open(kind)?;
            file_system.set("source", source.unwrap_or(Path::new(kind)))?;
            let data = options.data.iter().map(|option| outside(option, user)).collect::<Result<Vec<_>>>()?;
            file_system.set_data(data.iter().map(String::as_str))?;
            let later = match target == Path::new("/dev") {
                // Device nodes are made in it first. It is closed to other devices later, and made read-only (see
                // `devices::confine` and `devices::seal`).
                true if kind == "tmpfs" => {
                    MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_RDONLY
                }
                true => MountAttrFlags::MOUNT_ATTR_NODEV,
                // It is filled first.
                false if options.copies_up => MountAttrFlags::MOUNT_ATTR_RDONLY,
                false => MountAttrFlags::empty(),
            };
            // There are no mounts below it yet.
            file_system.mount((options.attributes | options.below.0) - later)?
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

/// Converts the ids in an option of a file system, for a mount from outside of the process's user namespace.
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

/// The type of `/sys/fs/cgroup` in OCI runtime-spec, whatever the host has there. Here it is the hierarchy of
/// version 2, which shows the container's own cgroup. The hierarchies of version 1 would show its caller's.
pub(super) const CGROUP: &str = "cgroup";

/// Whether the mount shows files of the host.
pub(super) fn is_bind(mount: &Mount) -> bool {
    kind_of(mount) == "bind" || Options::parse(mount.options().iter().flatten()).bind.is_some()
}

pub(crate) fn kind_of(mount: &Mount) -> &str {
    match mount.typ().as_deref() {
        Some(CGROUP) => "cgroup2",
        kind => kind.unwrap_or("bind"),
    }
}

/// Attaches a mount. Returns it with its real place if it shows the kernel.
fn attach(
    root: BorrowedFd<'_>,
    mount: &Mount,
    peer: Option<Source>,
    user: Option<&User>,
) -> Result<Option<(PathBuf, Detached)>> {
    let (target, kind) = (mount.destination(), kind_of(mount));
    let (detached, options) = match peer {
        Some(peer) => peer,
        None => detached(mount, user, true)?,
    };
    let object = || format!("{kind} on {target:?}");
    let (place, path) = match kernel::is_fixed(mount) {
        true => {
            let place = kernel::fixed_place(root, target).map_err(Error::at("mount", object()))?;
            // Its masks are found by this path, even if the directory is moved.
            (place, target.to_owned())
        }
        false => {
            let place = place(root, target, &detached).map_err(|errno| refused(kind, target, errno))?;
            let path = kernel::path_in(root, place.as_fd()).map_err(Error::at("mount", object()))?;
            (place, path)
        }
    };
    kernel::allow(kind, Some(detached.as_fd()), target, &path).map_err(Error::at("mount", object()))?;
    detached.attach(place).map_err(|errno| refused(kind, target, errno))?;
    if options.bind.is_none() && options.propagation.is_some() {
        let spread = Options { propagation: options.propagation, ..Options::default() };
        detached
            .change(&spread, options.is_recursive())
            .map_err(Error::at("set", format_args!("propagation of {target:?}")))?;
    }
    Ok(kernel::shows(mount, &path).then_some((path, detached)))
}

/// The place of a mount: a file or a directory as the mount is, made if it is missing.
fn place(root: BorrowedFd<'_>, target: &Path, mount: &Detached) -> std::result::Result<OwnedFd, Errno> {
    let leaf = match FileType::from_raw_mode(rustix::fs::fstat(mount)?.st_mode) {
        FileType::Directory => Leaf::Directory,
        _ => Leaf::File,
    };
    resolve::create_in(root, target, leaf)
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

fn make_readonly(place: Option<OwnedFd>, path: &str) -> Result<()> {
    let Some(place) = place else { return Ok(()) };
    let cover = || {
        let copy = Detached::copy_of(&place, true)?;
        copy.change(&Options::parse(["ro"]), true)?;
        copy.attach(&place)
    };
    cover().map_err(Error::at("make", format_args!("{path:?} read-only")))
}

/// An empty directory that stays empty.
fn nothing() -> Result<Detached> {
    let empty = FileSystem::open("tmpfs")?;
    empty.set("source", "tmpfs")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(empty.mount(attributes)?)
}

/// Masks a path: a directory looks empty, a file looks like `/dev/null`. All directories show the same `empty` one.
fn mask(
    root: BorrowedFd<'_>,
    place: Option<OwnedFd>,
    (path, empty): (&str, &mut Option<Detached>),
) -> Result<()> {
    let Some(place) = place else { return Ok(()) };
    let object = || format!("{path:?}");
    let kind = rustix::fs::fstat(&place).map_err(Error::at("mask", object()))?.st_mode;
    if FileType::from_raw_mode(kind) == FileType::Directory {
        let mount = match empty {
            Some(empty) => Detached::copy_of(&*empty, false).map_err(Error::at("mask", object()))?,
            None => nothing()?,
        };
        mount.attach(place).map_err(Error::at("mask", object()))?;
        empty.get_or_insert(mount);
        return Ok(());
    }
    let null = resolve::open_in(root, Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW)
        .map_err(Error::at("mask", format_args!("{path:?} by \"/dev/null\" of the container")))?;
    // A `/dev` that somebody supplies may have anything there (CVE-2025-31133).
    if !stdio::is_null_device(&rustix::fs::fstat(&null).map_err(Error::at("mask", object()))?) {
        return Err(Error::system("mask", object(), "\"/dev/null\" of the container is not the null device"));
    }
    let cover = || Detached::copy_of(null, false)?.attach(&place);
    cover().map_err(Error::at("mask", object()))
}
