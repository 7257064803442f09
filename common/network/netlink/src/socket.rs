//! A blocking netlink socket: one request and its whole answer, or a batch that is one transaction.
//!
//! "Unknown" does not mean "gone": a lost answer (no buffer space, truncated, out of order, or none
//! at all) is an error. The socket is not used again after that, because its next message may
//! belong to the old request.

use std::{cell::Cell, os::fd::AsFd, time::Duration};

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLMSG_NOOP, NLMSG_OVERRUN},
    sys::{self, protocols},
};

use rustix::net::{RecvFlags, SendFlags, netlink::SocketAddrNetlink, recvfrom, send, sockopt};

use crate::{
    error::errno_of,
    frame::{Request, frames},
};

/// How long to wait for an answer. The kernel handles a request while it is sent, so the answer is
/// normally there at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel sends at most 32 KiB at once.
const BUFFER: usize = 1 << 16;

/// The netlink family that a socket is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
    /// Generic netlink, which WireGuard uses.
    Generic,
}

/// Why the kernel refused a request, or why its answer was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The errno.
    pub errno: Errno,
    /// The kernel's explanation (its extended acknowledgement), if it gives one.
    pub text: Option<String>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, text: None }
    }
}

/// The result of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The index of the refused message. None if the error was not about a message.
    pub at: Option<usize>,
    /// The cause.
    pub refusal: Refusal,
    /// Whether the kernel may have carried the batch out, because its answer was lost.
    pub in_doubt: bool,
}

