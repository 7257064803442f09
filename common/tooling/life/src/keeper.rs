//! What a monitor needs to know: the container's record, which is read again each time.

use std::{
    os::fd::{AsFd, OwnedFd},
    thread::sleep,
    time::{Duration, Instant},
};

use cgroup::Usage;
use document::{Document, Id, Instance, kept, members, record::Record};
use monitor::{Keeper, Next, Outcome, Probe};
use operation::Scope;
use runtime::{Identity, Running, Stdio, Streams};
use serde_json::json;

use crate::{Container, Result, Turn, beside, health::Check, policy, unread};

/// The record of one container, as its monitor uses it.
#[derive(Debug, Clone)]
pub struct Recorded {
    scope: Scope,
    id: Id,
    /// The container's instance, because another container may get the id.
    instance: Option<Instance>,
}

/// The end of a process.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// The process that ended.
    pub identity: Identity,
    /// The exit status as a shell counts it, if it is known.
    pub status: Option<i32>,
}

impl Recorded {
    /// The record of the container `id`, whose document is `document`.
    ///
    /// # Errors
    /// When the document's `instance` is malformed.
    pub fn new(scope: &Scope, id: &Id, document: &Document) -> Result<Self> {
        let instance = document.get().map_err(unread)?;
        Ok(Self { scope: scope.clone(), id: id.clone(), instance })
    }

    /// Locks the record, and reads the container. `None` if the record is gone or belongs to another
    /// container by now.
    fn lock(&self) -> Result<Option<(Record, Container)>> {
        let Some(record) = Record::lock_existing(&self.scope.run_dir, &self.id)? else { return Ok(None) };
        let found = record.read()?.map(|document| Container::of(&self.id, document)).transpose()?.flatten();
        match found.filter(|container| self.is_own(container)) {
            Some(container) => Ok(Some((record, container))),
            None => {
                record.release();
                Ok(None)
            }
        }
    }

    fn is_own(&self, container: &Container) -> bool {
        container.document.get::<Instance>().is_ok_and(|instance| instance == self.instance)
    }

    fn read(&self) -> Option<Container> {
        Container::read(&self.scope, &self.id).ok().filter(|container| self.is_own(container))
    }

    fn tell_end(&self, end: End) -> Result<Next> {
        let Some((record, mut container)) = self.lock()? else { return Ok(Next::Leave) };
        let ran = ran(&container)?;
        let Some(next) = close(&mut container, end, true, ran)? else { return Ok(Next::Leave) };
        settle(&self.scope, &record, &container, next)?;
        Ok(next)
    }

    fn start(&self, streams: Streams<'_>) -> Result<std::result::Result<Running, Next>> {
        let Some((record, mut container)) = self.lock()? else { return Ok(Err(Next::Leave)) };
        if !is_wanted(&container) || container.document.has_failed() {
            return Ok(Err(Next::Leave));
        }
        let spec = &container.operation.spec;
        let turn = Turn::take(&self.scope, &self.id, spec).map_err(runtime::Error::from);
        let (_turn, started) = match turn.and_then(|turn| Ok((turn, runtime::start(spec, streams)?))) {
            Ok(started) => started,
            Err(error) => {
                // No other code counts this attempt.
                let restarts = container.process.restarts.unwrap_or_default().saturating_add(1);
                container.edit(|process| drop(process.insert("restarts".into(), restarts.into())))?;
                return self.not_started(&record, container, &error).map(Err);
            }
        };
        container.begin(started.identity(), true)?;
        put(&self.scope, &record, &container)?;
        match started.release() {
            Ok(running) => Ok(Ok(running)),
            Err(error) => self.not_started(&record, container, &error).map(Err),
        }
    }

    fn not_started(&self, record: &Record, mut container: Container, why: &runtime::Error) -> Result<Next> {
        let end = End { identity: container.identity(), status: Some(i32::from(why.status())) };
        container.edit(|process| drop(process.insert("error".into(), why.to_string().into())))?;
        let next = close(&mut container, end, true, Duration::ZERO)?.unwrap_or(Next::Leave);
        settle(&self.scope, record, &container, next)?;
        Ok(next)
    }
}

