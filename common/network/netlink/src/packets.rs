//! Receives packets that rules log (linux/netfilter/nfnetlink_log.h). The kernel sends the first
//! bytes of each packet to the process that has bound the log group.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd},
};

use nix::errno::Errno;
use rtnetlink::{packet_core::NLM_F_ACK, sys};
use rustix::net::{RecvFlags, recv};

use crate::{
    Error, Refusal, Request,
    attribute::{Attribute, find},
    errno_of,
    frame::frames,
    socket::Family,
};

const SUBSYSTEM: u16 = 4;
const PACKET: u16 = 0;
const CONFIGURE: u16 = 1;
const COMMAND: u16 = 1;
const MODE: u16 = 2;
const THRESHOLD: u16 = 5;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const PAYLOAD: u16 = 9;
/// struct nfgenmsg: family, version, resource.
const GENERIC: usize = 4;
/// The number of bytes of a packet to receive: enough for addresses and ports, with room for
/// options.
const BEGINNING: u32 = 128;
const BUFFER: usize = 1 << 16;

/// The packets of a log group. No other process can bind the group while this exists.
pub struct Packets(sys::Socket);

impl std::fmt::Debug for Packets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Packets").field(&self.0.as_fd()).finish()
    }
}

impl Packets {
    /// Binds the group.
    ///
    /// # Errors
    /// EBUSY when another process has the group.
    pub fn open(group: u16) -> Result<Self, Error> {
        let failed =
            |refusal: Refusal| Error::new("listen to", format!("packets of log group {group}"), refusal);
        let socket = crate::Socket::open(Family::Netfilter).map_err(|errno| failed(errno.into()))?;
        let mode = [&BEGINNING.to_be_bytes()[..], &[COPY_PACKET, 0]].concat();
        for attribute in [
            Attribute::Bytes(COMMAND, vec![BIND]),
            Attribute::Bytes(MODE, mode),
            // Deliver each packet at once.
            Attribute::number(THRESHOLD, 1),
        ] {
            let mut body = [&[0, 0][..], &group.to_be_bytes()].concat();
            attribute.write(&mut body);
            let request = Request { kind: SUBSYSTEM << 8 | CONFIGURE, flags: NLM_F_ACK, body };
            socket.request(&request).map_err(failed)?;
        }
        Ok(Self(socket.into_descriptor()))
    }

    /// The socket to poll.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Reads all pending packets without waiting. Each starts at its network header. Packets that
    /// did not fit into the socket's buffer are lost.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; BUFFER];
        let mut packets = Vec::new();
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((_, length)) if length <= BUFFER => {
                    let logged = frames(&buffer[..length])
                        .filter_map(Result::ok)
                        .filter(|frame| frame.kind == SUBSYSTEM << 8 | PACKET);
                    packets.extend(logged.filter_map(|frame| {
                        find(frame.payload.get(GENERIC..)?, PAYLOAD).map(<[u8]>::to_vec)
                    }));
                }
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(_) => return packets,
            }
        }
    }
}

/// Finds the first free group, starting at `wanted`.
///
/// # Errors
/// When the kernel does not say which groups are taken.
pub fn free_group(wanted: u16) -> Result<u16, Error> {
    const LIST: &str = "/proc/net/netfilter/nfnetlink_log";
    let taken: Vec<u16> = match fs::read_to_string(LIST) {
        Ok(text) => text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect(),
        // Without the kernel module no group is taken.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::new("read", LIST, errno_of(&error))),
    };
    let free = (0..=u16::MAX).map(|step| wanted.wrapping_add(step)).find(|group| !taken.contains(group));
    free.ok_or_else(|| Error::new("find", "a free log group", Errno::EBUSY))
}
