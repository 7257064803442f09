//! Restricts what a container may reach, by name, address and port: an nf_tables table at the
//! container's link, and a resolver process for the container.
//!
//! [`list`] parses the entries, `table` has the rules and the reasons for them, `resolver` is the
//! process, and [`journal`] records what was asked and rejected.

mod encode;
pub mod journal;
pub mod list;
mod operation;
mod resolver;
mod rules;
mod table;

pub use names::ADDRESS as RESOLVER;
pub use operation::{EgressOperation, Link, journal_of, table_of};
