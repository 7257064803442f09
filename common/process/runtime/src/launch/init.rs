//! A first process that only looks after the others: `--init`.
//!
//! The first process of a pid namespace must wait for orphaned processes, and the kernel drops signals that
//! it does not handle. Most programs are not made for that. So this process stays, starts the command, passes
//! signals on to it, and reaps every process that ends.
//!
//! It has no more rights than the command, and nothing of the host: no descriptors, no program file (see
//! `sys::program_file`), and nothing in its memory that this program has read.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::{
    libc,
    sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask},
};
use oci_spec::runtime::Process;
use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{DumpableBehavior, Pid, WaitOptions, kill_process, wait},
};

use super::{channel::Channel, command, command::Command, credentials};
use crate::{Error, error::Result, sys};

/// The signals of faults in this program itself.
const OWN: [Signal; 7] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Starts the command. Ends when the command does, with its status. Returns only with an error.
pub(super) fn run(process: &Process, command: &Command, has_terminal: bool, channel: &Channel) -> Result<()> {
    let mut signals = SigSet::all();
    OWN.iter().for_each(|signal| signals.remove(*signal));
    // Block them before there is a child, so that none of its signals is lost.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None).map_err(Error::at("block", "signals"))?;
    let _ = rustix::thread::set_name(c"init");
    // This process may not be the first one of its pid namespace.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let (closed, open) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::at("create", "pipe"))?;
    let child = sys::fork(|| {
        // The child's copy would keep the pipe open.
        sys::close_others(&mut [closed.as_raw_fd(), channel.as_fd().as_raw_fd()]);
        let error = begin(command, has_terminal, &closed);
        channel.fail(&error);
        error.status()
    })
    .map_err(Error::at("fork", ""))?;
    let child = Pid::from_raw(child.as_raw()).ok_or(Errno::SRCH).map_err(Error::at("fork", ""))?;
    credentials::as_if_executed(process)?;
    // From here on the command uses the channel: it closes its side, or says why it is not executed.
    channel.ready()?;
    let memory = sys::own_memory().map_err(Error::at("read", "/proc/self/maps"))?;
    sys::close_others(&mut [open.as_raw_fd()]);
    // Nothing may be allocated or freed from here on.
    sys::forget_memory(&memory);
    // Processes of the same user may open its streams, like those of the command (`/proc/1/fd/1`).
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    // The command begins only now.
    drop(open);
    look_after(child, &signals)
}

/// The process of the command. It waits until the first process has cleared its memory. Returns only with the
/// reason why the command is not executed.
fn begin(command: &Command, has_terminal: bool, gate: &OwnedFd) -> Error {
    while rustix::io::read(gate, &mut [0_u8]) == Err(Errno::INTR) {}
    let group = || {
        rustix::process::setpgid(None, None)?;
        if has_terminal {
            // Signals from the terminal go to the command alone.
            rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp())?;
        }
        sys::reset_signals()
    };
    if let Err(errno) = group() {
        return Error::system("create", "process group", errno);
    }
    let errno = command.execute();
    command::not_executed(&command.path.to_string_lossy(), errno)
}

fn look_after(child: Pid, signals: &SigSet) -> ! {
    loop {
        match sys::wait_for_signal(signals) {
            libc::SIGCHLD => reap(child),
            signal => {
                // The command may belong to another user by now.
                let _ = kill_process(child, sys::signal(signal));
            }
        }
    }
}

/// Reaps all processes that have ended. Ends when the child does.
fn reap(child: Pid) {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                sys::exit(
                    status
                        .exit_status()
                        .or(signal)
                        .and_then(|status| u8::try_from(status).ok())
                        .unwrap_or(125),
                )
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return,
        }
    }
}
