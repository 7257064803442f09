//! The mark of a volatile upper directory. overlayfs creates `work/incompat/volatile` in its work directory,
//! and rejects an upper directory with this mark, because its content may not have reached the disk (kernel,
//! Documentation/filesystems/overlayfs.rst, "Volatile mount"). During the same boot all data is in the page
//! cache. The mark may then be removed, unless the directory is still mounted somewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, RenameFlags, StatxFlags, renameat_with, statx},
    io::Errno,
};

use operation::{boot, is_gone};

use crate::{
    Error, Overlay, Result,
    error::{explained, mounting, on},
    table, tree,
};

/// The path of the mark in the work directory.
const MARK: &str = "work/incompat/volatile";

/// The removal of the mark, as commands. None for an overlay that gets no mark.
pub(crate) fn explain(overlay: &Overlay) -> Vec<String> {
    let Some(work) = overlay.work.as_ref().filter(|_| !overlay.durable) else { return Vec::new() };
    let shown = |path: PathBuf| path.to_string_lossy().into_owned();
    let mark = work.join(MARK);
    vec![
        operation::words(["rm", "--force", &shown(mark.join("dirty"))]),
        operation::words(["rmdir", &shown(mark)]),
    ]
}

/// Removes the mark of an overlay that was mounted before, if no data can have been lost.
pub(crate) fn release(overlay: &Overlay) -> Result<()> {
    let (Some(upper), Some(work)) = (&overlay.upper, &overlay.work) else { return Ok(()) };
    let mark = work.join(MARK);
    match statx(CWD, &mark, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        found => found.map_err(on("look at", &mark))?,
    };
    let refused =
        |errno, cause| -> Error { mounting("mount overlay on", &overlay.target)(explained(errno, cause)) };
    if overlay.boot.as_ref() != Some(&boot()?) {
        let cause =
            format!("{upper:?} was mounted before the machine was restarted, and may be half written");
        return Err(refused(Errno::UCLEAN, cause).with_hint(
            "`unwind` removes the container with all that it wrote; with `--durable` its top survives a crash",
        ));
    }
    if let Some(process) = holder(overlay, upper)? {
        let error = refused(Errno::BUSY, format!("process {process} still has it mounted"));
        return Err(error.with_hint("end it first, or `unwind` the container"));
    }
    tree::remove(&mark)
}

/// Removes the mark. The caller knows that the upper directory is complete, and that no process writes to it.
pub(crate) fn forget(overlay: &Overlay) -> Result<()> {
    overlay.work.as_ref().map_or(Ok(()), |work| tree::remove(&work.join(MARK)))
}

/// As [`forget`], but moves overlayfs's own directory in the work directory, which has the mark, into a directory
/// that is about to be removed. When overlayfs is mounted, it empties and removes what it finds. With the mount
/// option `discard`, that takes milliseconds on some file systems.
pub(crate) fn set_aside(overlay: &Overlay, into: &Path) -> Result<()> {
    let Some(work) = &overlay.work else { return Ok(()) };
    let moved = renameat_with(CWD, work.join("work"), CWD, into.join("below"), RenameFlags::NOREPLACE);
    moved.or_else(|_| forget(overlay))
}

/// Returns a process in whose mount namespace the overlay is mounted. Processes that the caller may not
/// examine are skipped.
///
/// # Errors
/// When a running process cannot be examined for another reason: it may have the mount.
fn holder(overlay: &Overlay, upper: &Path) -> Result<Option<String>> {
    let upper = upper.to_string_lossy();
    let is_it = |entry: &table::Entry| {
        let shown = entry.options.split(',').find_map(|option| option.strip_prefix("upperdir="));
        // For a directory given as a descriptor, the option shows the descriptor's path.
        let shown = shown.filter(|path| path.starts_with('/') && !path.starts_with("/proc/"));
        entry.kind == "overlay"
            && entry.source == overlay.source
            && shown.is_none_or(|shown| until_escaped(shown) == until_escaped(&upper))
    };
    let listing = || Error::on("list", "\"/proc\"");
    for entry in fs::read_dir("/proc").map_err(listing())? {
        let Ok(number) = entry.map_err(listing())?.file_name().into_string() else { continue };
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        match table::read_from(&PathBuf::from("/proc").join(&number).join("mountinfo")) {
            Ok(entries) if entries.iter().any(is_it) => return Ok(Some(number)),
            Ok(_) => {}
            // For a zombie, the kernel returns "Invalid argument".
            Err(error) if is_gone(&error) || is_elsewhere(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn is_elsewhere(error: &Error) -> bool {
    use nix::errno::Errno::{EACCES, EINVAL, EPERM};
    matches!(error.errno(), Some(EACCES | EPERM | EINVAL))
}

/// Returns the path up to the first character that overlayfs escapes with a backslash.
fn until_escaped(path: &str) -> &str {
    path.split([',', ':', '\\']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_unmarked_and_so_is_what_cannot_be_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (work, gone) = (dir.path().join("work"), dir.path().join("gone"));
        let overlay: Overlay = serde_json::from_value(serde_json::json!({
            "source": "stave:web", "lower": [], "upper": dir.path(), "work": work, "target": "/t", "readonly": false,
        }))
        .unwrap();
        let mark = |name: &str| {
            fs::create_dir_all(work.join(MARK)).unwrap();
            fs::write(work.join(MARK).join(name), "").unwrap();
        };
        let left = || (work.join("work").exists(), work.join(MARK).exists());
        mark("dirty");
        set_aside(&overlay, &gone).unwrap();
        assert_eq!(left(), (true, false), "the directory is missing");
        fs::create_dir(&gone).unwrap();
        mark("dirty");
        set_aside(&overlay, &gone).unwrap();
        assert_eq!(left(), (false, false));
        assert!(gone.join("below/incompat/volatile/dirty").exists());
        mark("dirty");
        set_aside(&overlay, &gone).unwrap();
        assert_eq!(left(), (true, false), "an earlier one is there");
    }
}
