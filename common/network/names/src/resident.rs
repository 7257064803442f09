//! A process that stays beside the containers, and is found by name.
//!
//! It listens on a socket with an abstract name, which belongs to a network namespace as what it works on does. By that name it is
//! found after a SIGKILL at any moment, and told to end. Everything that may fail is opened before it is forked, so that its
//! starter hears of it.

use std::{
    ffi::CStr,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    ops::ControlFlow,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use nix::{
    libc,
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Gid, Uid, chdir, fork, setgroups, setresgid, setresuid, setsid},
};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
        listen, recv, recvmsg, send, sendmsg, socket_with, sockopt,
    },
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_name, set_no_new_privs,
    },
};

/// What tells it to end.
const END: &[u8] = b"end";
/// How long it may take for that.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most connections to it at a time.
const CONNECTIONS: usize = 64;
/// The longest message to it, with the most descriptors, and the longest answer.
const MESSAGE: usize = 8192;
const DESCRIPTORS: usize = 2;
const ANSWER: usize = 16;
/// The user and group that have nothing.
const NOBODY: u32 = 65_534;

/// The name of such a process in a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// That of the process which does `job` for the container, or the thing, `of`.
    pub fn new(job: &str, of: &str) -> Self {
        Self(format!("stave/{job}/{of}"))
    }

    fn address(&self) -> Result<SocketAddrUnix, Errno> {
        SocketAddrUnix::new_abstract_name(self.0.as_bytes())
    }
}

fn control() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A connection to the process; none if there is none. It hangs up when the process ends.
///
/// # Errors
/// When it is not known whether there is one.
pub fn watch(name: &Name) -> Result<Option<OwnedFd>, Errno> {
    let socket = control()?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    match connect(&socket, &name.address()?) {
        Err(Errno::CONNREFUSED) => return Ok(None),
        connected => connected?,
    }
    // Any process may listen under any such name.
    let own = rustix::process::geteuid();
    let is_own = sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == own);
    Ok(is_own.then_some(socket))
}

/// Whether it is there.
///
/// # Errors
/// As [`watch`].
pub fn stands(name: &Name) -> Result<bool, Errno> {
    watch(name).map(|found| found.is_some())
}

/// Tells it to end, and waits for that.
///
/// # Errors
/// As [`watch`]; ETIMEDOUT when it does not end.
pub fn end(name: &Name) -> Result<(), Errno> {
    let Some(socket) = watch(name)? else { return Ok(()) };
    match send(&socket, END, SendFlags::NOSIGNAL) {
        // It ends already.
        Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
        sent => sent?,
    };
    // The connection is its last descriptor: it ends after all others.
    match recv(&socket, &mut [0_u8; 1][..], RecvFlags::empty()) {
        Ok(_) | Err(Errno::CONNRESET) => Ok(()),
        Err(Errno::AGAIN) => Err(Errno::TIMEDOUT),
        Err(errno) => Err(errno),
    }
}

/// Tells it something, with these descriptors. Returns its answer; none if it is not there, or ends.
///
/// # Errors
/// As [`watch`]; EAGAIN when it does not answer.
pub(crate) fn tell(
    name: &Name,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<Option<Vec<u8>>, Errno> {
    let Some(socket) = watch(name)? else { return Ok(None) };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !with.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    match sendmsg(&socket, &[IoSlice::new(message)], &mut with, SendFlags::NOSIGNAL) {
        Err(Errno::PIPE | Errno::CONNRESET) => return Ok(None),
        sent => sent?,
    };
    let mut answer = [0_u8; ANSWER];
    match recv(&socket, &mut answer[..], RecvFlags::empty()) {
        Ok((0, _)) | Err(Errno::CONNRESET) => Ok(None),
        Ok((length, _)) => Ok(Some(answer[..length].to_vec())),
        Err(errno) => Err(errno),
    }
}

/// The name, taken for a process that is about to be started.
#[derive(Debug)]
pub struct Claim(OwnedFd);

impl Claim {
    /// Takes the name. None if such a process is there.
    ///
    /// # Errors
    /// EEXIST when somebody else has the name.
    pub fn take(name: &Name) -> Result<Option<Self>, Errno> {
        let socket = control()?;
        match bind(&socket, &name.address()?) {
            Err(Errno::ADDRINUSE) if stands(name)? => return Ok(None),
            Err(Errno::ADDRINUSE) => return Err(Errno::EXIST),
            bound => bound?,
        }
        listen(&socket, 8)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Some(Self(socket)))
    }
}

/// What the process may still do.
#[derive(Debug, Clone, Copy)]
pub struct Privileges {
    /// Whether it belongs to nobody.
    pub nobody: bool,
    /// The capabilities that it keeps.
    pub capabilities: CapabilitySet,
}

/// The side of the process: who asks it to end, and who watches it.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    connections: Vec<OwnedFd>,
    /// Who asked.
    ending: Option<OwnedFd>,
    owner: rustix::process::Uid,
}

