//! For tests only: a machine of one's own to run the tools on, and pictures of it to compare.
//!
//! A [`Sandbox`] is a "host" (its own network, mount and pid namespace, its own `/run` and `STAVE_ROOT`) joined by a
//! cable to an "outside world". What runs in it never touches the machine's own network, and ends with it.
//! A [`Snapshot`] is everything that a tool could leave behind there.
//!
//! Tests need root, and panic without it: a test that cannot run never passes by doing nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A broken fixture is a failed test; there is nobody to tell else.

mod fixture;
mod sandbox;
mod snapshot;
mod wait;

pub use fixture::{Tree, busybox, directory, file, rootfs, symlink};
pub use sandbox::{HOST, OUTSIDE, Outcome, Sandbox, binaries, repository, require_root};
pub use snapshot::Snapshot;
pub use wait::wait_for;
