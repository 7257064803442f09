//! Changes to `index.json`. All changes of an [`Edit`] are made in one write, or none is made.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    time::Duration,
};

use oci_spec::image::Descriptor;
use operation::is_full;
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use serde_json::Value;

use super::{
    Error, Layout, REF_NAME,
    blob::open_regular,
    displaced::{self, is_forsaken, without_names},
    index::{
        Entry, Listed, Malformed, entries, entries_mut, is_named, is_nameless, may_have, sorted_entries,
        write,
    },
    recent::{self, Recent, excludes},
};
use crate::{digest::Digest, gc::Marks, reference::Reference};

/// The new list, before it takes the name `index.json`. After the exchange it is the old list, until the new
/// one is on the disk.
const BESIDE: &str = ".index.json.new";

/// Pending changes to the list of images. [`Edit::commit`] makes them; dropping the `Edit` discards them. The
/// list stays locked meanwhile.
#[derive(Debug)]
pub struct Edit<'a> {
    layout: &'a Layout,
    lock: File,
    listed: Listed,
    /// The entries in the file when the edit began.
    before: Vec<Value>,
    recent: Recent,
}

impl Layout {
    /// Begins to change the list of images. Do not use the layout for anything else before [`Edit::commit`]:
    /// readers may wait for the lock.
    ///
    /// # Errors
    /// When `index.json` cannot be locked or read.
    pub fn edit(&self) -> Result<Edit<'_>, Error> {
        self.edit_under(self.lock()?)
    }

    /// Like [`Layout::edit`], with a lock that the caller holds already.
    pub(crate) fn edit_under(&self, lock: File) -> Result<Edit<'_>, Error> {
        let mut listed = self.open_index()?;
        let before = entries(&listed.index).to_vec();
        let recent = Recent::read(self)?.unwrap_or_default();
        recent.restore(entries_mut(&mut listed.index));
        Ok(Edit { layout: self, lock, listed, before, recent })
    }

    /// Gives an image the names in `references`. Images that had these names lose them. An image that has no other name
    /// stays in the list without one.
    /// If `references` is empty and the image is not listed yet, it is listed without a name.
    ///
    /// # Errors
    /// [`Error::NoBlob`] when a part of the image is missing: `img-gc` may have removed it. When `index.json`
    /// cannot be changed; it is then left as it was.
    pub fn name(&self, descriptor: &Descriptor, references: &[Reference]) -> Result<(), Error> {
        let mut edit = self.edit()?;
        edit.name(descriptor, references)?;
        edit.commit()
    }

    /// Gives an image one name: see [`Layout::name`].
    ///
    /// # Errors
    /// Those of [`Layout::name`].
    pub fn tag(&self, reference: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
        self.name(descriptor, std::slice::from_ref(reference))
    }

    /// Removes a name; the image's blobs stay. Returns whether the name existed.
    ///
    /// # Errors
    /// When `index.json` cannot be changed; it is then left as it was.
    pub fn untag(&self, reference: &Reference) -> Result<bool, Error> {
        let mut edit = self.edit()?;
        let found = edit.untag(reference);
        edit.commit()?;
        Ok(found)
    }
}

