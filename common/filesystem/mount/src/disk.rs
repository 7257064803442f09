//! A file system of its own for the top of an overlay: what is written there has only so much room.
//!
//! It is ext4 in a sparse file. Project quotas would need no file, but a kernel and a file system that have them: Debian's root
//! has not, and so most people could not use them.

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

/// The file system's name.
const KIND: &str = "ext4";

/// A file with a file system, and the directory where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// The file.
    pub image: PathBuf,
    /// The mount point.
    pub target: PathBuf,
    /// How many bytes can be written to it.
    pub size: u64,
    /// Whether it survives a power cut.
    pub durable: bool,
    /// Permissions, user and group of the directory `upper` in it.
    pub mode: u32,
    /// See `mode`.
    pub owner: (u32, u32),
}

impl Disk {
    /// The largest size.
    pub const LARGEST: u64 = ext4::LARGEST;

    /// The directories for an overlay.
    pub fn upper(&self) -> PathBuf {
        self.target.join("upper")
    }

    /// See [`Disk::upper`].
    pub fn work(&self) -> PathBuf {
        self.target.join("work")
    }

    /// Makes the file, with an empty file system.
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
            // The error that counts is the first.
            let _ = rustix::fs::unlink(path);
            on("write file system", path)(error)
        })
    }

    /// Mounts it, with its two directories.
    pub(crate) fn mount(&self) -> Result<()> {
        let place = resolve::place(&self.target).map_err(on("open", &self.target))?;
        let file = open(&self.image, OFlags::RDWR | OFlags::NOFOLLOW)?;
        let mount = by_loop(&self.image, &file, false, |device| self.mount_device(device))
            .map_err(|error| error.with_hint("a size needs loop devices, and ext4 in the kernel"))?;
        let make = |name: &str, mode, owner| match directory::make(&mount, name, mode, Some(owner)) {
            // Made before a restart of the machine: it stays as it is.
            Err(Errno::EXIST) => Ok(()),
            made => made,
        };
        make("upper", self.mode, self.owner)
            .and_then(|()| make("work", 0o700, (0, 0)))
            .map_err(on("create directories in", &self.image))?;
        mount.attach(place).map_err(mounting("mount on", &self.target))
    }

    fn mount_device(&self, device: &Path) -> Result<Detached> {
        let file_system = FileSystem::open(KIND)?;
        file_system.set("source", device)?;
        file_system.set_data(self.options().iter().copied())?;
        file_system.mount(MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID)
    }

    /// What is deleted becomes a hole in the file. What a crash may lose anyway is not flushed.
    fn options(&self) -> &'static [&'static str] {
        if self.durable { &["discard"] } else { &["discard", "nobarrier"] }
    }

    pub(crate) fn undo(&self, target: &Path) -> Result<()> {
        mounted::undo(target, |entry| entry.kind == KIND)
    }

    pub(crate) fn check(&self) -> std::result::Result<Condition, Error> {
        mounted::check(&self.target, |entry| entry.kind == KIND)
    }

    /// As commands. The file's size, which has room for the file system itself too, is up to the first.
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
