//! `--dry-run`: which steps the cache has. The stages go through the same code as in a build. Only what a step would make is
//! imagined, and nothing is written.

use std::cell::RefCell;

use oci::{
    Digest,
    spec::{Descriptor, MediaType},
};

use super::{Builder, Options, input::Input, store::Store};
use crate::{cache::Layer, error::Error};

/// What a build would do with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it is an ARG before the first FROM.
    Nothing,
    /// It takes an image or a stage.
    Base,
    /// It pulls an image first.
    Pull,
    /// Its result is in the cache.
    Cached,
    /// It has to run. That also holds where the cache may have its result, but nobody knows before the step below has run.
    Run,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Nothing => "-",
            Self::Base => "base",
            Self::Pull => "pull",
            Self::Cached => "cached",
            Self::Run => "run",
        }
    }
}

/// The steps so far.
#[derive(Debug, Default)]
pub(super) struct Rehearsal {
    steps: RefCell<Vec<(String, Verdict)>>,
}

impl Rehearsal {
    /// The next step.
    pub(super) fn begin(&self, text: String) {
        self.steps.borrow_mut().push((text, Verdict::Nothing));
    }

    /// What a build would do with it.
    pub(super) fn note(&self, verdict: Verdict) {
        if let Some((_, last)) = self.steps.borrow_mut().last_mut() {
            *last = verdict;
        }
    }

    /// A layer that nobody knows yet: no step on it is in the cache.
    pub(super) fn layer(&self) -> Layer {
        let digest = Digest::of(format!("imagined {}", self.steps.borrow().len()).as_bytes());
        Layer { descriptor: Descriptor::new(MediaType::ImageLayerGzip, 0, digest.clone()), diff_id: digest }
    }

    fn lines(&self) -> Vec<String> {
        let line = |(text, verdict): &(String, Verdict)| {
            // A step with a here-document has several lines.
            format!("{:<6} {}", verdict.word(), text.lines().next().unwrap_or_default())
        };
        self.steps.borrow().iter().map(line).collect()
    }
}

/// The steps of a build, one line each, and which of them the cache has. Nothing is run, made or written.
///
/// # Errors
/// What would end the build before something has to run.
pub fn rehearse(options: &Options) -> Result<Vec<String>, Error> {
    let input = Input::read(options)?;
    input.work(|file| {
        let open = || Store::look(options);
        let mut builder = Builder::new(options, &input, file, open, Some(Rehearsal::default()))?;
        builder.findings()?;
        builder.stages()?;
        Ok(builder.rehearsal.map(|rehearsal| rehearsal.lines()).unwrap_or_default())
    })
}
