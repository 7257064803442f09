//! For tests only: a private machine to run the tools on, and snapshots of it to compare.
//!
//! A [`Sandbox`] is a "host" (with its own network, mount and pid namespaces, its own `/run` and
//! `STAVE_ROOT`), connected by a veth pair to an "outside world". Programs in it never touch the machine's
//! own network, and end with the sandbox. A [`Snapshot`] contains everything that a tool could leave behind
//! there.
//!
//! Tests need root, and panic without it: a test that cannot run never passes by doing nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A broken fixture is a failed test.

mod fixture;
mod machine;
mod name_server;
mod peers;
mod sandbox;
mod snapshot;
mod thread;
mod traffic;
mod wait;

pub use fixture::{Tree, busybox, directory, file, rootfs, symlink};
pub use machine::Machine;
pub use name_server::{Answer, Has, NameServer};
pub use peers::PODMAN_RUN;
pub use sandbox::{HOST, OUTSIDE, Outcome, Sandbox, binaries, repository, require_root};
pub use snapshot::Snapshot;
pub use thread::{apart, sh};
pub use wait::wait_for;
