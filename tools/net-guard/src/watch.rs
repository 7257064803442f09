//! Waits for changes and repairs networks.

use std::{
    collections::{HashSet, VecDeque},
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use document::table::network_tools;
use netlink::{Events, Heard};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signalfd::SignalFd,
};
use operation::{Scope, interrupt};
use repair::{Act, Found, Network, NetworkOperation, Reach};
use sd_notify::NotifyState;
use toolkit::{Records, prelude::*, report_line};

/// Changes that follow each other within this time are repaired together: a firewall that is reloaded sends
/// many.
const QUIET: Duration = Duration::from_millis(1);
/// The longest time to wait for further changes.
const PATIENCE: Duration = Duration::from_millis(4);
/// After this many repairs within [`WHILE`], some program keeps removing what is restored. Then there is a
/// [`PAUSE`] before each repair.
const MANY: usize = 20;
const WHILE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);
/// A change within this time after a repair may come from the repair.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Why waiting ended.
enum Woken {
    Signal,
    Event,
    /// A process that belongs to a network has ended.
    End,
    Time,
}

/// The sources of changes, and the signals to end.
struct Watch<'a> {
    scope: &'a Scope,
    quiet: bool,
    events: Events,
    /// Connections to processes that belong to networks. They hang up when the process ends.
    residents: Vec<OwnedFd>,
    signals: SignalFd,
    records: Records<NetworkOperation>,
    /// The failures that were printed last. They are not printed again.
    failing: HashSet<String>,
    /// The times of repairs that restored something, or failed to.
    repairs: VecDeque<Instant>,
    /// When the last repair ended.
    last: Option<Instant>,
}

/// Watches until a signal asks to end.
///
/// # Errors
/// If it cannot listen.
pub(crate) fn watch(scope: &Scope, quiet: bool) -> Result<()> {
    interrupt::block()?;
    let mut watch = Watch {
        scope,
        quiet,
        events: Events::open()?,
        residents: Vec::new(),
        signals: interrupt::descriptor()?,
        records: Records::default(),
        failing: HashSet::new(),
        repairs: VecDeque::new(),
        last: None,
    };
    // Changes from here on are reported as events.
    if watch.repair()?.is_none() {
        return Ok(());
    }
    // `NOTIFY_SOCKET` may be unset.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    while watch.once()?.is_some() {}
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    Ok(())
}