/// A netlink socket.
pub struct Socket {
    descriptor: sys::Socket,
    sequence: Cell<u32>,
    lost: Cell<Option<Errno>>,
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

impl Socket {
    /// Opens a socket in the network namespace that this thread is in.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub fn open(family: Family) -> Result<Self, Errno> {
        let protocol = match family {
            Family::Route => protocols::NETLINK_ROUTE,
            Family::Netfilter => protocols::NETLINK_NETFILTER,
            Family::Generic => protocols::NETLINK_GENERIC,
        };
        let open = || -> std::io::Result<sys::Socket> {
            let mut socket = sys::Socket::new(protocol)?;
            socket.bind_auto()?;
            // Errors include a text but no copy of the request.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            if family == Family::Route {
                // The kernel filters its lists, and rejects unknown filters.
                socket.set_netlink_get_strict_chk(true)?;
            }
            Ok(socket)
        };
        let descriptor = open().map_err(|error| errno_of(&error))?;
        sockopt::set_socket_timeout(&descriptor, sockopt::Timeout::Recv, Some(PATIENCE)).map_err(errno)?;
        Ok(Self { descriptor, sequence: Cell::new(0), lost: Cell::new(None) })
    }

    /// Whether an answer was lost. No more requests may be sent over this socket then.
    pub fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// The socket's descriptor, for a child process that waits for an answer.
    pub(crate) fn descriptor(&self) -> &impl AsFd {
        &self.descriptor
    }

    /// Turns the socket into its descriptor, to receive notifications.
    pub(crate) fn into_descriptor(self) -> sys::Socket {
        self.descriptor
    }

    /// Records that an answer was lost.
    fn lose(&self, errno: Errno) -> Errno {
        self.lost.set(Some(errno));
        errno
    }

    /// Reserves `count` message numbers; returns the first.
    fn number(&self, count: u32) -> u32 {
        let first = self.sequence.get().checked_add(1).filter(|first| first.checked_add(count).is_some());
        let first = first.unwrap_or(1);
        self.sequence.set(first + count - 1);
        first
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        if let Some(errno) = self.lost.get() {
            return Err(errno);
        }
        // A large port range is one batch, and so one datagram. It can exceed the default send
        // buffer.
        if bytes.len() > BUFFER {
            sockopt::set_socket_send_buffer_size_force(&self.descriptor, bytes.len() * 2).map_err(errno)?;
        }
        match send(&self.descriptor, bytes, SendFlags::empty()) {
            Ok(length) if length == bytes.len() => Ok(()),
            Ok(_) => Err(self.lose(Errno::EMSGSIZE)),
            Err(error) => Err(self.lose(errno(error))),
        }
    }

    /// The next datagram of the kernel.
    fn receive<'a>(&self, buffer: &'a mut Vec<u8>, flags: RecvFlags) -> Result<&'a [u8], Errno> {
        buffer.resize(BUFFER, 0);
        loop {
            match recvfrom(&self.descriptor, &mut buffer[..], flags | RecvFlags::TRUNC).map_err(errno) {
                // Not sent by the kernel, which has port 0.
                Ok((_, _, Some(from)))
                    if SocketAddrNetlink::try_from(from.clone()).is_ok_and(|from| from.pid() != 0) => {}
                // Truncated.
                Ok((_, length, _)) if length > BUFFER => return Err(Errno::EMSGSIZE),
                Ok((_, length, _)) => return Ok(&buffer[..length]),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Sends one request and returns the kernel's whole answer as the messages' types and payloads.
    ///
    /// With `NLM_F_DUMP` the answer is a list, with `NLM_F_ACK` it ends with an acknowledgement,
    /// otherwise it is one message.
    ///
    /// # Errors
    /// The kernel's refusal; ERESTART if a list changed during the dump. Any other error means that
    /// the answer is incomplete: [`Socket::is_lost`] is true then.
    pub fn request(&self, request: &Request) -> Result<Vec<(u16, Vec<u8>)>, Refusal> {
        let sequence = self.number(1);
        let mut bytes = Vec::new();
        request.write(sequence, &mut bytes);
        self.send(&bytes)?;
        let expects_word = request.flags & NLM_F_ACK != 0 || request.flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut answer = Vec::new();
        let mut interrupted = false;
        let mut buffer = Vec::new();
        loop {
            let datagram = match self.receive(&mut buffer, RecvFlags::empty()) {
                Ok(datagram) => datagram,
                Err(Errno::EAGAIN) => return Err(self.lose(Errno::ETIMEDOUT).into()),
                Err(errno) => return Err(self.lose(errno).into()),
            };
            for frame in frames(datagram) {
                let frame = frame.map_err(|errno| self.lose(errno))?;
                if frame.sequence != sequence || frame.kind == NLMSG_OVERRUN {
                    return Err(self.lose(Errno::EPROTO).into());
                }
                interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.verdict() {
                    // Something changed during the dump: the list may mix old and new state.
                    Some(Ok(())) if interrupted => return Err(Errno::ERESTART.into()),
                    Some(Ok(())) => return Ok(answer),
                    Some(Err(refusal)) => return Err(refusal),
                    None if frame.kind == NLMSG_NOOP => {}
                    None => {
                        answer.push((frame.kind, frame.payload.to_vec()));
                        if !expects_word && frame.flags & NLM_F_MULTIPART == 0 {
                            return Ok(answer);
                        }
                    }
                }
            }
        }
    }

    /// Sends requests in one datagram between `begin` and `end`: one nf_tables transaction. The
    /// kernel does not answer `begin` and `end`. The last request must have `NLM_F_ACK`.
    ///
    /// # Errors
    /// The first refusal. If the answer was lost, it is unknown whether the kernel carried the
    /// batch out.
    pub fn batch(&self, begin: &Request, requests: &[Request], end: &Request) -> Result<(), Refused> {
        let count = requests.len() as u32;
        let first = self.number(count + 2) + 1;
        let mut bytes = Vec::new();
        begin.write(first - 1, &mut bytes);
        for (sequence, request) in (first..).zip(requests) {
            request.write(sequence, &mut bytes);
        }
        end.write(first + count, &mut bytes);
        let failed = |in_doubt| move |errno: Errno| Refused { at: None, refusal: errno.into(), in_doubt };
        self.send(&bytes).map_err(failed(false))?;

        // The kernel has processed the batch by the time the send returns.
        let mut buffer = Vec::new();
        let (mut refused, mut confirmed, mut overrun) = (None, false, false);
        loop {
            let datagram = match self.receive(&mut buffer, RecvFlags::DONTWAIT) {
                Ok(datagram) => datagram,
                Err(Errno::EAGAIN) => break,
                // There were more refusals than the socket can hold. The first ones are there.
                Err(Errno::ENOBUFS) => {
                    overrun = true;
                    continue;
                }
                Err(errno) => return Err(failed(true)(self.lose(errno))),
            };
            for frame in frames(datagram) {
                let frame = frame.map_err(|errno| failed(true)(self.lose(errno)))?;
                if !(first - 1..=first + count).contains(&frame.sequence) {
                    return Err(failed(true)(self.lose(Errno::EPROTO)));
                }
                match frame.verdict() {
                    Some(Err(refusal)) => {
                        let at = frame.sequence.checked_sub(first).map(|at| at as usize);
                        let at = at.filter(|at| *at < requests.len());
                        refused.get_or_insert(Refused { at, refusal, in_doubt: false });
                    }
                    Some(Ok(())) => confirmed = true,
                    None => {}
                }
            }
        }
        match refused {
            Some(refused) => Err(refused),
            None if overrun => Err(failed(true)(self.lose(Errno::ENOBUFS))),
            None if confirmed => Ok(()),
            None => Err(failed(true)(self.lose(Errno::EPROTO))),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::CloneFlags;
    use rtnetlink::{
        LinkMessageBuilder, LinkUnspec,
        packet_core::NetlinkSerializable,
        packet_route::{RouteNetlinkMessage, link::LinkMessage},
    };

    use super::*;
    use crate::Connection;

    /// Runs `work` in a network namespace of its own.
    fn apart(work: impl FnOnce() + Send) {
        testkit::apart(CloneFlags::CLONE_NEWNET, work);
    }

    fn request(message: &RouteNetlinkMessage, flags: u16) -> Request {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        Request { kind: message.message_type(), flags, body }
    }

    fn links() -> Request {
        request(&RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)
    }

    #[test]
    fn an_answer_to_another_question_closes_the_socket() {
        apart(|| {
            let socket = Socket::open(Family::Route).unwrap();
            assert_eq!(socket.request(&links()).unwrap().len(), 1, "lo");
            let mut stale = Vec::new();
            links().write(99, &mut stale);
            socket.send(&stale).unwrap();
            assert_eq!(socket.request(&links()).unwrap_err().errno, Errno::EPROTO);
            assert!(socket.is_lost());
            assert_eq!(socket.request(&links()).unwrap_err().errno, Errno::EPROTO, "nothing more is asked");
        });
    }

    #[test]
    fn an_answer_that_does_not_come_is_an_error() {
        apart(|| {
            let socket = Socket::open(Family::Route).unwrap();
            let patience = Some(Duration::from_millis(50));
            sockopt::set_socket_timeout(&socket.descriptor, sockopt::Timeout::Recv, patience).unwrap();
            // The kernel answers a change only if an acknowledgement was requested.
            let up = LinkMessageBuilder::<LinkUnspec>::new().index(1).up().build();
            let silent = request(&RouteNetlinkMessage::SetLink(up), 0);
            assert_eq!(socket.request(&silent).unwrap_err().errno, Errno::ETIMEDOUT);
            assert!(socket.is_lost());
        });
    }

    #[test]
    fn a_lost_connection_is_made_anew_and_what_it_did_not_say_is_not_missing() {
        apart(|| {
            let connection = Connection::open(None).unwrap();
            assert!(connection.link("lo").unwrap().is_some());
            assert!(connection.link("none0").unwrap().is_none());
            connection.socket.lose(Errno::ENOBUFS);
            let error = connection.link("none0").unwrap_err().to_string();
            assert_eq!(error, "look for link \"none0\": No buffer space available");
            assert!(Connection::open(None).unwrap().link("lo").unwrap().is_some());
        });
    }

    #[test]
    fn a_refusal_has_the_kernels_own_words() {
        apart(|| {
            let socket = Socket::open(Family::Route).unwrap();
            let mut link = LinkMessage::default();
            link.header.index = 77;
            let refusal =
                socket.request(&request(&RouteNetlinkMessage::DelLink(link), NLM_F_ACK)).unwrap_err();
            assert_eq!(refusal.errno, Errno::ENODEV);
            assert!(!socket.is_lost(), "a refusal is an answer");
        });
    }
}
