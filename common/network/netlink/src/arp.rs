//! ARP on a link: whether somebody has an address (RFC 826, RFC 5227).
//!
//! The kernel closes such a socket only after all packets under way are through, which takes some 10 ms.

use std::{
    mem::{size_of, zeroed},
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket},
};

use crate::{Error, Link, Mac};

/// How often an owner is asked, and how long it has to answer. The times of RFC 5227 are for slow networks; an owner on a
/// bridge of this host answers within a millisecond.
const PROBES: usize = 2;
const PATIENCE: Duration = Duration::from_millis(50);

/// What all packets of ARP for IPv4 on Ethernet begin with.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// A socket for ARP on one link.
struct Arp {
    socket: OwnedFd,
    link: u32,
    mac: Mac,
}

impl Arp {
    /// Opens it in this thread's network namespace.
    fn open(link: u32, mac: Mac) -> Result<Self, Errno> {
        let socket = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let arp = Self { socket, link, mac };
        let address = arp.broadcast();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is a sockaddr_ll of this length.
        let bound = unsafe { libc::bind(arp.socket.as_raw_fd(), (&raw const address).cast(), length) };
        Errno::result(bound).map(|_| arp)
    }

    /// All stations on the link, for packets of ARP.
    fn broadcast(&self) -> libc::sockaddr_ll {
        // SAFETY: all zeros are a sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ARP as u16).to_be();
        address.sll_ifindex = self.link as i32;
        address.sll_halen = 6;
        address.sll_addr[..6].fill(0xff);
        address
    }

    /// Asks all stations for the owner of `wanted`, as one that has no address yet.
    fn ask(&self, wanted: Ipv4Addr) -> Result<(), Errno> {
        let mut packet = [0; 28];
        packet[..6].copy_from_slice(&KIND);
        packet[7] = 1; // a request
        packet[8..14].copy_from_slice(&self.mac.0);
        packet[24..28].copy_from_slice(&wanted.octets());
        let to = self.broadcast();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the packet and the address are as long as is said.
        let sent = unsafe {
            let to = (&raw const to).cast();
            libc::sendto(self.socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, to, length)
        };
        Errno::result(sent).map(drop)
    }

    /// Whether another station claims the address before `end`.
    fn is_claimed(&self, address: Ipv4Addr, end: Instant) -> Result<bool, Errno> {
        loop {
            let left = end.saturating_duration_since(Instant::now()).as_millis() as u16;
            let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::from(left)) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            }
            let mut packet = [0; 64];
            let length = recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?;
            if claims(&packet[..length], self.mac, address) {
                return Ok(true);
            }
        }
    }
}

/// Whether the packet tells that another station has the address, or is about to take it.
fn claims(packet: &[u8], own: Mac, address: Ipv4Addr) -> bool {
    let field = |from: usize, to: usize| packet.get(from..to).unwrap_or_default();
    let sender = field(14, 18);
    let probes = sender == [0; 4] && field(24, 28) == address.octets();
    field(0, 6) == KIND && field(8, 14) != own.0 && (sender == address.octets() || probes)
}

/// Whether somebody on this link of ours has the address (RFC 5227, 2.1.1, Probe Details). Takes a tenth of a second where
/// nobody has.
///
/// # Errors
/// When the link cannot be asked.
pub fn is_in_use(link: &Link, address: Ipv4Addr) -> Result<bool, Error> {
    let Some(mac) = link.mac else { return Ok(false) };
    let look = || -> Result<bool, Errno> {
        let arp = Arp::open(link.index, mac)?;
        for _ in 0..PROBES {
            arp.ask(address)?;
            if arp.is_claimed(address, Instant::now() + PATIENCE)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    look().map_err(|errno| Error::new("ask for", format!("{address} on link {:?}", link.name), errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_claims_an_address() {
        let (own, other) = (Mac([2, 0, 0, 0, 0, 1]), [2, 0, 0, 0, 0, 2]);
        let packet = |mac: [u8; 6], has: [u8; 4], wants: [u8; 4]| {
            [&KIND[..], &[0, 1], &mac, &has, &[0; 6], &wants].concat()
        };
        let (address, another) = ([10, 0, 0, 2], [10, 0, 0, 3]);
        for (packet, claimed) in [
            (packet(other, address, another), true),
            (packet(other, [0; 4], address), true),
            (packet(other, another, address), false),
            (packet(own.0, address, address), false),
            (packet(other, address, another)[..17].to_vec(), false),
            (vec![], false),
        ] {
            assert_eq!(claims(&packet, own, address.into()), claimed, "{packet:?}");
        }
    }
}
