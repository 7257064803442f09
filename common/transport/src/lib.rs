//! Connections by name, for all clients: the quickest of a host's addresses, and TLS.
//!
//! ureq asks the addresses of a host one after the other, and has no place for another check of certificates.
//! [`Tcp`] and [`Tls`] take the place of its connectors.

mod certificates;
mod connector;
mod p521;
mod race;
mod tls;
mod verify;

pub use certificates::{Own, certificates, private_key, system};
pub use connector::Tcp;
pub use race::{connect, connect_to};
pub use tls::Tls;
pub use verify::{Untrusted, refused, untrusted};
