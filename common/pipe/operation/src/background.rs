//! Processes that stay behind the tools, found by name.
//!
//! Such a process listens on an abstract socket, whose name belongs to a network namespace, as the containers do. By this
//! name it can be found and told to end, even after another tool was killed at any moment. Where another program has taken
//! the name, it listens on a file instead (see `own_names`).

use std::{
    os::fd::OwnedFd,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    io::{Errno, ioctl_fionbio, retry_on_intr},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen,
        recv, send, socket_with, sockopt,
    },
    process::geteuid,
};

use crate::{
    own_names::OwnNames,
    peer::{self, believed},
};

/// The message that tells the process to end.
pub const END: &[u8] = b"end";

/// How long the process may take to accept a connection, to answer, and to end.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How many may wait to be connected (listen(2)).
pub const WAITING: i32 = 8;

/// How often a process is told to end, and how often its file is tried.
const TRIES: u32 = 3;

/// How long a process may take from having the name to listening there.
const BEGINNING: Duration = Duration::from_millis(20);

/// How long a process that ends by itself may take for it.
const ENDING: Duration = Duration::from_millis(100);

/// How long to wait for one of these at a time.
const MOMENT: Duration = Duration::from_millis(2);

/// The name of such a process in this thread's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The name of the process that does `job` for the container, or other object, `of`.
    pub fn new(job: &str, of: &str) -> Self {
        Self(format!("stave/{job}/{of}"))
    }

    fn address(&self) -> Result<SocketAddrUnix, Errno> {
        SocketAddrUnix::new_abstract_name(self.0.as_bytes())
    }
}

/// A socket for either side.
fn control() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A connection to the process. None if it does not run. The connection hangs up when the process ends.
///
/// # Errors
/// When it is unknown whether the process runs. EAGAIN if it accepts no connection: it may be stopped. A foreign process
/// that does so is none.
pub fn reach(name: &Name) -> Result<Option<OwnedFd>, Errno> {
    match reach_file(name)? {
        None => reach_at(&name.address()?),
        found => Ok(found),
    }
}

fn reach_at(address: &SocketAddrUnix) -> Result<Option<OwnedFd>, Errno> {
    let socket = control()?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    ioctl_fionbio(&socket, true)?;
    match retry_on_intr(|| connect(&socket, address)) {
        // Nobody listens there.
        Err(Errno::CONNREFUSED | Errno::NOENT) => return Ok(None),
        // The kernel tells who listens only to those who are connected.
        Err(Errno::AGAIN) if is_foreign(address) => return Ok(None),
        Err(Errno::AGAIN) => {
            ioctl_fionbio(&socket, false)?;
            retry_on_intr(|| connect(&socket, address))?;
        }
        connected => connected?,
    }
    ioctl_fionbio(&socket, false)?;
    // Any process may listen under this name.
    Ok(believed(&socket, geteuid().as_raw())?.then_some(socket))
}

/// As [`reach`], for a process that listens on a file.
fn reach_file(name: &Name) -> Result<Option<OwnedFd>, Errno> {
    let Some(names) = OwnNames::find()? else { return Ok(None) };
    // No process has a file with a name that is too long.
    names.address(&name.0).map_or(Ok(None), |address| reach_at(&address))
}

/// Whether only foreign processes have the socket that listens at this abstract address. False if nobody can be found who
/// has it: to see the descriptors of others takes root.
fn is_foreign(address: &SocketAddrUnix) -> bool {
    let owner = geteuid().as_raw();
    let holders = address.abstract_name().map(peer::holders).unwrap_or_default();
    !holders.is_empty() && !holders.iter().any(|(pid, uid)| *uid == owner && !peer::is_of_a_container(*pid))
}

/// A socket that listens under this name, for a process that is about to start. None if such a process runs already.
///
/// # Errors
/// As [`reach`]; EEXIST when another program has the name, and there can be no file.
pub fn claim(name: &Name) -> Result<Option<OwnedFd>, Errno> {
    let (socket, begun) = (control()?, Instant::now());
    loop {
        match bind(&socket, &name.address()?) {
            Err(Errno::ADDRINUSE) if reach_at(&name.address()?)?.is_some() => return Ok(None),
            Err(Errno::ADDRINUSE) if begun.elapsed() < BEGINNING => sleep(MOMENT),
            Err(Errno::ADDRINUSE) => return claim_file(name),
            bound => break bound?,
        }
    }
    // The process may have started while another program had the name.
    if reach_file(name)?.is_some() {
        return Ok(None);
    }
    listen(&socket, WAITING)?;
    Ok(Some(socket))
}

