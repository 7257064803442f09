//! A netfilter netlink socket: single requests, dumps, and batches that nf_tables takes as one transaction.

use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    thread,
    time::Duration,
};

use nix::errno::Errno;
use operation::aside;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};

use crate::attribute::{Attribute, find, number};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

const SUBSYSTEM_NFTABLES: u16 = 10;
const SUBSYSTEM_CTNETLINK: u16 = 1;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const GENERATION: u16 = 1;
const NFPROTO_IPV4: u8 = 2;
const HEADER: usize = 16;
/// struct nfgenmsg: family, version, resource.
const GENERIC: usize = 4;

/// What a message is about (linux/netfilter/nf_tables.h, `enum nf_tables_msg_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
    NewSet = 9,
    GetSet = 10,
    NewElement = 12,
    GetElement = 13,
    DelElement = 14,
    GetGeneration = 16,
}

/// One message of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) flags: u16,
    pub(crate) attributes: Vec<Attribute>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The message that the kernel refused, by its index; none when it was not about one of them.
    pub(crate) at: Option<usize>,
    pub(crate) errno: Errno,
}

pub(crate) struct Socket {
    descriptor: OwnedFd,
    /// Whether a transaction removed something.
    removed: Cell<bool>,
}

thread_local! {
    static SOCKET: RefCell<Option<Rc<Socket>>> = const { RefCell::new(None) };
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

fn append(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, generic: [u8; GENERIC], of: &[Attribute]) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend(kind.to_ne_bytes());
    out.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(generic);
    of.iter().for_each(|attribute| attribute.write(out));
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// One message as it was received.
struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Received<'_> {
    /// The error in it; none in any other message.
    fn error(&self) -> Option<Result<(), Errno>> {
        if self.kind != NLMSG_ERROR && self.kind != NLMSG_DONE {
            return None;
        }
        let code = self.payload.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
        Some(if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) })
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let half = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    std::iter::from_fn(move || {
        let length = word(bytes, 0)? as usize;
        let received = Received {
            kind: half(bytes, 4)?,
            flags: half(bytes, 6)?,
            sequence: word(bytes, 8)?,
            payload: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(received)
    })
}

impl Socket {
    /// The socket of this thread, opened by the first who asks in the network namespace that the thread is in then. See
    /// [`close`].
    pub(crate) fn of_this_thread() -> Result<Rc<Self>, Errno> {
        SOCKET.with_borrow_mut(|known| match known {
            Some(socket) => Ok(socket.clone()),
            None => Self::open().map(|socket| known.insert(Rc::new(socket)).clone()),
        })
    }

