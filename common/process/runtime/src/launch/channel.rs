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
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};

use operation::Cause;

use super::held;
use crate::{Error, Identity, error::Result};

/// A longer message does not arrive. An error contains a path or two, each escaped for JSON.
const LONGEST: usize = 64 << 10;

/// One side of a socket that keeps messages separate. It closes on exec.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

pub(crate) enum Message {
    Identity(Identity),
    Failure(Error),
    Warning(String),
    Terminal(OwnedFd),
    /// The namespaces of a new container, to be held.
    Namespaces(Vec<OwnedFd>),
    /// The path of the command that is about to be executed.
    Command(String),
    Ready,
}

impl Channel {
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(Error::at("create", "socket"))?;
        Ok((Self(one), Self(other)))
    }

    /// The last message of a process that ends. If it does not arrive, the other side sees that.
    pub(crate) fn fail(&self, error: &Error) {
        // With the error's number and its other parts, so that only text becomes text.
        let told = serde_json::to_vec(&error.inner().to_message()).unwrap_or_default();
        let _ = self.send(&[b"E".as_slice(), &[error.status()], &told].concat(), &[]);
    }

    /// What is lost here stops nothing.
    pub(crate) fn warn(&self, error: &Error) {
        let _ = self.send(&[b"W".as_slice(), error.to_string().as_bytes()].concat(), &[]);
    }

    /// # Errors
    /// When it does not arrive. The other side waits for it, so the sender must end, or close its side.
    pub(crate) fn ready(&self) -> Result<()> {
        self.send(b"R", &[]).map_err(Error::at("send", "to the other process"))
    }

    /// # Errors
    /// As [`Channel::ready`].
    pub(crate) fn identify(&self, identity: Identity) -> Result<()> {
        let told = [b"I".as_slice(), &identity.pid.to_ne_bytes(), &identity.start_time.to_ne_bytes()];
        self.send(&told.concat(), &[]).map_err(Error::at("send", "the process's pid to the parent process"))
    }

    /// # Errors
    /// As [`Channel::ready`].
    pub(crate) fn hand_over(&self, terminal: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        self.send(b"T", &[terminal])
    }

    /// # Errors
    /// As [`Channel::ready`].
    pub(super) fn entrust(&self, namespaces: &[OwnedFd]) -> Result<()> {
        let namespaces: Vec<BorrowedFd<'_>> = namespaces.iter().map(AsFd::as_fd).collect();
        self.send(b"N", &namespaces).map_err(Error::at("send", "the namespaces to the parent process"))
    }

    /// # Errors
    /// As [`Channel::ready`].
    pub(super) fn announce(&self, command: &Path) -> Result<()> {
        let told = [b"C".as_slice(), command.as_os_str().as_bytes()].concat();
        self.send(&told, &[]).map_err(Error::at("send", "to the parent process"))
    }

    /// Whether the other side has gone.
    pub(crate) fn is_closed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut polled = [PollFd::new(&self.0, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::HUP)
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

    /// The next message; none when the other side has closed.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        let mut text = vec![0_u8; LONGEST];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(held::MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let mut parts = [IoSliceMut::new(&mut text)];
            match recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                // The other end closed without a message: it was killed.
                Err(Errno::CONNRESET) => break 0,
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
            (Some(b'N'), _) => Some(Message::Namespaces(descriptors(control).collect())),
            _ => Some(Message::Ready),
        })
    }
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
    let (pid, start_time) = bytes.split_first_chunk()?;
    let start_time = start_time.first_chunk()?;
    Some(Identity { pid: i32::from_ne_bytes(*pid), start_time: u64::from_ne_bytes(*start_time) })
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
