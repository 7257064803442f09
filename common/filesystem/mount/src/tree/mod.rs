//! Whole directory trees.

mod copy;
mod discard;
mod remove;

pub use copy::{copy, copy_attributes};
pub use discard::discard;
pub use remove::remove;
