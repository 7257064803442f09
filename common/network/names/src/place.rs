//! The sockets that clients send their questions to.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use nix::errno::Errno;

/// UDP and TCP sockets on one address of a network namespace. They stay in that namespace, wherever
/// their process is.
#[derive(Debug)]
pub struct Place {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

impl Place {
    /// Opens the sockets in the namespace at this path.
    ///
    /// # Errors
    /// When the namespace cannot be entered; EADDRINUSE when another process has the address there.
    pub fn open(namespace: &Path, address: SocketAddr) -> Result<Self, Errno> {
        let opened = netlink::namespace::enter(namespace, || Self::here(address))?;
        opened.map_err(|error| netlink::errno_of(&error))
    }

    /// The sockets.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.udp.as_fd(), self.tcp.as_fd()]
    }

    fn here(address: SocketAddr) -> io::Result<Self> {
        let (udp, tcp) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }
}
