//! Links, addresses, routes and the network's sysctls: a blocking face over rtnetlink.
//!
//! Whatever a tool changes is a [`LinkOperation`] or a [`Sysctl`]; a [`Connection`] looks. The asynchronous runtime stays
//! in here: one of the current thread, made with the first connection.

mod apply;
mod connection;
mod error;
mod explain;
mod mac;
mod operation;
mod removal;
mod sysctl;

pub use connection::{Address, Connection, Link};
pub use error::Error;
pub use mac::{InvalidMac, Mac, veth_name};
pub use operation::{LinkOperation, Peer};
pub use sysctl::{Sysctl, Variable};
