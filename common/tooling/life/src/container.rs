use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cgroup::Usage;
use document::{
    Document, Id, Member, Step,
    members::{Health, Image, Process},
    record,
};
use monitor::{Connection, Log, MonitorOperation, Place};
use oci_spec::runtime::LinuxResources;
use operation::{Error, Scope};
use runtime::{Identity, ProcessOperation};
use serde::Deserialize;
use serde_json::Value;

use crate::{Point, Restart, Result, unread};

/// The tool whose step starts the container's process.
const TOOL: &str = "ns-exec";

/// How many seconds a stop waits for the end, as with Docker.
const GRACE: i64 = 10;

/// Seconds since boot (proc(5)).
const UPTIME: &str = "/proc/uptime";

/// A container that has a process, had one, or will get one.
#[derive(Debug)]
pub struct Container {
    /// The container's id.
    pub id: Id,
    /// The document in the container's record.
    pub document: Document,
    /// The member `process`.
    pub process: Process,
    /// The step that starts the process, with its index in the stack.
    step: (usize, Step),
    /// The index of the operation in the step.
    at: usize,
    /// The operation that starts the process.
    pub operation: ProcessOperation,
}

/// The state of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The process has not been started yet.
    Created,
    /// The process runs.
    Running,
    /// The cgroup of the container is frozen.
    Paused,
    /// The process has ended, and the restart policy is about to restart it.
    Restarting,
    /// The process has ended.
    Exited,
}

impl State {
    /// Docker's name for the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

impl Container {
    /// The container of a record. `None` if it has no process.
    ///
    /// # Errors
    /// When the record is malformed.
    pub fn of(id: &Id, document: Document) -> Result<Option<Self>> {
        let Some(process) = document.get::<Process>().map_err(unread)? else { return Ok(None) };
        let Some(step) = document.last_step_of(TOOL).map_err(unread)? else { return Ok(None) };
        let read = |value| ProcessOperation::deserialize(value).ok();
        let found =
            step.1.operations.iter().enumerate().rev().find_map(|(at, value)| Some((at, read(value)?)));
        Ok(found.map(|(at, operation)| Self { id: id.clone(), document, process, step, at, operation }))
    }

    /// All containers that have a record and a process, sorted by id, and an error for each record that cannot be
    /// read.
    ///
    /// # Errors
    /// When the records cannot be listed.
    pub fn all(scope: &Scope) -> Result<Vec<Result<Self>>> {
        let ids = record::list(&scope.run_dir)?;
        Ok(ids.iter().filter_map(|id| Self::find(scope, id).transpose()).collect())
    }

    /// The container `id`, as its record is now. `None` if it has no record or no process.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn find(scope: &Scope, id: &Id) -> Result<Option<Self>> {
        let document = record::read(&scope.run_dir, id)?;
        Ok(document.map(|document| Self::of(id, document)).transpose()?.flatten())
    }

    /// The container `id`, as its record is now.
    ///
    /// # Errors
    /// When the container has no record or no process, or the record cannot be read.
    pub fn read(scope: &Scope, id: &Id) -> Result<Self> {
        let none = || said(format!("container \"{id}\" has no process")).with_hint("ns-exec starts one");
        Self::of(id, record::read_existing(&scope.run_dir, id)?)?.ok_or_else(none)
    }

    /// The container `id`, if its process runs.
    ///
    /// # Errors
    /// When the process does not run, or the record cannot be read.
    pub fn running(scope: &Scope, id: &Id) -> Result<Self> {
        if let Some(container) = Self::of(id, record::read_existing(&scope.run_dir, id)?)?
            && container.is_running()?
        {
            return Ok(container);
        }
        Err(said(format!("container \"{id}\" does not run"))
            .with_hint("start it first, with container-start"))
    }

    /// What the container is called.
    pub fn called(&self) -> Id {
        self.document.called(&self.id).unwrap_or_else(|_| self.id.clone())
    }

    /// The container's first process, which an undo of the step ends.
    pub fn identity(&self) -> Identity {
        self.operation.identity
    }

