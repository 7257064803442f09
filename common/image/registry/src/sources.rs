//! Where an image may be pulled from.

use std::{
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use oci::Reference;

use crate::{
    Client, Error,
    places::Place,
    progress::Progress,
    repository::{Access, Repository},
    url::Url,
};

/// The places that an image can be pulled from: mirrors, then the registry itself. Each is connected only
/// when it is needed.
pub(crate) struct Sources<'a> {
    client: &'a Client,
    places: Vec<Place>,
    progress: &'a dyn Progress,
    opened: Vec<OnceLock<Repository>>,
    answered: AtomicUsize,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(
        client: &'a Client,
        reference: &Reference,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let places = client.places(reference)?;
        let opened = places.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { client, places, progress, opened, answered: AtomicUsize::new(0) })
    }

    pub(crate) fn get(&self, index: usize) -> Result<&Repository, Error> {
        if let Some(open) = self.opened[index].get() {
            return Ok(open);
        }
        let open = self.client.open(&self.places[index], Access::Pull)?;
        let open = if self.is_last(index) { open } else { open.dispensable() };
        Ok(self.opened[index].get_or_init(|| open))
    }

    /// The numbers of the places that may have the blobs: the place that had the manifest, and all after it.
    pub(crate) fn remaining(&self) -> Range<usize> {
        self.answered.load(Ordering::Relaxed)..self.places.len()
    }

    pub(crate) fn is_last(&self, index: usize) -> bool {
        index + 1 == self.places.len()
    }

    /// Opens a URL from a descriptor, without the registry's credentials.
    pub(crate) fn elsewhere(&self, url: &str) -> Result<(Repository, Url), Error> {
        let url = Url::parse(url).map_err(Error::Elsewhere)?;
        Ok((self.client.open_elsewhere(&url)?, url))
    }

    /// Reports that a place failed and the next one is tried.
    pub(crate) fn passed_over(&self, index: usize, error: &Error) {
        let mirror = match error.is_wrong_content() {
            true => format!("mirror {}", self.places[index].registry),
            // Other errors name the mirror themselves.
            false => "mirror".to_owned(),
        };
        self.progress.note(&format!("{mirror} skipped: {error}"));
    }

    /// The result of the first place for which `act` succeeds. Each mirror that fails is reported.
    pub(crate) fn first<T>(&self, act: impl Fn(&Repository) -> Result<T, Error>) -> Result<T, Error> {
        for index in self.remaining() {
            match self.get(index).and_then(&act) {
                Err(error) if !self.is_last(index) => self.passed_over(index, &error),
                Err(error) => return Err(error),
                Ok(value) => {
                    self.answered.store(index, Ordering::Relaxed);
                    return Ok(value);
                }
            }
        }
        Err(Error::GivenUp)
    }
}
