//! What containers are called.
//!
//! A container keeps its id for ever, and at first that is its name. `container-rename` gives it another one: the member
//! `name`, and a claim on the name, a symbolic link from `$STAVE_RUN/<name>.json` to `<id>.json`. So a word is the id or the
//! name of at most one container. A link counts only if the record at its end has this name: another one is left by a
//! container-rename that was killed.

use std::{
    fmt, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    str::FromStr,
};

use operation::{Cause, Error, Scope, unless_gone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Document, Id, InvalidId, Member, kept,
    lock::{failed, remove_file},
    record,
};

/// `name`: what a container is called, if that is not its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Name(Id);

impl Name {
    /// The name in the form of an id: it must not be that of another container.
    pub fn as_id(&self) -> &Id {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Member for Name {
    const NAME: &'static str = "name";
}

/// The container that somebody means by a word, which is its id or its name. None if there is no such container.
///
/// # Errors
/// When a record cannot be read.
pub fn find(scope: &Scope, word: &Id) -> Result<Option<Id>, Error> {
    let path = record::path(&scope.run_dir, word);
    match unless_gone(fs::symlink_metadata(&path)).map_err(failed("find", &path))? {
        Some(file) if !file.is_symlink() => return Ok(Some(word.clone())),
        Some(_) => {
            if let Some(id) = holder(&path)? {
                return Ok(Some(id));
            }
        }
        None => {}
    }
    if scope.container(word.as_str()).exists() {
        return Ok(Some(word.clone()));
    }
    // A restart of the machine leaves only second records.
    for id in kept::list(scope)? {
        if !record::path(&scope.run_dir, &id).exists()
            && let Some(kept) = kept::read(scope, &id)?
            && kept.document.called(&id).is_ok_and(|name| name == *word)
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The id of the container that is meant by a word. The word itself if there is none, or nobody can tell: whoever reads the
/// record then says why.
pub fn resolve(scope: &Scope, word: &Id) -> Id {
    find(scope, word).ok().flatten().unwrap_or_else(|| word.clone())
}

/// The container that has claimed its name by the link at `path`. None if there is no link, or it counts for nothing.
///
/// # Errors
/// When the link or the record cannot be read.
pub(crate) fn holder(path: &Path) -> Result<Option<Id>, Error> {
    let target = match fs::read_link(path) {
        // The latter is that of a file that is no link.
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::InvalidInput].contains(&error.kind()) => {
            return Ok(None);
        }
        target => target.map_err(failed("read link", path))?,
    };
    let (Some(run_dir), Some(id)) = (path.parent(), id_in(&target)) else { return Ok(None) };
    if record::path(run_dir, &id).is_symlink() {
        return Ok(None);
    }
    let called = record::read(run_dir, &id)?.and_then(|document| document.called(&id).ok());
    Ok((called.is_some() && called == id_in(path)).then_some(id))
}

/// The id or the name in the name of a record's file.
fn id_in(path: &Path) -> Option<Id> {
    path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()
}

/// Claims a name for the container `id`. The caller has locked the record of a container with the name as its id, and that of
/// `id`.
///
/// # Errors
/// When the name is taken, or the link cannot be made.
pub fn claim(run_dir: &Path, id: &Id, name: &Name) -> Result<(), Error> {
    let path = record::path(run_dir, name.as_id());
    if path.is_symlink() && holder(&path)?.is_none() {
        remove_file(&path)?;
    }
    symlink(format!("{id}.json"), &path).map_err(failed("make link", &path))
}

/// Takes a claim back. The caller has still locked what [`claim`] needs.
///
/// # Errors
/// When the link cannot be removed.
pub fn take_back(run_dir: &Path, name: &Name) -> Result<(), Error> {
    remove_file(&record::path(run_dir, name.as_id()))
}

/// Gives up all names that the container `id` has claimed, except `keep`. The caller has locked its record.
///
/// # Errors
/// When a link cannot be removed.
pub fn release(run_dir: &Path, id: &Id, keep: Option<&Name>) -> Result<(), Error> {
    let own = PathBuf::from(format!("{id}.json"));
    let is_own = |path: &Path| fs::read_link(path).is_ok_and(|target| target == own);
    let entries = unless_gone(fs::read_dir(run_dir)).map_err(failed("read directory", run_dir))?;
    for entry in entries.into_iter().flatten() {
        let entry = entry.map_err(failed("read directory", run_dir))?;
        let path = entry.path();
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let Some(name) = id_in(&path).filter(|name| Some(name) != keep.map(Name::as_id)) else { continue };
        if !is_link || !is_own(&path) {
            continue;
        }
        // Another process may make a record or a claim of this name. Then the link is no more, or counts for nothing.
        let Some(place) = record::Record::lock_if_free(run_dir, &name)? else { continue };
        if is_own(&path) {
            remove_file(&path)?;
        }
        place.release();
    }
    Ok(())
}

/// Claims the name in a document that becomes the container's first record again. If another container is called so by now,
/// this one is called by its id.
///
/// # Errors
/// When the document's name is malformed, or the claim cannot be made.
pub fn claim_again(run_dir: &Path, id: &Id, document: &mut Document) -> Result<(), Error> {
    let unread = |error| Error::new("read", "the second record", Cause::Source(Box::new(error)));
    let Some(name) = document.get::<Name>().map_err(unread)? else { return Ok(()) };
    let place = record::Record::lock(run_dir, name.as_id())?;
    let path = record::path(run_dir, name.as_id());
    let is_taken = match fs::symlink_metadata(&path) {
        Ok(file) => !file.is_symlink() || holder(&path)?.is_some(),
        Err(_) => false,
    };
    let claimed = match is_taken {
        true => {
            document.remove(Name::NAME);
            Ok(())
        }
        false => claim(run_dir, id, &name),
    };
    place.release();
    claimed
}

impl Document {
    /// What the container `id`, whose document this is, is called: its name, or else its id.
    ///
    /// # Errors
    /// When the name is malformed.
    pub fn called(&self, id: &Id) -> Result<Id, crate::Error> {
        Ok(self.get::<Name>()?.map_or_else(|| id.clone(), |name| name.0))
    }

    /// Takes over the name in the container's record. A document that was written before or after has another one.
    pub(crate) fn be_called_as(&mut self, recorded: &Self) {
        match recorded.raw(Name::NAME) {
            Some(text) => self.set_raw(Name::NAME, text.to_owned()),
            None => self.remove(Name::NAME),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn id(text: &str) -> Id {
        text.parse().unwrap()
    }

    fn document(id: &str, name: Option<&str>) -> Document {
        let text = serde_json::json!({"stave": 1, "id": id});
        let mut document = Document::parse(text.to_string().as_bytes()).unwrap();
        if let Some(name) = name {
            document.set(&name.parse::<Name>().unwrap()).unwrap();
        }
        document
    }

    /// A scope with the container `web`, which is called `shop`, and what `links` adds.
    fn scope(dir: &Path) -> Scope {
        let scope = Scope { root: dir.join("root"), run_dir: dir.join("run") };
        let record = Record::lock(&scope.run_dir, &id("web")).unwrap();
        claim(&scope.run_dir, &id("web"), &"shop".parse().unwrap()).unwrap();
        record.write(&document("web", Some("shop"))).unwrap();
        scope
    }

    #[test]
    fn a_container_is_found_by_its_name_and_by_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let scope = scope(dir.path());
        for (word, found) in [("web", Some("web")), ("shop", Some("web")), ("db", None)] {
            assert_eq!(find(&scope, &id(word)).unwrap(), found.map(id), "{word}");
        }
        assert_eq!(record::list(&scope.run_dir).unwrap(), [id("web")]);
        let refused = record::read(&scope.run_dir, &id("shop")).unwrap_err().to_string();
        assert!(refused.ends_with("it is the name of container \"web\""), "{refused}");
        assert!(claim(&scope.run_dir, &id("db"), &"shop".parse().unwrap()).is_err());
        assert!(claim(&scope.run_dir, &id("db"), &"web".parse().unwrap()).is_err());
        let record = Record::lock(&scope.run_dir, &id("web")).unwrap();
        record.remove().unwrap();
        assert_eq!(fs::read_dir(&scope.run_dir).unwrap().count(), 1, "only the directory of locks is left");
    }

    #[test]
    fn the_link_of_a_killed_rename_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let scope = scope(dir.path());
        let run_dir = &scope.run_dir;
        symlink("web.json", run_dir.join("old.json")).unwrap();
        symlink("gone.json", run_dir.join("lost.json")).unwrap();
        for word in ["old", "lost"] {
            assert_eq!(find(&scope, &id(word)).unwrap(), None, "{word}");
            assert!(record::read(run_dir, &id(word)).unwrap().is_none(), "{word}");
        }
        // A container with this id takes the place of the link, and leaves the record at its end alone.
        let record = Record::lock(run_dir, &id("old")).unwrap();
        record.write(&document("old", None)).unwrap();
        record.write(&document("old", None)).unwrap();
        assert_eq!(find(&scope, &id("old")).unwrap(), Some(id("old")));
        assert_eq!(record::read(run_dir, &id("web")).unwrap().unwrap().id().unwrap(), Some(id("web")));
        claim(run_dir, &id("web"), &"lost".parse().unwrap()).unwrap();
        release(run_dir, &id("web"), Some(&"shop".parse().unwrap())).unwrap();
        assert_eq!(fs::read_link(run_dir.join("shop.json")).unwrap(), Path::new("web.json"));
        assert!(!run_dir.join("lost.json").is_symlink());
    }

    #[test]
    fn after_a_restart_of_the_machine_the_second_record_tells_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope { root: dir.path().join("root"), run_dir: dir.path().join("run") };
        let mut whole = document("web", Some("shop"));
        let rootfs = serde_json::json!({"path": scope.container("web").join("rootfs"), "lower": [], "readonly": false});
        whole.set_raw("rootfs", serde_json::value::to_raw_value(&rootfs).unwrap());
        fs::create_dir_all(scope.container("web")).unwrap();
        kept::write(&scope, &id("web"), &whole).unwrap();
        for (word, found) in [("web", Some("web")), ("shop", Some("web")), ("db", None)] {
            assert_eq!(find(&scope, &id(word)).unwrap(), found.map(id), "{word}");
        }
        let mut other = whole.clone();
        claim_again(&scope.run_dir, &id("web"), &mut other).unwrap();
        assert_eq!(other.called(&id("web")).unwrap(), id("shop"));
        // Another container has the name meanwhile.
        fs::remove_file(scope.run_dir.join("shop.json")).unwrap();
        Record::lock(&scope.run_dir, &id("shop")).unwrap().write(&document("shop", None)).unwrap();
        claim_again(&scope.run_dir, &id("web"), &mut whole).unwrap();
        assert_eq!(whole.called(&id("web")).unwrap(), id("web"));
    }
}
