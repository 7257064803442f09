//! Restricts what a container may reach, by name, address and port: an nf_tables table at the
//! container's link, and a resolver process for the container.
//!
//! [`list`] parses the entries, `table` has the rules and the reasons for them, `resolver` is the
//! process, and [`journal`] records what was asked and rejected. With `--sni`, `redirect` leads the
//! container's connections to `relay`, a part of the process, which compares the name in the TLS hello.

mod connection;
mod encode;
mod given;
mod guarded;
mod hello;
pub mod journal;
pub mod list;
mod operation;
mod redirect;
mod relay;
mod resolver;
mod rules;
mod second;
mod table;

pub use names::ADDRESS as RESOLVER;
pub use operation::{EgressOperation, Link, TLS, compared, journal_of, listeners, table_of};
