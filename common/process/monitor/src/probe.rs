//! One health check that runs.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use runtime::{Identity, Running};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{Keeper, Outcome, Probe};

/// How much of the output is kept, in bytes, as with Docker.
const KEPT: usize = 4096;

/// How often the output is read before there is something else to do: a check may write without end.
const ROUNDS: usize = 16;

/// When a container is asked for its health, and the check that runs.
#[derive(Debug)]
pub(crate) struct Health {
    probe: Probe,
    /// The process that is asked, and when it began.
    identity: Identity,
    began: Instant,
    is_starting: bool,
    next: Instant,
    running: Option<Check>,
}

#[derive(Debug)]
struct Check {
    process: Running,
    output: OwnedFd,
    printed: Vec<u8>,
    until: Instant,
}

impl Health {
    /// For a process that has just started, or that another monitor has left.
    pub(crate) fn of(keeper: &mut dyn Keeper, identity: Identity) -> Option<Self> {
        let probe = keeper.probe()?;
        let now = Instant::now();
        let health = Self { probe, identity, began: now, is_starting: true, next: now, running: None };
        Some(Self { next: now + health.pause(), ..health })
    }

    fn pause(&self) -> Duration {
        let early = self.is_starting && self.began.elapsed() < self.probe.start_period;
        if early { self.probe.start_interval } else { self.probe.interval }
    }

    /// When something is to be done.
    pub(crate) fn deadline(&self) -> Instant {
        self.running.as_ref().map_or(self.next, |check| check.until)
    }

    /// The process of the check, and its output.
    pub(crate) fn descriptors(&self) -> Option<[BorrowedFd<'_>; 2]> {
        self.running.as_ref().map(|check| [check.process.as_fd(), check.output.as_fd()])
    }

    /// Begins a check when it is time, ends one that takes too long, and takes the result of one that has ended.
    pub(crate) fn turn(&mut self, keeper: &mut dyn Keeper) {
        let now = Instant::now();
        let Some(check) = &mut self.running else {
            // In a container that is paused, a check would be stopped before it begins.
            if now >= self.next && keeper.is_paused() {
                self.next = now + self.pause();
            } else if now >= self.next {
                self.begin(keeper, now);
            }
            return;
        };
        let ended = read(check);
        if !ended && now < check.until {
            return;
        }
        if !ended && keeper.is_paused() {
            check.until = now + self.probe.timeout;
            return;
        }
        let Some(mut check) = self.running.take() else { return };
        let status = match ended {
            true => Some(check.process.wait().unwrap_or(125)),
            false => {
                check.process.kill();
                let _ = check.process.wait();
                None
            }
        };
        let _ = read(&mut check);
        let mut output = String::from_utf8_lossy(&check.printed).into_owned();
        if status.is_none() {
            output = format!("health check took longer than {:?}", self.probe.timeout);
        }
        self.answer(keeper, status, output);
    }

    fn begin(&mut self, keeper: &mut dyn Keeper, now: Instant) {
        let Ok((output, inside)) = pipe_with(PipeFlags::CLOEXEC) else {
            self.next = now + self.pause();
            return;
        };
        // The check's own side waits for us.
        runtime::set_nonblocking(&output);
        let mut told = String::new();
        match keeper.ask(self.identity, &inside, &mut told) {
            Some(process) => {
                let until = now + self.probe.timeout;
                self.running = Some(Check { process, output, printed: Vec::new(), until });
            }
            None => self.answer(keeper, Some(125), told),
        }
    }

    fn answer(&mut self, keeper: &mut dyn Keeper, status: Option<i32>, output: String) {
        let within = self.is_starting && self.began.elapsed() < self.probe.start_period;
        // One success ends the time in which failures do not count.
        self.is_starting &= status != Some(0);
        keeper.answered(self.identity, &Outcome { status, output, is_starting: within });
        self.next = Instant::now() + self.pause();
        runtime::settle_memory();
    }
}

/// Reads what there is. Whether the process has ended.
fn read(check: &mut Check) -> bool {
    let mut buffer = [0_u8; KEPT];
    for _ in 0..ROUNDS {
        let Ok(length @ 1..) = rustix::io::read(&check.output, &mut buffer) else { break };
        let room = KEPT - check.printed.len();
        check.printed.extend_from_slice(&buffer[..length.min(room)]);
    }
    crate::run::is_readable(&check.process)
}
