//! Whole directory trees.

mod copy;
mod discard;
mod entry;
mod merge;
mod remove;
mod size;

pub use copy::{copy, copy_attributes, fill};
pub use discard::discard;
pub use merge::{Failed, Files, Merging};
pub use remove::remove;
pub use size::{allocated, size};
