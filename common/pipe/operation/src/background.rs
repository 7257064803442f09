//! Processes that stay behind the tools, found by name.
//!
//! Such a process listens on an abstract socket, whose name belongs to a network namespace, as the containers do. By this
//! name it can be found and told to end, even after another tool was killed at any moment.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
        socket_with, sockopt,
    },
    process::geteuid,
};

use crate::peer::{self, believed};

/// The message that tells the process to end.
pub const END: &[u8] = b"end";

/// How long the process may take to accept a connection, to answer, and to end.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How many may wait to be connected (listen(2)).
pub const WAITING: i32 = 8;

/// How often a process is told to end.
const TRIES: u32 = 3;

/// A socket for either side.
///
/// # Errors
/// When no descriptor is left.
pub fn control() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A connection to the process. None if it does not run. The connection hangs up when the process ends.
///
/// # Errors
/// When it is unknown whether the process runs. EAGAIN if it accepts no connection: it may be stopped. A foreign process
/// that does so is none.
pub fn reach(address: &SocketAddrUnix) -> Result<Option<OwnedFd>, Errno> {
    let socket = control()?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    match retry_on_intr(|| connect(&socket, address)) {
        // Nobody listens there.
        Err(Errno::CONNREFUSED) => return Ok(None),
        // The kernel tells who listens only to those who are connected.
        Err(Errno::AGAIN) if is_foreign(address) => return Ok(None),
        connected => connected?,
    }
    // Any process may listen under this name.
    Ok(believed(&socket, geteuid().as_raw())?.then_some(socket))
}

/// Whether only foreign processes have the socket that listens at this address. False if nobody can be found who has it:
/// to see the descriptors of others takes root.
fn is_foreign(address: &SocketAddrUnix) -> bool {
    let owner = geteuid().as_raw();
    let holders = address.abstract_name().map(peer::holders).unwrap_or_default();
    !holders.is_empty() && !holders.iter().any(|(pid, uid)| *uid == owner && !peer::is_of_a_container(*pid))
}

/// Tells the process to end, and waits until it has: it closes this connection last. A process that closes the connection
/// and goes on, because it could not read the message, is told again.
///
/// # Errors
/// As [`reach`]; ETIMEDOUT when it does not end.
pub fn end(address: &SocketAddrUnix) -> Result<(), Errno> {
    for _ in 0..TRIES {
        let Some(socket) = reach(address)? else { return Ok(()) };
        match send(&socket, END, SendFlags::NOSIGNAL) {
            // The process is already ending.
            Err(Errno::PIPE | Errno::CONNRESET) => continue,
            sent => sent?,
        };
        match recv(&socket, &mut [0_u8; 1][..], RecvFlags::empty()) {
            Ok(_) | Err(Errno::CONNRESET) => {}
            Err(Errno::AGAIN) => break,
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::TIMEDOUT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::thread;

    use rustix::net::{accept, bind, listen};

    use super::*;

    /// A process that hangs up `times` without ending, and then ends.
    fn hangs_up(name: &str, times: u32) -> (SocketAddrUnix, thread::JoinHandle<()>) {
        let name = format!("{name}-{}", std::process::id());
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        let socket = control().unwrap();
        bind(&socket, &address).unwrap();
        listen(&socket, WAITING).unwrap();
        let serves = thread::spawn(move || {
            for _ in 0..times {
                drop(accept(&socket).unwrap());
            }
            if times < TRIES {
                let last = accept(&socket).unwrap();
                let mut told = [0; 8];
                let (_, length) = recv(&last, &mut told[..], RecvFlags::empty()).unwrap();
                assert_eq!(&told[..length], END);
                drop(socket);
            }
        });
        (address, serves)
    }

    #[test]
    fn who_accepts_no_connection_is_not_gone() {
        let address =
            SocketAddrUnix::new_abstract_name(format!("deaf-{}", std::process::id()).as_bytes()).unwrap();
        let socket = control().unwrap();
        bind(&socket, &address).unwrap();
        listen(&socket, 0).unwrap();
        let waits = control().unwrap();
        connect(&waits, &address).unwrap();
        assert_eq!(end(&address), Err(Errno::AGAIN));
    }

    /// Anybody may take the name of a process that has ended.
    #[test]
    fn a_foreign_process_that_accepts_no_connection_is_none() {
        let name = format!("squat-{}", std::process::id());
        let script = "import os, socket, sys\nos.setuid(1000)\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
            s.bind(chr(0) + sys.argv[1]); s.listen(0)\nc = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
            c.connect(chr(0) + sys.argv[1]); print(flush=True); sys.stdin.read()";
        let mut python = std::process::Command::new("python3");
        let pipe = std::process::Stdio::piped;
        let mut squats = python.args(["-c", script, &name]).stdin(pipe()).stdout(pipe()).spawn().unwrap();
        let ready = std::io::Read::read(squats.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        let ended = end(&address);
        drop(squats.stdin.take());
        squats.wait().unwrap();
        assert_eq!((ready, ended), (1, Ok(())));
    }

    #[test]
    fn a_hang_up_is_no_end() {
        let (address, serves) = hangs_up("once", 1);
        assert_eq!(end(&address), Ok(()));
        serves.join().unwrap();
        assert_eq!(end(&address), Ok(()), "nobody is there");
        let (address, serves) = hangs_up("always", TRIES);
        assert_eq!(end(&address), Err(Errno::TIMEDOUT));
        serves.join().unwrap();
    }
}
