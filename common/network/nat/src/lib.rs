//! Address translation: the table `ip stave` of nf_tables, spoken to by netlink alone (the crate `netlink` has the sockets and
//! frames).
//!
//! The table has a constant number of rules. What grows with the containers are the elements of its maps and sets, which
//! the kernel finds by hash: the two hundredth published port costs what the first did, to add and for each packet.
//!
//! [`ruleset`] has the values (tables, chains, sets, rules) and how nft writes them, `table` the rules themselves.

mod conntrack;
mod encode;
mod mapping;
mod operation;
mod reconcile;
pub mod ruleset;
mod table;
mod user;

pub use mapping::{InvalidProtocol, Mapping, Protocol, taken};
pub use netlink::{Error, netfilter::close};
pub use operation::NatOperation;
pub use table::TABLE;
pub use user::{Used, User, address_holder};
