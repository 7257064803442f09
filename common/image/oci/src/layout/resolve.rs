//! Finds the image that a user names by a name, an id, or the first digits of an id.

use oci_spec::image::Descriptor;

use super::{Entry, Error, Layout, Malformed};
use crate::{
    digest::{Algorithm, Digest},
    reference::Reference,
};

impl Layout {
    /// The image with this name or id, or whose id begins with these digits. None if there is no such image.
    ///
    /// An id is the digest of an image's configuration, as Docker shows it, or of its manifest or index, with
    /// or without `sha256:` or `sha512:`. The id of a configuration or a manifest selects one image of an index.
    ///
    /// # Errors
    /// When the store cannot be read, the text is neither a name nor an id, or several ids begin with it.
    pub fn resolve(&self, text: &str) -> Result<Option<Descriptor>, Error> {
        Ok(self.look_up(text)?.map(|found| found.image))
    }

    fn look_up(&self, text: &str) -> Result<Option<Found>, Error> {
        let (entries, malformed) = self.list_all()?;
        let prefixes = Algorithm::ALL.map(|algorithm| format!("{}:", algorithm.as_str()));
        let id = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix.as_str())).unwrap_or(text);
        let may_be_id =
            !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b"0123456789abcdef".contains(&b));
        let reference: Option<Reference> = match text.parse() {
            Ok(reference) => Some(reference),
            Err(_) if may_be_id => None,
            Err(error) => return Err(error.into()),
        };
        // A name with a digest may be one of the list, or a question about another name.
        let is_listed = |name: &Reference| entries.iter().any(|entry| entry.reference.as_ref() == Some(name));
        let name = reference.clone().filter(|name| name.digest().is_none() || is_listed(name));
        let named = reference.and_then(|reference| by_reference(&entries, &reference));
        let named = named.map(|entry| Found { name, image: entry.clone(), entries: vec![entry] });
        let found = match named {
            None if may_be_id => self.by_id(&entries, id, text)?,
            named => named,
        };
        if found.is_none() {
            self.not_malformed(text, malformed)?;
        }
        Ok(found)
    }

    /// Fails if the entry with this name is malformed.
    fn not_malformed(&self, name: &str, malformed: Vec<Malformed>) -> Result<(), Error> {
        let reference = name.parse::<Reference>().ok();
        match malformed.into_iter().find(|entry| entry.reference.is_some() && entry.reference == reference) {
            Some(Malformed { problem, .. }) => {
                Err(Error::Entry { path: self.path().join("index.json"), name: name.to_owned(), problem })
            }
            None => Ok(()),
        }
    }

    /// Like [`Layout::resolve`], but the image must exist.
    ///
    /// # Errors
    /// Those of [`Layout::resolve`], and [`Error::NoImage`].
    pub fn find(&self, text: &str) -> Result<Descriptor, Error> {
        self.resolve(text)?.ok_or_else(|| Error::NoImage(text.to_owned()))
    }

    /// Like [`Layout::find`], and also returns the image's entries in `index.json`.
    ///
    /// # Errors
    /// Those of [`Layout::find`].
    pub fn find_listed(&self, text: &str) -> Result<Found, Error> {
        self.look_up(text)?.ok_or_else(|| Error::NoImage(text.to_owned()))
    }

    /// Finds an image by its id. Two entries with the same id are one image stored twice (e.g. plain and
    /// compressed), so the id is not ambiguous.
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

    /// The digest below `descriptor` that begins with these digits, and the image that it belongs to. The
    /// digest may be of a configuration, of a manifest, or of `descriptor` itself. An unreadable image has
    /// only its own digest.
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

/// What a name or an id stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The name, if the image was found by its name.
    pub name: Option<Reference>,
    /// The entries of `index.json` that are the image or contain it, without duplicates.
    pub entries: Vec<Descriptor>,
    /// The image: one of the entries, or a manifest of one of them.
    pub image: Descriptor,
}

/// Finds an image by its name. If other tools made two entries with one name, the later entry is the newer
/// one.
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
