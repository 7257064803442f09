//! `--normalize`: what commands write that is other each time, and that nobody needs. Logs become empty; caches of the linker and of
//! apt, and bytecode of Python, go: programs make them anew.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use operation::unless_gone;
use rustix::fs::OFlags;

use crate::error::Cause;

/// Below it, files keep their names and nothing else.
const LOGS: &str = "var/log";
/// Each is made again when it is missing (ldconfig(8), apt.conf(5)).
const CACHES: [&str; 3] =
    ["var/cache/ldconfig/aux-cache", "var/cache/apt/pkgcache.bin", "var/cache/apt/srcpkgcache.bin"];
/// Where Python keeps the bytecode of sources beside it (PEP 3147). Elsewhere, bytecode may be all there is of a program.
const BYTECODE: &str = "__pycache__";

/// Works on what a step has written: `upper` tells what that is, and it is changed in `merged`, where a file that goes does not let one of a
/// lower layer appear. Nothing else writes there.
///
/// # Errors
/// When a file cannot be changed.
pub(crate) fn normalize(upper: &Path, merged: &Path) -> Result<(), Cause> {
    for name in CACHES {
        if fs::symlink_metadata(upper.join(name)).is_ok_and(|found| found.is_file()) {
            remove(&merged.join(name))?;
        }
    }
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let (is_log, is_bytecode) = (directory.starts_with(LOGS), directory.ends_with(BYTECODE));
        let path = upper.join(&directory);
        let read = |error| Cause::system::<io::Error>("read", &path)(error);
        for entry in fs::read_dir(&path).map_err(read)? {
            let entry = entry.map_err(read)?;
            let (kind, name) = (entry.file_type().map_err(read)?, directory.join(entry.file_name()));
            if kind.is_dir() {
                pending.push(name);
            } else if kind.is_file() && is_log {
                empty(&merged.join(&name))?;
            } else if kind.is_file() && is_bytecode && name.extension().is_some_and(|end| end == "pyc") {
                remove(&merged.join(&name))?;
            }
        }
        if is_bytecode {
            // Something else may be in it.
            let _ = fs::remove_dir(merged.join(&directory));
        }
    }
    Ok(())
}

fn empty(path: &Path) -> Result<(), Cause> {
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let file = fs::OpenOptions::new().write(true).custom_flags(flags).open(path);
    let emptied = file.and_then(|file| if file.metadata()?.len() > 0 { file.set_len(0) } else { Ok(()) });
    emptied.map_err(Cause::system("empty", path))
}

fn remove(path: &Path) -> Result<(), Cause> {
    unless_gone(fs::remove_file(path)).map(drop).map_err(Cause::system("remove", path))
}
