//! Messages from a process to its parent before it executes its command.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    cmsg_space,
    fs::{Mode, OFlags},
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
        listen, recv, recvmsg, sendmsg, socket_with, socketpair,
    },
};

use operation::Cause;

use super::held;
use crate::{Error, Identity, error::Result};

/// The length of the longest message, in bytes. A longer one does not arrive. An error contains a path or
/// two, each escaped for JSON.
const LONGEST: usize = 64 << 10;

/// One side of a socket that keeps messages separate. It closes on exec.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

pub(crate) enum Message {
    Identity(Identity),
    Failure(Error),
    Warning(String),
    Terminal(OwnedFd),
    /// The namespaces of a new container, for the parent to hold.
    Namespaces(Vec<OwnedFd>),
    /// The path of the command that is about to be executed.
    Command(String),
    /// The runtime's hooks are due: the process waits for an answer.
    Hooks,
    /// The descriptor on which system calls arrive that a seccomp policy passes to another program. The
    /// process waits for an answer.
    Notifications(OwnedFd),
    Ready,
}

impl Channel {
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(Error::at("create", "socket"))?;
        Ok((Self(one), Self(other)))
    }

    /// Makes a socket on which a process waits before it executes its command. [`Channel::connect`] connects
    /// to it.
    ///
    /// # Errors
    /// EADDRINUSE if the socket exists.
    pub(crate) fn listen(directory: &Path, name: &str) -> Result<OwnedFd> {
        let listen = || {
            let socket = new_socket()?;
            let (_held, address) = address(directory, name)?;
            bind(&socket, &address)?;
            listen(&socket, 8)?;
            Ok(socket)
        };
        listen().map_err(Error::at::<Errno>("listen on", format_args!("{:?}", directory.join(name))))
    }

    /// Asks the process that waits on this socket to go on.
    ///
    /// # Errors
    /// ENOENT and ECONNREFUSED if no process waits.
    pub(crate) fn connect(directory: &Path, name: &str) -> Result<Self> {
        let connect = || {
            let socket = new_socket()?;
            let (_held, address) = address(directory, name)?;
            connect(&socket, &address)?;
            let channel = Self(socket);
            channel.send(b"R", &[])?;
            Ok(channel)
        };
        connect().map_err(Error::at::<Errno>("connect to", format_args!("{:?}", directory.join(name))))
    }

    /// Waits until a client asks to go on.
    pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<Self> {
        loop {
            let accepted = match accept_with(listener, SocketFlags::CLOEXEC) {
                Err(Errno::INTR) => continue,
                accepted => Self(accepted.map_err(Error::at("wait", "to be started"))?),
            };
            // Ignore a client that is gone before it has asked.
            if let Some(Message::Ready) = accepted.receive()? {
                return Ok(accepted);
            }
        }
    }

    /// Asks for the runtime's hooks, and waits until they have run.
    pub(super) fn ask_for_hooks(&self) -> Result<()> {
        self.send(b"H", &[]).map_err(Error::at("send", "to the parent process"))?;
        self.answered()
    }

    /// Hands over the descriptor, and waits until somebody has it.
    pub(super) fn notify_by(&self, listener: BorrowedFd<'_>) -> Result<()> {
        self.send(b"S", &[listener]).map_err(Error::at("send", "the seccomp listener"))?;
        self.answered()
    }

    /// Says that the process is about to wait for its start, and waits until the caller knows: without a
    /// caller, nobody would start it.
    pub(super) fn wait_for_leave(&self) -> Result<()> {
        self.ready()?;
        self.answered()
    }

    fn answered(&self) -> Result<()> {
        match self.receive()? {
            Some(Message::Ready) => Ok(()),
            _ => Err(Error::new("start: given up by the parent process")),
        }
    }

    /// Sends the last message of a process that ends. If it does not arrive, the other side sees the end.
    pub(crate) fn fail(&self, error: &Error) {
        // The error's number and its other parts are sent too, so that they are not lost in the text.
        let told = serde_json::to_vec(&error.inner().to_message()).unwrap_or_default();
        let _ = self.send(&[b"E".as_slice(), &[error.status()], &told].concat(), &[]);
    }

    /// Sends a warning. If it is lost, nothing stops.
    pub(crate) fn warn(&self, error: &Error) {
        let _ = self.send(&[b"W".as_slice(), error.to_string().as_bytes()].concat(), &[]);
    }

    /// Says that this side is ready, or asks the other side to go on.
    ///
    /// # Errors
    /// When the message does not arrive. The other side waits for it, so the sender must end, or close its
    /// side.
    pub(crate) fn ready(&self) -> Result<()> {
        self.send(b"R", &[]).map_err(Error::at("send", "to the other process"))
    }

    /// Tells the identity of the new process.
    ///
    /// # Errors
    /// As [`Channel::ready`].
    pub(crate) fn identify(&self, identity: Identity) -> Result<()> {
        let Identity { pid, start_time, pid_namespace } = identity;
        let [start_time, pid_namespace] =
            [start_time, pid_namespace.unwrap_or_default()].map(u64::to_ne_bytes);
        let told = [b"I".as_slice(), &pid.to_ne_bytes(), &start_time, &pid_namespace].concat();
        self.send(&told, &[]).map_err(Error::at("send", "the process's pid to the parent process"))
    }

    /// Hands over the outer side of the terminal.
    ///
    /// # Errors
    /// As [`Channel::ready`].
    pub(crate) fn hand_over(&self, terminal: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        self.send(b"T", &[terminal])
    }

    /// Hands over the namespaces of a new container.
    ///
    /// # Errors
    /// As [`Channel::ready`].
    pub(super) fn entrust(&self, namespaces: &[OwnedFd]) -> Result<()> {
        let namespaces: Vec<BorrowedFd<'_>> = namespaces.iter().map(AsFd::as_fd).collect();
        self.send(b"N", &namespaces).map_err(Error::at("send", "the namespaces to the parent process"))
    }

    /// Tells the path of the command that is about to be executed.
    ///
    /// # Errors
    /// As [`Channel::ready`].
    pub(super) fn announce(&self, command: &Path) -> Result<()> {
        let told = [b"C".as_slice(), command.as_os_str().as_bytes()].concat();
        self.send(&told, &[]).map_err(Error::at("send", "to the parent process"))
    }

    /// Waits until the new process says that it lives, by [`Channel::ready`]. False if it ended before. The caller
    /// may hold the other side, too.
    ///
    /// # Errors
    /// When the message cannot be received.
    pub(crate) fn is_alive(&self, process: impl AsFd) -> Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut polled =
            [PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        retry_on_intr(|| poll(&mut polled, None)).map_err(Error::at("wait", "for the process"))?;
        Ok(polled[0].revents().contains(PollFlags::IN) && matches!(self.receive()?, Some(Message::Ready)))
    }

    /// Whether the other side is gone.
    pub(crate) fn is_closed(&self) -> bool {
        operation::has_hung_up(&self.0).unwrap_or_default()
    }

    fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> std::result::Result<(), Errno> {
        let message = &message[..message.len().min(LONGEST)];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(held::MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Waits for the next message and returns it; none if the other side has closed.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        // Asked for first: most messages have one byte, and each page of a long buffer takes as long as a system call.
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        let next = loop {
            match recv(&self.0, &mut [0_u8; 1], flags) {
                // The other end closed without having read all. What it had said before comes next.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                next => break next.map_err(Error::at("receive", "from the process"))?.1,
            }
        };
        let mut text = vec![0_u8; next.min(LONGEST)];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(held::MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let mut parts = [IoSliceMut::new(&mut text)];
            match recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR | Errno::CONNRESET) => {}
                result => break result.map_err(Error::at("receive", "from the process"))?.bytes,
            }
        };
        let words = |from: usize| String::from_utf8_lossy(&text[from..length]).into_owned();
        Ok(match (text.first().filter(|_| length > 0), text.get(1)) {
            (None, _) => None,
            (Some(b'E'), Some(status)) => Some(Message::Failure(failure(*status, &text[2..length]))),
            (Some(b'I'), _) => identity(&text[1..length]).map(Message::Identity),
            (Some(b'W'), _) => Some(Message::Warning(words(1))),
            (Some(b'C'), _) => Some(Message::Command(words(1))),
            (Some(b'T'), _) => descriptors(control).next().map(Message::Terminal),
            (Some(b'H'), _) => Some(Message::Hooks),
            (Some(b'S'), _) => descriptors(control).next().map(Message::Notifications),
            (Some(b'N'), _) => Some(Message::Namespaces(descriptors(control).collect())),
            _ => Some(Message::Ready),
        })
    }
}

