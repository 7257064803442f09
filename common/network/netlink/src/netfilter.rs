//! nf_tables and connection tracking over netlink (linux/netfilter/nfnetlink.h): single requests,
//! lists, and batches, which nf_tables runs as one transaction. This module knows nothing about the
//! rules themselves.

use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    thread,
    time::Duration,
};

use nix::errno::Errno;
use operation::aside;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP};

use crate::{
    Family, Refusal, Refused, Request, Socket,
    attribute::{Attribute, find, number},
};

const SUBSYSTEM_CTNETLINK: u16 = 1;
const SUBSYSTEM_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const GENERATION: u16 = 1;
/// No particular family, or all families (`NFPROTO_UNSPEC`).
pub const UNSPEC: u8 = 0;
/// IPv4 and IPv6 (`NFPROTO_INET`).
pub const INET: u8 = 1;
/// `NFPROTO_IPV4`.
pub const IPV4: u8 = 2;
/// The family of rules at a link, below all protocols (`NFPROTO_NETDEV`).
pub const NETDEV: u8 = 5;
/// `NFPROTO_IPV6`.
pub const IPV6: u8 = 10;
/// The table of family `inet` with everything that Stave makes. Versions before 0.2 used one of
/// family `ip`.
pub const OWN_TABLE: &str = "stave";
/// struct nfgenmsg: family, version, resource.
const GENERIC: usize = 4;

/// The kind of a message (linux/netfilter/nf_tables.h, `enum nf_tables_msg_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the kernel's.
pub enum Kind {
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

impl Kind {
    fn removes(self) -> bool {
        matches!(self, Self::DelTable | Self::DelRule | Self::DelElement)
    }
}

/// Whether a chain, as the kernel lists it, is hooked into forwarding (`NF_INET_FORWARD`).
pub fn is_forward(chain: &[u8]) -> bool {
    find(chain, 4).and_then(|hook| find(hook, 1)).and_then(number) == Some(2)
}

/// The handle of a rule, as the kernel lists it; 0 if there is none.
pub fn handle(rule: &[u8]) -> u64 {
    find(rule, 3).unwrap_or_default().iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// One message of a batch.
#[derive(Debug, Clone)]
pub struct Message {
    /// The kind.
    pub kind: Kind,
    /// The family of the table.
    pub family: u8,
    /// Header flags, such as `NLM_F_CREATE`.
    pub flags: u16,
    /// The content.
    pub attributes: Vec<Attribute>,
}

/// A socket to netfilter.
pub struct Netfilter {
    socket: Socket,
    /// Whether a transaction removed something.
    removed: Cell<bool>,
}

thread_local! {
    static NETFILTER: RefCell<Option<Rc<Netfilter>>> = const { RefCell::new(None) };
}

fn request(kind: u16, flags: u16, generic: [u8; GENERIC], attributes: &[Attribute]) -> Request {
    let mut body = generic.to_vec();
    attributes.iter().for_each(|attribute| attribute.write(&mut body));
    Request { kind, flags, body }
}

fn about(kind: Kind, flags: u16, family: u8, attributes: &[Attribute]) -> Request {
    request(SUBSYSTEM_NFTABLES << 8 | kind as u16, flags, [family, 0, 0, 0], attributes)
}

/// The attributes of a message.
fn attributes_of((_, payload): (u16, Vec<u8>)) -> Result<Vec<u8>, Refusal> {
    payload.get(GENERIC..).map(<[u8]>::to_vec).ok_or_else(|| Errno::EBADMSG.into())
}

impl Netfilter {
    /// The socket of this thread. The first call opens it in the thread's current network
    /// namespace. It is opened again after an answer was lost. See [`close`].
    ///
    /// # Errors
    /// When no socket can be opened.
    pub fn of_this_thread() -> Result<Rc<Self>, Refusal> {
        NETFILTER.with_borrow_mut(|known| match known {
            Some(open) if !open.socket.is_lost() => Ok(open.clone()),
            _ => {
                let removed = Cell::new(known.as_ref().is_some_and(|lost| lost.removed.get()));
                let opened = Rc::new(Self { socket: Socket::open(Family::Netfilter)?, removed });
                *known = Some(opened.clone());
                Ok(opened)
            }
        })
    }

    /// Opens a separate socket, for a process that keeps running and owns tables.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub fn open() -> Result<Self, Refusal> {
        Ok(Self { socket: Socket::open(Family::Netfilter)?, removed: Cell::new(false) })
    }

    /// The descriptor of the socket.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.descriptor().as_fd()
    }

    /// Whether an answer was lost. The socket must not be used after that.
    pub fn is_lost(&self) -> bool {
        self.socket.is_lost()
    }

