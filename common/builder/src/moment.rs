//! The time of everything in an image. It makes the same image of the same sources, whenever it is built.

use std::{fs, path::Path};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use crate::error::Cause;

/// The time if the base image has none: 1 January 1980, the earliest that every archive format can store.
const FIRST: i64 = 315_532_800;

/// The time of what a stage makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    seconds: i64,
    /// Whether the time was given (`SOURCE_DATE_EPOCH`). If so, older files keep their times
    /// (reproducible-builds.org).
    given: bool,
}

impl Default for Moment {
    fn default() -> Self {
        Self { seconds: FIRST, given: false }
    }
}

impl Moment {
    /// The given time, or else the base image's.
    pub(crate) fn of(given: Option<i64>, base: Option<&str>) -> Self {
        let own = base.and_then(oci::timestamp::parse).filter(|seconds| *seconds > 0);
        Self { seconds: given.or(own).unwrap_or(FIRST), given: given.is_some() }
    }

    /// A value with which every file keeps its time.
    pub(crate) fn untouched() -> Self {
        Self { seconds: i64::MAX, given: true }
    }

    /// The time in the form of RFC 3339.
    pub(crate) fn text(self) -> String {
        oci::timestamp::format(self.seconds)
    }

    /// The time of files that a build makes by itself.
    pub(crate) fn time(self) -> Timespec {
        Timespec { tv_sec: self.seconds, tv_nsec: 0 }
    }

    /// The time that newer files get, if only they are changed.
    pub(crate) fn newest(self) -> Option<i64> {
        self.given.then_some(self.seconds)
    }

    /// The time that all files get, if all are changed.
    pub(crate) fn all(self) -> Option<i64> {
        (!self.given).then_some(self.seconds)
    }

    /// The time as a part of a cache key.
    pub(crate) fn key(self) -> String {
        format!("{} {}", self.seconds, self.given)
    }

    /// Sets the time of a directory and everything below. With `since`, only changes directories that were
    /// modified since then, because copied files have their own times.
    pub(crate) fn settle(self, directory: &Path, since: Option<i64>) -> Result<(), Cause> {
        use std::os::unix::fs::MetadataExt;
        let time = self.time();
        let mut pending = vec![directory.to_owned()];
        while let Some(path) = pending.pop() {
            let metadata = path.symlink_metadata().map_err(Cause::system("stat", &path))?;
            if metadata.is_dir() {
                for entry in fs::read_dir(&path).map_err(Cause::system("read", &path))? {
                    pending.push(entry.map_err(Cause::system("read", &path))?.path());
                }
            }
            let own = (metadata.mtime(), metadata.mtime_nsec());
            let is_kept = match (self.given, since) {
                (true, _) => own.0 < self.seconds,
                (false, Some(since)) => !metadata.is_dir() || own.0 < since,
                (false, None) => false,
            };
            let stays = own == (self.seconds, 0) || is_kept;
            if !stays {
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(Cause::system("set times of", &path))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn times_are_set_or_limited() {
        assert_eq!(Moment::of(None, None).text(), "1980-01-01T00:00:00Z");
        assert_eq!(Moment::of(None, Some("2020-01-02T03:04:05Z")).text(), "2020-01-02T03:04:05Z");
        assert_eq!(Moment::of(None, Some("0001-01-01T00:00:00Z")).text(), "1980-01-01T00:00:00Z");
        for (moment, since, expected) in [
            (Moment::of(None, None), None, [FIRST, FIRST]),
            (Moment::of(None, None), Some(1_000_000_000), [100, 2_000_000_000]),
            (Moment::of(Some(500), None), None, [100, 500]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for (name, seconds) in [("old", 100), ("new", 2_000_000_000)] {
                let file = fs::File::create(dir.path().join(name)).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
            }
            moment.settle(dir.path(), since).unwrap();
            let time = |name: &str| {
                use std::os::unix::fs::MetadataExt;
                fs::metadata(dir.path().join(name)).unwrap().mtime()
            };
            assert_eq!([time("old"), time("new")], expected);
        }
    }
}
