//! Raw packets on a link.

use std::{
    mem::{size_of, zeroed},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket},
};

/// How often the owner of an address is asked, and how long it has to answer. The times of RFC 5227
/// and RFC 4862 are for slow networks. An owner on a bridge of this host answers within a
/// millisecond.
const PROBES: usize = 2;
const PATIENCE: Duration = Duration::from_millis(50);

/// The number of bytes of a packet that are read.
const BEGINNING: usize = 128;

/// A socket for the packets of one protocol on one link.
pub(crate) struct Wire {
    socket: OwnedFd,
    link: u32,
    /// The EtherType (linux/if_ether.h).
    protocol: u16,
}

impl Wire {
    /// Opens the socket in this thread's network namespace.
    ///
    /// The kernel runs `filter`, so unwanted packets take no room in the socket's buffer. The
    /// filter has at most 65535 instructions.
    pub(crate) fn open(link: u32, protocol: u16, filter: &[libc::sock_filter]) -> Result<Self, Errno> {
        let socket = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        // No packet arrives until the socket is bound.
        if !filter.is_empty() {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
            // SAFETY: the program is as long as it says; the kernel copies it.
            let attached = unsafe {
                let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
                libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const program).cast(), length)
            };
            Errno::result(attached)?;
        }
        let wire = Self { socket, link, protocol };
        let address = wire.station([0xff; 6]);
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is a sockaddr_ll of this length.
        let bound = unsafe { libc::bind(wire.socket.as_raw_fd(), (&raw const address).cast(), length) };
        Errno::result(bound).map(|_| wire)
    }

    /// The socket address of the station, or the multicast group, with this hardware address.
    fn station(&self, mac: [u8; 6]) -> libc::sockaddr_ll {
        // SAFETY: all zeros are a sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = self.protocol.to_be();
        address.sll_ifindex = self.link as i32;
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&mac);
        address
    }

    /// Sends a packet to the station or the group with this hardware address.
    pub(crate) fn send(&self, packet: &[u8], mac: [u8; 6]) -> Result<(), Errno> {
        let to = self.station(mac);
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the packet and the address are as long as is said.
        let sent = unsafe {
            let to = (&raw const to).cast();
            libc::sendto(self.socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, to, length)
        };
        Errno::result(sent).map(drop)
    }

    /// Whether a packet that `is_answer` accepts arrives before `end`.
    fn hears(&self, end: Instant, is_answer: impl Fn(&[u8]) -> bool) -> Result<bool, Errno> {
        loop {
            // Other packets may keep arriving, so the time is checked for each.
            let now = Instant::now();
            if now >= end {
                return Ok(false);
            }
            let left = (end - now).as_millis() as u16;
            let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::from(left)) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            }
            let mut packet = [0; BEGINNING];
            let length = recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?;
            if is_answer(&packet[..length]) {
                return Ok(true);
            }
        }
    }

    /// Sends this packet and waits for an answer, several times if nobody answers. Takes 0.1 s if
    /// nobody does.
    pub(crate) fn ask(
        &self,
        packet: &[u8],
        mac: [u8; 6],
        is_answer: impl Fn(&[u8]) -> bool,
    ) -> Result<bool, Errno> {
        for _ in 0..PROBES {
            self.send(packet, mac)?;
            if self.hears(Instant::now() + PATIENCE, &is_answer)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
