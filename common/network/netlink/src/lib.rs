//! The kernel's netlink interface: sockets, frames and errors for all families; links, addresses
//! and routes; nf_tables and connection tracking messages; and the network's sysctls.
//!
//! Tools change the network with a [`LinkOperation`] or a [`Sysctl`], and read it with a
//! [`Connection`]. The rtnetlink crates encode and decode the messages about links, addresses and
//! routes. All messages travel over a blocking [`Socket`], because a tool has one request at a
//! time. An asynchronous connection would drop an answer that it cannot read, and would report a
//! request that it could not send as done.

mod address;
mod announce;
mod apply;
pub mod arp;
pub mod attribute;
mod child;
mod connection;
mod error;
mod events;
mod explain;
pub mod expression;
mod frame;
mod guard;
mod link;
mod mac;
mod mark;
pub mod namespace;
pub mod ndp;
pub mod neighbour;
pub mod netfilter;
mod operation;
pub mod packets;
mod picture;
mod removal;
mod socket;
pub mod sysctl;
mod towards;
pub mod transaction;
mod wire;
pub mod wireguard;

pub use address::{Address, Route};
pub use child::{Child, IpvlanMode, MacvlanMode};
pub use connection::{Connection, WAY_OUT};
pub use error::{Error, errno_of};
pub use events::{Events, Heard};
pub use frame::Request;
pub use link::Link;
pub use mac::{InvalidMac, Mac, child_name, veth_name, vxlan_name};
pub use mark::{Mark, PROTOCOL};
pub use operation::{LinkOperation, Peer, Rejection};
pub use picture::Picture;
pub use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
pub use socket::{Family, Refusal, Refused, Socket};
pub use sysctl::{IPV6_CLAIMS, Sysctl, Variable, forwards, new_links_have_ipv6};
