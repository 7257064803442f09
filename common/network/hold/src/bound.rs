//! Who has a port at the moment.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use nat::Protocol;
use nix::libc;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt},
};

use crate::Port;

/// The mark (SO_MARK) of a socket that only looks who has a port: the program that holds ports lets it pass. Setting it takes
/// CAP_NET_ADMIN.
pub(crate) const LOOKING: u32 = 0x73_74_61_76;

/// A socket for this port, which is not bound yet; none on a kernel without the protocol.
pub(crate) fn socket(port: Port) -> Result<Option<OwnedFd>, Errno> {
    let v6 = port.v4().is_none();
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let Some(socket) = socket_of(family, port.protocol())? else { return Ok(None) };
    if v6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
        // The program keeps others from `::` where another port of this number is held by IPv4. Who may not set it holds nothing by
        // the program either.
        let _ = set_option(&socket, libc::SO_MARK, LOOKING);
    }
    Ok(Some(socket))
}

fn socket_of(family: AddressFamily, wanted: Protocol) -> Result<Option<OwnedFd>, Errno> {
    let (kind, protocol) = match wanted {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    match socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol)) {
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if wanted == Protocol::Sctp => Ok(None),
        socket => socket.map(Some),
    }
}

pub(crate) fn address(port: Port) -> SocketAddr {
    SocketAddr::new(port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port.port)
}

/// Whether a process has the port: binds it, for a moment. A port that is held for a container is free in this sense.
///
/// # Errors
/// When the kernel does not say: EADDRNOTAVAIL for an address that is not this host's.
pub fn is_bound(port: Port) -> Result<bool, Errno> {
    // A kernel without SCTP sockets still forwards SCTP, and no process here can listen to it.
    let Some(socket) = socket(port)? else { return Ok(false) };
    if port.protocol() == Protocol::Tcp {
        // A connection that lingers after its server ended is not a server.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    // Who may not set it holds nothing by the program either.
    let _ = set_option(&socket, libc::SO_MARK, LOOKING);
    match bind(&socket, &address(port)) {
        Ok(()) => Ok(false),
        Err(Errno::ADDRINUSE) => Ok(true),
        Err(errno) => Err(errno),
    }
}

fn set_option(socket: &OwnedFd, option: libc::c_int, value: u32) -> Result<(), Errno> {
    // SAFETY: the kernel reads four bytes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

pub(crate) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
