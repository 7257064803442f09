//! The time of everything in an image: the same sources give the same image, whenever it is built.

use std::{fs, path::Path};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use crate::error::Cause;

/// The time where no base image has one: 1 January 1980, the first that every format of archives knows.
const FIRST: i64 = 315_532_800;

/// The time of what a stage makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    seconds: i64,
    /// Whether it was given (`SOURCE_DATE_EPOCH`): then what is older keeps its own (reproducible-builds.org).
    given: bool,
}

impl Default for Moment {
    fn default() -> Self {
        Self { seconds: FIRST, given: false }
    }
}

impl Moment {
    /// The given time, or else that of the base image.
    pub(crate) fn of(given: Option<i64>, base: Option<&str>) -> Self {
        let own = base.and_then(oci::timestamp::parse).filter(|seconds| *seconds > 0);
        Self { seconds: given.or(own).unwrap_or(FIRST), given: given.is_some() }
    }

    /// No time: everything keeps its own.
    pub(crate) fn untouched() -> Self {
        Self { seconds: i64::MAX, given: true }
    }

    /// As RFC 3339 has it.
    pub(crate) fn text(self) -> String {
        oci::timestamp::format(self.seconds)
    }

    /// What files that a build makes by itself get.
    pub(crate) fn time(self) -> Timespec {
        Timespec { tv_sec: self.seconds, tv_nsec: 0 }
    }

    /// Newer files get this time.
    pub(crate) fn newest(self) -> Option<i64> {
        self.given.then_some(self.seconds)
    }

    /// All files get this time.
    pub(crate) fn all(self) -> Option<i64> {
        (!self.given).then_some(self.seconds)
    }

    /// As a part of keys.
    pub(crate) fn key(self) -> String {
        format!("{} {}", self.seconds, self.given)
    }

    /// Gives all files below a directory, and itself, their time. With `since`, only directories that changed since then get it: what was
    /// copied has its own.
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
