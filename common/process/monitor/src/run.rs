//! The main loop of a monitor.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use oci_spec::runtime::Spec;
use runtime::{Identity, Running, Supervised};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use serde_json::json;

use crate::{
    Keeper, Log, Next, Place, Result, Source,
    attached::{Clients, Request},
    caller::Caller,
    failed,
    log::Open,
    probe::Health,
    socket,
    streams::{Input, Inside, Outside},
};

/// How much output of an ended process is still read, in bytes: more than a pipe holds. There is a limit
/// because another process may have the pipe open and write without end.
const LAST: usize = 1 << 20;

/// How many requests of one client are answered before the monitor goes on.
const REQUESTS: usize = 16;

/// How many bytes are read at once.
const AT_ONCE: usize = 16 << 10;

/// A process that a monitor waits for.
#[derive(Debug)]
pub(crate) enum Watched {
    /// A child of the monitor.
    Own(Running),
    /// A process that another monitor has left behind: its identity, and a pidfd.
    Left(Identity, OwnedFd),
}

impl Watched {
    fn identity(&self) -> Identity {
        match self {
            Self::Own(running) => running.identity(),
            Self::Left(identity, _) => *identity,
        }
    }

    /// The exit status of a process that has ended, if it is known.
    fn status(&mut self) -> Option<i32> {
        match self {
            Self::Own(running) => running.wait().ok(),
            Self::Left(_, process) => runtime::status_of(&*process),
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(running) => running.as_fd(),
            Self::Left(_, process) => process.as_fd(),
        }
    }
}

/// What a monitor begins with.
enum First {
    /// It waits for a process.
    Process(Watched),
    /// It starts the process again after this time.
    Pause(Duration),
}

/// What a monitor needs, opened before its process is started.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) place: Place,
    streams: Outside,
    log: Option<Open>,
    listener: OwnedFd,
}

impl Ready {
    /// Opens all of it. Returns none if the container has a monitor. `foreground`: as in [`Outside::open`].
    fn open(place: Place, log: Option<Log>, input: Input, foreground: bool) -> Result<Option<Self>> {
        let log = log.map(Open::new).transpose()?;
        let Some(streams) = Outside::open(&place, input, foreground)? else { return Ok(None) };
        let listener = socket::open(&place)?;
        Ok(Some(Self { place, streams, log, listener }))
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let log = self.log.iter().flat_map(Open::descriptors);
        let all = self.streams.descriptors().chain(log).chain([self.place.as_fd(), self.listener.as_fd()]);
        all.map(|fd| fd.as_raw_fd()).collect()
    }

    pub(crate) fn monitor<'a>(self, caller: Option<Caller<'a>>) -> Monitor<'a> {
        let Self { place, streams, log, listener } = self;
        socket::listen(&listener);
        Monitor {
            place,
            streams,
            log,
            listener,
            clients: Clients::default(),
            caller,
            process: None,
            terminal: None,
            health: None,
            again: None,
        }
    }

    fn run(self, first: First, keeper: &mut dyn Keeper) {
        let mut monitor = self.monitor(None);
        match first {
            First::Process(process) => monitor.watch(process, keeper),
            First::Pause(pause) => monitor.again = Some(Instant::now() + pause),
        }
        runtime::settle_memory();
        while monitor.turn(keeper) {}
        monitor.leave().0.finish();
    }
}

/// Forks a monitor, which starts the process of `spec` and writes its output to `log`. The process waits for [`Supervised::release`]. With `early`, clients can connect before
/// that, and get all of the output.
///
/// # Errors
/// When the container has a monitor already, or a file cannot be opened; otherwise as [`runtime::supervise`].
pub fn launch(
    place: Place,
    spec: &Spec,
    log: Option<Log>,
    (input, early): (Input, bool),
    keeper: &mut dyn Keeper,
) -> Result<Supervised> {
    let inside = Inside::open(&place, input)?;
    let Some(ready) = ready(&place, log, input, false)? else {
        return Err(failed("start", "the monitor")("the container has one"));
    };
    if early {
        // The monitor calls this again, and owns the socket then.
        socket::listen(&ready.listener);
    }
    let kept = ready.descriptors();
    let supervised = runtime::supervise(spec, inside.streams(), &kept, move |running| {
        ready.run(First::Process(Watched::Own(running)), keeper);
    });
    Ok(supervised?)
}

