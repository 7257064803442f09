//! Whole directory trees.

mod copy;
mod discard;
mod remove;
mod size;

pub use copy::{copy, copy_attributes, fill};
pub use discard::discard;
pub use remove::remove;
pub use size::size;
