//! Removes a link without waiting until the kernel has freed it.
//!
//! A request to remove a link returns only after an RCU grace period: 15 to 50 ms, which is most of
//! the time to undo a container's network. The link itself is gone after 1 to 2 ms: it cannot be
//! found by its name any more (net/core/dev.c, `unlist_netdevice`), and nothing can fail after
//! that. A process cannot exit while it waits for the answer, so a child process that nobody waits
//! for makes the request.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    net::if_::if_nametoindex,
    sys::socket::{MsgFlags, recv, send},
    unistd::{pipe2, read, write},
};
use operation::aside;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NetlinkSerializable},
    packet_route::{RouteNetlinkMessage, link::LinkMessage},
};

use crate::{Connection, Error, Family, Link, Request, Socket, frame::frames};

/// How often to check whether the link is gone.
const INTERVAL: Duration = Duration::from_micros(100);

/// Removes a link of this thread's own namespace. Returns when the link cannot be found any more.
pub(crate) fn remove(connection: &Connection, link: &Link) -> Result<(), Error> {
    let object = format!("{:?}", link.name);
    let failed = |source: Errno| connection.error("remove link", &object, source);
    let message = message(link.index);
    let answer = request(&message).map_err(failed)?;
    // If this cannot be checked (too many open files), wait for the answer.
    while !is_gone(link) {
        let mut code = [0; 4];
        match read(&answer, &mut code) {
            Err(Errno::EAGAIN) => thread::sleep(INTERVAL),
            Ok(4) if code == [0; 4] => break,
            Ok(4) => return Err(failed(Errno::from_raw(i32::from_ne_bytes(code)))),
            // The child process was killed, or got no answer.
            _ => return connection.change("remove link", object, &message, 0),
        }
    }
    Ok(())
}

/// Whether it is certain that the link cannot be found any more.
fn is_gone(link: &Link) -> bool {
    match if_nametoindex(link.name.as_str()) {
        Ok(index) => index != link.index,
        Err(errno) => errno == Errno::ENODEV,
    }
}

fn message(index: u32) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    RouteNetlinkMessage::DelLink(link)
}

/// Starts a child process that requests the removal. It writes the errno, or 0, to the pipe as four
/// bytes, or nothing if the result is unknown.
fn request(message: &RouteNetlinkMessage) -> Result<OwnedFd, Errno> {
    let mut body = vec![0; message.buffer_len()];
    message.serialize(&mut body);
    let mut bytes = Vec::new();
    Request { kind: message.message_type(), flags: NLM_F_ACK, body }.write(1, &mut bytes);
    let socket = Socket::open(Family::Route)?;
    let (answer, told) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // SAFETY: the child only makes system calls, with the two descriptors.
    unsafe { aside::run(&[socket.descriptor().as_fd(), told.as_fd()], || deliver(&bytes)) }?;
    Ok(answer)
}

const SOCKET: i32 = 0;
const PIPE: i32 = 1;

/// Sends the request, waits for the answer, and reports it. Without a report, the waiting process
/// makes the request again.
fn deliver(message: &[u8]) {
    let Some(code) = ask(message) else { return };
    // SAFETY: the descriptor is open: the pipe was put there.
    let pipe = unsafe { BorrowedFd::borrow_raw(PIPE) };
    let _ = write(pipe, &code.to_ne_bytes());
}

/// The kernel's answer to the request: an errno, or 0. None if the answer was lost.
fn ask(message: &[u8]) -> Option<i32> {
    send(SOCKET, message, MsgFlags::empty()).ok()?;
    let mut answer = [0; 1024];
    let length = recv(SOCKET, &mut answer, MsgFlags::empty()).ok()?;
    let word = frames(answer.get(..length)?).next()?.ok()?.code()?;
    Some(word)
}
