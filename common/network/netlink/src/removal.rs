//! Removing a link without waiting until the kernel has freed it.
//!
//! A request to remove a link returns only after every processor has let go of it (RCU): 15 to 50 ms, most of what it
//! takes to undo a container's network. The link itself is gone after one or two: nothing finds it by its name any more
//! (net/core/dev.c, `unlist_netdevice`), and nothing can fail after that. A process inside of the request cannot end before
//! it is answered, so it is another one, which nobody waits for, that makes it.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
    unistd::{pipe2, read, write},
};
use operation::aside;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    packet_route::{RouteNetlinkMessage, link::LinkMessage},
};

use crate::{Connection, Error, Link};

/// How often it is looked whether the link is gone.
const INTERVAL: Duration = Duration::from_micros(100);

/// Removes a link of this thread's own namespace; returns once nothing finds it any more.
pub(crate) fn remove(connection: &Connection, link: &Link) -> Result<(), Error> {
    let object = format!("{:?}", link.name);
    let failed = |source| connection.error("remove link", &object, source);
    let answer = request(link.index).map_err(failed)?;
    while if_nametoindex(link.name.as_str()) == Ok(link.index) {
        let mut code = [0; 4];
        match read(&answer, &mut code) {
            Err(Errno::EAGAIN) => thread::sleep(INTERVAL),
            Ok(4) if code == [0; 4] => break,
            Ok(4) => return Err(failed(Errno::from_raw(i32::from_ne_bytes(code)))),
            // Whoever was to answer was killed.
            _ => {
                let request = connection.handle.link().del(link.index).execute();
                return connection.run("remove link", object, request);
            }
        }
    }
    Ok(())
}

/// Has another process request that the link goes. What can be read in the end is the system's error, or 0, as four bytes.
fn request(index: u32) -> Result<OwnedFd, Errno> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::DelLink(link)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    let (answer, told) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // SAFETY: it makes system calls only, with the two descriptors.
    unsafe { aside::run(&[socket.as_fd(), told.as_fd()], || deliver(&bytes)) }?;
    Ok(answer)
}

const SOCKET: i32 = 0;
const PIPE: i32 = 1;

/// Sends the request, waits for its answer, and tells it. Without an answer the request is made again, by whoever waits
/// for it.
fn deliver(message: &[u8]) {
    let code = ask(message).unwrap_or_else(|errno| errno as i32);
    // SAFETY: it is open: the pipe was put there.
    let pipe = unsafe { BorrowedFd::borrow_raw(PIPE) };
    let _ = write(pipe, &code.to_ne_bytes());
}

/// The kernel's answer to the request: an error's number, or 0.
fn ask(message: &[u8]) -> Result<i32, Errno> {
    send(SOCKET, message, MsgFlags::empty())?;
    let mut answer = [0; 64];
    recv(SOCKET, &mut answer, MsgFlags::empty())?;
    // struct nlmsgerr: the error follows the header.
    Ok(i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]).abs())
}
