use operation::{Condition, Error, Operation, Scope};
use rustix::{
    fs::{AtFlags, statat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{Place, failed, socket, streams};

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
        let files = streams::FILES.map(|suffix| format!("$STAVE_RUN/{}.{suffix}", self.monitored));
        let file = |suffix| format!("$STAVE_RUN/{}.{suffix}", self.monitored);
        let (lock, socket) = (file(streams::LOCK), file(socket::NAME));
        vec![format!("mkfifo -m 600 {}", files.join(" ")), format!("flock {lock} nc -lU {socket} &")]
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), Error> {
        let place = self.place(scope)?;
        for suffix in streams::FILES {
            match streams::make(&place, suffix) {
                // The name contains the container's id, so an earlier container with this id left the file.
                // Use it.
                Err(error) if error.errno() == Some(nix::errno::Errno::EEXIST) => {}
                made => made?,
            }
        }
        Ok(())
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        let place = match self.place(scope) {
            // Without the directory there are no files to remove.
            Err(error) if operation::is_gone(&error) => return Ok(()),
            place => place?,
        };
        socket::end(&place)?;
        let mut files = streams::FILES.into_iter().chain([socket::NAME, socket::NEW, streams::LOCK]);
        files.try_for_each(|suffix| place.remove(suffix).map_err(failed("remove", place.shown(suffix))))
    }

    fn check(&self, scope: &Scope) -> Result<Condition, Error> {
        let place = self.place(scope)?;
        for suffix in streams::FILES {
            match statat(&place, place.name(suffix), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => {}
                Err(Errno::NOENT) => return Ok(Condition::Missing(place.shown(suffix))),
                Err(errno) => return Err(failed("look at", place.shown(suffix))(errno)),
            }
        }
        Ok(Condition::Present)
    }
}