/// Opens what a monitor needs. Waits for up to two seconds: an earlier monitor takes a moment to end after
/// its process.
pub(crate) fn ready(
    place: &Place,
    log: Option<Log>,
    input: Input,
    foreground: bool,
) -> Result<Option<Ready>> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let ready = Ready::open(place.try_clone()?, log.clone(), input, foreground)?;
        if ready.is_some() || Instant::now() >= deadline {
            return Ok(ready);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts another monitor for a container whose monitor is gone. Returns false if the container has a
/// monitor, or if its process is gone.
///
/// # Errors
/// As [`launch`].
pub fn take_over(
    place: Place,
    identity: Identity,
    log: Option<Log>,
    input: Input,
    keeper: &mut dyn Keeper,
) -> Result<bool> {
    let Some(process) = identity.open()? else { return Ok(false) };
    let Some(ready) = Ready::open(place, log, input, false)? else { return Ok(false) };
    let kept = [ready.descriptors(), vec![process.as_raw_fd()]].concat();
    runtime::background(&kept, move || {
        ready.run(First::Process(Watched::Left(identity, process)), keeper);
        0
    })?;
    Ok(true)
}

/// Starts another monitor for a container whose monitor is gone, and whose process has ended and is to be started
/// again after `pause`. Returns false if the container has a monitor.
///
/// # Errors
/// As [`launch`].
pub fn resume(
    place: Place,
    pause: Duration,
    log: Option<Log>,
    input: Input,
    keeper: &mut dyn Keeper,
) -> Result<bool> {
    // Whoever looks for a monitor holds its lock for a moment.
    let Some(ready) = ready(&place, log, input, false)? else { return Ok(false) };
    runtime::background(&ready.descriptors(), move || {
        ready.run(First::Pause(pause), keeper);
        0
    })?;
    Ok(true)
}

pub(crate) struct Monitor<'a> {
    place: Place,
    streams: Outside,
    log: Option<Open>,
    listener: OwnedFd,
    clients: Clients,
    /// Who started the container in the foreground, if this is that program.
    caller: Option<Caller<'a>>,
    process: Option<Watched>,
    /// The monitor's side of the process's terminal, if it has one.
    terminal: Option<OwnedFd>,
    health: Option<Health>,
    /// When to start the process again, if it has ended.
    again: Option<Instant>,
}

/// Whether a read returns at once, with data or with the end.
pub(crate) fn is_readable(fd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)), Ok(1..))
}

impl<'a> Monitor<'a> {
    pub(crate) fn watch(&mut self, mut process: Watched, keeper: &mut dyn Keeper) {
        if let Watched::Own(running) = &mut process
            && let Some(terminal) = running.terminal.take()
        {
            runtime::set_nonblocking(&terminal);
            self.caller.iter().for_each(|caller| caller.copy_size(&terminal));
            self.terminal = Some(terminal);
        }
        self.health = Health::of(keeper, process.identity());
        self.process = Some(process);
    }

    /// Waits for an event and handles it. Returns false when the monitor is done.
    pub(crate) fn turn(&mut self, keeper: &mut dyn Keeper) -> bool {
        let waits = self.clients.settle() | self.caller.as_ref().is_some_and(Caller::is_behind);
        self.wait(waits);
        self.requests(keeper);
        self.serve();
        if !waits {
            // With nobody else to wait for, a whole pipe at once.
            self.output(if self.caller.is_some() { 4 } else { 1 });
        }
        if let Some(health) = &mut self.health {
            health.turn(keeper);
        }
        if self.process.as_ref().is_some_and(is_readable) {
            return self.ended(keeper);
        }
        match self.again {
            Some(when) if Instant::now() >= when => self.begin(keeper),
            _ => true,
        }
    }