    /// Requests one object by its name from a table of this family. Returns the answer's
    /// attributes. None if the object does not exist.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn get(&self, kind: Kind, family: u8, attributes: &[Attribute]) -> Result<Option<Vec<u8>>, Refusal> {
        let answer = match self.socket.request(&about(kind, 0, family, attributes)) {
            Err(refusal) if refusal.errno == Errno::ENOENT => return Ok(None),
            answer => answer?,
        };
        answer.into_iter().next().ok_or(Errno::EPROTO.into()).and_then(attributes_of).map(Some)
    }

    /// Lists all objects of a kind and family, filtered by the attributes. Empty if their table or
    /// chain does not exist.
    ///
    /// # Errors
    /// When the kernel does not answer; ERESTART when the ruleset changed during the dump.
    pub fn dump(&self, kind: Kind, family: u8, attributes: &[Attribute]) -> Result<Vec<Vec<u8>>, Refusal> {
        match self.socket.request(&about(kind, NLM_F_DUMP, family, attributes)) {
            Err(refusal) if refusal.errno == Errno::ENOENT => Ok(Vec::new()),
            answer => answer?.into_iter().map(attributes_of).collect(),
        }
    }

    /// The generation of the ruleset, which every transaction increases. The kernel refuses a batch
    /// with an older generation (ERESTART).
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn generation(&self) -> Result<u32, Refusal> {
        let answer = self.get(Kind::GetGeneration, UNSPEC, &[])?;
        answer.and_then(|answer| find(&answer, GENERATION).and_then(number)).ok_or(Errno::EPROTO.into())
    }

    /// Sends the messages as one transaction: all of them take effect at once, or none does.
    ///
    /// # Errors
    /// The first refusal.
    pub fn commit(&self, generation: Option<u32>, batch: &[Message]) -> Result<(), Refused> {
        if batch.is_empty() {
            return Ok(());
        }
        let edge = [UNSPEC, 0, 0, SUBSYSTEM_NFTABLES as u8];
        let guard: Vec<_> = generation.iter().map(|now| Attribute::number(GENERATION, *now)).collect();
        let requests: Vec<_> = batch
            .iter()
            .enumerate()
            .map(|(at, message)| {
                let confirm = if at + 1 == batch.len() { NLM_F_ACK } else { 0 };
                about(message.kind, message.flags | confirm, message.family, &message.attributes)
            })
            .collect();
        self.removed.set(self.removed.get() || batch.iter().any(|message| message.kind.removes()));
        let (begin, end) = (request(BATCH_BEGIN, 0, edge, &guard), request(BATCH_END, 0, edge, &[]));
        self.socket.batch(&begin, &requests, &end)
    }

    /// Sends a connection tracking request for this family, and waits for the answer.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn conntrack(&self, kind: u8, family: u8, attributes: &[Attribute]) -> Result<(), Refusal> {
        let kind = SUBSYSTEM_CTNETLINK << 8 | u16::from(kind);
        self.socket.request(&request(kind, NLM_F_ACK, [family, 0, 0, 0], attributes)).map(drop)
    }

    /// The tracked connections of this family, as the attributes of each.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn connections(&self, family: u8) -> Result<Vec<Vec<u8>>, Refusal> {
        const GET: u16 = 1;
        let list = request(SUBSYSTEM_CTNETLINK << 8 | GET, NLM_F_DUMP, [family, 0, 0, 0], &[]);
        match self.socket.request(&list) {
            // A kernel without connection tracking tracks no connections.
            Err(refusal) if matches!(refusal.errno, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EINVAL) => {
                Ok(Vec::new())
            }
            answer => answer?.into_iter().map(attributes_of).collect(),
        }
    }
}

/// Whether the last answer to this thread was lost. The kernel may have carried the request out.
pub fn is_in_doubt() -> bool {
    NETFILTER.with_borrow(|known| known.as_ref().is_some_and(|open| open.socket.is_lost()))
}

/// The time that the kernel usually needs to free what a transaction removed.
const FREED: Duration = Duration::from_millis(50);

/// Closes this thread's nf_tables socket. `main` calls it last.
///
/// Closing such a socket waits until the kernel has freed what transactions removed. Meanwhile the
/// kernel holds the lock that every other ruleset change and every removal of a link needs
/// (nf_tables_api.c, `nft_rcv_nl_event`). So after a removal, a child process that nobody waits for
/// keeps the socket open until the kernel is done.
pub fn close() {
    let open = NETFILTER.with_borrow_mut(Option::take);
    if let Some(open) = open.filter(|open| open.removed.get()) {
        // SAFETY: the child makes one system call. If it cannot be started, the socket is closed at
        // once.
        let _ = unsafe { aside::run(&[open.socket.descriptor().as_fd()], || thread::sleep(FREED)) };
    }
}
