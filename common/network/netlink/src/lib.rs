//! The kernel by netlink: sockets, frames and errors once for all families; links, addresses and routes; what nf_tables and
//! connection tracking speak; and the network's sysctls.
//!
//! Whatever a tool changes is a [`LinkOperation`] or a [`Sysctl`]; a [`Connection`] looks. rtnetlink writes and reads the
//! messages about links, addresses and routes. They travel by a [`Socket`] that waits, as all others do: a tool has one question
//! at a time, and an asynchronous connection would drop an answer that it cannot read, and take a request that could not be sent
//! for one that was done.

mod apply;
pub mod attribute;
mod connection;
mod error;
mod explain;
mod frame;
mod mac;
mod mark;
pub mod namespace;
pub mod netfilter;
mod operation;
mod removal;
mod socket;
pub mod sysctl;

pub use connection::{Address, Connection, Link};
pub use error::{Error, errno_of};
pub use frame::Request;
pub use mac::{InvalidMac, Mac, veth_name};
pub use mark::{Mark, PROTOCOL};
pub use operation::{LinkOperation, Peer};
pub use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
pub use socket::{Family, Refusal, Refused, Socket};
pub use sysctl::{Sysctl, Variable};
