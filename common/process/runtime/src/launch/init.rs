//! A first process that only looks after the others: `--init`.
//!
//! A program that was not made to be the first process of a pid namespace does not wait for processes whose parents have
//! ended, and the kernel drops the signals that it does not handle. So this process stays, starts the command, passes
//! signals on to it, and waits for whatever ends.
//!
//! It has no more rights than the command, and nothing of the host: no descriptors, no program file (see
//! `sys::program_file`), and in its memory nothing that this program has read.

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

/// Signals of this program's own faults.
const OWN: [Signal; 7] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Starts the command and ends when it does, with its status. Returns only with an error.
pub(super) fn run(process: &Process, command: &Command, has_terminal: bool, channel: &Channel) -> Result<()> {
    let mut signals = SigSet::all();
    OWN.iter().for_each(|signal| signals.remove(*signal));
    // Before there is a child: none of its signals is lost.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None).map_err(Error::at("block", "signals"))?;
    let _ = rustix::thread::set_name(c"init");
    // For the case that it is not the first one of its pid namespace.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let (closed, open) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::at("create", "pipe"))?;
    let child = sys::fork(|| {
        // Its own copy would keep the pipe open.
        sys::close_others(&mut [closed.as_raw_fd(), channel.as_fd().as_raw_fd()]);
        let error = begin(command, has_terminal, &closed);
        channel.fail(&error);
        error.status()
    })
    .map_err(Error::at("fork", ""))?;
    let child = Pid::from_raw(child.as_raw()).ok_or(Errno::SRCH).map_err(Error::at("fork", ""))?;
    credentials::as_if_executed(process)?;
    // What is still to come is the command's: it closes the other side, or says why it is not executed.
    channel.ready()?;
    let heap = sys::own_heap();
    sys::close_others(&mut [open.as_raw_fd()]);
    // From here on nothing is allocated or freed.
    sys::forget_memory(heap);
    // Others of its user may open its streams, as those of the command (`/proc/1/fd/1`).
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    // Only now the command begins.
    drop(open);
    look_after(child, &signals)
}

/// The process of the command: waits until the first process is what it stays. Returns only with the reason why the command is
/// not executed.
fn begin(command: &Command, has_terminal: bool, gate: &OwnedFd) -> Error {
    while rustix::io::read(gate, &mut [0_u8]) == Err(Errno::INTR) {}
    let group = || {
        rustix::process::setpgid(None, None)?;
        if has_terminal {
            // Signals of the terminal go to the command alone.
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
                // It may not be this user's any more.
                let _ = kill_process(child, sys::signal(signal));
            }
        }
    }
}

/// Takes the status of all that have ended. Ends with the child.
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
