//! The one netlink message that a new namespace needs: `ip link set lo up alias …`. By hand, so that whoever only makes
//! a namespace starts no asynchronous runtime for it.

use nix::errno::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFF_UP: u32 = 1;
const IFLA_IFALIAS: u16 = 20;
/// The interface `lo` is the first in every namespace.
const LOOPBACK: u32 = 1;
const HEADER: usize = 16;
const IFINFOMSG: usize = 16;

/// Sets the alias of `lo` in the namespace of this thread, and `lo` up.
pub(crate) fn up(alias: &str) -> Result<(), Errno> {
    let mut attribute = Vec::new();
    attribute.extend(((4 + alias.len()) as u16).to_ne_bytes());
    attribute.extend(IFLA_IFALIAS.to_ne_bytes());
    attribute.extend(alias.as_bytes());
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let answer = request(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, IFF_UP, &attribute)?;
    debug_assert_eq!(kind(&answer), Some(NLMSG_ERROR));
    Ok(())
}

/// The alias of `lo` in the namespace of this thread; none where it has none.
pub(crate) fn alias() -> Result<Option<String>, Errno> {
    let answer = request(RTM_GETLINK, NLM_F_REQUEST, 0, &[])?;
    let mut rest = answer.get(HEADER + IFINFOMSG..).unwrap_or_default();
    while let Some((length, kind)) = rest.get(..2).zip(rest.get(2..4)) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let Some(value) = rest.get(4..length) else { break };
        if u16::from_ne_bytes([kind[0], kind[1]]) == IFLA_IFALIAS {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Ok(Some(String::from_utf8_lossy(text).into_owned()));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

fn kind(answer: &[u8]) -> Option<u16> {
    answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]))
}

/// Sends one request about `lo` and returns the answer, or the error that the kernel gave in it.
fn request(message: u16, flags: u16, up: u32, attributes: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::with_capacity(HEADER + IFINFOMSG + attributes.len());
    text.extend(((HEADER + IFINFOMSG + attributes.len()) as u32).to_ne_bytes());
    text.extend(message.to_ne_bytes());
    text.extend(flags.to_ne_bytes());
    text.extend([0; 8]); // sequence and port: one request, one answer
    text.extend([0; 4]); // family and type of the interface
    text.extend(LOOPBACK.to_ne_bytes());
    text.extend(up.to_ne_bytes());
    text.extend(up.to_ne_bytes()); // which of the flags to change
    text.extend(attributes);

    let errno = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
    let socket =
        // Protocol 0 is NETLINK_ROUTE.
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(errno)?;
    send(&socket, &text, SendFlags::empty()).map_err(errno)?;
    let mut answer = vec![0; 1 << 15];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty()).map_err(errno)?;
    answer.truncate(length);
    match (kind(&answer), answer.get(HEADER..HEADER + 4)) {
        (Some(NLMSG_ERROR), Some(code)) => match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
            0 => Ok(answer),
            code => Err(Errno::from_raw(-code)),
        },
        _ => Ok(answer),
    }
}