impl Edit<'_> {
    /// Discards the changes and keeps the lock.
    pub(crate) fn into_lock(self) -> File {
        self.lock
    }

    fn manifests(&mut self) -> &mut Vec<Value> {
        entries_mut(&mut self.listed.index)
    }

    /// Whether `index.json` was lost, and this list comes from its copy.
    pub fn is_restored(&self) -> bool {
        self.listed.restored
    }

    /// The whole list as JSON, as [`Edit::commit`] would write it.
    pub(crate) fn text(&self) -> String {
        self.listed.index.to_string()
    }

    /// All entries, as [`Layout::list`] returns them, with the pending changes.
    pub fn list(&self) -> Vec<Entry> {
        self.sorted().0
    }

    /// The entries of [`Edit::list`], and those that are no descriptors.
    pub(crate) fn sorted(&self) -> (Vec<Entry>, Vec<Malformed>) {
        sorted_entries(&self.listed.index)
    }

    /// The names of the image with this digest.
    pub fn names_of(&self, digest: &str) -> Vec<Reference> {
        let own = self.list().into_iter().filter(|entry| entry.descriptor.digest().as_ref() == digest);
        own.filter_map(|entry| entry.reference).collect()
    }

    /// Like [`Layout::name`], as part of this edit.
    ///
    /// # Errors
    /// [`Error::NoBlob`] when a part of the image is missing.
    pub fn name(&mut self, descriptor: &Descriptor, references: &[Reference]) -> Result<(), Error> {
        self.layout.hold_blobs(descriptor)?;
        if references.is_empty() {
            return self.add(descriptor);
        }
        references.iter().try_for_each(|reference| self.tag(reference, descriptor))
    }

    /// Gives an image a name that need not follow Docker's rules, such as the bare tag that umoci uses.
    ///
    /// # Errors
    /// [`Error::NoBlob`] when a part of the image is missing.
    pub fn name_as(&mut self, descriptor: &Descriptor, name: &str) -> Result<(), Error> {
        self.layout.hold_blobs(descriptor)?;
        self.put(name, descriptor, |entry| entry["annotations"][REF_NAME] == name, false)
    }

    fn tag(&mut self, reference: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
        if !may_have(descriptor, reference) {
            let digest = descriptor.digest().to_string();
            return Err(Error::OtherDigest { name: reference.to_string(), digest });
        }
        self.put(&reference.canonical(), descriptor, |entry| is_named(entry, reference), true)
    }

    /// Lists an image under a name. Entries with that name are replaced. With `keep`, images that have no other name stay
    /// without one.
    fn put(
        &mut self,
        name: &str,
        descriptor: &Descriptor,
        has_name: impl Fn(&Value) -> bool,
        keep: bool,
    ) -> Result<(), Error> {
        let mut named = descriptor.clone();
        let mut annotations: HashMap<_, _> = descriptor.annotations().clone().unwrap_or_default();
        annotations.retain(|key, _| !displaced::OWN.contains(&key.as_str()));
        annotations.insert(REF_NAME.to_owned(), name.to_owned());
        named.set_annotations(Some(annotations));
        let mut named = serde_json::to_value(&named).map_err(Error::Json)?;
        named.sort_all_objects();
        let digest = descriptor.digest().as_ref();
        let replaced = |entry: &Value| has_name(entry) || is_nameless(entry, digest);
        let layout = self.layout;
        let manifests = self.manifests();
        // Giving an image the name that it has already changes nothing and need not wait for the disk.
        let mut rivals = manifests.iter().filter(|entry| replaced(entry));
        if rivals.next() == Some(&named) && rivals.next().is_none() {
            return Ok(());
        }
        let old = manifests.iter().filter(|entry| keep && has_name(entry) && entry["digest"] != digest);
        let old: Vec<Value> = old.cloned().collect();
        manifests.retain(|entry| !replaced(entry));
        for old in old {
            let is_listed = manifests.iter().any(|entry| entry["digest"] == old["digest"]);
            manifests.extend(without_names(layout, &old).filter(|_| !is_listed));
        }
        manifests.push(named);
        Ok(())
    }

    fn add(&mut self, descriptor: &Descriptor) -> Result<(), Error> {
        let mut nameless = descriptor.clone();
        nameless.set_annotations(descriptor.annotations().clone().and_then(|mut annotations| {
            annotations.retain(|key, _| !displaced::OWN.contains(&key.as_str()));
            (!annotations.is_empty()).then_some(annotations)
        }));
        let mut nameless = serde_json::to_value(&nameless).map_err(Error::Json)?;
        nameless.sort_all_objects();
        let digest = descriptor.digest().as_ref();
        let manifests = self.manifests();
        match manifests.iter_mut().find(|entry| entry["digest"] == digest) {
            // Somebody wants the image again.
            Some(entry) if displaced::is_displaced(entry) => *entry = nameless,
            Some(_) => {}
            None => manifests.push(nameless),
        }
        Ok(())
    }

    /// Removes a name; the image's blobs stay. Returns whether the name existed.
    pub fn untag(&mut self, reference: &Reference) -> bool {
        let before = self.manifests().len();
        self.manifests().retain(|entry| !is_named(entry, reference));
        self.manifests().len() < before
    }

    /// Removes all entries of an image, named or not; its blobs stay. With `known`, the entries are removed
    /// only if the image has no names other than these. Returns the image's other names.
    pub fn remove(&mut self, digest: &Digest, known: Option<&[Reference]>) -> Vec<Reference> {
        let digest = digest.to_string();
        let mut others = self.names_of(&digest);
        others.retain(|name| known.is_some_and(|known| !known.contains(name)));
        if others.is_empty() {
            self.manifests().retain(|entry| entry["digest"] != digest);
        }
        others
    }

    /// Removes the entries of images that lost their last name at least `grace` ago and that have no mark. Returns their
    /// digests.
    pub(crate) fn forsake(&mut self, grace: Duration, marks: &Marks) -> Vec<Digest> {
        let (mut forsaken, layout) = (Vec::new(), self.layout);
        self.manifests().retain(|entry| {
            let is_forsaken = is_forsaken(layout, entry, grace, marks);
            forsaken.extend(entry["digest"].as_str().filter(|_| is_forsaken).and_then(|it| it.parse().ok()));
            !is_forsaken
        });
        forsaken
    }

    /// Keeps only the entries that `keep` accepts.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Value) -> bool) {
        self.manifests().retain(keep);
    }

    /// Makes the changes. They are durable afterwards, and so is every blob that was written before, by any
    /// process. If nothing changed, nothing is written.
    ///
    /// # Errors
    /// When `index.json` cannot be changed; it is then left as it was. When the disk rejects the data in the
    /// last step, after the change.
    pub fn commit(self) -> Result<(), Error> {
        self.commit_and_hold().map(drop)
    }

    /// Like [`Edit::commit`], and keeps the lock.
    pub(crate) fn commit_and_hold(self) -> Result<File, Error> {
        if self.listed.restored || entries(&self.listed.index) != self.before {
            return self.replace();
        }
        let beside = self.layout.path.join(BESIDE);
        if self.layout.sync && fs::symlink_metadata(&beside).is_ok() {
            // The last writer was killed before its list was on the disk. This process relies on that list
            // now.
            self.layout.sync_everything()?;
            let _ = fs::remove_file(beside);
        }
        self.layout.sync_blobs()?;
        Ok(self.lock)
    }

    /// Replaces the list by rename. Another program may have changed it meanwhile: skopeo opens the old file
    /// and writes its own list into it in place; umoci replaces the file. What they have added goes into our
    /// list.
    fn replace(self) -> Result<File, Error> {
        let Self { layout, lock, listed: Listed { mut index, file: mut old, .. }, mut recent, mut before } =
            self;
        loop {
            recent = recent.next(&before, &index);
            let file = layout.write_beside(&index, &recent)?;
            let replaced = layout.exchange()?;
            let mut new: Vec<Value> = Vec::new();
            let same = |one: &File, other: &File| inode(one) == inode(other);
            let replaced = replaced.filter(|replaced| old.as_ref().is_none_or(|old| !same(old, replaced)));
            for theirs in [old.replace(file), replaced].into_iter().flatten() {
                let theirs = match layout.parse_index(&theirs) {
                    // A list that was cut short has no entries.
                    Err(Error::Index { .. }) => continue,
                    theirs => theirs?,
                };
                let unknown = |entry: &&Value| !before.contains(entry) && !new.contains(entry);
                new.extend(entries(&theirs).iter().filter(unknown).cloned().collect::<Vec<_>>());
            }
            if new.is_empty() {
                layout.sync_names()?;
                let _ = fs::remove_file(layout.path.join(BESIDE));
                return Ok(lock);
            }
            // Write to a new file: another program may still write to the old one.
            let _ = fs::remove_file(layout.path.join(BESIDE));
            before = entries(&index).to_vec();
            let manifests = entries_mut(&mut index);
            manifests.retain(|entry| !new.iter().any(|new| excludes(entry, new)));
            manifests.extend(new);
        }
    }
}