/// As [`claim`], where another program has the name.
fn claim_file(name: &Name) -> Result<Option<OwnedFd>, Errno> {
    for _ in 0..TRIES {
        let names = match OwnNames::make() {
            // Somebody has just removed the directory.
            Err(Errno::NOENT) => continue,
            made => made.map_err(|_| Errno::EXIST)?,
        };
        names.lock()?;
        let (socket, address) = (control()?, names.address(&name.0).map_err(|_| Errno::EXIST)?);
        if reach_at(&address)?.is_some() {
            return Ok(None);
        }
        // Whoever had it has ended.
        names.remove(&name.0)?;
        match bind(&socket, &address) {
            Err(Errno::NOENT) => continue,
            bound => bound?,
        }
        // The next one to come here must see that the process starts.
        listen(&socket, WAITING)?;
        return Ok(Some(socket));
    }
    Err(Errno::EXIST)
}

/// Removes the file of a process that has ended, or is about to. One that goes on keeps it.
///
/// # Errors
/// As [`reach`]; when the file cannot be removed.
pub fn forget(name: &Name) -> Result<(), Errno> {
    let Some(names) = OwnNames::find()? else { return Ok(()) };
    names.lock()?;
    let begun = Instant::now();
    while let Ok(address) = names.address(&name.0) {
        if reach_at(&address)?.is_none() {
            names.remove(&name.0)?;
            break;
        }
        if begun.elapsed() > ENDING {
            break;
        }
        sleep(MOMENT);
    }
    names.tidy();
    Ok(())
}

/// Tells the process to end, and waits until it has: it closes this connection last. A process that closes the connection
/// and goes on, because it could not read the message, is told again.
///
/// # Errors
/// As [`reach`]; ETIMEDOUT when it does not end.
pub fn end(name: &Name) -> Result<(), Errno> {
    for _ in 0..TRIES {
        let Some(socket) = reach(name)? else { return forget(name) };
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

    use rustix::net::accept;

    use super::*;

    fn name(of: &str) -> Name {
        Name::new("test", &format!("{of}-{}", std::process::id()))
    }

    /// A process that hangs up `times` without ending, and then ends.
    fn hangs_up(of: &str, times: u32) -> (Name, thread::JoinHandle<()>) {
        let name = name(of);
        let socket = claim(&name).unwrap().unwrap();
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
        (name, serves)
    }

    #[test]
    fn who_accepts_no_connection_is_not_gone() {
        let (name, socket) = (name("deaf"), control().unwrap());
        bind(&socket, &name.address().unwrap()).unwrap();
        listen(&socket, 0).unwrap();
        let waits = control().unwrap();
        connect(&waits, &name.address().unwrap()).unwrap();
        assert_eq!(end(&name), Err(Errno::AGAIN));
    }

    /// Anybody may take the name of a process that has ended.
    #[test]
    fn a_foreign_process_that_accepts_no_connection_is_none() {
        let name = name("squat");
        let script = "import os, socket, sys\nos.setuid(1000)\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
            s.bind(chr(0) + sys.argv[1]); s.listen(0)\nc = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
            c.connect(chr(0) + sys.argv[1]); print(flush=True); sys.stdin.read()";
        let mut python = std::process::Command::new("python3");
        let pipe = std::process::Stdio::piped;
        let mut squats = python.args(["-c", script, &name.0]).stdin(pipe()).stdout(pipe()).spawn().unwrap();
        let ready = std::io::Read::read(squats.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let ended = end(&name);
        drop(squats.stdin.take());
        squats.wait().unwrap();
        assert_eq!((ready, ended), (1, Ok(())));
    }

    #[test]
    fn a_hang_up_is_no_end() {
        let (name, serves) = hangs_up("once", 1);
        assert_eq!(end(&name), Ok(()));
        serves.join().unwrap();
        assert_eq!(end(&name), Ok(()), "nobody is there");
        let (name, serves) = hangs_up("always", TRIES);
        assert_eq!(end(&name), Err(Errno::TIMEDOUT));
        serves.join().unwrap();
    }
}
