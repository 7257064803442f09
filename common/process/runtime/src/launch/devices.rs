//! `/dev`: the nodes that every container has (OCI runtime-spec, config-linux.md, "Default Devices"), and its terminal.
//!
//! The container's cgroup denies devices that the container makes itself (CAP_MKNOD is in Docker's default
//! set). For a container without its own cgroup, mounts do this too. No file system of the container opens
//! devices (`nodev`). Each standard node is a mount of its own, which does open its device. Without
//! CAP_SYS_ADMIN, nothing in the container can change that.
//!
//! Device nodes cannot be made in a user namespace. The host's own nodes are mounted there.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use mount::{
    Detached, Options,
    resolve::{self, Leaf},
};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Process, Spec};
use operation::Cause;
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev, mknodat, symlinkat},
    io::Errno,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
};

use super::{channel::Channel, kernel, namespaces::in_user_namespace};
use crate::{
    Error,
    error::Result,
    spec::{CONFINES_DEVICES, is_annotated},
};

const DEV: &str = "/dev";

/// Name, major and minor number (kernel, Documentation/admin-guide/devices.txt).
const NODES: [(&str, u32, u32); 6] =
    [("full", 1, 7), ("null", 1, 3), ("random", 1, 8), ("tty", 5, 0), ("urandom", 1, 9), ("zero", 1, 5)];

const LINKS: [(&str, &str); 6] = [
    ("core", "/proc/kcore"),
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// A change in `/dev`, for an explanation.
pub(crate) enum DevEntry {
    Node { path: PathBuf, kind: &'static str, major: i64, minor: i64, mode: u32 },
    OfHost { path: PathBuf },
    Link { path: PathBuf, target: String },
    Bind { path: PathBuf },
    Closed,
}

/// The changes that [`populate`] and [`confine`] make.
pub(crate) fn entries(spec: &Spec) -> Vec<DevEntry> {
    if own_dev(spec).is_none() {
        return Vec::new();
    }
    let dev = Path::new(DEV);
    let nodes =
        standard(spec).map(|(name, major, minor)| (dev.join(name), "c", major.into(), minor.into(), 0o666));
    let own = own(spec).map(|device| {
        let kind = match device.typ() {
            LinuxDeviceType::B => "b",
            LinuxDeviceType::P => "p",
            _ => "c",
        };
        (device.path().clone(), kind, device.major(), device.minor(), mode(device))
    });
    let confined = is_confined(spec);
    let of_host = in_user_namespace().unwrap_or_default();
    let mut entries = Vec::new();
    for (path, kind, major, minor, mode) in nodes.chain(own) {
        if of_host {
            entries.push(DevEntry::OfHost { path });
            continue;
        }
        entries.push(DevEntry::Node { path: path.clone(), kind, major, minor, mode });
        entries.extend(confined.then_some(DevEntry::Bind { path }));
    }
    entries.extend(
        LINKS.iter().map(|&(name, target)| DevEntry::Link { path: dev.join(name), target: target.into() }),
    );
    entries.extend(confined.then_some(DevEntry::Closed));
    entries
}

/// The devices of the specification.
fn own(spec: &Spec) -> impl Iterator<Item = &LinuxDevice> {
    spec.linux().as_ref().and_then(|linux| linux.devices().as_ref()).into_iter().flatten()
}

/// The devices that every container has, except where the specification has another one, or a mount.
fn standard(spec: &Spec) -> impl Iterator<Item = (&'static str, u32, u32)> {
    let is_free = |name: &str| {
        let path = Path::new(DEV).join(name);
        let is_mounted = spec.mounts().iter().flatten().any(|mount| *mount.destination() == path);
        !is_mounted && !own(spec).any(|device| *device.path() == path)
    };
    NODES.into_iter().filter(move |(name, ..)| is_free(name))
}

fn mode(device: &LinuxDevice) -> u32 {
    device.file_mode().unwrap_or(0o666) & 0o7777
}

/// The options of the tmpfs on `/dev`. None if `/dev` is something else, which stays as it is.
fn own_dev(spec: &Spec) -> Option<Options> {
    let mut mounts = spec.mounts().iter().flatten();
    let dev = mounts.rfind(|mount| mount.destination() == Path::new(DEV))?;
    (dev.typ().as_deref() == Some("tmpfs")).then(|| Options::parse(dev.options().iter().flatten()))
}

/// Whether `/dev` is a directory of the host.
fn has_host_dev(spec: &Spec) -> bool {
    let mut mounts = spec.mounts().iter().flatten();
    mounts.any(|mount| mount.destination() == Path::new(DEV) && super::root::is_bind(mount))
}

/// Whether the container can use only the devices that it is given.
pub(super) fn is_confined(spec: &Spec) -> bool {
    use rustix::mount::MountAttrFlags;
    // Records of 0.1.0 have a mount option instead.
    let by_option = |options: Options| options.attributes.contains(MountAttrFlags::MOUNT_ATTR_NODEV);
    own_dev(spec).is_some_and(|options| is_annotated(spec, CONFINES_DEVICES) || by_option(options))
}

/// Whether the container's root file system opens devices; none if this stays as it is.
pub(super) fn of_root(spec: &Spec) -> Result<Option<bool>> {
    if is_confined(spec) {
        return Ok(Some(false));
    }
    // The container has all devices, or a device list of its own for the nodes that it makes.
    let opens = own_dev(spec).is_some() && !in_user_namespace()?;
    Ok(opens.then_some(true))
}

/// Makes nodes and links in the container's own `/dev`. With `always`, also in the `/dev` of its root file
/// system.
pub(super) fn populate(root: BorrowedFd<'_>, spec: &Spec, always: bool) -> Result<()> {
    if own_dev(spec).is_none() && (!always || has_host_dev(spec)) {
        return Ok(());
    }
    // If the image has a link there, the nodes would be made in another directory, perhaps one of the host's.
    let dev = kernel::fixed_place(root, Path::new(DEV)).map_err(Error::at("open", "\"/dev\""))?;
    let (confined, of_host) = (is_confined(spec), in_user_namespace()?);
    for (name, major, minor) in standard(spec) {
        let make = || {
            if of_host {
                return mount_of_host(root, &Path::new(DEV).join(name));
            }
            let (mode, number) = (Mode::from_raw_mode(0o666), makedev(major, minor));
            match mknodat(&dev, name, FileType::CharacterDevice, mode, number) {
                // The root file system has the node already.
                Err(Errno::EXIST) if is_one(&dev, name, FileType::CharacterDevice, number)? => {}
                made => made?,
            }
            if confined { Ok(mount_on_itself(dev.as_fd(), name, false)?) } else { Ok(()) }
        };
        make().map_err(Error::at::<Cause>("create", format_args!("device \"/dev/{name}\"")))?;
    }
    for (name, target) in LINKS {
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::system("create", format_args!("link \"/dev/{name}\""), errno)),
        }
    }
    // `/dev/ptmx` is always the container's own, whatever is asked for, as in runc.
    for device in own(spec).filter(|device| !(always && device.path() == Path::new("/dev/ptmx"))) {
        let made = match of_host {
            true => mount_of_host(root, device.path()),
            false => add(root, (spec, device), (confined, always)),
        };
        made.map_err(Error::at("create", format_args!("device {:?}", device.path())))?;
    }
    Ok(())
}

