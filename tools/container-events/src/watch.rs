//! Watches the records, and the cgroups of containers for pauses (inotify(7)).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::PathBuf,
};

use document::Id;
use life::Point;
use operation::Scope;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
    io::Errno,
};
use toolkit::prelude::*;

use super::change::Known;

/// An inotify instance, and what it watches.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: OwnedFd,
    records: i32,
    /// The time `until` has come, and the events before it were returned.
    is_over: bool,
    /// The container of each watched cgroup file, by watch descriptor.
    cgroups: HashMap<i32, Id>,
    /// The watched file and its watch descriptor, by container.
    watched: BTreeMap<Id, (PathBuf, i32)>,
}

impl Watch {
    /// Watches the records. Creates their directory if necessary.
    pub(crate) fn new(scope: &Scope) -> Result<Self> {
        let failed = || format!("watch {:?}", scope.run_dir);
        operation::make_directories(&scope.run_dir, 0o777).with_context(failed)?;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags).with_context(failed)?;
        let wanted =
            inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::DELETE | inotify::WatchFlags::DELETE_SELF;
        let records = inotify::add_watch(&inotify, &scope.run_dir, wanted).with_context(failed)?;
        Ok(Self { inotify, records, is_over: false, cgroups: HashMap::new(), watched: BTreeMap::new() })
    }

    /// Also watches the cgroup of a container. A cgroup that is gone is not watched.
    pub(crate) fn container(&mut self, id: &Id, known: &Known) {
        let place = mount::cgroup::visible_place().zip(known.cgroup.as_deref());
        let Some((top, path)) = place else { return };
        let path = top.join(path.strip_prefix("/").unwrap_or(path)).join("cgroup.events");
        if self.watched.get(id).is_some_and(|(watched, _)| *watched == path) {
            return;
        }
        self.forget(id);
        if let Ok(number) = inotify::add_watch(&self.inotify, &path, inotify::WatchFlags::MODIFY) {
            self.cgroups.insert(number, id.clone());
            self.watched.insert(id.clone(), (path, number));
        }
    }

    /// Stops watching the cgroup of a container.
    pub(crate) fn forget(&mut self, id: &Id) {
        if let Some((_, number)) = self.watched.remove(id) {
            self.cgroups.remove(&number);
            // If the cgroup is gone, the kernel has already removed the watch.
            let _ = inotify::remove_watch(&self.inotify, number);
        }
    }

    /// Waits for a change, and returns the containers that have changed. None at the time `until`, or if the
    /// directory of the records is gone.
    pub(crate) fn next(&mut self, until: Option<Point>) -> Result<Option<BTreeSet<Id>>> {
        loop {
            let left = until.map(Point::from_now);
            // Without this check, a stream of events could last for ever.
            if left.is_some_and(|left| left.is_zero()) && std::mem::replace(&mut self.is_over, true) {
                return Ok(None);
            }
            let patience = left.map(|left| Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], patience.as_ref()) {
                Err(Errno::INTR) => continue,
                Ok(0) => return Ok(None),
                polled => polled.context("wait for a change")?,
            };
            match self.read()? {
                Some(changed) if changed.is_empty() => {}
                changed => return Ok(changed),
            }
        }
    }

    fn read(&mut self) -> Result<Option<BTreeSet<Id>>> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut changed = BTreeSet::new();
        loop {
            let event = match reader.next() {
                Err(Errno::AGAIN) => return Ok(Some(changed)),
                Err(Errno::INTR) => continue,
                event => event.context("read what has changed")?,
            };
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                return Err(anyhow!("too many changes at once: some events were lost"));
            }
            if event.wd() == self.records {
                if event.events().contains(inotify::ReadFlags::DELETE_SELF) {
                    return Ok(None);
                }
                let name = event.file_name().and_then(|name| name.to_str().ok());
                let id = name.and_then(|name| name.strip_suffix(".json")).and_then(|id| id.parse().ok());
                changed.extend(id);
            } else {
                changed.extend(self.cgroups.get(&event.wd()).cloned());
            }
        }
    }
}