/// Writes both records. The second record only matters after a restart of the machine, so its errors are
/// ignored.
pub(crate) fn put(scope: &Scope, record: &Record, container: &Container) -> Result<()> {
    record.write(&container.document)?;
    let _ = kept::write(scope, &container.id, &container.document);
    Ok(())
}

/// Writes an end to the record. If the container will not be restarted, releases its published ports.
pub(crate) fn settle(scope: &Scope, record: &Record, container: &Container, next: Next) -> Result<()> {
    put(scope, record, container)?;
    if next == Next::Leave && container.has_step_of(beside::PORTMAP) {
        // Unwind undoes what cannot be released now.
        let _ = beside::run(beside::PORTMAP, beside::PORTS_RELEASE, scope, &container.id);
    }
    Ok(())
}

/// Whether the restart policy is about to restart the container.
fn is_wanted(container: &Container) -> bool {
    container.process.restarting && !container.process.stopped
}

/// How long the process has run, up to now.
fn ran(container: &Container) -> Result<Duration> {
    container.age()
}

/// Writes the end of a process that ran for the time `ran` into the document. Returns what comes next. `None`
/// if the document is about another process. `restarts`: whether there is a monitor that can restart the
/// container.
fn close(container: &mut Container, end: End, restarts: bool, ran: Duration) -> Result<Option<Next>> {
    if container.identity() != end.identity {
        return Ok(None);
    }
    let process = &container.process;
    let again = restarts
        && !process.stopped
        && !container.document.has_failed()
        && container.policy().wants(end.status, process.restarts.unwrap_or_default());
    let before = process.pause.map(Duration::from_millis);
    let pause = policy::pause(ran, before);
    note(container, end, again.then_some(pause))?;
    Ok(Some(if again { Next::Again(pause) } else { Next::Leave }))
}

/// Writes an end into the member `process`. `again`: the pause before a restart.
fn note(container: &mut Container, end: End, again: Option<Duration>) -> Result<()> {
    // The usage is written if it can be read. The end itself is always written.
    let usage = container.cgroup().and_then(|path| Usage::of(path, container.limits()).ok());
    let finished = jiff::Timestamp::now().to_string();
    let kills_before = container.process.oom_kills_before.unwrap_or_default();
    container.edit(|process| {
        process.insert("finished".into(), finished.into());
        match end.status {
            Some(status) => drop(process.insert("exitStatus".into(), status.into())),
            None => drop(process.remove("exitStatus")),
        }
        match again {
            Some(pause) => {
                let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                process.insert("restarting".into(), true.into());
                process.insert("pause".into(), pause.into());
            }
            None => drop(process.remove("restarting")),
        }
        if let Some(Usage { cpu_time, memory_peak, pids_peak, oom_kills }) = usage {
            process.insert("oomKilled".into(), (oom_kills > kills_before).into());
            let usage = members::Usage { cpu_time, memory_peak, pids_peak };
            process.insert("usage".into(), json!(usage));
        }
    })
}

/// Writes the end of a process into `document`, but not into a record.
///
/// # Errors
/// When the document is malformed.
pub fn noted(id: &Id, end: End, document: &mut Document) -> Result<()> {
    if let Some(mut container) = Container::of(id, document.clone())? {
        if container.identity() == end.identity {
            note(&mut container, end, None)?;
        }
        *document = container.document;
    }
    Ok(())
}

/// Writes the end of a process without a monitor into the record of its container, whose document is `document`, if
/// the record is still about this process.
///
/// # Errors
/// When the record cannot be read or written.
pub fn end(scope: &Scope, id: &Id, end: End, document: &Document) -> Result<()> {
    let recorded = Recorded::new(scope, id, document)?;
    let Some((record, mut container)) = recorded.lock()? else { return Ok(()) };
    let ran = ran(&container)?;
    if let Some(next) = close(&mut container, end, false, ran)? {
        settle(scope, &record, &container, next)?;
    }
    Ok(())
}

