use operation::{Condition, Error, Operation, Scope};
use serde::{Deserialize, Serialize};

use crate::{Place, failed, place::STREAMS, socket, streams};

/// The streams and the monitor of a container: `monitor-add`. The monitor itself is started with the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "monitor-add")]
pub struct MonitorOperation {
    /// The container's id.
    pub monitored: String,
}

impl MonitorOperation {
    fn place(&self, scope: &Scope) -> Result<Place, Error> {
        let is_plain = !self.monitored.is_empty() && !self.monitored.contains('/');
        if !is_plain {
            return Err(Error::new("find", format_args!("container {:?}", self.monitored), "it is no id"));
        }
        Place::open(&scope.run_dir, &self.monitored)
    }
}

impl Operation for MonitorOperation {
    fn explain(&self) -> Vec<String> {
        let files = streams::FILES.map(|suffix| format!("$STAVE_RUN/{STREAMS}/{}.{suffix}", self.monitored));
        let file = |suffix| format!("$STAVE_RUN/{}.{suffix}", self.monitored);
        let (lock, socket) = (file(streams::LOCK), file(socket::NAME));
        vec![
            format!("mkdir -p -m 700 $STAVE_RUN/{STREAMS}"),
            format!("mkfifo -m 600 {}", files.join(" ")),
            format!("flock {lock} nc -lU {socket} &"),
        ]
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), Error> {
        let place = self.place(scope)?;
        streams::FILES.into_iter().try_for_each(|suffix| streams::make(&place, suffix))
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        let place = match self.place(scope) {
            // Without the directory there are no files to remove.
            Err(error) if operation::is_gone(&error) => return Ok(()),
            place => place?,
        };
        socket::end(&place)?;
        let removed =
            |suffix| place.remove_stream(suffix).map_err(failed("remove", place.shown_stream(suffix)));
        streams::FILES.into_iter().try_for_each(removed)?;
        let mut files = [socket::NAME, socket::NEW, streams::LOCK].into_iter();
        files.try_for_each(|suffix| place.remove(suffix).map_err(failed("remove", place.shown(suffix))))?;
        // Another container may use it.
        let streams = scope.run_dir.join(STREAMS);
        operation::remove_if_empty(&streams).map_err(failed("remove directory", format!("{streams:?}")))
    }

    fn check(&self, scope: &Scope) -> Result<Condition, Error> {
        let place = self.place(scope)?;
        for suffix in streams::FILES {
            if !streams::is_there(&place, suffix)? {
                return Ok(Condition::Missing(place.shown_stream(suffix)));
            }
        }
        Ok(Condition::Present)
    }
}
