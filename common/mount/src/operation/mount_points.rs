//! The lowest layer of every container: what its own mounts stand on, where the image has no place for them. Without it
//! these places would be made in the writable top, as if the container had written them, and could not be made at all
//! in one that is read-only.

use std::path::Path;

use operation::words;
use rustix::{
    fs::{CWD, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with},
    io::Errno,
};

use crate::{Error, Result, tree};

const DIRECTORIES: [&str; 4] = ["dev", "etc", "proc", "sys"];
const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

pub(super) fn explain(path: &Path) -> Vec<String> {
    let below = |name: &&str| path.join(name).to_string_lossy().into_owned();
    let line = |first: &[&str], names: &[&str]| {
        words(first.iter().map(ToString::to_string).chain(names.iter().map(below)))
    };
    vec![line(&["install", "-d", "-m", "0755"], &DIRECTORIES), line(&["touch"], &FILES)]
}

/// Makes it beside its place, unless it stands.
pub(super) fn add(path: &Path, beside: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let fill = || {
        let above = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(above).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let mode = Mode::from_raw_mode(0o755);
        mkdirat(CWD, beside, mode)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(CWD, beside, flags, Mode::empty())?;
        rustix::fs::fchmod(&directory, mode)?;
        for name in DIRECTORIES {
            mkdirat(&directory, name, mode)?;
            rustix::fs::chmodat(&directory, name, mode, rustix::fs::AtFlags::empty())?;
        }
        for name in FILES {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = openat(&directory, name, flags, Mode::empty())?;
            rustix::fs::fchmod(file, Mode::from_raw_mode(0o644))?;
        }
        renameat_with(CWD, beside, CWD, path, RenameFlags::NOREPLACE)
    };
    let outcome = fill();
    if outcome.is_err() {
        let _ = tree::remove(beside);
    }
    match outcome {
        // Another tool was faster.
        Err(Errno::EXIST) if path.is_dir() => Ok(()),
        outcome => outcome.map_err(Error::on("create directory", path)),
    }
}
