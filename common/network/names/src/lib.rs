//! A small resolver: it takes questions in containers' network namespaces, lets a policy decide about each, and passes those on
//! to name servers that the policy does not answer.
//!
//! Its sockets are in the containers' namespaces, on an address of their loopback interface, and its own questions leave from the
//! namespace of its process. So nothing of the host has to be open to a container for it, no address of the host has to be free,
//! and it never asks itself. It keeps no answers: what it knows is what the policy knows.
//!
//! The crate `domain` reads and writes the wire format. There is one thread and no asynchronous runtime: a container asks little.

mod exchange;
mod place;
mod random;
mod resident;
mod server;
mod stream;
mod upstream;
mod wire;

pub use place::Place;
pub use resident::{Claim, Control, Name, Privileges, end, stands, start, watch};
pub use server::{Policy, Verdict, serve};
pub use upstream::Upstreams;
pub use wire::{Own, Question, Rtype};

/// Where a container finds its resolver. It is an address of the container's own loopback interface, and the one that Docker uses.
pub const ADDRESS: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11)), 53);
