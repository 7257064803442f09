//! A lock on this thread's network namespace, for all run directories.
//!
//! Whoever listens at an abstract address has it: such an address belongs to a network namespace, and goes with the process that has
//! it. Others connect, and hear when it goes.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use operation::{believed, has_hung_up};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
    },
    process::geteuid,
};

use crate::waiting;

/// How long its holder may take from having the address to listening there.
const MOMENT: Duration = Duration::from_micros(200);
/// How long the address may be taken without anybody who can be connected to. A tool listens right after it has the address.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many may wait, as far as the kernel allows it.
const WAITING: i32 = 4096;

/// Takes the lock, and waits for its holder. None where somebody else has the address, such as a container on the
/// host's network, who has no say in this.
///
/// # Errors
/// When no socket can be opened, or its holder cannot be looked at.
pub(crate) fn take(name: &str) -> io::Result<Option<OwnedFd>> {
    let address = SocketAddrUnix::new_abstract_name(format!("stave/lock/{name}").as_bytes())?;
    if let Some(own) = hold(&address)? {
        return Ok(Some(own));
    }
    let seen = AtomicI32::new(0);
    let holder = || Some(seen.load(Ordering::Relaxed)).filter(|pid| *pid > 0);
    waiting::told(&format!("{name:?} of this network namespace"), holder, || wait(&address, &seen))
}

/// As [`take`], while another process has the lock. `seen` is that process.
fn wait(address: &SocketAddrUnix, seen: &AtomicI32) -> io::Result<Option<OwnedFd>> {
    let mut begun = Instant::now();
    loop {
        if let Some(own) = hold(address)? {
            return Ok(Some(own));
        }
        let holder = socket(SocketFlags::empty())?;
        sockopt::set_socket_timeout(&holder, sockopt::Timeout::Send, Some(PATIENCE))?;
        match retry_on_intr(|| connect(&holder, address)) {
            // It does not listen yet, or no longer.
            Err(Errno::CONNREFUSED | Errno::AGAIN) if begun.elapsed() < PATIENCE => thread::sleep(MOMENT),
            Err(Errno::CONNREFUSED | Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
            Ok(()) if !believed(&holder, geteuid().as_raw())? && !has_hung_up(&holder)? => return Ok(None),
            Ok(()) => {
                let pid = getsockopt(&holder, PeerCredentials).map_or(0, |peer| peer.pid());
                seen.store(pid, Ordering::Relaxed);
                retry_on_intr(|| poll(&mut [PollFd::new(&holder, PollFlags::empty())], None))?;
                begun = Instant::now();
            }
        }
    }
}

/// Takes the address, and listens there. None while another process has it.
fn hold(address: &SocketAddrUnix) -> io::Result<Option<OwnedFd>> {
    let own = socket(SocketFlags::empty())?;
    match bind(&own, address) {
        Ok(()) => {
            listen(&own, WAITING)?;
            Ok(Some(own))
        }
        Err(Errno::ADDRINUSE) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn socket(more: SocketFlags) -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | more, None)
}

/// The right to be the only process of its kind in the network namespace. It goes with the process, or when it is dropped.
#[derive(Debug)]
pub struct Sole {
    /// None where a process of another user or of a container has the address: it has no say in this.
    _held: Option<OwnedFd>,
}

impl Sole {
    /// Takes the right called `name` in this thread's network namespace, for all run directories. None while another process of this
    /// user has it.
    ///
    /// # Errors
    /// When no socket can be opened, or its holder cannot be looked at.
    pub fn take(name: &str) -> io::Result<Option<Self>> {
        let address = SocketAddrUnix::new_abstract_name(format!("stave/sole/{name}").as_bytes())?;
        let begun = Instant::now();
        loop {
            if let Some(own) = hold(&address)? {
                return Ok(Some(Self { _held: Some(own) }));
            }
            // Its holder never accepts, so the queue may be full one day.
            let holder = socket(SocketFlags::NONBLOCK)?;
            match retry_on_intr(|| connect(&holder, &address)) {
                Err(Errno::CONNREFUSED) if begun.elapsed() < PATIENCE => thread::sleep(MOMENT),
                Err(Errno::CONNREFUSED) => return Ok(Some(Self { _held: None })),
                Ok(()) if !believed(&holder, geteuid().as_raw())? && !has_hung_up(&holder)? => {
                    return Ok(Some(Self { _held: None }));
                }
                Ok(()) | Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_alone() {
        let name = format!("test-{}", std::process::id());
        let held = Sole::take(&name).unwrap();
        assert!(held.is_some() && Sole::take(&name).unwrap().is_none());
        drop(held);
        assert!(Sole::take(&name).unwrap().is_some());
    }

    #[test]
    fn one_at_a_time() {
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let name = format!("test-{}", std::process::id());
        let work = || {
            for _ in 0..50 {
                let lock = take(&name).unwrap();
                assert!(lock.is_some());
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(lock);
            }
        };
        thread::scope(|threads| (0..8).for_each(|_| drop(threads.spawn(work))));
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }
}
