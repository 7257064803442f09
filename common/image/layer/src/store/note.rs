//! The note about an unpacked layer, in a file next to it.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    time::SystemTime,
};

use oci::Digest;
use rustix::{
    fs::{Mode, OFlags, openat, renameat},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use userns::Namespace;

use crate::apply::Dependency;

/// The note about an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// The layer's DiffID.
    #[serde(rename = "diffID")]
    pub diff_id: String,
    /// The boot in which the layer was unpacked, from `/proc/sys/kernel/random/boot_id`.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// Whether the layer has been synced to the disk since then.
    pub synced: bool,
    /// The size of the layer's archive in bytes; 0 if it was not unpacked from one.
    #[serde(default)]
    pub size: u64,
    /// The user namespace that the layer was unpacked in and for; None for the machine's first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Whether something differs from the layer because the user namespace cannot represent it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approximated: bool,
    /// What was taken from the lower layers.
    #[serde(default)]
    pub dependencies: Vec<Dependency>,
}

/// The maximum size of a note, in bytes.
const LONGEST: u64 = 256 << 20;

/// Whether the error means that the disk has lost data. After any other error, a later read may succeed.
fn is_lost(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::IO | Errno::UCLEAN | Errno::BADMSG))
}

impl Note {
    pub(super) fn new(diff_id: &Digest, boot: &str) -> Self {
        Self {
            diff_id: diff_id.to_string(),
            boot_id: boot.into(),
            synced: false,
            size: 0,
            namespace: None,
            approximated: false,
            dependencies: Vec::new(),
        }
    }

    /// A suffix that tells variants of a layer apart: on other lower layers, or in other user namespaces.
    pub(super) fn variant(&self) -> String {
        let facts = match &self.namespace {
            None => serde_json::to_vec(&self.dependencies),
            Some(namespace) => serde_json::to_vec(&(namespace, self.approximated, &self.dependencies)),
        };
        let facts = facts.unwrap_or_default();
        Digest::of(&facts).hex()[..16].to_owned()
    }

    /// Reads the note of the layer `name`, and the time when it was written. None if the note is not valid: a
    /// power cut may have left anything.
    pub(super) fn read(store: &OwnedFd, name: &str) -> io::Result<Option<(Self, SystemTime)>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(store, format!("{name}.json"), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let mut text = Vec::new();
        match file.take(LONGEST).read_to_end(&mut text) {
            // A note that the disk has lost is treated like an empty file.
            Err(error) if is_lost(&error) => return Ok(None),
            read => read?,
        };
        let written = metadata.modified()?;
        Ok(serde_json::from_slice(&text).ok().map(|note| (note, written)))
    }

    /// Writes the note of the layer `name`, by rename. The caller holds the layer's lock.
    pub(super) fn write(&self, store: &OwnedFd, name: &str) -> io::Result<()> {
        let (place, beside) = (format!("{name}.json"), format!(".{name}.json"));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(store, &beside, flags, Mode::from_raw_mode(0o644))?;
        let text = serde_json::to_vec(self)?;
        if text.len() as u64 > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        io::Write::write_all(&mut File::from(file), &text)?;
        renameat(store.as_fd(), &beside, store.as_fd(), &place)?;
        Ok(())
    }
}
