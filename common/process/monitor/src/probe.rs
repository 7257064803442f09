//! Runs the health checks of a container, one at a time.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use runtime::{Identity, Running};
use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

use crate::{Keeper, Outcome, Probe};

/// How much of a check's output is kept, in bytes, as with Docker.
const KEPT: usize = 4096;

/// How long to wait for the end of a killed check before the monitor goes on.
const DYING: Duration = Duration::from_millis(500);

/// How often the output is read before the monitor goes on: a check may write without end.
const ROUNDS: usize = 16;

/// The schedule of a container's health checks, and the running check.
#[derive(Debug)]
pub(crate) struct Health {
    probe: Probe,
    /// The process that is checked. `began` is when this monitor began to watch it.
    identity: Identity,
    began: Instant,
    is_starting: bool,
    next: Instant,
    running: Option<Check>,
    /// Checks that are over and could not be reaped yet.
    left: Vec<Running>,
}

#[derive(Debug)]
struct Check {
    process: Running,
    /// None once the check has closed it.
    output: Option<OwnedFd>,
    printed: Vec<u8>,
    until: Instant,
    /// When it began, since 1970.
    began: Duration,
}

/// Now, since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Health {
    /// For a process that has just started, or that another monitor has left behind. Returns none if there is
    /// no health check.
    pub(crate) fn of(keeper: &mut dyn Keeper, identity: Identity) -> Option<Self> {
        let probe = keeper.probe()?;
        let now = Instant::now();
        let health = Self {
            probe,
            identity,
            began: now,
            is_starting: true,
            next: now,
            running: None,
            left: Vec::new(),
        };
        Some(Self { next: now + health.pause(), ..health })
    }

    fn pause(&self) -> Duration {
        let early = self.is_starting && self.began.elapsed() < self.probe.start_period;
        if early { self.probe.start_interval } else { self.probe.interval }
    }

    /// When the next check begins, or the running one takes too long.
    pub(crate) fn deadline(&self) -> Instant {
        self.running.as_ref().map_or(self.next, |check| check.until)
    }

    /// The process of the running check, and its output.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let checks = self.running.iter();
        checks
            .flat_map(|check| [Some(check.process.as_fd()), check.output.as_ref().map(AsFd::as_fd)])
            .flatten()
    }

    /// Begins a check when it is due, kills one that takes too long, and takes the result of one that has
    /// ended.
    pub(crate) fn turn(&mut self, keeper: &mut dyn Keeper) {
        let now = Instant::now();
        self.left.retain_mut(|process| matches!(process.try_wait(), Ok(None)));
        let Some(check) = &mut self.running else {
            // In a paused container, a check would be stopped before it begins.
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
        let _ = read(&mut check);
        let Check { mut process, printed, began, .. } = check;
        let mut output = String::from_utf8_lossy(&printed).into_owned();
        if !ended {
            process.kill_session();
            let _ = runtime::ended(&process, Some(DYING));
            output = format!("health check took longer than {:?}", self.probe.timeout);
        }
        let known = process.try_wait();
        if let Ok(None) = known {
            // A debugger traces it, or it does not end.
            self.left.push(process);
        }
        let status = ended.then(|| known.ok().flatten().unwrap_or(125));
        self.answer(keeper, (status, output), began);
    }

    fn begin(&mut self, keeper: &mut dyn Keeper, now: Instant) {
        let Ok((output, inside)) = pipe_with(PipeFlags::CLOEXEC) else {
            self.next = now + self.pause();
            return;
        };
        // The check's end of the pipe stays blocking, so the check waits for the monitor.
        runtime::set_nonblocking(&output);
        let (mut told, began) = (String::new(), self::now());
        match keeper.ask(self.identity, &inside, &mut told) {
            Some(process) => {
                let until = now + self.probe.timeout;
                let output = Some(output);
                self.running = Some(Check { process, output, printed: Vec::new(), until, began });
            }
            // It was paused in the meantime.
            None if keeper.is_paused() => self.next = now + self.pause(),
            None => self.answer(keeper, (Some(125), told), began),
        }
    }

    fn answer(&mut self, keeper: &mut dyn Keeper, (status, output): (Option<i32>, String), began: Duration) {
        let within = self.is_starting && self.began.elapsed() < self.probe.start_period;
        // The first success ends the time in which failures do not count.
        self.is_starting &= status != Some(0);
        keeper.answered(self.identity, &Outcome { status, began, output, is_starting: within });
        self.next = Instant::now() + self.pause();
        runtime::settle_memory();
    }
}

/// Reads the available output. Returns whether the process has ended.
fn read(check: &mut Check) -> bool {
    let mut buffer = [0_u8; KEPT];
    for _ in 0..ROUNDS {
        let Some(output) = &check.output else { break };
        match rustix::io::read(output, &mut buffer) {
            Ok(length @ 1..) => {
                let room = KEPT - check.printed.len();
                check.printed.extend_from_slice(&buffer[..length.min(room)]);
            }
            Err(Errno::AGAIN | Errno::INTR) => break,
            // Drop it: a pipe at its end is always readable.
            _ => check.output = None,
        }
    }
    crate::run::is_readable(&check.process)
}
