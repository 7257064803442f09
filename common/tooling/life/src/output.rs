//! The files of a container's output: the log, and the streams to the monitor.

use std::path::PathBuf;

use document::Id;
use monitor::{Log, MonitorOperation};
use mount::MountOperation;
use operation::{Operation, Scope};
use serde_json::Value;

use crate::{Container, Result};

/// The size of a log file in bytes, by default.
pub const LOG_LIMIT: u64 = 8 << 20;

/// The path of a container's own log.
pub fn own_log(scope: &Scope, id: &Id) -> PathBuf {
    scope.container(id.as_str()).join("log")
}

/// The operations that make a container's own log, of so many files.
pub fn make_log(scope: &Scope, id: &Id, files: u32) -> Vec<MountOperation> {
    let path = own_log(scope, id);
    let files = Log::all(&path, files).collect::<Vec<_>>().into_iter().rev();
    let add = |path| MountOperation::FileAdd { path, content: String::new(), mode: 0o640 };
    files.flat_map(|file| [Log::index(&file), file]).map(add).collect()
}

/// The operations that a start made because the container's step did not have them.
#[derive(Debug, Default)]
pub(crate) struct Equipment {
    log: Vec<MountOperation>,
    monitor: Option<MonitorOperation>,
}

impl Equipment {
    /// What a container lacks that ran in the foreground without a monitor: a log, and the streams to a monitor. Writes
    /// it into the container's step.
    ///
    /// # Errors
    /// When the document is malformed.
    pub(crate) fn of(scope: &Scope, container: &mut Container) -> Result<Self> {
        let mut missing = Self::default();
        let mut operations: Vec<Value> = Vec::new();
        if container.operation.log.is_none() {
            missing.log = make_log(scope, &container.id, Log::FILES);
            operations.extend(missing.log.iter().map(|one| serde_json::json!(one)));
        }
        if !container.is_monitored() {
            let operation = MonitorOperation { monitored: container.id.to_string() };
            operations.push(serde_json::json!(operation));
            missing.monitor = Some(operation);
        }
        if !operations.is_empty() {
            let log = (!missing.log.is_empty()).then(|| (own_log(scope, &container.id), LOG_LIMIT));
            container.equip(operations, log)?;
        }
        Ok(missing)
    }

    /// Whether the container lacks nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.log.is_empty() && self.monitor.is_none()
    }

    /// Makes what is missing. The record must list it already.
    ///
    /// # Errors
    /// When something cannot be made. The rest is made or not.
    pub(crate) fn apply(&mut self, scope: &Scope) -> Result<()> {
        self.log.iter_mut().try_for_each(|one| one.apply(scope))?;
        self.monitor.iter_mut().try_for_each(|one| one.apply(scope))
    }

    /// Removes it again, as far as possible.
    pub(crate) fn undo(&self, scope: &Scope) {
        let _ = self.monitor.as_ref().map(|one| one.undo(scope));
        self.log.iter().rev().for_each(|one| drop(one.undo(scope)));
    }
}
