//! From what a person writes (a name, an id, the beginning of an id) to the image.

use oci_spec::image::Descriptor;

use super::{Entry, Error, Layout, Malformed};
use crate::{digest::Digest, reference::Reference};

impl Layout {
    /// The image of this name, this id, or an id that begins so. An id is the digest of an image's configuration, as
    /// Docker shows it, or of its manifest or index, with or without `sha256:`: that of a configuration or a manifest means
    /// one image of an index, for its platform. None where there is no such image.
    ///
    /// # Errors
    /// When the store cannot be read, the text is neither a name nor an id, or begins more than one id.
    pub fn resolve(&self, text: &str) -> Result<Option<Descriptor>, Error> {
        Ok(self.look_up(text)?.map(|found| found.image))
    }

    fn look_up(&self, text: &str) -> Result<Option<Found>, Error> {
        let entries = self.list()?;
        let id = text.strip_prefix("sha256:").unwrap_or(text);
        let may_be_id =
            !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b"0123456789abcdef".contains(&b));
        let reference: Option<Reference> = match text.parse() {
            Ok(reference) => Some(reference),
            Err(_) if may_be_id => None,
            Err(error) => return Err(error.into()),
        };
        let name = reference.clone().filter(|reference| reference.digest().is_none());
        let named = reference.and_then(|reference| by_reference(&entries, &reference));
        let named = named.map(|entry| Found { name, image: entry.clone(), entries: vec![entry] });
        let found = match named {
            None if may_be_id => self.by_id(&entries, id, text)?,
            named => named,
        };
        if found.is_none() {
            self.not_malformed(text)?;
        }
        Ok(found)
    }

    /// That there is a name, and nothing that can be read under it, is told.
    fn not_malformed(&self, name: &str) -> Result<(), Error> {
        let reference = name.parse::<Reference>().ok();
        match self
            .malformed()?
            .into_iter()
            .find(|entry| entry.reference.is_some() && entry.reference == reference)
        {
            Some(Malformed { problem, .. }) => {
                Err(Error::Entry { path: self.path().join("index.json"), name: name.to_owned(), problem })
            }
            None => Ok(()),
        }
    }

    /// As [`Layout::resolve`], for those who cannot do without.
    ///
    /// # Errors
    /// As [`Layout::resolve`]; [`Error::NoImage`].
    pub fn find(&self, text: &str) -> Result<Descriptor, Error> {
        self.resolve(text)?.ok_or_else(|| Error::NoImage(text.to_owned()))
    }

    /// As [`Layout::find`], with what `index.json` lists of it.
    ///
    /// # Errors
    /// As [`Layout::find`].
    pub fn find_listed(&self, text: &str) -> Result<Found, Error> {
        self.look_up(text)?.ok_or_else(|| Error::NoImage(text.to_owned()))
    }

    /// Two entries of one id, which are one image stored twice (plain and compressed, say), are no ambiguity.
    fn by_id(&self, entries: &[Entry], id: &str, text: &str) -> Result<Option<Found>, Error> {
        let mut found: Option<(Digest, Found)> = None;
        for Entry { descriptor, .. } in entries {
            let Some((own, image)) = self.id_that_begins(descriptor, id) else { continue };
            let mut entries = match found.take() {
                Some((other, _)) if other != own => return Err(Error::Ambiguous(text.to_owned())),
                earlier => earlier.map(|(_, found)| found.entries).unwrap_or_default(),
            };
            if !entries.iter().any(|other| other.digest() == descriptor.digest()) {
                entries.push(descriptor.clone());
            }
            found = Some((own, Found { name: None, entries, image }));
        }
        Ok(found.map(|(_, found)| found))
    }

    /// The digest of the configuration of one of its images, of one of their manifests, or its own, if it begins so, and
    /// what it is the id of. What cannot be read has no id but its own.
    fn id_that_begins(&self, descriptor: &Descriptor, id: &str) -> Option<(Digest, Descriptor)> {
        let manifests = self.manifests(descriptor).unwrap_or_default();
        let inner = manifests
            .iter()
            .flat_map(|(own, manifest)| [(manifest.config().digest(), own), (own.digest(), own)]);
        let (digest, image) = inner
            .chain([(descriptor.digest(), descriptor)])
            .find(|(digest, _)| digest.digest().starts_with(id))?;
        Some((Digest::try_from(digest).ok()?, image.clone()))
    }
}

/// What a name or an id has led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The name, if it was found by that.
    pub name: Option<Reference>,
    /// The entries of `index.json` that are the image or hold it, each once.
    pub entries: Vec<Descriptor>,
    /// What was meant: one of the entries, or of their manifests.
    pub image: Descriptor,
}

/// By name. Of two entries of one name, which other tools may have made, the later one is the newer.
fn by_reference(entries: &[Entry], reference: &Reference) -> Option<Descriptor> {
    let named = |entry: &&Entry| match reference.digest() {
        None => entry.reference.as_ref() == Some(reference),
        Some(digest) => {
            let same_name = |own: &Reference| own.name() == reference.name();
            entry.reference.as_ref().is_some_and(same_name)
                && Digest::try_from(entry.descriptor.digest()).as_ref() == Ok(digest)
        }
    };
    entries.iter().rev().find(named).map(|entry| entry.descriptor.clone())
}
