//! The socket of a monitor. A packet is a line of JSON, or a letter and a part of a stream.

use std::{
    fs,
    os::fd::OwnedFd,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use runtime::Stat;
use rustix::{
    fs::{Mode, renameat},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::{Place, Result, failed, streams};

pub(crate) const NAME: &str = "sock";
pub(crate) const NEW: &str = "sock.new";

/// How long a monitor may take to reap its process.
const REAPING: Duration = Duration::from_millis(500);

fn socket(flags: SocketFlags) -> std::result::Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None)
}

/// Creates a socket in place of an earlier monitor's. The new monitor calls listen(2) on it itself: by this
/// call, the kernel knows the socket's owner.
pub(crate) fn open(place: &Place) -> Result<OwnedFd> {
    let open = || -> std::result::Result<OwnedFd, Errno> {
        let listener = socket(SocketFlags::NONBLOCK)?;
        place.remove(NEW)?;
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = SocketAddrUnix::new(place.short(NEW)).and_then(|address| bind(&listener, &address));
        rustix::process::umask(before);
        bound?;
        renameat(place, place.name(NEW), place, place.name(NAME))?;
        Ok(listener)
    };
    open().map_err(failed("create", place.shown(NAME)))
}

/// Accepts connections from now on.
pub(crate) fn listen(listener: &OwnedFd) {
    let _ = rustix::net::listen(listener, 16);
}

/// How long an existing monitor may take to listen.
const PATIENCE: Duration = Duration::from_secs(2);

/// The other side of the socket.
enum Peer {
    Nobody,
    /// A monitor that accepts no connection now. Its queue is full, and it may be stopped.
    Busy,
    Connected(OwnedFd),
}

/// Connects to the monitor. Returns none if there is none.
pub(crate) fn reach(place: &Place) -> Result<Option<OwnedFd>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let is_late = Instant::now() > deadline;
        match attempt(place)? {
            Peer::Connected(socket) => return Ok(Some(socket)),
            Peer::Nobody if is_late || !streams::is_taken(place)? => return Ok(None),
            Peer::Busy if is_late => return Err(failed("connect to", place.shown(NAME))(Errno::AGAIN)),
            Peer::Nobody | Peer::Busy => sleep(Duration::from_millis(2)),
        }
    }
}

/// Whether there is a monitor.
pub(crate) fn is_there(place: &Place) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt(place)? {
            Peer::Connected(_) | Peer::Busy => return Ok(true),
            Peer::Nobody if Instant::now() > deadline || !streams::is_taken(place)? => return Ok(false),
            Peer::Nobody => sleep(Duration::from_millis(2)),
        }
    }
}

/// Tries to connect once, without waiting.
fn attempt(place: &Place) -> Result<Peer> {
    let reach = || {
        let socket = socket(SocketFlags::NONBLOCK)?;
        connect(&socket, &SocketAddrUnix::new(place.short(NAME))?)?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        Ok(socket)
    };
    match reach() {
        Ok(socket) => Ok(Peer::Connected(socket)),
        Err(Errno::AGAIN) => Ok(Peer::Busy),
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::CONNRESET) => Ok(Peer::Nobody),
        Err(errno) => Err(failed("connect to", place.shown(NAME))(errno)),
    }
}

/// Kills the monitor, if there is one, and waits for its end. Its container's process has ended, or goes on
/// without a monitor. A program that started the container in the foreground is not killed: it ends by itself with
/// the container.
pub(crate) fn end(place: &Place) -> Result<()> {
    if streams::is_foreground(place)? {
        return Ok(());
    }
    let Some(socket) = reach(place)? else { return Ok(()) };
    let object = || format!("the monitor of {}", place.shown(NAME));
    // The peer is the process that listens. Nobody else can get its pid before it ends, and then the
    // connection is closed.
    let peer = getsockopt(&socket, PeerCredentials).map_err(failed("find", object()))?;
    let Some(pid) = Pid::from_raw(peer.pid()) else {
        let cause = "it was started in another pid namespace than this process";
        return Err(
            failed("end", object())(cause).with_hint("run the command where the container was started")
        );
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        process => process.map_err(failed("end", object()))?,
    };
    if operation::has_hung_up(&socket).map_err(failed("end", object()))? {
        return Ok(());
    }
    let_reap(peer.pid());
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(failed("end", object())(errno)),
    }
    match runtime::ended(&process, Some(Duration::from_secs(10))) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed("end", object())(Errno::TIMEDOUT)),
        Err(errno) => Err(failed("end", object())(errno)),
    }
}

/// Gives a monitor a moment to reap a child that has just ended. Otherwise the child goes to the first
/// process of the machine, which may never reap it in a container.
fn let_reap(monitor: i32) {
    let state = |pid: &str| Some(Stat::of(pid.parse().ok()?).ok()??.state);
    for _ in 0..REAPING.as_millis() {
        // This is only to be tidy: if the list cannot be read, do not wait.
        let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children"));
        let children = children.unwrap_or_default();
        if !children.split_whitespace().any(|child| state(child) == Some('Z')) {
            return;
        }
        sleep(Duration::from_millis(1));
    }
}
