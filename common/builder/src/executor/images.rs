//! Finds the images that a build needs, in the store or in a registry.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use oci::{
    Image, Layout, Platform, Reference,
    layout::{Entry, REF_NAME},
};
use registry::{
    Client, Display,
    display::Job,
    pull::{self, Wanted},
};

use super::{Named, Pull};
use crate::error::Cause;

/// The image store of a build.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) layout: Layout,
    pull: Pull,
    quiet: bool,
    /// Whether nothing may be added to the store.
    only_looks: bool,
    /// The images in OCI layouts, by their names in this build.
    layouts: BTreeMap<String, (PathBuf, Option<String>)>,
    /// What was found. An error of pulling is kept until it is reported.
    known: RefCell<HashMap<Asked, Result<Option<Image>, Cause>>>,
}

/// A name, and the platform that is asked for.
type Asked = (String, Option<String>);

impl Images {
    pub(super) fn new(layout: Layout, pull: Pull, quiet: bool, contexts: &BTreeMap<String, Named>) -> Self {
        let in_layout = |(name, named): (&String, &Named)| match named {
            Named::Layout(path, which) => Some((name.clone(), (path.clone(), which.clone()))),
            _ => None,
        };
        let layouts = contexts.iter().filter_map(in_layout).collect();
        Self { layout, pull, quiet, only_looks: false, layouts, known: RefCell::default() }
    }

    /// As [`Images::new`], for a build that only looks: adds nothing to the store, and asks no registry.
    pub(super) fn looking(self) -> Self {
        Self { only_looks: true, pull: Pull::Never, ..self }
    }

    /// Whether the name stands for an image in an OCI layout. No registry is asked for it then.
    pub(super) fn is_in_layout(&self, name: &str) -> bool {
        self.layouts.contains_key(name)
    }

    /// Finds an image by name or id. The result is the same during the whole build: the store is read once,
    /// and a registry is asked once. Returns `None` if the store does not have the image and no registry may
    /// be asked, or if `name` is not valid.
    pub(super) fn find(&self, name: &str, platform: Option<&Platform>) -> Result<Option<Image>, Cause> {
        let asked = (name.to_owned(), platform.map(Platform::to_string));
        if let Some(known) = self.known.borrow_mut().get_mut(&asked) {
            return match known {
                Ok(found) => Ok(found.clone()),
                // The error is reported only once.
                Err(_) => std::mem::replace(known, Ok(None)),
            };
        }
        let found = self.look(name, platform)?;
        self.known.borrow_mut().insert(asked, Ok(found.clone()));
        Ok(found)
    }

    /// As [`Images::find`], but keeps an error for the step that needs the image.
    pub(super) fn peek(&self, name: &str, platform: Option<&Platform>) -> Option<Image> {
        self.find(name, platform).unwrap_or_else(|error| {
            let asked = (name.to_owned(), platform.map(Platform::to_string));
            self.known.borrow_mut().insert(asked, Err(error));
            None
        })
    }

    fn look(&self, name: &str, platform: Option<&Platform>) -> Result<Option<Image>, Cause> {
        if let Some((path, which)) = self.layouts.get(name) {
            return match self.only_looks {
                true => look_at(path, which.as_deref(), platform).map(Some),
                false => self.take(path, which.as_deref(), platform).map(Some),
            };
        }
        // An id always means the same image, so no registry is asked.
        let is_id = || self.layout.find_listed(name).is_ok_and(|found| found.name.is_none());
        let wanted = match self.pull {
            Pull::Missing => None,
            Pull::Always => name.parse::<Reference>().ok().filter(|_| !is_id()),
            Pull::Never => return self.in_store(name, platform),
        };
        let wanted = match wanted {
            Some(reference) => reference,
            None => match (self.in_store(name, platform)?, name.parse::<Reference>()) {
                (None, Ok(reference)) => reference,
                (standing, _) => return Ok(standing),
            },
        };
        self.fetch(&wanted.pinned(), platform)
            .map_err(|source| Cause::Pull { name: name.to_owned(), source: Box::new(source) })?;
        self.in_store(name, platform)
    }

