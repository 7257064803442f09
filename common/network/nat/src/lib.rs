//! Address translation: the table `ip stave` of nf_tables, spoken to by netlink alone.
//!
//! The table has a constant number of rules. What grows with the containers are the elements of its maps and sets, which
//! the kernel finds by hash: the two hundredth published port costs what the first did, to add and for each packet.
//!
//! [`ruleset`] has the values (tables, chains, sets, rules) and how nft writes them, `table` the rules themselves.

mod attribute;
mod conntrack;
mod encode;
mod mapping;
mod operation;
mod reconcile;
pub mod ruleset;
mod socket;
mod table;

use nix::errno::Errno;

pub use mapping::{InvalidProtocol, Mapping, Protocol, taken};
pub use operation::NatOperation;
pub use socket::close;
pub use table::TABLE;

/// What nf_tables would not do, with which object.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {object}: {}", .source.desc())]
pub struct Error {
    pub(crate) verb: &'static str,
    pub(crate) object: String,
    pub(crate) source: Errno,
}

impl Error {
    pub(crate) fn new(verb: &'static str, object: impl Into<String>, source: Errno) -> Self {
        Self { verb, object: object.into(), source }
    }

    /// The system's error behind it.
    pub fn errno(&self) -> Errno {
        self.source
    }
}
