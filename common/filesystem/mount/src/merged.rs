//! Merged levels: one directory in the place of many.
//!
//! overlayfs allows 500 lower directories, and with each of them mounting takes longer. So [`RUN`] frozen levels that follow each
//! other are merged into one directory, `runs/N` beside `levels`. Its files are hard links: frozen levels are never written to, so
//! nothing is copied. A background process makes it. It becomes part of an overlay the next time that one is mounted, and no process
//! uses the root file system then. The levels stay, so each snapshot can still be returned to. A merged directory is removed before
//! one of its levels becomes writable again.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use operation::{aside, is_gone};
use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, openat, renameat_with},
    io::Errno,
};

use crate::{
    Result,
    error::on,
    level::{self, names},
    tree::{self, Files, Merging},
};

/// How many levels are merged into one directory. Each lower directory adds 2 µs to a mount (measured,
/// docs/decisions/0020-snapshots.md), so the levels that are not merged yet add less than 0.1 ms.
pub(crate) const RUN: u32 = 16;

/// How the name of a directory ends that is being made.
const NEW: &str = ".new";

/// How the name of a directory ends that is not to be finished.
const STOPPED: &str = ".stopped";

/// The directory of run `run`: levels `run * RUN` up to the one before the next run.
fn directory(around: &Path, run: u32) -> PathBuf {
    around.join("runs").join(run.to_string())
}

/// The upper directory of a level.
fn upper(around: &Path, number: u32) -> PathBuf {
    level::place(around, number).join("upper")
}