impl Layout {
    /// Writes the list and its copy (`.recent.json`) beside their places and syncs them with all blobs. Only
    /// the copy then gets its name, so that readers in between find nothing missing.
    fn write_beside(&self, index: &Value, recent: &Recent) -> Result<File, Error> {
        let place = self.path.join(recent::FILE);
        let (beside, kept_beside) = (self.path.join(BESIDE), self.path.join(format!("{}.new", recent::FILE)));
        let kept = serde_json::to_vec(recent).map_err(Error::Json)?;
        let index = index.to_string();
        let write_index = || write(&beside, index.as_bytes()).map_err(Error::io("write", self.index_path()));
        let both = write(&kept_beside, &kept).map_err(Error::io("write", &place)).and_then(|_| write_index());
        let written = match both {
            // The copy is only an aid. On a full disk its space is what allows a name to be removed.
            Err(error) if operation::errno_of(&error).is_some_and(|errno| is_full(&errno)) => {
                let _ = fs::remove_file(&kept_beside);
                fs::remove_file(&place).map_err(|_| error).and_then(|()| write_index())
            }
            both => both,
        };
        let synced = written.and_then(|file| self.sync_everything().map(|()| file));
        let named = synced.and_then(|file| match fs::rename(&kept_beside, &place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("write", &place)(error)),
            _ => Ok(file),
        });
        if named.is_err() {
            let _ = fs::remove_file(&kept_beside);
            let _ = fs::remove_file(&beside);
        }
        named
    }

    /// Exchanges `index.json` with the new list beside it. Returns the file that was `index.json` at that
    /// moment, whoever wrote it. None if there was no such file, or the file system cannot exchange two
    /// files.
    fn exchange(&self) -> Result<Option<File>, Error> {
        let (place, beside) = (self.index_path(), self.path.join(BESIDE));
        let exchanged = match renameat_with(CWD, &beside, CWD, &place, RenameFlags::EXCHANGE) {
            Ok(()) => return Ok(open_regular(&beside).ok()),
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => fs::rename(&beside, &place),
            Err(error) => Err(error.into()),
        };
        exchanged.map(|()| None).map_err(|error| {
            let _ = fs::remove_file(&beside);
            Error::io("write", place)(error)
        })
    }

    /// Checks that the blobs of an image are in the store and intact. For an index, only the index itself is
    /// checked.
    fn hold_blobs(&self, descriptor: &Descriptor) -> Result<(), Error> {
        let hold = |descriptor: &Descriptor| -> Result<(), Error> {
            let digest = Digest::try_from(descriptor.digest())?;
            match self.blob_size(&digest)? {
                Some(size) if size == descriptor.size() => self.unsound(&digest)?.map_or(Ok(()), Err),
                Some(_) => Ok(()),
                None => Err(Error::NoBlob(digest)),
            }
        };
        hold(descriptor)?;
        // Something that is not an image may have a name too.
        let Ok(manifest) = self.manifest(descriptor) else { return Ok(()) };
        let is_here = |layer: &&Descriptor| layer.urls().as_ref().is_none_or(Vec::is_empty);
        hold(manifest.config())?;
        manifest.layers().iter().filter(is_here).try_for_each(hold)
    }
}

/// The device and inode of a file. They tell it apart from a file that replaced it.
fn inode(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