impl Watch<'_> {
    /// Waits for something to happen, for at most `time`.
    fn wait(&self, time: Option<Duration>) -> Result<Woken> {
        let [route, netfilter] = self.events.descriptors();
        let readable = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let mut all = vec![readable(self.signals.as_fd()), readable(route), readable(netfilter)];
        all.extend(self.residents.iter().map(|resident| readable(resident.as_fd())));
        let timeout = match time {
            Some(time) => PollTimeout::try_from(time)?,
            None => PollTimeout::NONE,
        };
        loop {
            return match poll(&mut all, timeout) {
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(anyhow::Error::from(errno).context("wait for changes of the network")),
                Ok(0) => Ok(Woken::Time),
                Ok(_) if all[0].any() == Some(true) => Ok(Woken::Signal),
                Ok(_) if all[3..].iter().any(|resident| resident.any() == Some(true)) => Ok(Woken::End),
                Ok(_) => Ok(Woken::Event),
            };
        }
    }

    /// Waits for a change and repairs. None if a signal asks to end.
    fn once(&mut self) -> Result<Option<()>> {
        match self.wait(None)? {
            Woken::Signal => return Ok(None),
            // The connections are not polled again before the repair.
            Woken::End => self.residents.clear(),
            Woken::Event | Woken::Time if self.events.take()? == Heard::Nothing => return Ok(Some(())),
            Woken::Event | Woken::Time => {}
        }
        let first = Instant::now();
        while first.elapsed() < PATIENCE {
            match self.wait(Some(QUIET))? {
                Woken::Signal => return Ok(None),
                Woken::Event => self.events.take().map(drop)?,
                Woken::End => self.residents.clear(),
                Woken::Time => break,
            }
        }
        self.repair()
    }

    /// Repairs, and prints what was restored. If the whole repair fails, tries again. None if a signal asks
    /// to end.
    fn repair(&mut self) -> Result<Option<()>> {
        let mut wait = Duration::from_millis(100);
        loop {
            if self.is_busy() && self.sleep(PAUSE)?.is_none() {
                return Ok(None);
            }
            // The repair covers all events so far. It runs on a thread of its own, whose end closes the
            // sockets to containers' namespaces: they would keep the namespaces alive.
            self.events.take()?;
            let (scope, records) = (self.scope, &mut self.records);
            let all = || repair(scope, records, Some(repair::LOCK));
            let repaired = thread::scope(|threads| {
                let started = thread::Builder::new().spawn_scoped(threads, all).context("start a thread")?;
                started.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            match repaired {
                Ok(outcome) => {
                    self.tell(&outcome);
                    self.events.watch_routes_of(outcome.bridges);
                    self.residents = outcome.residents;
                    return Ok(Some(()));
                }
                Err(error) => self.tell_failures(vec![report_line(&error)]),
            }
            if self.sleep(wait)?.is_none() {
                return Ok(None);
            }
            wait = (wait * 2).min(WHILE);
        }
    }

    /// Whether there were many repairs recently.
    fn is_busy(&mut self) -> bool {
        while self.repairs.front().is_some_and(|first| first.elapsed() > WHILE) {
            self.repairs.pop_front();
        }
        self.repairs.len() >= MANY
    }

    /// Sleeps. None if a signal asks to end.
    fn sleep(&self, time: Duration) -> Result<Option<()>> {
        let end = Instant::now() + time;
        let timeout = |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut signals = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut signals, timeout(left)) {
                Ok(0) => return Ok(Some(())),
                Ok(_) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn tell(&mut self, outcome: &Outcome) {
        let restored: Vec<_> = outcome.found.iter().flat_map(|found| &found.restored).collect();
        let of = outcome.found.iter().filter(|found| !found.restored.is_empty());
        let ids: Vec<_> = of.map(|found| found.id.as_str()).collect();
        if let (Some(first), false) = (restored.first(), self.quiet) {
            let more = match restored.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let whose = match ids.as_slice() {
                [one] => one.to_string(),
                several => format!("{} containers", several.len()),
            };
            operation::note(&format!("restored: {first}{more}, of {whose}"));
        }
        let failed = |found: &Found| {
            let lines = found.failed.iter().map(|error| format!("{}: {error}", found.id));
            lines.collect::<Vec<_>>()
        };
        let failures: Vec<_> =
            outcome.found.iter().flat_map(failed).chain(outcome.left.iter().map(report_line)).collect();
        // A failed repair may itself cause events.
        let follows = self.last.is_some_and(|last| last.elapsed() < AT_ONCE);
        if !restored.is_empty() || (follows && !failures.is_empty()) {
            self.repairs.push_back(Instant::now());
        }
        self.last = Some(Instant::now());
        self.tell_failures(failures);
    }

    fn tell_failures(&mut self, failures: Vec<String>) {
        for line in failures.iter().filter(|line| !self.failing.contains(*line)) {
            operation::note(line);
        }
        self.failing = failures.into_iter().collect();
    }
}

/// The result of a repair of all containers.
pub(crate) struct Outcome {
    pub(crate) found: Vec<Found>,
    /// Why some containers were skipped.
    left: Vec<anyhow::Error>,
    /// The interface indexes of all containers' bridges.
    bridges: Vec<u32>,
    /// Connections to the processes of the containers' networks.
    residents: Vec<OwnedFd>,
}

/// Restores what is missing, once. Without the lock it only finds out what is missing.
pub(crate) fn repair(
    scope: &Scope,
    records: &mut Records<NetworkOperation>,
    lock: Option<&'static str>,
) -> Result<Outcome> {
    let settled = records.settled(scope, lock, &network_tools(), &[])?;
    let containers = settled.containers.iter();
    let networks: Vec<_> = containers.map(|(id, operations)| Network::new(id.as_str(), operations)).collect();
    let act = if lock.is_some() { Act::Restore } else { Act::Explain };
    let found = repair::repair(scope, &networks, Reach::Host, act)?;
    let residents = repair::residents(&networks);
    let names: HashSet<&str> = networks.iter().flat_map(Network::bridges).collect();
    let bridges = names.into_iter().filter_map(|name| if_nametoindex(name).ok()).collect();
    let left = settled.left.into_iter().map(|(_, error)| error).collect();
    Ok(Outcome { found, left, bridges, residents })
}
