//! A process that holds ports by sockets, where no program can.
//!
//! Its sockets are bound and do not listen: what comes to such a port, because the rules do not translate it, is refused by the
//! kernel. So nothing passes through the process; it sleeps. It listens on a socket with an abstract name, which tells which
//! container's ports it holds. Such names belong to a network namespace, as ports do. By that name it is found, after a SIGKILL
//! at any moment, and told to end.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{
    libc,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, SigmaskHow, sigprocmask},
    },
    unistd::{geteuid, setsid},
};
use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect,
        listen, recv, send, socket_with, sockopt,
    },
};

use crate::{Port, bound};

/// What tells a holder to end.
const END: &[u8] = b"end";

/// How long it may take for that.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a holder may be busy with others.
const BUSY: Duration = Duration::from_millis(500);

/// Names a holder: by the container, and by the first of its ports, which nobody else has.
fn name(holder: &str, first: Port) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new_abstract_name(format!("stave/hold/{holder}/{first}").as_bytes())
}

fn control() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A connection to the holder; none if there is none.
fn find(holder: &str, first: Port) -> Result<Option<OwnedFd>, Errno> {
    let socket = control()?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(BUSY))?;
    match connect(&socket, &name(holder, first)?) {
        // Nobody listens there; or somebody does who takes no connections, which a holder always does.
        Err(Errno::CONNREFUSED | Errno::AGAIN) => return Ok(None),
        connected => connected?,
    }
    // Any process may listen under any such name.
    Ok(is_own(&socket).then_some(socket))
}

/// Whether the process at the other end has this one's user.
fn is_own(socket: impl AsFd) -> bool {
    sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid.as_raw() == geteuid().as_raw())
}

/// Whether it is there.
pub(crate) fn stands(holder: &str, first: Port) -> Result<bool, Errno> {
    find(holder, first).map(|found| found.is_some())
}

/// Tells it to end, and waits for that.
pub(crate) fn end(holder: &str, first: Port) -> Result<(), Errno> {
    let Some(socket) = find(holder, first)? else { return Ok(()) };
    match send(&socket, END, SendFlags::NOSIGNAL) {
        // It ends already.
        Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
        sent => sent?,
    };
    // The connection is its last descriptor: it ends after the sockets that hold the ports.
    match recv(&socket, &mut [0_u8; 1][..], RecvFlags::empty()) {
        Ok(_) | Err(Errno::CONNRESET) => Ok(()),
        Err(Errno::AGAIN) => Err(Errno::TIMEDOUT),
        Err(errno) => Err(errno),
    }
}

/// Starts one for these ports: `first` names it. ADDRINUSE if a process has one of them.
pub(crate) fn start(holder: &str, first: Port, ports: &[Port]) -> Result<(), Errno> {
    raise_limit();
    let mut sockets = vec![control()?];
    match bind(&sockets[0], &name(holder, first)?) {
        Err(Errno::ADDRINUSE) if stands(holder, first)? => return Ok(()),
        // Somebody else has the name.
        Err(Errno::ADDRINUSE) => return Err(Errno::EXIST),
        bound => bound?,
    }
    for port in ports {
        let Some(socket) = bound::socket(*port)? else { continue };
        bind(&socket, &bound::address(*port))?;
        sockets.push(socket);
    }
    listen(&sockets[0], 8)?;
    // They get the first numbers there, and must not have them here.
    let above = sockets.len() as i32;
    let sockets = sockets
        .into_iter()
        .map(|socket| match socket.as_raw_fd() < above {
            true => fcntl_dupfd_cloexec(&socket, above),
            false => Ok(socket),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let kept: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    // SAFETY: `stay` only makes system calls, and uses the first of the descriptors alone.
    unsafe { operation::aside::run(&kept, stay) }.map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// One descriptor for each port.
fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // What does not fit then is an error of its own.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The holder: it sleeps until somebody tells it to end, or kills it.
fn stay() {
    let _ = setsid();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // SAFETY: the name is a C string, of which the kernel keeps 15 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"port-hold".as_ptr()) };
    // SAFETY: the control socket was put there.
    let control = unsafe { BorrowedFd::borrow_raw(0) };
    loop {
        match accept(control) {
            Ok(connection) if is_own(&connection) => {
                let _ = sockopt::set_socket_timeout(&connection, sockopt::Timeout::Recv, Some(PATIENCE));
                let mut told = [0_u8; END.len()];
                if recv(&connection, &mut told[..], RecvFlags::empty()).is_ok() && told == END {
                    let number = connection.as_raw_fd();
                    // SAFETY: nothing uses these any more; the process ends when this returns.
                    unsafe { libc::close_range(0, number.cast_unsigned() - 1, 0) };
                    return;
                }
            }
            Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_takes_no_connections_is_no_holder() {
        let (holder, first) =
            (format!("test-{}", std::process::id()), Port::new(nat::Protocol::Tcp, None, 1));
        assert_eq!(stands(&holder, first), Ok(false));
        let other = control().unwrap();
        bind(&other, &name(&holder, first).unwrap()).unwrap();
        listen(&other, 0).unwrap();
        let waits = control().unwrap();
        connect(&waits, &name(&holder, first).unwrap()).unwrap();
        assert_eq!(stands(&holder, first), Ok(false));
        assert_eq!(end(&holder, first), Ok(()));
        assert_eq!(start(&holder, first, &[]), Err(Errno::EXIST));
    }
}