    fn open() -> Result<Self, Errno> {
        let kind = SocketType::RAW;
        socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))
            .map(|descriptor| Self { descriptor, removed: Cell::new(false) })
            .map_err(errno)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        // A range of many ports is one batch, and so one datagram: more than a socket takes by itself.
        if bytes.len() > 64 << 10 {
            sockopt::set_socket_send_buffer_size_force(&self.descriptor, bytes.len() * 2).map_err(errno)?;
        }
        send(&self.descriptor, bytes, SendFlags::empty()).map(drop).map_err(errno)
    }

    fn receive<'a>(&self, buffer: &'a mut Vec<u8>, flags: RecvFlags) -> Result<&'a [u8], Errno> {
        buffer.resize(1 << 16, 0);
        let (length, _) = recv(&self.descriptor, &mut buffer[..], flags).map_err(errno)?;
        Ok(&buffer[..length])
    }

    /// Asks for one thing, by its name. None where there is no such thing. The answer's attributes.
    pub(crate) fn get(&self, kind: Kind, attributes: &[Attribute]) -> Result<Option<Vec<u8>>, Errno> {
        let mut request = Vec::new();
        let kind = SUBSYSTEM_NFTABLES << 8 | kind as u16;
        append(&mut request, kind, 0, 1, [NFPROTO_IPV4, 0, 0, 0], attributes);
        self.send(&request)?;
        let mut buffer = Vec::new();
        let answer = self.receive(&mut buffer, RecvFlags::empty())?;
        let first = messages(answer).next().ok_or(Errno::EPROTO)?;
        match first.error() {
            Some(Err(Errno::ENOENT)) => Ok(None),
            Some(Err(error)) => Err(error),
            Some(Ok(())) => Err(Errno::EPROTO),
            None => Ok(Some(first.payload.get(GENERIC..).unwrap_or_default().to_vec())),
        }
    }

    /// Lists all there is of a kind, as the attributes filter it. Nothing where that which it would be in is missing.
    pub(crate) fn dump(&self, kind: Kind, attributes: &[Attribute]) -> Result<Vec<Vec<u8>>, Errno> {
        let mut request = Vec::new();
        let kind = SUBSYSTEM_NFTABLES << 8 | kind as u16;
        append(&mut request, kind, NLM_F_DUMP, 1, [NFPROTO_IPV4, 0, 0, 0], attributes);
        self.send(&request)?;
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        let mut interrupted = false;
        loop {
            for message in messages(self.receive(&mut buffer, RecvFlags::empty())?) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.error() {
                    None => found.push(message.payload.get(GENERIC..).unwrap_or_default().to_vec()),
                    Some(Err(Errno::ENOENT)) => return Ok(Vec::new()),
                    Some(Err(error)) => return Err(error),
                    // Somebody changed the rules meanwhile: what was listed may be from before and after.
                    Some(Ok(())) if interrupted => return Err(Errno::ERESTART),
                    Some(Ok(())) => return Ok(found),
                }
                if message.flags & NLM_F_MULTI == 0 {
                    return Ok(found);
                }
            }
        }
    }

    /// The number of transactions so far: a batch that names it is refused (ERESTART) once another came between.
    pub(crate) fn generation(&self) -> Result<u32, Errno> {
        let answer = self.get(Kind::GetGeneration, &[])?;
        answer.and_then(|answer| find(&answer, 1).and_then(number)).ok_or(Errno::EPROTO)
    }

    /// Sends the messages as one transaction: all of them take effect at once, or none.
    pub(crate) fn commit(&self, generation: Option<u32>, batch: &[Message]) -> Result<(), Refused> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut request = Vec::new();
        let edge = [0, 0, 0, SUBSYSTEM_NFTABLES as u8];
        let guard: Vec<_> = generation.iter().map(|now| Attribute::number(GENERATION, *now)).collect();
        append(&mut request, BATCH_BEGIN, 0, 0, edge, &guard);
        for (at, message) in batch.iter().enumerate() {
            let kind = SUBSYSTEM_NFTABLES << 8 | message.kind as u16;
            let confirm = if at + 1 == batch.len() { NLM_F_ACK } else { 0 };
            let sequence = at as u32 + 1;
            let generic = [NFPROTO_IPV4, 0, 0, 0];
            append(&mut request, kind, message.flags | confirm, sequence, generic, &message.attributes);
        }
        append(&mut request, BATCH_END, 0, batch.len() as u32 + 1, edge, &[]);
        let removes =
            |message: &Message| matches!(message.kind, Kind::DelTable | Kind::DelRule | Kind::DelElement);
        self.removed.set(self.removed.get() || batch.iter().any(removes));
        self.send(&request).map_err(|errno| Refused { at: None, errno })?;
        self.outcome(batch.len())
    }

    /// The kernel's answers to a batch: it has worked on it to the end by the time that it was sent.
    fn outcome(&self, length: usize) -> Result<(), Refused> {
        let mut buffer = Vec::new();
        let mut refused = None;
        let mut confirmed = false;
        loop {
            let answer = match self.receive(&mut buffer, RecvFlags::DONTWAIT) {
                Ok(answer) => answer,
                Err(Errno::EAGAIN) => break,
                // More refusals than the socket holds: the first of them are there.
                Err(Errno::ENOBUFS) => continue,
                Err(errno) => return Err(Refused { at: None, errno }),
            };
            for message in messages(answer) {
                match message.error() {
                    Some(Err(errno)) => {
                        let at = (message.sequence as usize).checked_sub(1).filter(|at| *at < length);
                        refused.get_or_insert(Refused { at, errno });
                    }
                    Some(Ok(())) => confirmed = true,
                    None => {}
                }
            }
        }
        match refused {
            Some(refused) => Err(refused),
            None if confirmed => Ok(()),
            None => Err(Refused { at: None, errno: Errno::EPROTO }),
        }
    }

    /// Asks connection tracking for something, and waits for its word.
    pub(crate) fn conntrack(&self, kind: u8, attributes: &[Attribute]) -> Result<(), Errno> {
        let mut request = Vec::new();
        let kind = SUBSYSTEM_CTNETLINK << 8 | u16::from(kind);
        append(&mut request, kind, NLM_F_ACK, 1, [NFPROTO_IPV4, 0, 0, 0], attributes);
        self.send(&request)?;
        let mut buffer = Vec::new();
        let answer = self.receive(&mut buffer, RecvFlags::empty())?;
        messages(answer).find_map(|message| message.error()).unwrap_or(Err(Errno::EPROTO))
    }
}

/// In which the kernel has freed what a transaction removed, as a rule.
const FREED: Duration = Duration::from_millis(50);

/// Closes this thread's socket to nf_tables. To be called last, by a `main` whose process does nothing after it.
///
/// A socket that is closed waits until the kernel has freed what transactions removed, under the lock that every other
/// change to the rules needs, and every link that goes (nf_tables_api.c, `nft_rcv_nl_event`). So one that removed something
/// is left open until that is done, by a process that nobody waits for.
pub fn close() {
    let socket = SOCKET.with_borrow_mut(Option::take);
    if let Some(socket) = socket.filter(|socket| socket.removed.get()) {
        // SAFETY: it makes one system call. Where there is no process to be had, the socket is closed at once.
        let _ = unsafe { aside::run(&[socket.descriptor.as_fd()], || thread::sleep(FREED)) };
    }
}
