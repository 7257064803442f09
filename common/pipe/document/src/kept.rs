//! The second record of a container: `$STAVE_ROOT/containers/<id>/record.json`.
//!
//! A restart of the machine removes the first record in `$STAVE_RUN`. The second one survives, so `--repair`
//! still knows what the steps did. Only root can enter the directory.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use operation::{Cause, Error, Place, Scope, boot, unless_gone};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Document, Id, members::Rootfs, replace};

const NAME: &str = "record.json";

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text<D> {
    /// The kernel's id of the boot in which the file was written.
    boot: String,
    /// The directory of the first record: `$STAVE_RUN`.
    run_dir: PathBuf,
    document: D,
}

/// A second record, as it was read.
#[derive(Debug)]
pub struct Kept {
    /// The document, as it was after the last step.
    pub document: Document,
    /// Whether the record was written since the last restart of the machine. If so, what the steps made in
    /// the kernel may still exist.
    pub is_of_this_boot: bool,
    /// The path of the record.
    pub path: PathBuf,
}

/// For `map_err`: makes the error of `verb` on the second record at `path`.
fn failed<C: Into<Cause>>(verb: &'static str, path: &Path) -> impl FnOnce(C) -> Error {
    move |cause| Error::new(verb, format_args!("{path:?}"), cause).of(Place::Store)
}

/// Writes the second record, if the container has files of its own in `$STAVE_ROOT`. Otherwise does nothing.
/// If the container's files survive a crash of the machine (`rootfs.durable`), the record is on the disk when
/// this returns, and so is all that was done on its file system before.
///
/// # Errors
/// When the record cannot be written, if the container's files survive a crash. Without them the container cannot
/// be started again after a crash, so the record would be of no use: then it is only removed, because nobody may
/// take the older one for the state of today, and the error is that of the removal.
pub fn write(scope: &Scope, id: &Id, document: &Document) -> Result<(), Error> {
    let directory = scope.container(id.as_str());
    let Ok(Some(rootfs)) = document.get::<Rootfs>() else { return Ok(()) };
    if !rootfs.path.starts_with(&directory) || !directory.is_dir() {
        return Ok(());
    }
    let path = directory.join(NAME);
    let text = Text { boot: boot()?, run_dir: scope.run_dir.clone(), document: &document.members };
    let text =
        serde_json::to_vec(&text).map_err(|error| failed("write", &path)(Cause::Source(Box::new(error))))?;
    match put(&directory, &path, &text, rootfs.durable) {
        Err(error) if rootfs.durable => Err(failed("write", &path)(error)),
        Err(_) => unless_gone(fs::remove_file(&path)).map(drop).map_err(failed("remove", &path)),
        Ok(()) => Ok(()),
    }
}

fn put(directory: &Path, path: &Path, text: &[u8], durable: bool) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    let directory = File::open(directory)?;
    if durable {
        // Also what the steps have made: a file system that keeps no order among directories (btrfs) could
        // lose that and keep the record.
        rustix::fs::syncfs(&directory)?;
    }
    fs::rename(&beside, path)?;
    if durable {
        directory.sync_all()?;
    }
    Ok(())
}

/// Whether the container's files survive a crash of the machine.
pub fn is_durable(document: &Document) -> bool {
    matches!(document.get::<Rootfs>(), Ok(Some(rootfs)) if rootfs.durable)
}

/// Writes to the disk that a durable container's directory is removed, so that a crash of the machine does not
/// bring the container back. Does nothing while the directory exists.
///
/// # Errors
/// When the file system reports an error.
pub fn sync_removal(scope: &Scope, id: &Id) -> Result<(), Error> {
    let directory = scope.container(id.as_str());
    let Some(above) = directory.parent().filter(|_| !directory.exists()) else { return Ok(()) };
    // The directory of all containers goes with the last one.
    let there = [Some(above), above.parent()].into_iter().flatten().find_map(|path| File::open(path).ok());
    there.map_or(Ok(()), rustix::fs::syncfs).map_err(failed("sync", above))
}

