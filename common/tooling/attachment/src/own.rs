//! The addresses that a link of the host has.

use std::net::IpAddr;

use netlink::{Address, Connection};
use operation::Error;

/// The addresses of a link, by IP version.
#[derive(Debug, Default)]
pub(crate) struct Own {
    pub(crate) v4: Vec<Address>,
    pub(crate) v6: Vec<Address>,
}

impl Own {
    /// Reads the addresses of the link with this index; none without an index. The more containers run, the longer this
    /// takes.
    pub(crate) fn of(connection: &Connection, index: Option<u32>) -> Result<Self, Error> {
        Ok(match index {
            Some(index) => {
                Self { v4: connection.addresses(Some(index))?, v6: connection.addresses6(Some(index))? }
            }
            None => Self::default(),
        })
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Address> {
        self.v4.iter().chain(&self.v6)
    }

    /// Whether this is one of them.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.all().any(|own| own.address.addr() == address)
    }
}
