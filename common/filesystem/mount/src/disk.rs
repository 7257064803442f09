//! A file system with a limited size for the upper directory of an overlay.
//!
//! It is an ext4 file system in a sparse file. Project quotas would need no file, but few kernels and file
//! systems support them: Debian's root file system does not.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use ext4::Shape;
use operation::{Condition, words};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::MountAttrFlags,
};
use serde::{Deserialize, Serialize};

use crate::{
    Detached, Error, FileSystem, Result,
    error::{mounting, on},
    loops::{by_loop, open},
    operation::{directory, mounted},
    resolve,
};

/// The type of the file system.
const KIND: &str = "ext4";

/// A file that contains a file system, and its mount point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// The path of the file.
    pub image: PathBuf,
    /// The mount point.
    pub target: PathBuf,
    /// The usable size in bytes.
    pub size: u64,
    /// Whether the content survives a power cut.
    pub durable: bool,
    /// The mode of the directory `upper`.
    pub mode: u32,
    /// User and group of the directory `upper`.
    pub owner: (u32, u32),
}

impl Disk {
    /// The name of the directory that it is mounted on, in the container's directory.
    pub const TARGET: &str = "top";

    /// The largest size in bytes.
    pub const LARGEST: u64 = ext4::LARGEST;

    /// The upper directory for an overlay.
    pub fn upper(&self) -> PathBuf {
        self.target.join("upper")
    }

    /// The work directory for an overlay.
    pub fn work(&self) -> PathBuf {
        self.target.join("work")
    }

    /// Creates the file with an empty file system.
    pub(crate) fn create(&self) -> Result<()> {
        let path = &self.image;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(CWD, path, flags, Mode::from_raw_mode(0o600)).map_err(on("create file", path))?;
        let make = || {
            let mut uuid = [0; 16];
            File::open("/dev/urandom")?.read_exact(&mut uuid)?;
            ext4::make(&File::from(file), &Shape { room: self.size, journal: self.durable, uuid })
        };
        make().map_err(|error: std::io::Error| {
            // The first error is reported.
            let _ = rustix::fs::unlink(path);
            on("write file system", path)(error)
        })
    }

    /// Mounts the file system, and makes its two directories.
    pub(crate) fn mount(&self) -> Result<()> {
        let place = resolve::place(&self.target).map_err(on("open", &self.target))?;
        let file = open(&self.image, OFlags::RDWR | OFlags::NOFOLLOW)?;
        let mount = by_loop(&self.image, &file, false, |device| self.mount_device(device))
            .map_err(|error| error.with_hint("a size needs loop devices, and ext4 in the kernel"))?;
        let make = |name: &str, mode, owner| match directory::make(&mount, name, mode, Some(owner)) {
            // Made before the machine was restarted: keep it.
            Err(Errno::EXIST) => Ok(()),
            made => made,
        };
        make("upper", self.mode, self.owner)
            .and_then(|()| make("work", 0o700, (0, 0)))
            .map_err(on("create directories in", &self.image))?;
        mount.attach(place).map_err(mounting("mount on", &self.target))
    }

    /// Mounts the file system unless it is mounted.
    pub(crate) fn share(&self) -> Result<()> {
        match self.check()? {
            Condition::Missing(_) => self.mount(),
            _ => Ok(()),
        }
    }

    pub(crate) fn explain_share(&self) -> String {
        let target = operation::words(["mountpoint", "-q", &self.target.to_string_lossy()]);
        format!("{target} || {}", self.explain_mount().swap_remove(0))
    }

    fn mount_device(&self, device: &Path) -> Result<Detached> {
        let file_system = FileSystem::open(KIND)?;
        file_system.set("source", device)?;
        file_system.set_data(self.options().iter().copied())?;
        file_system.mount(MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID)
    }

    /// Deleted data becomes a hole in the file. Without `durable`, a crash may lose data anyway, so barriers
    /// are off.
    fn options(&self) -> &'static [&'static str] {
        if self.durable { &["discard"] } else { &["discard", "nobarrier"] }
    }

    pub(crate) fn undo(&self, target: &Path) -> Result<()> {
        mounted::undo(target, |entry| entry.kind == KIND)
    }

    pub(crate) fn check(&self) -> std::result::Result<Condition, Error> {
        mounted::check(&self.target, |entry| entry.kind == KIND)
    }

    /// The creation as a command. The size of the file includes the file system's own data.
    pub(crate) fn explain_create(&self) -> String {
        let features = if self.durable { "has_journal" } else { "^has_journal" };
        let image = self.image.to_string_lossy();
        let kibibytes = format!("{}k", self.size.div_ceil(1024));
        words(["mke2fs", "-t", KIND, "-m", "0", "-i", "4096", "-O", features, &image, &kibibytes])
    }

    pub(crate) fn explain_mount(&self) -> Vec<String> {
        let options = format!("loop,nodev,nosuid,{}", self.options().join(","));
        let [image, target] = [&self.image, &self.target].map(|path| path.to_string_lossy());
        let (mode, user, group) =
            (format!("{:04o}", self.mode), self.owner.0.to_string(), self.owner.1.to_string());
        let [upper, work] = [self.upper(), self.work()];
        vec![
            words(["mount", "-t", KIND, "-o", &options, &image, &target]),
            words(["install", "-d", "-m", &mode, "-o", &user, "-g", &group, &upper.to_string_lossy()]),
            words(["install", "-d", "-m", "0700", &work.to_string_lossy()]),
        ]
    }
}