/// Mounts a node of the host. The root file system is not the process's own yet: `path` is the host's, and
/// the container's path is below `root`.
fn mount_of_host(root: BorrowedFd<'_>, path: &Path) -> std::result::Result<(), Cause> {
    let node = Detached::copy_of(resolve::place(path)?, false)?;
    // The mount must be a device and nothing else.
    node.change(&Options::parse(["nosuid", "noexec"]), false)?;
    let place = resolve::create_in(root, path, Leaf::File)?;
    kernel::allow("bind", None, path, &kernel::path_in(root, place.as_fd())?)?;
    Ok(node.attach(place)?)
}

/// Mounts a node on itself, so that it opens its device. With `opens`, its file system may be one that opens
/// no devices.
fn mount_on_itself(directory: BorrowedFd<'_>, name: &str, opens: bool) -> std::result::Result<(), Errno> {
    let node = rustix::fs::openat(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let copy = Detached::copy_of(&node, false)?;
    if opens {
        copy.change(&Options::parse(["dev"]), false)?;
    }
    copy.attach(&node)
}

/// Makes a device of the specification. Unless `anywhere`, not in a directory of the host that is mounted in the
/// container: it would stay there, and other programs of the host could open it.
fn add(
    root: BorrowedFd<'_>,
    (spec, device): (&Spec, &LinuxDevice),
    (confined, anywhere): (bool, bool),
) -> std::result::Result<(), Cause> {
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let (Some(directory), Some(name)) =
        (device.path().parent(), device.path().file_name().and_then(|n| n.to_str()))
    else {
        return Err(Errno::INVAL.into());
    };
    let directory = resolve::create_in(root, directory, Leaf::Directory)?;
    let number = |number: i64| u32::try_from(number).map_err(|_| Errno::INVAL);
    let number = makedev(number(device.major())?, number(device.minor())?);
    let is_there = matches!(is_one(&directory, name, kind, number), Ok(true));
    if !(anywhere || is_there) && is_of_host(root, directory.as_fd(), spec)? {
        return Err("its directory is one of the host, where it would stay".into());
    }
    match mknodat(&directory, name, kind, Mode::from_raw_mode(mode(device)), number) {
        // Outside of `/dev`, it is left from an earlier start.
        Err(Errno::EXIST) if is_there => {}
        made => {
            made?;
            let owner = (device.uid().map(Uid::from_raw), device.gid().map(Gid::from_raw));
            rustix::fs::chownat(&directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    if confined { Ok(mount_on_itself(directory.as_fd(), name, true)?) } else { Ok(()) }
}

/// Whether a directory of the container is in a file system that is mounted from the host: neither in the root file
/// system nor in a file system of the container's own.
fn is_of_host(
    root: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    spec: &Spec,
) -> std::result::Result<bool, Errno> {
    let device = rustix::fs::fstat(directory)?.st_dev;
    if device == rustix::fs::fstat(root)?.st_dev {
        return Ok(false);
    }
    let own = spec.mounts().iter().flatten().filter(|mount| !super::root::is_bind(mount));
    for mount in own {
        match resolve::open_in(root, mount.destination(), OFlags::PATH | OFlags::DIRECTORY) {
            Ok(found) if rustix::fs::fstat(&found)?.st_dev == device => return Ok(false),
            _ => {}
        }
    }
    Ok(true)
}

/// Whether this device exists already.
fn is_one(directory: &OwnedFd, name: &str, kind: FileType, number: u64) -> std::result::Result<bool, Errno> {
    let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == kind && found.st_rdev == number)
}

/// From now on, only devices that are mounted in `/dev` can be opened.
pub(super) fn confine(root: BorrowedFd<'_>, spec: &Spec) -> Result<()> {
    if !is_confined(spec) {
        return Ok(());
    }
    let close = || {
        let dev = resolve::open_in(root, Path::new(DEV), OFlags::PATH | OFlags::DIRECTORY)?;
        Detached::from(dev).change(&Options::parse(["nodev"]), false)
    };
    close().map_err(Error::at::<Errno>("mount", "\"/dev\" without devices"))
}

/// Makes the container's own `/dev` read-only, if the specification says so. By then everything in it is made.
pub(super) fn seal(root: BorrowedFd<'_>, spec: &Spec) -> Result<()> {
    if !own_dev(spec).is_some_and(|options| options.is_readonly()) {
        return Ok(());
    }
    let seal = || {
        let dev = resolve::open_in(root, Path::new(DEV), OFlags::PATH | OFlags::DIRECTORY)?;
        Detached::from(dev).change(&Options::parse(["ro"]), false)
    };
    seal().map_err(Error::at::<Errno>("make", "\"/dev\" read-only"))
}

/// Allocates a pseudo-terminal in the container's devpts, and sends the outer side to the parent.
pub(super) fn open_terminal(root: BorrowedFd<'_>, process: &Process, channel: &Channel) -> Result<OwnedFd> {
    let open = || {
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let outer = resolve::open_in(root, Path::new("/dev/pts/ptmx"), flags)?;
        unlockpt(&outer)?;
        let inner = ioctl_tiocgptpeer(&outer, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        if let Some(size) = process.console_size() {
            let side = |length: u64| u16::try_from(length).unwrap_or(u16::MAX);
            crate::terminal::resize(&outer, side(size.width()), side(size.height()));
        }
        channel.hand_over(outer.as_fd())?;
        Ok(inner)
    };
    open().map_err(Error::at::<Errno>("open", "a terminal at \"/dev/pts/ptmx\""))
}

/// Mounts the terminal on `/dev/console`. It mounts the terminal itself, wherever a path leads, on a file of
/// that directory (CVE-2025-52565).
pub(super) fn mount_console(root: BorrowedFd<'_>, terminal: BorrowedFd<'_>) -> Result<()> {
    let mount = || {
        let dev = resolve::open_in(root, Path::new(DEV), OFlags::PATH | OFlags::DIRECTORY)?;
        let (flags, name) = (OFlags::NOFOLLOW | OFlags::CLOEXEC, "console");
        match rustix::fs::openat(
            &dev,
            name,
            flags | OFlags::CREATE | OFlags::EXCL,
            Mode::from_raw_mode(0o600),
        ) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let console = rustix::fs::openat(&dev, name, flags | OFlags::PATH, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&console)?.st_mode) {
            FileType::RegularFile | FileType::CharacterDevice => {}
            _ => return Err(Errno::NXIO),
        }
        Detached::copy_of(terminal, false)?.attach(console)
    };
    mount().map_err(Error::at::<Errno>("mount", "\"/dev/console\""))
}
