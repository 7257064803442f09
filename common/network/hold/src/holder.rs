//! A process that holds ports with sockets, where no BPF program can.
//!
//! The sockets are bound but do not listen. The kernel refuses packets to such a port that the
//! rules do not translate. No traffic passes through the process; it sleeps. Its name
//! (`operation::background`) says which container's ports it holds.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::{
    libc,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, SigmaskHow, sigprocmask},
    },
    unistd::{geteuid, setsid},
};
use operation::{
    background::{self, END, Name, PATIENCE, WAITING, reach},
    is_believed,
};
use rustix::{
    io::{Errno, fcntl_dupfd_cloexec, retry_on_intr},
    net::{RecvFlags, accept, bind, listen, recv, sockopt},
};

use crate::{Port, bound};

/// The holder's descriptor that it closes when it listens.
const BEGINS: i32 = 1;

/// The name of a holder: the container, and the first of the ports, which no other holder has.
fn name(holder: &str, first: Port) -> Name {
    Name::new("hold", &format!("{holder}/{first}"))
}

/// Whether the holder runs.
pub(crate) fn stands(holder: &str, first: Port) -> Result<bool, Errno> {
    reach(&name(holder, first)).map(|found| found.is_some())
}

/// Tells the holder to end, and waits until it has.
pub(crate) fn end(holder: &str, first: Port) -> Result<(), Errno> {
    background::end(&name(holder, first))
}

/// Starts a holder for these ports. `first` is part of its name. EADDRINUSE if a process has one of
/// the ports.
pub(crate) fn start(holder: &str, first: Port, ports: &[Port]) -> Result<(), Errno> {
    raise_limit();
    let Some(control) = background::claim(&name(holder, first))? else { return Ok(()) };
    let mut sockets = vec![control];
    for port in ports {
        let Some(socket) = bound::socket(*port)? else { continue };
        bind(&socket, &bound::address(*port))?;
        sockets.push(socket);
    }
    let (has_begun, begins) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    sockets.insert(BEGINS as usize, begins);
    // In the child these descriptors get the first numbers, so they must be above them here.
    let above = sockets.len() as i32;
    let sockets = sockets
        .into_iter()
        .map(|socket| match socket.as_raw_fd() < above {
            true => fcntl_dupfd_cloexec(&socket, above),
            false => Ok(socket),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let kept: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    // SAFETY: `stay` makes only system calls, and uses only the first two descriptors.
    unsafe { operation::aside::run(&kept, stay) }.map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    drop(sockets);
    // Ends when the holder listens itself, or is gone.
    retry_on_intr(|| rustix::io::read(&has_begun, &mut [0_u8; 1][..])).map(drop)
}

/// Raises the limit of open files. Each port needs a descriptor.
fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If the limit is still too low, opening a socket fails.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Runs the holder: sleeps until somebody tells it to end, or kills it.
fn stay() {
    let _ = setsid();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // SAFETY: the name is a C string, of which the kernel keeps 15 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"port-hold".as_ptr()) };
    // SAFETY: descriptor 0 is the control socket.
    let control = unsafe { BorrowedFd::borrow_raw(0) };
    // From now on this process is found under the name, and no longer its parent.
    if listen(control, WAITING).is_err() {
        return;
    }
    // SAFETY: nothing else uses the descriptor.
    unsafe { libc::close(BEGINS) };
    loop {
        match accept(control) {
            Ok(connection) if is_believed(&connection, geteuid().as_raw()) => {
                let _ = sockopt::set_socket_timeout(&connection, sockopt::Timeout::Recv, Some(PATIENCE));
                let mut told = [0_u8; END.len()];
                if recv(&connection, &mut told[..], RecvFlags::empty()).is_ok() && told == END {
                    let number = connection.as_raw_fd();
                    // SAFETY: nothing uses these descriptors any more; the process ends when this
                    // returns.
                    unsafe { operation::close_descriptors(0, number.cast_unsigned() - 1) };
                    return;
                }
            }
            Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => return,
        }
    }
}
