//! The images that a build stands on: from the store, or from a registry.

use std::{cell::RefCell, collections::HashMap};

use oci::{Image, Layout, Platform, Reference};
use registry::{
    Client, Display,
    display::Job,
    pull::{self, Wanted},
};

use super::Pull;
use crate::error::Cause;

/// The image store, and what may be added to it.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) layout: Layout,
    pull: Pull,
    quiet: bool,
    /// What was pulled, with the error of what could not be, until it is reported.
    pulled: RefCell<HashMap<Asked, Option<Cause>>>,
}

/// A name, and the platform that is wanted of it.
type Asked = (String, Option<String>);

impl Images {
    pub(super) fn new(layout: Layout, pull: Pull, quiet: bool) -> Self {
        Self { layout, pull, quiet, pulled: RefCell::default() }
    }

    /// The image of this name or id. A registry is asked at most once in a build. None if the store does not have it, and no
    /// registry may be asked, or it is no name.
    pub(super) fn find(&self, name: &str, platform: Option<&Platform>) -> Result<Option<Image>, Cause> {
        let standing = self.in_store(name, platform)?;
        let asked = (name.to_owned(), platform.map(Platform::to_string));
        if let Some(outcome) = self.pulled.borrow_mut().get_mut(&asked) {
            return outcome.take().map_or(Ok(standing), Err);
        }
        let wanted = match self.pull {
            Pull::Missing => standing.is_none(),
            Pull::Always => true,
            Pull::Never => false,
        };
        let Some(reference) = name.parse::<Reference>().ok().filter(|_| wanted) else { return Ok(standing) };
        self.fetch(&reference.pinned(), platform)
            .map_err(|source| Cause::Pull { name: name.to_owned(), source: Box::new(source) })?;
        self.pulled.borrow_mut().insert(asked, None);
        self.in_store(name, platform)
    }

    /// As [`Images::find`], for a first look: the error of a pull is kept for the one who needs the image.
    pub(super) fn peek(&self, name: &str, platform: Option<&Platform>) -> Option<Image> {
        self.find(name, platform).unwrap_or_else(|error| {
            let asked = (name.to_owned(), platform.map(Platform::to_string));
            self.pulled.borrow_mut().insert(asked, Some(error));
            None
        })
    }

    /// None also where the store has the image for other platforms only.
    fn in_store(&self, name: &str, platform: Option<&Platform>) -> Result<Option<Image>, Cause> {
        let Some(descriptor) = self.layout.resolve(name)? else { return Ok(None) };
        match self.layout.image(&descriptor, platform) {
            Err(oci::layout::Error::NoBlob(_)) if self.pull != Pull::Never => Ok(None),
            image => Ok(Some(image?)),
        }
    }

    fn fetch(&self, reference: &Reference, platform: Option<&Platform>) -> Result<(), registry::Error> {
        let client = Client::new(registry::Options::default());
        let display = Display::new(Job::Pull, self.quiet);
        let wanted = platform.map_or(Wanted::Host, |platform| Wanted::Platforms(vec![platform.clone()]));
        display.line(&format!("Pulling {reference}"));
        let pull = pull::resolve(&client, &self.layout, reference, &wanted, &display)?;
        pull.fetch(|_| Ok(()))
    }
}