/// Replaces each run of levels that is merged by its merged directory. The directories are the lowest first.
pub fn substituted(lower: &[&PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::with_capacity(lower.len());
    let mut at = 0;
    while let Some(path) = lower.get(at) {
        match run_at(&lower[at..]) {
            Some(merged) => {
                all.push(merged);
                at += RUN as usize;
            }
            None => {
                all.push((*path).clone());
                at += 1;
            }
        }
    }
    all
}

/// The merged directory of the levels at the beginning of `lower`, if there is one.
fn run_at(lower: &[&PathBuf]) -> Option<PathBuf> {
    let run = lower.get(..RUN as usize)?;
    let (around, first) = place(run[0])?;
    let is_whole = || run.iter().zip(first..).all(|(path, number)| **path == upper(around, number));
    let merged = directory(around, first / RUN);
    (first % RUN == 0 && is_whole() && merged.is_dir()).then_some(merged)
}

/// The number of the level with this upper directory, and the directory around the levels.
fn place(upper: &Path) -> Option<(&Path, u32)> {
    let own = upper.parent().filter(|_| upper.ends_with("upper"))?;
    let levels = own.parent().filter(|levels| levels.ends_with("levels"));
    let number = own.file_name().and_then(|name| name.to_str()?.parse().ok());
    Some(levels.and_then(|levels| Some((levels.parent()?, number?))).unwrap_or((own, 0)))
}

/// Starts a background process that merges the oldest levels that should be merged and are not. The newest [`RUN`] levels are left
/// alone, because those are the ones that are returned to. `newest` is the level that is written to.
///
/// # Errors
/// When the directory cannot be made. Nothing is lost then: the next snapshot tries again.
pub(crate) fn start(around: &Path, newest: u32, userxattr: bool, durable: bool) -> Result<()> {
    let mut wanted = 0..(newest / RUN).saturating_sub(1);
    let Some(run) = wanted.find(|run| directory(around, *run).symlink_metadata().is_err()) else {
        return Ok(());
    };
    let all = around.join("runs");
    for name in names(&all)?.into_iter().filter(|name| name.ends_with(NEW)) {
        let left = open(&all.join(&name))?;
        match flock(&left, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(()),
            locked => locked.map_err(on("lock", &all.join(&name)))?,
        }
        // Who made it was killed.
        tree::discard(&all.join(&name), around)?;
    }
    let new = all.join(format!("{run}.{}{NEW}", std::process::id()));
    ::operation::make_directories(&new, 0o700).map_err(on("create directory", &new))?;
    let held = open(&new)?;
    flock(&held, FlockOperation::LockExclusive).map_err(on("lock", &new))?;
    let work = || {
        if make(around, run, &new, userxattr, durable).is_err() {
            // If that fails too, it is removed with the container.
            let _ = tree::remove(&new);
        }
    };
    // Another thread could hold a lock that the new process would wait for forever.
    let is_alone = fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    // SAFETY: there is no other thread, so the state of this process is consistent in the new one.
    if !is_alone || unsafe { aside::run(&[held.as_fd()], work) }.is_err() {
        work();
    }
    Ok(())
}

/// Merges a run of levels in the directory `new`, and gives it its name.
fn make(around: &Path, run: u32, new: &Path, userxattr: bool, durable: bool) -> Result<()> {
    let levels = run * RUN..(run + 1) * RUN;
    let tops = levels.map(|number| open(&upper(around, number))).collect::<Result<Vec<_>>>()?;
    let tops: Vec<_> = tops.iter().map(AsFd::as_fd).collect();
    let merging = Merging {
        tops: &tops,
        files: Files::Linked,
        userxattr,
        is_below: &|_| Ok(true),
        goes_on: &|| new.symlink_metadata().is_ok(),
    };
    let target = open(new)?;
    merging.merge(&target).map_err(|(_, errno)| on("merge levels in", new)(errno))?;
    if durable {
        rustix::fs::syncfs(&target).map_err(on("sync", new))?;
    }
    let merged = directory(around, run);
    renameat_with(CWD, new, CWD, &merged, RenameFlags::NOREPLACE).map_err(on("rename", new))?;
    if durable {
        let all = around.join("runs");
        rustix::fs::fsync(open(&all)?).map_err(on("sync", &all))?;
    }
    Ok(())
}

/// Ends the merging of levels from this one on, and waits until nothing is added any more.
///
/// # Errors
/// When the directories cannot be read or renamed.
pub(crate) fn stop(around: &Path, level: u32) -> Result<()> {
    let all = around.join("runs");
    for name in names(&all)?.into_iter().filter(|name| name.ends_with(NEW) && is_from(name, level)) {
        let path = all.join(&name);
        let held = match open(&path) {
            // It is finished.
            Err(error) if is_gone(&error) => continue,
            held => held?,
        };
        match fs::rename(&path, path.with_extension(&STOPPED[1..])) {
            Err(error) if is_gone(&error) => continue,
            renamed => renamed.map_err(on("rename", &path))?,
        }
        flock(held, FlockOperation::LockExclusive).map_err(on("lock", &path))?;
    }
    Ok(())
}

/// Removes the merged directories that have this level or a later one: it will be written to.
///
/// # Errors
/// As [`stop`].
pub(crate) fn forget(around: &Path, level: u32) -> Result<()> {
    stop(around, level)?;
    let all = around.join("runs");
    for name in names(&all)?.into_iter().filter(|name| is_from(name, level) || name.ends_with(STOPPED)) {
        tree::discard(&all.join(&name), around)?;
    }
    Ok(())
}

/// Whether a directory with this name has this level, or a later one.
fn is_from(name: &str, level: u32) -> bool {
    let run = name.split('.').next().and_then(|run| run.parse::<u32>().ok());
    run.is_some_and(|run| run >= level / RUN)
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(on("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_runs_of_levels_are_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let around = dir.path();
        let layer = around.join("layer");
        let levels: Vec<PathBuf> = (0..40).map(|number| upper(around, number)).collect();
        let all = |levels: &[PathBuf]| -> Vec<PathBuf> {
            let lower: Vec<&PathBuf> = std::iter::once(&layer).chain(levels).collect();
            substituted(&lower)
        };
        assert_eq!(all(&levels).len(), 41, "nothing is merged yet");
        for run in [0, 1, 2] {
            fs::create_dir_all(directory(around, run)).unwrap();
        }
        let found = all(&levels);
        assert_eq!(found[..3], [layer.clone(), directory(around, 0), directory(around, 1)]);
        assert_eq!(found[3..], levels[32..], "the third run is not whole");
        assert_eq!(all(&levels[..15]).len(), 16);
        assert_eq!(
            all(&levels[1..33]),
            [vec![layer.clone()], levels[1..16].to_vec(), vec![directory(around, 1), levels[32].clone()]]
                .concat()
        );
        let mut other = levels.clone();
        other.swap(3, 4);
        assert_eq!(all(&other).len(), 1 + 16 + 1 + 8, "levels in another order");
        forget(around, 20).unwrap();
        assert_eq!(all(&levels)[1..3], [directory(around, 0), upper(around, 16)]);
    }
    /// A container's root file system without a snapshot.
    fn level(around: &Path, number: u32) -> crate::Level {
        let base = crate::Overlay {
            upper: Some(upper(around, 0)),
            boot: Some(operation::boot().unwrap()),
            ..crate::Overlay::around(around, "stave:test", vec![around.join("layer")])
        };
        crate::Level {
            number,
            directory: level::directory(around, number),
            target: base.target.clone(),
            source: base.source.clone(),
            boot: base.boot.clone(),
            base: Some(Box::new(base)),
            volumes: Vec::new(),
            ends: false,
        }
    }

    /// Adds a level, as if it had changed one file, made one, and removed the one of the level below.
    fn add(around: &Path, number: u32) {
        let upper = upper(around, number);
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(level(around, number).work()).unwrap();
        fs::write(upper.join("last"), number.to_string()).unwrap();
        fs::write(upper.join(format!("f{number}")), "").unwrap();
        if number > 0 {
            let (removed, kind) =
                (upper.join(format!("f{}", number - 1)), rustix::fs::FileType::CharacterDevice);
            rustix::fs::mknodat(CWD, removed, kind, Mode::empty(), 0).unwrap();
        }
        start(around, number, false, false).unwrap();
    }

    /// In a test, which has several threads, levels are merged before `start` returns.
    #[test]
    fn more_levels_than_overlayfs_has_directories() {
        crate::apart(|| {
            let dir = tempfile::tempdir().unwrap();
            let around = dir.path();
            for name in ["layer", "work", "rootfs"] {
                fs::create_dir(around.join(name)).unwrap();
            }
            let scope = operation::Scope { root: around.to_owned(), run_dir: around.join("run") };
            (0..530).for_each(|number| add(around, number));
            let merged = || fs::read_dir(around.join("runs")).unwrap().count();
            assert_eq!(merged(), 32, "all but the newest two runs");
            for directory in [level(around, 530).upper(), level(around, 530).work()] {
                fs::create_dir_all(directory).unwrap();
            }
            let names = || -> Vec<_> {
                let entries = fs::read_dir(around.join("rootfs")).unwrap();
                let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
                names.sort();
                names
            };
            let last = || fs::read_to_string(around.join("rootfs/last")).unwrap();
            level(around, 530).mount().unwrap();
            assert_eq!((names(), last()), (vec!["f529".into(), "last".into()], "529".to_owned()));
            level(around, 530).undo(&scope).unwrap();
            assert_eq!((names(), last()), (vec!["f529".into(), "last".into()], "529".to_owned()));
            level(around, 529).undo(&scope).unwrap();
            assert_eq!((names(), last()), (vec!["f528".into(), "last".into()], "528".to_owned()));
            crate::unmount(&around.join("rootfs")).unwrap();
            // As after a restart: nothing is mounted, and levels are gone.
            let base = level(around, 0).base.unwrap();
            for number in 201..529 {
                fs::remove_dir_all(level::directory(around, number)).unwrap();
            }
            crate::Overlay { newest: Some(crate::Newest { number: 200, merged: false }), ..*base }
                .mount_below()
                .unwrap();
            assert_eq!(merged(), 12, "level 200 is in run 12");
            level(around, 200).mount().unwrap();
            assert_eq!((names(), last()), (vec!["f200".into(), "last".into()], "200".to_owned()));
            let links =
                |path: &str| std::os::unix::fs::MetadataExt::nlink(&around.join(path).metadata().unwrap());
            assert_eq!((links("rootfs/f200"), links("levels/15/upper/f15")), (1, 2));
            let mut ends = level(around, 200);
            ends.ends = true;
            ends.undo(&scope).unwrap();
            assert!(names().is_empty());
        });
    }
}