    /// Whether the first process runs. A process whose end is on record does not, even if the pid exists:
    /// after a restart of the machine, another process may have the same pid and start time.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn is_running(&self) -> Result<bool> {
        Ok(self.process.finished.is_none() && self.identity().pid > 0 && self.identity().is_alive()?)
    }

    /// Whether the process has ended and nobody has written that to the record.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn has_ended_unseen(&self) -> Result<bool> {
        Ok(self.process.pid > 0 && self.process.finished.is_none() && !self.is_running()?)
    }

    /// Whether a restart of the machine removed the container's mounts and namespaces, and nobody has made
    /// them again since ([`crate::restore`]).
    pub fn has_lost_its_ground(&self) -> bool {
        self.process.pid > 0 && self.operation.identity.pid == 0
    }

    /// The state of the container.
    ///
    /// # Errors
    /// When `/proc` or the cgroup does not tell.
    pub fn state(&self) -> Result<State> {
        Ok(match self.is_running()? {
            true if self.is_paused()? => State::Paused,
            true => State::Running,
            // As long as nobody has written the end, the restart policy may want the container.
            false if self.process.restarting || self.may_restart()? => State::Restarting,
            false if self.process.pid > 0 => State::Exited,
            false => State::Created,
        })
    }

    /// Whether the process has ended, nobody has written that to the record, and the restart policy may restart it.
    fn may_restart(&self) -> Result<bool> {
        let wants = self.policy() != Restart::No && !self.process.stopped && self.is_monitored();
        Ok(wants && !self.has_lost_its_ground() && self.has_ended_unseen()?)
    }

    /// Whether the container's cgroup is frozen.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn is_paused(&self) -> Result<bool> {
        self.cgroup().map_or(Ok(false), cgroup::is_frozen)
    }

    /// The path of the container's own cgroup, if it has one.
    pub fn cgroup(&self) -> Option<&std::path::Path> {
        self.operation.spec.linux().as_ref()?.cgroups_path().as_deref()
    }

    /// The limits of the container's cgroup.
    pub fn limits(&self) -> Option<&LinuxResources> {
        self.operation.spec.linux().as_ref()?.resources().as_ref()
    }

    /// Writes other limits into the step.
    pub(crate) fn limit(&mut self, resources: LinuxResources) -> Result<()> {
        if let Some(linux) = self.operation.spec.linux_mut() {
            linux.set_resources(Some(resources));
        }
        self.identify(self.operation.identity)
    }

    /// The restart policy of the container.
    pub fn policy(&self) -> Restart {
        self.process.restart.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// Whether the restart policy starts the container after a restart of the machine. A container that was
    /// only created is not started.
    pub fn outlives_machine(&self) -> bool {
        let process = &self.process;
        let ran = process.finished.is_none() || process.restarting;
        process.pid > 0 && self.policy().outlives_machine(ran, process.stopped)
    }

    /// Whether the image, or who started the container, set this variable of the process. Others are made for the
    /// process, such as the `HOME` of its user.
    pub(crate) fn has_variable(&self, name: &str) -> bool {
        let set = self.setting("Env");
        let variables =
            set.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        variables.filter_map(|variable| variable.split_once('=')).any(|(found, _)| found == name)
    }

    /// A setting of the container, by its name in the configuration of images: its own, or else the image's.
    pub(crate) fn setting(&self, name: &str) -> Option<Value> {
        let own = self.process.config.as_ref().and_then(|config| config.get(name));
        let of_image = || {
            let image = self.document.get::<Image>().ok().flatten()?;
            image.configuration.whole().get("config")?.get(name).cloned()
        };
        own.cloned().or_else(of_image).filter(|value| !value.is_null())
    }

    /// How long a stop waits for the end of the process before it kills it. `None` for ever.
    pub fn grace(&self) -> Option<Duration> {
        let seconds = self.setting("StopTimeout").and_then(|seconds| seconds.as_i64()).unwrap_or(GRACE);
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    /// The log of the container's output, if it has one.
    pub fn log(&self) -> Option<Log> {
        Log::of(&self.operation)
    }

    /// Whether the container has the streams through which a monitor gets its output. One that `ns-exec` started in
    /// the foreground without `--monitor` gets them when it is started again.
    pub fn is_monitored(&self) -> bool {
        self.step.1.operations.iter().any(|value| MonitorOperation::deserialize(value).is_ok())
    }

    /// Connects to the container's monitor. `None` if it has none.
    ///
    /// # Errors
    /// When it is not known whether there is a monitor.
    pub fn monitor(&self, scope: &Scope) -> Result<Option<Connection>> {
        Connection::open(&Place::open(&scope.run_dir, self.id.as_str())?)
    }

    /// Whether the container has a monitor, even one that is stopped by a signal.
    ///
    /// # Errors
    /// When it is not known whether there is a monitor.
    pub fn has_monitor(&self, scope: &Scope) -> Result<bool> {
        Connection::has_peer(&Place::open(&scope.run_dir, self.id.as_str())?)
    }

    /// When the process was started, as the time since 1970.
    ///
    /// # Errors
    /// When `/proc/uptime` cannot be read, for a process of an earlier version.
    pub fn started(&self) -> Result<Duration> {
        let on_record = self.process.started.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if let Some(since) = on_record.and_then(|time| Duration::try_from(time.as_duration()).ok()) {
            return Ok(since);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(now.saturating_sub(self.age()?))
    }

    /// The time since the process was started. A change of the clock does not matter.
    ///
    /// # Errors
    /// When `/proc/uptime` cannot be read.
    pub(crate) fn age(&self) -> Result<Duration> {
        let failed = |cause: &dyn std::fmt::Display| Error::new("read", UPTIME, cause.to_string());
        let text = std::fs::read_to_string(UPTIME).map_err(|error| failed(&error))?;
        let uptime = text.split(' ').next().and_then(|seconds| seconds.parse().ok());
        let uptime = uptime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let uptime = uptime.ok_or_else(|| failed(&"it is not as proc(5) describes it"))?;
        Ok(uptime.saturating_sub(self.identity().since_boot()))
    }

    /// Writes other operations into the step, before that of the process. `log`: the path of the process's log, and
    /// the size in bytes at which it is rotated.
    ///
    /// # Errors
    /// When the document is malformed.
    pub(crate) fn equip(
        &mut self,
        operations: Vec<serde_json::Value>,
        log: Option<(std::path::PathBuf, u64)>,
    ) -> Result<()> {
        let count = operations.len();
        self.step.1.operations.splice(self.at..self.at, operations);
        self.at += count;
        if let Some((path, limit)) = log {
            (self.operation.log, self.operation.log_limit) = (Some(path.clone()), Some(limit));
            self.edit(|process| drop(process.insert("log".into(), serde_json::json!(path))))?;
        }
        self.identify(self.operation.identity)
    }

    /// Writes another process into the step.
    fn identify(&mut self, identity: Identity) -> Result<()> {
        self.operation.identity = identity;
        let (at, step) = &mut self.step;
        step.operations[self.at] = serde_json::to_value(&self.operation).map_err(unwritten)?;
        self.document.replace_step(*at, step).map_err(unread)
    }

    /// Writes into the document that a restart of the machine ended the process. `wanted`: whether the
    /// container is to be started again.
    ///
    /// # Errors
    /// When the document is malformed.
    pub(crate) fn end_with_machine(&mut self, wanted: bool) -> Result<()> {
        runtime::spec::forget_owners(&mut self.operation.spec);
        self.identify(Identity::NONE)?;
        let ran = self.process.pid > 0 && self.process.finished.is_none();
        self.edit(|process| {
            if ran {
                process.insert("finished".into(), jiff::Timestamp::now().to_string().into());
                process.remove("exitStatus");
            }
            match wanted {
                true => drop(process.insert("restarting".into(), true.into())),
                false => drop(process.remove("restarting")),
            }
        })
    }

    /// Writes into the document that another process was started. `count`: whether this is a restart by the
    /// restart policy.
    ///
    /// # Errors
    /// When the document is malformed.
    pub(crate) fn begin(&mut self, identity: Identity, count: bool) -> Result<()> {
        self.identify(identity)?;
        // If the counter cannot be read now, all kills count as this process's at its end.
        let usage = self.cgroup().and_then(|path| Usage::of(path, self.limits()).ok());
        let oom_kills = usage.map(|usage| usage.oom_kills).filter(|kills| *kills > 0);
        let restarts = self.process.restarts.unwrap_or_default() + u32::from(count);
        let is_checked = self.process.healthcheck.is_some();
        self.edit(|process| {
            for key in
                ["exitStatus", "oomKilled", "usage", "finished", "error", "restarting", "stopped", "health"]
            {
                process.remove(key);
            }
            match oom_kills {
                Some(kills) => drop(process.insert("oomKillsBefore".into(), kills.into())),
                None => drop(process.remove("oomKillsBefore")),
            }
            process.insert("pid".into(), identity.pid.into());
            process.insert("startTime".into(), identity.start_time.into());
            process.insert("started".into(), Point::now().text().into());
            if count {
                process.insert("restarts".into(), restarts.into());
            } else {
                ["restarts", "pause"].into_iter().for_each(|key| drop(process.remove(key)));
            }
            if is_checked {
                process.insert("health".into(), serde_json::json!(Health::starting()));
            }
        })
    }

    /// Changes keys of the member `process`.
    pub(crate) fn edit(
        &mut self,
        edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
    ) -> Result<()> {
        self.document.edit::<Process>(edit).map_err(unread)?;
        self.process = self.document.require().map_err(unread)?;
        Ok(())
    }

    /// Whether the document has a step of this tool.
    pub(crate) fn has_step_of(&self, tool: &str) -> bool {
        self.document.tools().is_ok_and(|tools| tools.iter().any(|name| name == tool))
    }
}

/// An error that consists of these words only.
fn said(words: String) -> Error {
    Error::new("", "", words)
}

fn unwritten(error: serde_json::Error) -> Error {
    unread(document::Error::Malformed { name: Process::NAME, source: error })
}
