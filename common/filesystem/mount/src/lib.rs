//! Mounts with the kernel's mount API (`fsopen`, `fsmount`, `open_tree`, `move_mount`, `mount_setattr`), and the
//! directories that they need.
//!
//! Everything is reached by descriptors. A target is opened once, without following links in a hostile tree, and
//! mounted on as it was opened. [`MountOperation`] holds the operations of the tools as plain values.

pub mod cgroup;
mod detached;
mod disk;
mod error;
mod files_of;
mod image;
pub mod level;
mod loops;
mod merged;
mod operation;
pub mod options;
mod overlay;
pub mod remains;
pub mod resolve;
mod sys;
pub mod table;
pub mod tree;
pub mod users;
mod volatile;
mod volume;

pub use detached::{Detached, FileSystem, propagate, reconfigure, unmount};
pub use disk::Disk;
pub use error::{Error, Result, strerror};
pub use files_of::{act_for, files_of};
pub use image::image;
pub use level::Level;
pub use merged::substituted;
pub use operation::{MountOperation, SHOWN};
pub use options::Options;
pub use overlay::{Newest, Overlay};
pub use volume::{InvalidVolume, Volume, VolumeOptions, plain};

/// Runs a test that mounts on a thread with its own mount namespace, so that a test that is killed leaves no mount.
#[cfg(test)]
fn apart(test: impl FnOnce() + Send) {
    testkit::apart(nix::sched::CloneFlags::CLONE_NEWNS, test);
}
