//! Address translation with the nf_tables table `inet stave`, over netlink (the crate `netlink` has
//! the sockets and frames).
//!
//! The table has a fixed number of rules. Only the elements of its maps and sets grow with the
//! number of containers, and the kernel finds elements by hash. So the two hundredth published port
//! costs as much as the first, both to add and for each packet.
//!
//! [`ruleset`] has the types of tables, chains, sets and rules, and their nft syntax. `table` has
//! the rules themselves.

mod adopt;
mod conntrack;
pub mod encode;
mod mapping;
mod mode;
mod operation;
mod reconcile;
mod restore;
pub mod ruleset;
mod table;
mod user;

pub use mapping::{InvalidProtocol, Mapping, OpenPort, Protocol, Published, published, runs, taken};
pub use mode::{Mode, mode};
pub use netlink::{Error, netfilter::close};
pub use operation::NatOperation;
pub use restore::{conditions, mend, restore};
pub use table::TABLE;
pub use user::{Used, User, address_holder};
