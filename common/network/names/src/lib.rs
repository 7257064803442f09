//! A small resolver: it takes questions in containers' network namespaces, lets a policy decide about each, and passes those on
//! to name servers that the policy does not answer.
//!
//! Its sockets are in the containers' namespaces, on an address of their loopback interface, and its own questions leave from the
//! namespace of its process. So nothing of the host has to be open to a container for it, no address of the host has to be free,
//! and it never asks itself. It keeps no answers: what it knows is what the policy knows.
//!
//! There are two policies. That of `egress` answers for the names of a list. The other one, `host`, answers containers' own names
//! for all containers of a host, from their records.
//!
//! The crate `domain` reads and writes the wire format. There is one thread and no asynchronous runtime: a container asks little.

mod containers;
mod exchange;
mod host;
mod operation;
mod place;
mod random;
mod resident;
mod server;
mod stream;
mod upstream;
mod wire;

pub use containers::{Container, Containers, Found};
pub use host::TTL;
pub use operation::NamesOperation;
pub use place::Place;
pub use resident::{Claim, Control, Name, Privileges, Told, end, stands, start, watch};
pub use server::{Policy, Verdict, serve};
pub use upstream::Upstreams;
pub use wire::{Own, Question, Rtype};

/// Where a container finds its resolver. It is an address of the container's own loopback interface, and the one that Docker uses.
pub const ADDRESS: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11)), 53);

/// The longest name, and the longest part of one (RFC 1035, 2.3.4).
const LONGEST: usize = 253;
const LABEL: usize = 63;

/// Whether the text is a name of a host: parts of letters, digits, `-` and `_`, and no address.
pub fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=LABEL).contains(&label.len()) && label.bytes().all(allowed)
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= LONGEST && text.split('.').all(is_label) && !text.rsplit('.').next().is_some_and(is_number)
}