/// Writes an end to the record that nobody has seen, because the monitor, or the tool that waited, was
/// killed. `status`: the exit status, if it is known. If the restart policy wants the container, it is marked
/// as restarting, and `container-start --all` starts it. Returns the exit status on record.
///
/// # Errors
/// When the record cannot be read or written.
pub(crate) fn unseen(scope: &Scope, container: &Container, status: Option<i32>) -> Result<Option<i32>> {
    let recorded = Recorded::new(scope, &container.id, &container.document)?;
    let Some((record, mut now)) = recorded.lock()? else { return Ok(status) };
    if now.identity() != container.identity() || !now.has_ended_unseen()? {
        return Ok(now.process.exit_status);
    }
    let restarts = now.is_monitored();
    let (end, ran) = (End { identity: container.identity(), status }, ran(&now)?);
    if let Some(next) = close(&mut now, end, restarts, ran)? {
        settle(scope, &record, &now, next)?;
    }
    Ok(status)
}

/// Freezes the container's cgroup, or lets its processes go on. No health check starts meanwhile: in a frozen cgroup it
/// would wait for the end of the pause, and the monitor would wait for it.
///
/// # Errors
/// When the record cannot be locked, or the kernel does not freeze the cgroup.
pub fn freeze(scope: &Scope, id: &Id, path: &std::path::Path, on: bool) -> Result<()> {
    let record = Record::lock_existing(&scope.run_dir, id)?;
    let frozen = cgroup::freeze(path, on);
    if let Some(record) = record {
        record.release();
    }
    frozen
}

/// How long to try to write an end to the record: the disk may be full or the file system read-only.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the command of a health check may take until it runs.
const STARTING: Duration = Duration::from_secs(10);

/// The pause before the next attempt to write.
const PAUSE: Duration = Duration::from_millis(100);

/// The pause before the next attempt to restart a process that cannot be put on record.
const LONG_PAUSE: Duration = Duration::from_secs(1);

impl Keeper for Recorded {
    fn ended(&mut self, identity: Identity, status: Option<i32>) -> Next {
        // Nobody would read an error here, and nobody else knows the exit status.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.tell_end(End { identity, status }) {
                Ok(next) => return next,
                Err(_) if Instant::now() < deadline => sleep(PAUSE),
                Err(_) => return Next::Leave,
            }
        }
    }

    fn again(&mut self, streams: Streams<'_>) -> std::result::Result<Running, Next> {
        self.start(streams).unwrap_or(Err(Next::Again(LONG_PAUSE)))
    }

    fn is_paused(&mut self) -> bool {
        self.read().is_some_and(|container| container.is_paused().unwrap_or_default())
    }

    fn is_wanted(&mut self) -> bool {
        self.read().is_some_and(|container| is_wanted(&container))
    }

    fn probe(&mut self) -> Option<Probe> {
        let container = self.read()?;
        Check::of(container.process.healthcheck.as_ref()).map(|check| check.probe())
    }

    fn ask(&mut self, identity: Identity, output: &OwnedFd, told: &mut String) -> Option<Running> {
        // A check that starts in a frozen cgroup waits for the end of the pause, and the monitor would wait for it.
        // Without the record's lock, nobody pauses the container.
        let (record, container) = self.lock().ok()??;
        if container.is_paused().unwrap_or_default() {
            record.release();
            return None;
        }
        let shell = container.setting("Shell");
        let check = Check::of(container.process.healthcheck.as_ref())?;
        let command = check.command(shell.as_ref())?;
        let spec = &container.operation.spec;
        let mut process = spec.process().clone()?;
        process.set_args(Some(command)).set_terminal(Some(false));
        let out = Stdio::Fd(output.as_fd());
        let streams = Streams { stdin: Stdio::Null, stdout: out, stderr: out };
        // Others wait for the record meanwhile.
        let limit = check.probe().timeout.min(STARTING);
        let started = runtime::join(spec, identity, &process, streams)
            .and_then(|started| started.release_within(limit));
        record.release();
        started.map_err(|error| *told = error.to_string()).ok()
    }

    fn answered(&mut self, identity: Identity, outcome: &Outcome) {
        let Ok(Some((record, mut container))) = self.lock() else { return };
        let Some(check) = Check::of(container.process.healthcheck.as_ref()) else { return };
        if container.identity() != identity {
            return;
        }
        let before = container.process.health.clone().unwrap_or_default();
        let health = check.after(&before, outcome);
        if health != before
            && container.edit(|process| drop(process.insert("health".into(), json!(health)))).is_ok()
        {
            let _ = record.write(&container.document);
        }
    }
}
