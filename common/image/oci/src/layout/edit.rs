//! Changes of `index.json`, made together: all of them or none, and one write for all.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
};

use oci_spec::image::Descriptor;
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    CONTAINERD_NAME, Error, Layout, REF_NAME,
    blob::open_regular,
    index::{Entry, Listed, entries, entries_mut, is_named, is_nameless, write},
    recent::{self, Recent, excludes},
};
use crate::{digest::Digest, reference::Reference};

/// The list that is about to take the name `index.json`; afterwards, until that is on the disk, the one that had it.
const BESIDE: &str = ".index.json.new";

/// Changes that are made by [`Edit::commit`], and not at all without. Nobody else changes the list meanwhile.
#[derive(Debug)]
pub struct Edit<'a> {
    layout: &'a Layout,
    lock: File,
    listed: Listed,
    /// The entries as they stand in the file.
    before: Vec<Value>,
    recent: Recent,
}

impl Layout {
    /// Begins to change the list of images. It must not be asked for anything else before the changes are made: whoever
    /// reads may wait for that.
    ///
    /// # Errors
    /// When `index.json` cannot be locked or read.
    pub fn edit(&self) -> Result<Edit<'_>, Error> {
        let lock = self.lock()?;
        let mut listed = self.open_index()?;
        let before = entries(&listed.index).to_vec();
        let recent = Recent::read(self).unwrap_or_default();
        recent.restore(entries_mut(&mut listed.index));
        Ok(Edit { layout: self, lock, listed, before, recent })
    }

    /// Gives an image names, and takes these from the images that had them, which stay in the store. Without names it is
    /// listed without one, where it is not there under any.
    ///
    /// # Errors
    /// [`Error::NoBlob`] where part of the image is gone: `img-gc` may have been faster. When `index.json` cannot be
    /// changed. It is then as it was.
    pub fn name(&self, descriptor: &Descriptor, references: &[Reference]) -> Result<(), Error> {
        let mut edit = self.edit()?;
        edit.name(descriptor, references)?;
        edit.commit()
    }

    /// Gives an image a name: see [`Layout::name`].
    ///
    /// # Errors
    /// As [`Layout::name`].
    pub fn tag(&self, reference: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
        self.name(descriptor, std::slice::from_ref(reference))
    }

    /// Takes a name away; the image's blobs stay. Returns whether there was such a name.
    ///
    /// # Errors
    /// When `index.json` cannot be changed; it is then as it was.
    pub fn untag(&self, reference: &Reference) -> Result<bool, Error> {
        let mut edit = self.edit()?;
        let found = edit.untag(reference);
        edit.commit()?;
        Ok(found)
    }
}

