//! A background process beside the containers, found by name.
//!
//! It is found, and told to end, by its name (`operation::background`). Everything that may fail is
//! opened before the fork, so the starter gets the error.

use std::{
    ffi::CStr,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    ops::ControlFlow,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use nix::{
    libc,
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Gid, Uid, chdir, fork, setgroups, setresgid, setresuid, setsid},
};
pub use operation::background::Name;
use operation::{
    background::{self, END, WAITING},
    is_believed,
};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, accept_with, listen, recv, recvmsg, send, sendmsg,
    },
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_name, set_no_new_privs,
    },
};

/// The maximum number of connections at a time.
const CONNECTIONS: usize = 64;
/// The longest message, the most descriptors with it, and the longest answer.
const MESSAGE: usize = 8192;
const DESCRIPTORS: usize = 2;
const ANSWER: usize = 16;
/// The uids and gids to run as, the first one that the user namespace has. Other programs run as nobody (65534), and could stop
/// this one. So it has an id that is given to nobody: the last one before those of `--userns auto`. In a range of 65536 ids for
/// a container, as systemd gives them out, it is the uid 65535, which is -1 in 16 bits and so no user.
const IDS: [u32; 2] = [1_207_959_551, 65_534];

/// A connection to the process. None if it does not run. The connection hangs up when the process
/// ends.
///
/// # Errors
/// When it is unknown whether the process runs.
pub fn watch(name: &Name) -> Result<Option<OwnedFd>, Errno> {
    background::reach(name)
}

/// Whether the process runs.
///
/// # Errors
/// As [`watch`].
pub fn stands(name: &Name) -> Result<bool, Errno> {
    watch(name).map(|found| found.is_some())
}

/// Tells the process to end, and waits until it has.
///
/// # Errors
/// As [`watch`]; ETIMEDOUT when it does not end.
pub fn end(name: &Name) -> Result<(), Errno> {
    background::end(name)
}

/// Sends a message with these descriptors. Returns the answer. None if the process does not run, or
/// ends.
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

/// The name, taken for a process that is about to start.
#[derive(Debug)]
pub struct Claim(OwnedFd);

impl Claim {
    /// Takes the name. None if such a process runs already.
    ///
    /// # Errors
    /// EEXIST when another program has the name, and there is no other place.
    pub fn take(name: &Name) -> Result<Option<Self>, Errno> {
        let Some(socket) = background::claim(name)? else { return Ok(None) };
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Some(Self(socket)))
    }
}

/// The privileges of the process.
#[derive(Debug, Clone, Copy)]
pub struct Privileges {
    /// Whether it gives up being root: it runs under an id of its own, which owns nothing.
    pub own_user: bool,
    /// The capabilities that it keeps.
    pub capabilities: CapabilitySet,
}

/// The process's side of the connections: tells who asks it to end, and who watches it.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    connections: Vec<OwnedFd>,
    /// The connection that asked the process to end.
    ending: Option<OwnedFd>,
    /// The user who may command the process.
    owner: u32,
}

impl Control {
    /// The descriptors to poll.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.socket.as_fd()).chain(self.connections.iter().map(AsFd::as_fd))
    }

    /// Handles what arrived on the descriptor at this index of the list. Returns whether to
    /// continue.
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
            && is_believed(&connection, self.owner)
        {
            self.connections.push(connection);
        }
    }

    /// Answers the last message.
    pub(crate) fn answer(&mut self, from: usize, answer: &[u8]) {
        if let Some(connection) = self.connections.get(from) {
            // The client may have gone.
            let _ = send(connection, answer, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }
}

/// A message to the process.
#[derive(Debug)]
pub struct Told {
    pub(crate) message: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) from: usize,
}

/// Starts a background process that keeps only the descriptors in `kept`, under the same numbers,
/// runs `work`, and ends. `title` is its name in process lists.
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
    let (has_begun, begins) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the child has only this thread. Of the library it uses the allocator, which the C
    // library keeps usable after a fork, and no lock of another thread.
    match unsafe { fork() }.map_err(raw)? {
        ForkResult::Parent { child } => {
            drop(begins);
            loop {
                match waitpid(child, None) {
                    Err(nix::errno::Errno::EINTR) => {}
                    Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
                    _ => return Err(Errno::AGAIN),
                }
            }
        }
        ForkResult::Child => {
            // Fork twice, so that nobody has to wait for the process. SAFETY: as above.
            let status = match unsafe { fork() } {
                Ok(ForkResult::Parent { .. }) => {
                    drop(begins);
                    // Ends when the process listens itself, or is gone.
                    let _ = rustix::io::retry_on_intr(|| rustix::io::read(&has_begun, &mut [0_u8; 1][..]));
                    0
                }
                Ok(ForkResult::Child) => {
                    let _ = catch_unwind(AssertUnwindSafe(|| stay(title, claim, &numbers, privileges, work)));
                    0
                }
                Err(_) => 1,
            };
            // SAFETY: ends the process. The parent's exit handlers do not run.
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
    let owner = rustix::process::geteuid().as_raw();
    // From now on this process is found under the name, and no longer the one that took it.
    if listen(&claim.0, WAITING).is_err() {
        return;
    }
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
        // The owners of the descriptors were dropped with `work`, or are leaked.
        close_all_but(&[ending.as_raw_fd()]);
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) }
    }
}

/// Closes all descriptors but these, which must be sorted. The first three are redirected to
/// /dev/null.
fn close_all_but(numbers: &[RawFd]) {
    let mut from = 3;
    let close = |from: RawFd, to: u32| {
        if from.cast_unsigned() <= to {
            // SAFETY: nothing in this process uses these descriptors any more.
            unsafe { operation::close_descriptors(from.cast_unsigned(), to) };
        }
    };
    for number in numbers {
        close(from, number.cast_unsigned() - 1);
        from = number + 1;
    }
    close(from, u32::MAX);
    if let Ok(nowhere) = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        for standard in 0..3 {
            // SAFETY: the process writes to none of these descriptors.
            unsafe { libc::dup2(nowhere.as_raw_fd(), standard) };
        }
    }
}

/// Gives up all privileges but these.
fn surrender(privileges: Privileges) -> Result<(), Errno> {
    set_no_new_privs(true)?;
    if privileges.own_user {
        set_keep_capabilities(true)?;
        // In a user namespace without these ids, the process keeps its own.
        let _ = setgroups(&[]);
        let _ = IDS.map(Gid::from_raw).into_iter().find(|id| setresgid(*id, *id, *id).is_ok());
        let _ = IDS.map(Uid::from_raw).into_iter().find(|id| setresuid(*id, *id, *id).is_ok());
        set_keep_capabilities(false)?;
    }
    let kept = privileges.capabilities;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
}