    /// Waits until there is something to do. With `waits`, a client must read first, and no output is taken.
    fn wait(&self, waits: bool) {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(self.process.iter().map(|process| PollFd::new(process, PollFlags::IN)));
        if !waits {
            fds.extend(self.sources().map(|(_, source)| PollFd::from_borrowed_fd(source, PollFlags::IN)));
        }
        fds.extend(self.caller.iter().flat_map(|caller| caller.interests(self.terminal.is_some())));
        if self.clients.type_on() || self.caller.as_ref().is_some_and(Caller::types_on) {
            fds.extend(self.typed().map(|typed| PollFd::from_borrowed_fd(typed, PollFlags::OUT)));
        }
        let interests = self.clients.interests();
        fds.extend(interests.map(|(client, flags)| PollFd::from_borrowed_fd(client, flags)));
        let health = self.health.as_ref();
        let asked = health.into_iter().flat_map(Health::descriptors);
        fds.extend(asked.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let slow = waits.then(|| Instant::now() + Duration::from_secs(1));
        let deadlines = [self.again, health.map(Health::deadline), slow];
        let patience = deadlines.into_iter().flatten().min().map(|deadline| {
            // Round up, so that the wait does not end before the deadline.
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        // An error is an interruption; the next turn polls again.
        let _ = poll(&mut fds, patience.as_ref());
    }

    fn sources(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>)> {
        let stdout = self.terminal.as_ref().or(self.streams.stdout.as_ref());
        let both = [(Source::Stdout, stdout), (Source::Stderr, self.streams.stderr.as_ref())];
        both.into_iter().filter_map(|(source, fd)| Some((source, fd?.as_fd())))
    }

    /// Where typed input goes, if the process has an input that stays open.
    fn typed(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().or(self.streams.stdin.as_ref()).map(AsFd::as_fd)
    }

    /// Reads at most `rounds` buffers from each stream, logs them, and sends them to the clients. Returns
    /// whether there was output.
    fn output(&mut self, rounds: usize) -> bool {
        let mut any = false;
        for source in [Source::Stdout, Source::Stderr] {
            for _ in 0..rounds {
                let mut buffer = [0_u8; AT_ONCE];
                let Some((_, fd)) = self.sources().find(|(of, _)| *of == source) else { break };
                match rustix::io::read(fd, &mut buffer) {
                    Ok(length @ 1..) => {
                        any = true;
                        if let Some(log) = &mut self.log {
                            log.append(source, &buffer[..length]);
                        }
                        self.clients.output(source.letter(), &buffer[..length]);
                        if let Some(caller) = &mut self.caller {
                            caller.show(source, &buffer[..length]);
                        }
                    }
                    Err(Errno::AGAIN | Errno::INTR) => break,
                    // The end. A terminal says EIO when the last program has closed it.
                    _ => {
                        self.close(source);
                        break;
                    }
                }
            }
        }
        any
    }

    fn close(&mut self, source: Source) {
        match source {
            Source::Stdout if self.terminal.take().is_some() => self.streams.stdout = None,
            Source::Stdout => self.streams.stdout = None,
            Source::Stderr => self.streams.stderr = None,
        }
    }

    fn requests(&mut self, keeper: &mut dyn Keeper) {
        if is_readable(&self.listener) {
            self.clients.accept(&self.listener);
        }
        let terminal = self.terminal.as_ref();
        let typed = terminal.or(self.streams.stdin.as_ref());
        let (mut look, mut is_over) = (false, false);
        for client in self.clients.each() {
            pass_on(typed.map(AsFd::as_fd), &mut client.input);
            for _ in 0..REQUESTS {
                let Some(request) = client.request() else { break };
                match request {
                    Request::Look => look = true,
                    Request::Attach => {
                        Clients::answer(
                            client,
                            &json!({"attached": true, "terminal": terminal.is_some()}).to_string(),
                        );
                    }
                    Request::Resize { columns, rows } => {
                        terminal.into_iter().for_each(|terminal| runtime::resize(terminal, columns, rows));
                    }
                    Request::EndOfInput => is_over = true,
                    Request::Input(bytes) => {
                        client.input = bytes;
                        pass_on(typed.map(AsFd::as_fd), &mut client.input);
                    }
                }
            }
        }
        // The input of a terminal does not end.
        if is_over && self.terminal.is_none() {
            self.streams.end_input();
        }
        if look && self.again.is_some() && !keeper.is_wanted() {
            self.again = Some(Instant::now());
        }
    }

    /// Handles the end of the process. Returns false if nothing comes after it.
    fn ended(&mut self, keeper: &mut dyn Keeper) -> bool {
        for _ in 0..LAST / AT_ONCE {
            if !self.output(1) {
                break;
            }
            self.clients.settle();
        }
        let Some(mut process) = self.process.take() else { return true };
        self.terminal = None;
        self.health = None;
        let status = process.status();
        let next = keeper.ended(process.identity(), status);
        drop(process);
        self.clients.tell(&json!({"exitStatus": status}).to_string());
        self.clients.settle();
        if let Some(caller) = &mut self.caller {
            // The caller is there for one process. Another monitor starts the next one.
            caller.ended = Some((status, next));
            return false;
        }
        self.next(next)
    }

    /// Passes on the caller's signals and input, and the output that its streams had no room for.
    fn serve(&mut self) {
        let Some(caller) = &mut self.caller else { return };
        caller.signals(self.process.as_ref(), self.terminal.as_ref());
        caller.type_to(self.terminal.as_ref());
        for source in caller.flush() {
            // The reader is gone, and the process is to notice. A terminal would end the process instead.
            if self.terminal.is_none() {
                self.close(source);
            }
        }
    }

    /// Closes the files and releases the lock before the others read the rest: another monitor may start meanwhile.
    pub(crate) fn leave(self) -> (Clients, Option<Caller<'a>>) {
        let Monitor { clients, caller, .. } = self;
        (clients, caller)
    }

    fn next(&mut self, next: Next) -> bool {
        match next {
            Next::Leave => false,
            Next::Again(pause) => {
                self.again = Some(Instant::now() + pause);
                true
            }
        }
    }

    /// Starts the process again. Returns false if nothing comes after that.
    fn begin(&mut self, keeper: &mut dyn Keeper) -> bool {
        self.again = None;
        let inside = Inside::open(&self.place, self.streams.input());
        let reopened = self.streams.reopen(&self.place);
        let (Ok(inside), Ok(())) = (inside, reopened) else { return false };
        match keeper.again(inside.streams()) {
            Ok(running) => {
                self.watch(Watched::Own(running), keeper);
                runtime::settle_memory();
                true
            }
            Err(next) => self.next(next),
        }
    }
}

/// Writes as much as there is room for, and leaves the rest in `bytes`. If the process has no input that
/// stays open, the bytes are dropped.
pub(crate) fn pass_on(to: Option<BorrowedFd<'_>>, bytes: &mut Vec<u8>) {
    while let (Some(to), false) = (to, bytes.is_empty()) {
        match rustix::io::write(to, bytes) {
            Ok(length) => drop(bytes.drain(..length)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return,
            Err(_) => break,
        }
    }
    bytes.clear();
}