impl Control {
    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.socket.as_fd()).chain(self.connections.iter().map(AsFd::as_fd))
    }

    /// Hears what came in on the descriptor at this place of the list. Says whether to go on.
    pub fn hear(&mut self, at: usize) -> ControlFlow<(), Option<Told>> {
        let Some(at) = at.checked_sub(1) else {
            self.accept();
            return ControlFlow::Continue(None);
        };
        let Some(connection) = self.connections.get(at) else { return ControlFlow::Continue(None) };
        let mut message = vec![0_u8; MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut message)];
        let length = match recvmsg(connection, parts, &mut with, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::AGAIN | Errno::INTR) => return ControlFlow::Continue(None),
            Ok(received) if received.bytes > 0 => received.bytes,
            _ => {
                self.connections.swap_remove(at);
                return ControlFlow::Continue(None);
            }
        };
        message.truncate(length);
        if message == END {
            self.ending = Some(self.connections.swap_remove(at));
            return ControlFlow::Break(());
        }
        let descriptors = with.drain().flat_map(|with| match with {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        });
        ControlFlow::Continue(Some(Told { descriptors: descriptors.collect(), message, from: at }))
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if let Ok(connection) = accept_with(&self.socket, flags)
            && self.connections.len() < CONNECTIONS
            && sockopt::socket_peercred(&connection).is_ok_and(|peer| peer.uid == self.owner)
        {
            self.connections.push(connection);
        }
    }

    /// Answers what was heard last.
    pub(crate) fn answer(&mut self, from: usize, answer: &[u8]) {
        if let Some(connection) = self.connections.get(from) {
            // Who asked may have gone.
            let _ = send(connection, answer, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }
}

/// What the process was told.
#[derive(Debug)]
pub struct Told {
    pub(crate) message: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) from: usize,
}

/// Starts it: a process of its own that keeps nothing of the caller but `kept`, under the same numbers, does `work`, and ends.
/// `title` is what it is called in lists of processes.
///
/// # Errors
/// When no process can be made.
pub fn start(
    title: &CStr,
    claim: Claim,
    kept: &[BorrowedFd<'_>],
    privileges: Privileges,
    work: impl FnOnce(&mut Control),
) -> Result<(), Errno> {
    let mut numbers: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.push(claim.0.as_raw_fd());
    numbers.sort_unstable();
    if numbers[0] <= 2 {
        return Err(Errno::BADF);
    }
    let raw = |errno: nix::errno::Errno| Errno::from_raw_os_error(errno as i32);
    // SAFETY: the child has this thread alone. What it uses of the library is the allocator, which the C library keeps usable in
    // it, and no lock of another thread.
    match unsafe { fork() }.map_err(raw)? {
        ForkResult::Parent { child } => loop {
            match waitpid(child, None) {
                Err(nix::errno::Errno::EINTR) => {}
                Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
                _ => return Err(Errno::AGAIN),
            }
        },
        ForkResult::Child => {
            // Forked twice, so that nobody has to wait for it.
            // SAFETY: as above.
            let status = match unsafe { fork() } {
                Ok(ForkResult::Parent { .. }) => 0,
                Ok(ForkResult::Child) => {
                    let _ = catch_unwind(AssertUnwindSafe(|| stay(title, claim, &numbers, privileges, work)));
                    0
                }
                Err(_) => 1,
            };
            // SAFETY: ends the process. What the parent set up to run at the end is the parent's.
            unsafe { libc::_exit(status) }
        }
    }
}

fn stay(
    title: &CStr,
    claim: Claim,
    numbers: &[RawFd],
    privileges: Privileges,
    work: impl FnOnce(&mut Control),
) {
    let owner = rustix::process::geteuid();
    let _ = setsid();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    let _ = set_name(title);
    let _ = chdir("/");
    close_all_but(numbers);
    if surrender(privileges).is_err() {
        return;
    }
    let mut control = Control { socket: claim.0, connections: Vec::new(), ending: None, owner };
    work(&mut control);
    if let Some(ending) = control.ending {
        // What holds the descriptors is gone with `work`, or is forgotten.
        close_all_but(&[ending.as_raw_fd()]);
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) }
    }
}

/// Closes all descriptors but these, which are sorted; the first three lead nowhere.
fn close_all_but(numbers: &[RawFd]) {
    let mut from = 3;
    let close = |from: RawFd, to: u32| {
        if from.cast_unsigned() <= to {
            // SAFETY: nothing in this process uses these any more.
            unsafe { libc::close_range(from.cast_unsigned(), to, 0) };
        }
    };
    for number in numbers {
        close(from, number.cast_unsigned() - 1);
        from = number + 1;
    }
    close(from, u32::MAX);
    if let Ok(nowhere) = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        for standard in 0..3 {
            // SAFETY: the process writes to none of them.
            unsafe { libc::dup2(nowhere.as_raw_fd(), standard) };
        }
    }
}

/// Gives up everything but `privileges`.
fn surrender(privileges: Privileges) -> Result<(), Errno> {
    set_no_new_privs(true)?;
    if privileges.nobody {
        set_keep_capabilities(true)?;
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        // In a user namespace without that user it stays what it is.
        let _ = setgroups(&[]);
        let _ = setresgid(group, group, group);
        let _ = setresuid(user, user, user);
        set_keep_capabilities(false)?;
    }
    let kept = privileges.capabilities;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
}
