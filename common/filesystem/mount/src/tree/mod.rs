//! Whole directory trees.

mod copy;
mod remove;

pub use copy::copy;
pub use remove::remove;
