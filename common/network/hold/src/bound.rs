//! Which ports processes have bound.

use std::{
    collections::HashSet,
    fs, io,
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

/// The mark (SO_MARK) of a socket that only checks a port. The program that holds ports lets it
/// pass. Setting the mark needs CAP_NET_ADMIN.
pub(crate) const LOOKING: u32 = 0x73_74_61_76;

/// A socket for this port, not bound yet. None if the kernel does not have the protocol.
pub(crate) fn socket(port: Port) -> Result<Option<OwnedFd>, Errno> {
    let v6 = port.v4().is_none();
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let Some(socket) = socket_of(family, port.protocol())? else { return Ok(None) };
    if v6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
        // The program refuses `::` if another port of this number is held on IPv4. Without the
        // right to set the mark, nothing is held by the program either.
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

/// The ports of this protocol that processes here have bound. For TCP, those that listen or are
/// connected. None if the kernel does not list them. One read covers many ports. A TCP socket that
/// is only bound cannot receive anything anyway.
pub fn listed(protocol: Protocol) -> Option<HashSet<u16>> {
    let name = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => return None,
    };
    let mut ports = HashSet::new();
    for file in [name.to_owned(), format!("{name}6")] {
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => ports.extend(text.lines().filter_map(local_port)),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && file != name => {}
            Err(_) => return None,
        }
    }
    Some(ports)
}

/// Parses the local port of a line such as `0: 0100007F:1F90 00000000:0000 0A …`.
fn local_port(line: &str) -> Option<u16> {
    let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

/// Whether a process has bound the port. Tries to bind it for a moment. A port that is held for a
/// container counts as free.
///
/// # Errors
/// When the kernel does not say: EADDRNOTAVAIL if the address is not one of this host's.
pub fn is_bound(port: Port) -> Result<bool, Errno> {
    // A kernel without SCTP sockets still forwards SCTP, and no process here can listen on it.
    let Some(socket) = socket(port)? else { return Ok(false) };
    if port.protocol() == Protocol::Tcp {
        // A connection in TIME_WAIT, after its server ended, does not count.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    // Without the right to set the mark, nothing is held by the program either.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_listed() {
        assert_eq!(local_port("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000"), Some(8080));
        assert_eq!(local_port("  sl  local_address rem_address   st"), None);
    }
}
