//! `/dev`: the nodes that every container has (OCI runtime-spec, config-linux.md, "Default Devices"), and its terminal.
//!
//! The container's cgroup keeps it from devices that it makes itself (CAP_MKNOD is in Docker's default set). Mounts do so
//! too, for a container without a cgroup of its own: no file system of the container opens devices (`nodev`), and each of its
//! standard nodes is a mount of its own, which does. Without CAP_SYS_ADMIN nothing in it can change that.
//!
//! Device nodes cannot be made in a user namespace: there the host's own nodes are mounted.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use mount::{
    Detached, Options,
    resolve::{self, Leaf},
};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Process, Spec};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev, mknodat, symlinkat},
    io::Errno,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
};

use super::{channel::Channel, namespaces::in_user_namespace};
use crate::{Error, error::Result};

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

/// The changes in `/dev`, for an explanation.
pub(crate) enum DevEntry {
    Node { path: PathBuf, kind: &'static str, major: i64, minor: i64, mode: u32 },
    OfHost { path: PathBuf },
    Link { path: PathBuf, target: String },
    Bind { path: PathBuf },
    Closed,
}

/// The same changes as those of [`populate`] and [`confine`].
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

/// Those that every container has, unless the specification has another one there.
fn standard(spec: &Spec) -> impl Iterator<Item = (&'static str, u32, u32)> {
    let is_free = |name: &str| !own(spec).any(|device| *device.path() == Path::new(DEV).join(name));
    NODES.into_iter().filter(move |(name, ..)| is_free(name))
}

fn mode(device: &LinuxDevice) -> u32 {
    device.file_mode().unwrap_or(0o666) & 0o7777
}

/// The options of the tmpfs on `/dev`; none if `/dev` is something else, which stays as it is.
fn own_dev(spec: &Spec) -> Option<Options> {
    let mut mounts = spec.mounts().iter().flatten();
    let dev = mounts.rfind(|mount| mount.destination() == Path::new(DEV))?;
    (dev.typ().as_deref() == Some("tmpfs")).then(|| Options::parse(dev.options().iter().flatten()))
}

/// Whether the container can use only the devices that it is given.
pub(super) fn is_confined(spec: &Spec) -> bool {
    own_dev(spec)
        .is_some_and(|options| options.attributes.contains(rustix::mount::MountAttrFlags::MOUNT_ATTR_NODEV))
}

/// Whether the root file system of the container opens devices; none if it stays as it is.
pub(super) fn of_root(spec: &Spec) -> Result<Option<bool>> {
    if is_confined(spec) {
        return Ok(Some(false));
    }
    // With all devices, or a list of its own for nodes that it makes.
    let opens = own_dev(spec).is_some() && !in_user_namespace()?;
    Ok(opens.then_some(true))
}

/// Makes nodes and links in the container's own `/dev`.
pub(super) fn populate(root: BorrowedFd<'_>, spec: &Spec) -> Result<()> {
    if own_dev(spec).is_none() {
        return Ok(());
    }
    let dev = resolve::open_in(root, Path::new(DEV), OFlags::PATH | OFlags::DIRECTORY)
        .map_err(Error::at("open", "\"/dev\""))?;
    let (confined, of_host) = (is_confined(spec), in_user_namespace()?);
    for (name, major, minor) in standard(spec) {
        let make = || {
            if of_host {
                return mount_of_host(root, &Path::new(DEV).join(name));
            }
            let mode = Mode::from_raw_mode(0o666);
            mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))?;
            if confined { mount_on_itself(dev.as_fd(), name, false) } else { Ok(()) }
        };
        make().map_err(Error::at::<Errno>("create", format_args!("device \"/dev/{name}\"")))?;
    }
    for (name, target) in LINKS {
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::system("create", format_args!("link \"/dev/{name}\""), errno)),
        }
    }
    for device in own(spec) {
        let made = match of_host {
            true => mount_of_host(root, device.path()),
            false => add(root, device, confined),
        };
        made.map_err(Error::at("create", format_args!("device {:?}", device.path())))?;
    }
    Ok(())
}

/// The root file system is not yet the process's own: the path is the host's, and the container's is below `root`.
fn mount_of_host(root: BorrowedFd<'_>, path: &Path) -> std::result::Result<(), Errno> {
    let node = resolve::place(path)?;
    Detached::copy_of(node, false)?.attach(resolve::create_in(root, path, Leaf::File)?)
}

/// `opens`: its file system may be one that opens no devices.
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

/// A device of the specification.
fn add(root: BorrowedFd<'_>, device: &LinuxDevice, confined: bool) -> std::result::Result<(), Errno> {
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let (Some(directory), Some(name)) =
        (device.path().parent(), device.path().file_name().and_then(|n| n.to_str()))
    else {
        return Err(Errno::INVAL);
    };
    let directory = resolve::create_in(root, directory, Leaf::Directory)?;
    let number = |number: i64| u32::try_from(number).map_err(|_| Errno::INVAL);
    let number = makedev(number(device.major())?, number(device.minor())?);
    match mknodat(&directory, name, kind, Mode::from_raw_mode(mode(device)), number) {
        // Outside of `/dev` it is left of an earlier start.
        Err(Errno::EXIST) if is_one(&directory, name, kind, number)? => {}
        made => {
            made?;
            let owner = (device.uid().map(Uid::from_raw), device.gid().map(Gid::from_raw));
            rustix::fs::chownat(&directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    if confined { mount_on_itself(directory.as_fd(), name, true) } else { Ok(()) }
}

/// Whether there is this device already.
fn is_one(directory: &OwnedFd, name: &str, kind: FileType, number: u64) -> std::result::Result<bool, Errno> {
    let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == kind && found.st_rdev == number)
}

/// From now on only devices that are mounted in `/dev` open.
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

/// Allocates a pseudo-terminal of the container's devpts. The outer side goes to the parent.
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

/// Mounts the terminal on `/dev/console`: the terminal itself, whatever a path leads to, on a file of that directory
/// (CVE-2025-52565).
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