    /// Loads an image from an OCI layout into the store.
    fn take(&self, path: &Path, which: Option<&str>, platform: Option<&Platform>) -> Result<Image, Cause> {
        let failed = |source| Cause::Layout { path: path.to_owned(), source };
        let intake = oci::load::Input::open(path).and_then(|input| input.read(&self.layout, platform));
        let mut intake = intake.map_err(failed)?;
        let is_meant = |image: &oci::load::Found| match which {
            None => true,
            Some(which) if which.contains(':') => image.descriptor.digest().to_string() == which,
            Some(tag) => image.references.iter().any(|reference| reference.tag() == Some(tag)),
        };
        let found =
            intake.images().iter().find(|image| is_meant(image)).map(|image| image.descriptor.clone());
        let found = found.ok_or_else(|| not_in(path, which))?;
        intake.forget_names();
        intake.commit(None).map_err(failed)?;
        Ok(self.layout.image(&found, platform)?)
    }

    /// Looks in the store. Returns `None` also if a registry may have the image for this platform, but the
    /// store has it for others only.
    fn in_store(&self, name: &str, platform: Option<&Platform>) -> Result<Option<Image>, Cause> {
        use oci::layout::Error::{NoBlob, NoPlatform};
        let Some(descriptor) = self.layout.resolve(name)? else { return Ok(None) };
        let may_pull = self.pull != Pull::Never;
        let image = match self.layout.image(&descriptor, platform) {
            Err(NoBlob(_) | NoPlatform { .. }) if may_pull => return Ok(None),
            Err(NoPlatform { wanted, offered, .. }) => {
                return Err(Cause::NoPlatform { name: name.to_owned(), wanted, offered });
            }
            image => image?,
        };
        if !self.only_looks {
            // It may lose its name while the build runs.
            let digest =
                oci::Digest::try_from(image.descriptor.digest()).map_err(oci::layout::Error::from)?;
            self.layout.keep_meanwhile(&[digest])?;
        }
        // If an index has no image for this machine, the layout returns the first image that the store has.
        let is_of_index = image.descriptor.digest() != descriptor.digest();
        let is_meant =
            platform.is_some() || !is_of_index || Platform::host().rank(&image.platform()).is_some();
        Ok((is_meant || !may_pull).then_some(image))
    }

    fn fetch(&self, reference: &Reference, platform: Option<&Platform>) -> Result<(), registry::Error> {
        let client = Client::new(registry::Options::default());
        let display = Display::new(Job::Pull, self.quiet);
        let wanted = platform.map_or(Wanted::Host, |platform| Wanted::Platforms(vec![platform.clone()]));
        display.line(&format!("Pulling {reference}"));
        let (pull, _) = pull::resolve(&client, &self.layout, reference, &wanted, &display)?;
        pull.fetch(|_| Ok(()))
    }
}

/// Looks up an image in an OCI layout, without loading it into the store.
fn look_at(path: &Path, which: Option<&str>, platform: Option<&Platform>) -> Result<Image, Cause> {
    let layout = Layout::look(path)?;
    let is_meant = |entry: &Entry| match which {
        None => true,
        Some(which) if which.contains(':') => entry.descriptor.digest().to_string() == which,
        Some(tag) => {
            let names = entry.descriptor.annotations().as_ref();
            names.and_then(|names| names.get(REF_NAME)).is_some_and(|name| name == tag)
                || entry.reference.as_ref().is_some_and(|reference| reference.tag() == Some(tag))
        }
    };
    let found = layout.list()?.into_iter().find(is_meant).ok_or_else(|| not_in(path, which))?;
    Ok(layout.image(&found.descriptor, platform)?)
}

fn not_in(path: &Path, which: Option<&str>) -> Cause {
    Cause::NotInLayout { path: path.to_owned(), which: which.unwrap_or_default().to_owned() }
}
