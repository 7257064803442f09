//! Sends descriptors to other programs over their Unix sockets.

use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use runtime::Identity;
use rustix::{
    cmsg_space,
    fs::{Mode, OFlags},
    io::Errno,
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType, connect, sendmsg, socket_with,
    },
};

use crate::{Error, Result};

/// Sends the outer side of a terminal to the socket at `path`, with the terminal's name in the container's
/// devpts.
///
/// # Errors
/// When no program listens on the socket.
pub fn send(path: &Path, terminal: OwnedFd) -> Result<()> {
    let name =
        rustix::pty::ptsname(&terminal, Vec::new()).map_err(Error::on("read", "the terminal's name"))?;
    pass(path, name.as_bytes(), terminal.as_fd())
}

/// Sends a descriptor of the process (pidfd_open(2)) to the socket at `path`, with runc's word for the kind of process:
/// `standard` for a container's first one, `setns` for another.
pub(crate) fn send_process(path: &Path, process: Identity, kind: &str) -> Result<()> {
    let gone = || Error::new("send", format!("a descriptor to {path:?}"), "the process has ended");
    pass(path, kind.as_bytes(), process.open()?.ok_or_else(gone)?.as_fd())
}

/// Sends a message with a descriptor to the socket at `path`.
pub(crate) fn pass(path: &Path, message: &[u8], descriptor: BorrowedFd<'_>) -> Result<()> {
    let pass = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::INVAL);
        };
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        // The path may be too long for a socket address.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = rustix::fs::open(directory, flags, Mode::empty())?;
        connect(&socket, &SocketAddrUnix::new(mount::resolve::proc_path(held.as_fd()).join(name))?)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL).map(drop)
    };
    pass().map_err(Error::on::<Errno>("send", format!("a descriptor to {path:?}")))
}
