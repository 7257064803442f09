//! Removes a tree in the background.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use operation::{aside, is_gone};

use super::remove;
use crate::{Result, error::on};

/// The prefix of a tree that is about to be removed. A number follows.
const GONE: &str = "gone.";

/// Moves the absolute `path` into the directory `around` at once, and removes it there in a background
/// process. Also removes what an earlier background process left when it was killed. A missing path is not an
/// error.
///
/// `around` stays even if it is empty: the background process does not know whether other tools use it.
///
/// # Errors
/// When the path cannot be moved. `around` must be on the same file system.
pub fn discard(path: &Path, around: &Path) -> Result<()> {
    let mut number = 0_u32;
    let aside = loop {
        let aside = around.join(format!("{GONE}{}.{number}", std::process::id()));
        match rename(path, &aside) {
            Ok(()) => break aside,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(rustix::io::Errno::EXIST) => number += 1,
            Err(errno) => return Err(on("remove", path)(errno)),
        }
    };
    // Another thread could hold a lock that the new process would wait for forever.
    let is_alone = fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    // SAFETY: there is no other thread, so the state of this process is consistent in the new one.
    if is_alone && unsafe { aside::run(&[], || sweep(around)) }.is_ok() {
        return Ok(());
    }
    sweep(around);
    remove(&aside)
}

fn rename(from: &Path, to: &Path) -> rustix::io::Result<()> {
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags)
}

/// Removes all trees that were moved into `around`.
fn sweep(around: &Path) {
    let is_gone =
        |path: &PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(GONE));
    let entries = fs::read_dir(around).into_iter().flatten().flatten().map(|entry| entry.path());
    // What cannot be removed now is removed with the container.
    entries.filter(is_gone).for_each(|path| drop(remove(&path)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_is_gone_at_once_and_removed_soon_and_its_directory_stays() {
        let dir = tempfile::tempdir().unwrap();
        let levels = dir.path().join("levels");
        let path = levels.join("1");
        fs::create_dir_all(path.join("upper/deep")).unwrap();
        fs::write(path.join("upper/deep/file"), "").unwrap();
        fs::create_dir(dir.path().join("gone.1.0")).unwrap();
        let names = |of: &Path| -> Vec<_> {
            fs::read_dir(of).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        discard(&path, dir.path()).unwrap();
        assert!(names(&levels).is_empty(), "who looks at it now finds nothing of what is being removed");
        discard(&path, dir.path()).unwrap();
        for _ in 0..1000 {
            if names(dir.path()).len() == 1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(names(dir.path()), ["levels"]);
        // Removing the last entry does not remove the directory.
        discard(&levels, dir.path()).unwrap();
        for _ in 0..1000 {
            if names(dir.path()).is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(50));
        assert!(names(dir.path()).is_empty());
    }
}
