//! The lowest layer of every container: mount points that the image may lack. Without this layer they would
//! be made in the writable upper directory, as if the container had written them. A read-only container could
//! not have them at all.

use std::path::Path;

use operation::words;
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use super::directory;
use crate::{Result, error::on, tree};

const DIRECTORIES: [&str; 4] = ["dev", "etc", "proc", "sys"];
const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

pub(super) fn explain(path: &Path) -> Vec<String> {
    let below = |name: &&str| path.join(name).to_string_lossy().into_owned();
    let line = |first: &[&str], names: &[&str]| {
        words(first.iter().map(ToString::to_string).chain(names.iter().map(below)))
    };
    vec![line(&["install", "-d", "-m", "0755"], &DIRECTORIES), line(&["touch"], &FILES)]
}

/// Makes the directory at `beside` and renames it to `path`, unless `path` exists.
pub(super) fn add(path: &Path, beside: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let made = fill(beside).map(|()| renameat_with(CWD, beside, CWD, path, RenameFlags::NOREPLACE));
    if !matches!(made, Ok(Ok(()))) {
        let _ = tree::remove(beside);
    }
    match made? {
        // Another tool has just made it.
        Err(Errno::EXIST) if path.is_dir() => Ok(()),
        renamed => renamed.map_err(on("create directory", path)),
    }
}

fn fill(beside: &Path) -> Result<()> {
    directory::add(beside, 0o755, None)?;
    DIRECTORIES.iter().try_for_each(|name| directory::add(&beside.join(name), 0o755, None))?;
    FILES.iter().try_for_each(|name| directory::add_file(&beside.join(name), "", 0o644))
}