impl Edit<'_> {
    /// Gives the changes up, and keeps the list locked.
    pub(crate) fn into_lock(self) -> File {
        self.lock
    }

    fn manifests(&mut self) -> &mut Vec<Value> {
        entries_mut(&mut self.listed.index)
    }

    /// Whether the list was lost, and is what was kept beside it.
    pub fn is_restored(&self) -> bool {
        self.listed.restored
    }

    /// The whole list, as it would be written.
    pub(crate) fn text(&self) -> String {
        self.listed.index.to_string()
    }

    /// All entries, as [`Layout::list`] gives them.
    pub fn list(&self) -> Vec<Entry> {
        let entries = entries(&self.listed.index).iter();
        entries.filter_map(|entry| Descriptor::deserialize(entry).ok()).map(Entry::new).collect()
    }

    /// The names of an image.
    pub fn names_of(&self, digest: &str) -> Vec<Reference> {
        let own = self.list().into_iter().filter(|entry| entry.descriptor.digest().as_ref() == digest);
        own.filter_map(|entry| entry.reference).collect()
    }

    /// As [`Layout::name`].
    ///
    /// # Errors
    /// [`Error::NoBlob`] where part of the image is gone.
    pub fn name(&mut self, descriptor: &Descriptor, references: &[Reference]) -> Result<(), Error> {
        self.layout.hold_blobs(descriptor)?;
        if references.is_empty() {
            return self.add(descriptor);
        }
        references.iter().try_for_each(|reference| self.tag(reference, descriptor))
    }

    /// Gives an image a name that need not be one of Docker's, such as the tag alone that umoci uses.
    ///
    /// # Errors
    /// [`Error::NoBlob`] where part of the image is gone.
    pub fn name_as(&mut self, descriptor: &Descriptor, name: &str) -> Result<(), Error> {
        self.layout.hold_blobs(descriptor)?;
        self.put(name, descriptor, |entry| entry["annotations"][REF_NAME] == name)
    }

    fn tag(&mut self, reference: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
        self.put(&reference.canonical(), descriptor, |entry| is_named(entry, reference))
    }

    /// Lists an image under a name, in place of the entries that have it.
    fn put(
        &mut self,
        name: &str,
        descriptor: &Descriptor,
        has_name: impl Fn(&Value) -> bool,
    ) -> Result<(), Error> {
        let mut named = descriptor.clone();
        let mut annotations: HashMap<_, _> = descriptor.annotations().clone().unwrap_or_default();
        annotations.remove(CONTAINERD_NAME);
        annotations.insert(REF_NAME.to_owned(), name.to_owned());
        named.set_annotations(Some(annotations));
        let mut named = serde_json::to_value(&named).map_err(Error::Json)?;
        named.sort_all_objects();
        let digest = descriptor.digest().as_ref();
        let replaced = |entry: &Value| has_name(entry) || is_nameless(entry, digest);
        let manifests = self.manifests();
        // Who gives it the same name again changes nothing, and waits for no disk.
        let mut rivals = manifests.iter().filter(|entry| replaced(entry));
        if rivals.next() == Some(&named) && rivals.next().is_none() {
            return Ok(());
        }
        manifests.retain(|entry| !replaced(entry));
        manifests.push(named);
        Ok(())
    }

    fn add(&mut self, descriptor: &Descriptor) -> Result<(), Error> {
        let mut nameless = descriptor.clone();
        nameless.set_annotations(descriptor.annotations().clone().and_then(|mut annotations| {
            annotations.retain(|key, _| key != REF_NAME && key != CONTAINERD_NAME);
            (!annotations.is_empty()).then_some(annotations)
        }));
        let mut nameless = serde_json::to_value(&nameless).map_err(Error::Json)?;
        nameless.sort_all_objects();
        let digest = descriptor.digest().as_ref();
        let manifests = self.manifests();
        if !manifests.iter().any(|entry| entry["digest"] == digest) {
            manifests.push(nameless);
        }
        Ok(())
    }

    /// Takes a name away; the image's blobs stay. Returns whether there was such a name.
    pub fn untag(&mut self, reference: &Reference) -> bool {
        let before = self.manifests().len();
        self.manifests().retain(|entry| !is_named(entry, reference));
        self.manifests().len() < before
    }

    /// Takes all entries of an image out, named or not; its blobs stay. With `known`, only where it has no other names than
    /// these. Returns the names that it has besides.
    pub fn remove(&mut self, digest: &Digest, known: Option<&[Reference]>) -> Vec<Reference> {
        let digest = digest.to_string();
        let mut others = self.names_of(&digest);
        others.retain(|name| known.is_some_and(|known| !known.contains(name)));
        if others.is_empty() {
            self.manifests().retain(|entry| entry["digest"] != digest);
        }
        others
    }

    /// Keeps these entries alone.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Value) -> bool) {
        self.manifests().retain(keep);
    }

    /// Makes the changes. They last from then on, and with them every blob that was written before, by whomever. Where
    /// nothing changed nothing is written, and nobody waits for the disk.
    ///
    /// # Errors
    /// When `index.json` cannot be changed; it is then as it was. When the disk refuses it at last, it is told too.
    pub fn commit(self) -> Result<(), Error> {
        if self.listed.restored || entries(&self.listed.index) != self.before {
            return self.replace();
        }
        let beside = self.layout.path.join(BESIDE);
        if self.layout.sync && fs::symlink_metadata(&beside).is_ok() {
            // Who changed it last was killed before that was on the disk; now somebody relies on it.
            self.layout.sync_everything()?;
            let _ = fs::remove_file(beside);
        }
        self.layout.sync_blobs()
    }

    /// Writes the list by rename. Somebody who has opened the old file meanwhile, to write his own list into it in place
    /// (skopeo), has done so by then; somebody else has put a file of his own in its place (umoci): what they have added is
    /// put into ours.
    fn replace(self) -> Result<(), Error> {
        let Self { layout, listed: Listed { mut index, file: mut old, .. }, mut recent, mut before, .. } =
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
                    // One that was cut short lists nothing.
                    Err(Error::Index { .. }) => continue,
                    theirs => theirs?,
                };
                let unknown = |entry: &&Value| !before.contains(entry) && !new.contains(entry);
                new.extend(entries(&theirs).iter().filter(unknown).cloned().collect::<Vec<_>>());
            }
            if new.is_empty() {
                layout.sync_names()?;
                let _ = fs::remove_file(layout.path.join(BESIDE));
                return Ok(());
            }
            // Written anew, and not into the file that somebody may still write to.
            let _ = fs::remove_file(layout.path.join(BESIDE));
            before = entries(&index).to_vec();
            let manifests = entries_mut(&mut index);
            manifests.retain(|entry| !new.iter().any(|new| excludes(entry, new)));
            manifests.extend(new);
        }
    }
}

impl Layout {
    /// Writes a list, and what is kept of it, beside their places, and syncs them with all blobs. What is kept gets its
    /// name: whoever reads in between finds nothing missing.
    fn write_beside(&self, index: &Value, recent: &Recent) -> Result<File, Error> {
        let place = self.path.join(recent::FILE);
        let (beside, kept_beside) = (self.path.join(BESIDE), self.path.join(format!("{}.new", recent::FILE)));
        let kept = serde_json::to_vec(recent).map_err(Error::Json)?;
        let index = index.to_string();
        let write_index = || write(&beside, index.as_bytes()).map_err(Error::io("write", self.index_path()));
        let both = write(&kept_beside, &kept).map_err(Error::io("write", &place)).and_then(|_| write_index());
        let written = match both {
            // What is kept is only a help. On a full disk its place is what a name can be taken away in.
            Err(error) if is_no_space(&error) => {
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

    /// Gives the list beside its name. Returns the file that stood there at that moment, whoever put it there; it stands
    /// beside now. None where there was none, or the file system cannot exchange two files.
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

    /// Asks for what makes up an image, and whether it is whole; of an index, for the index alone.
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
        // What is no image may have a name too.
        let Ok(manifest) = self.manifest(descriptor) else { return Ok(()) };
        let is_here = |layer: &&Descriptor| layer.urls().as_ref().is_none_or(Vec::is_empty);
        hold(manifest.config())?;
        manifest.layers().iter().filter(is_here).try_for_each(hold)
    }
}

fn is_no_space(error: &Error) -> bool {
    let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| errno.raw_os_error());
    operation::errno_of(error).is_some_and(|errno| full.contains(&(errno as i32)))
}

/// What tells a file from one that was put in its place.
fn inode(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
