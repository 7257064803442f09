//! What a container may reach, by name, by address and by port: a table of nf_tables at the container's own link, and a process
//! that answers its questions for names.
//!
//! [`list`] has the words, `table` the rules and their reasons, `resolver` the process, [`journal`] what is written down.

mod encode;
pub mod journal;
pub mod list;
mod operation;
mod resolver;
mod rules;
mod table;

pub use names::ADDRESS as RESOLVER;
pub use operation::{EgressOperation, Link, journal_of, table_of};