fn new_socket() -> std::result::Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// The address of a socket in a directory. It is short even if the directory's own path is longer than an
/// address may be. It is valid as long as the descriptor is open.
fn address(directory: &Path, name: &str) -> std::result::Result<(OwnedFd, SocketAddrUnix), Errno> {
    let held =
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = SocketAddrUnix::new(mount::resolve::proc_path(held.as_fd()).join(name))?;
    Ok((held, address))
}

fn descriptors(mut control: RecvAncillaryBuffer<'_>) -> impl Iterator<Item = OwnedFd> {
    let received: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    received.into_iter()
}

fn failure(status: u8, told: &[u8]) -> Error {
    let error = match serde_json::from_slice::<operation::Message>(told) {
        Ok(message) => message.into(),
        Err(error) => {
            operation::Error::new("read", "the message of the process", Cause::Source(Box::new(error)))
        }
    };
    Error::with_status(status, error)
}

fn identity(bytes: &[u8]) -> Option<Identity> {
    let (pid, rest) = bytes.split_first_chunk()?;
    let (start_time, rest) = rest.split_first_chunk()?;
    let pid_namespace = Some(u64::from_ne_bytes(*rest.first_chunk()?)).filter(|inode| *inode != 0);
    let (pid, start_time) = (i32::from_ne_bytes(*pid), u64::from_ne_bytes(*start_time));
    Some(Identity { pid, start_time, pid_namespace })
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