/// Reads the second record of a container. Returns `None` if there is no record, if a crash left only a part
/// of it, or if the container's first record is in another `--run-dir`.
///
/// # Errors
/// When the record cannot be read.
pub fn read(scope: &Scope, id: &Id) -> Result<Option<Kept>, Error> {
    let path = scope.container(id.as_str()).join(NAME);
    let text = match replace::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(failed("read", &path))?,
    };
    let Ok(text) = serde_json::from_slice::<Text<Box<RawValue>>>(&text) else { return Ok(None) };
    let Ok(document) = Document::parse(text.document.get().as_bytes()) else { return Ok(None) };
    let is_own = text.run_dir == scope.run_dir && document.id().is_ok_and(|found| found.as_ref() == Some(id));
    if !is_own {
        return Ok(None);
    }
    Ok(Some(Kept { document, is_of_this_boot: text.boot == boot()?, path }))
}

/// The ids of all containers that have a second record, sorted. A missing directory has none.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(scope: &Scope) -> Result<Vec<Id>, Error> {
    let directory = scope.root.join("containers");
    let mut ids = Vec::new();
    for entry in
        unless_gone(fs::read_dir(&directory)).map_err(failed("list", &directory))?.into_iter().flatten()
    {
        let entry = entry.map_err(failed("list", &directory))?;
        if entry.path().join(NAME).is_file() {
            ids.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()));
        }
    }
    ids.sort();
    Ok(ids)
}

/// Whether a restart of the machine may have lost a part of what the container wrote: the machine was
/// restarted, and the container's writable layer was made without `union-mount --durable`.
///
/// # Errors
/// When `id` is malformed, or the second record cannot be read.
pub fn is_lost(scope: &Scope, document: &Document) -> Result<bool, Error> {
    let Ok(Some(rootfs)) = document.get::<Rootfs>() else { return Ok(false) };
    let Ok(Some(id)) = document.id() else { return Ok(false) };
    if rootfs.durable || rootfs.upper.is_none() || !rootfs.path.starts_with(scope.container(id.as_str())) {
        return Ok(false);
    }
    Ok(read(scope, &id)?.is_some_and(|kept| !kept.is_of_this_boot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(dir: &Path) -> Scope {
        Scope { root: dir.join("root"), run_dir: dir.join("run") }
    }

    fn document(scope: &Scope, durable: bool) -> Document {
        let path = scope.root.join("containers/web/rootfs");
        let text = serde_json::json!({"stave": 1, "id": "web",
            "rootfs": {"path": path, "lower": [], "readonly": false, "durable": durable}});
        Document::parse(text.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_a_part_of_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (scope, id) = (scope(dir.path()), "web".parse().unwrap());
        let directory = scope.container("web");
        for durable in [false, true] {
            let document = document(&scope, durable);
            write(&scope, &id, &document).unwrap();
            assert!(read(&scope, &id).unwrap().is_none(), "no directory, no record");
            fs::create_dir_all(&directory).unwrap();
            write(&scope, &id, &document).unwrap();
            let kept = read(&scope, &id).unwrap().unwrap();
            assert_eq!((kept.document.to_line(), kept.is_of_this_boot), (document.to_line(), true));
            let elsewhere = Scope { run_dir: "/elsewhere".into(), ..scope.clone() };
            assert!(read(&elsewhere, &id).unwrap().is_none());
            fs::write(directory.join(NAME), "{\"boot\":").unwrap();
            assert!(read(&scope, &id).unwrap().is_none());
            fs::remove_dir_all(&directory).unwrap();
        }
    }

    #[test]
    fn a_container_whose_files_are_elsewhere_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let (scope, id) = (scope(dir.path()), "db".parse().unwrap());
        fs::create_dir_all(scope.container("db")).unwrap();
        write(&scope, &id, &document(&scope, true)).unwrap();
        assert!(read(&scope, &id).unwrap().is_none(), "its root file system is another container's");
    }
}
