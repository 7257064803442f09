//! A small DNS resolver. It receives questions in containers' network namespaces. A policy decides
//! how each is answered: by the policy itself, or by a name server.
//!
//! The sockets are in the containers' namespaces, on an address of the loopback interface.
//! Questions to name servers are sent from the namespace of the process. So the host need not open
//! a port to containers, needs no free address, and the resolver never asks itself. It has no
//! cache: it knows only what the policy knows.
//!
//! There are two policies. The policy of `egress` answers for the names of a list. The policy of
//! `host` answers containers' names for all containers of a host, from their records.
//!
//! The crate `domain` reads and writes the wire format. One thread is enough, without an
//! asynchronous runtime, because containers ask few questions.

mod containers;
mod exchange;
mod host;
mod joined;
mod operation;
mod place;
mod random;
mod recorded;
mod resident;
mod server;
mod stream;
mod upstream;
mod wire;

pub use containers::{Container, Containers, Found, PODMANS};
pub use host::TTL;
pub use operation::NamesOperation;
pub use place::Place;
pub use resident::{Claim, Control, Name, Privileges, Told, end, stands, start, watch};
pub use server::{Policy, Verdict, serve};
pub use upstream::Upstreams;
pub use wire::{Own, Question, Rtype};

/// The address of the resolver in each container: an address of the container's own loopback
/// interface, the same that Docker uses.
pub const ADDRESS: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11)), 53);

/// The longest name, and the longest label (RFC 1035, 2.3.4).
const LONGEST: usize = 253;
const LABEL: usize = 63;

/// Parses another name of a container. Returns it in lower case.
///
/// # Errors
/// When it is no host name.
pub fn parse_alias(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("a name has letters, digits, `-` and `_`, at most 63 between two dots".to_owned()),
    }
}

/// Whether the text is a host name: labels of letters, digits, `-` and `_`, and not an address.
pub fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=LABEL).contains(&label.len()) && label.bytes().all(allowed)
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= LONGEST && text.split('.').all(is_label) && !text.rsplit('.').next().is_some_and(is_number)
}
