//! `--dry-run`: finds out which steps are cached. The stages go through the same code as in a build, but the
//! results of steps are only imagined, and nothing is written.

use std::cell::RefCell;

use oci::{
    Digest,
    spec::{Descriptor, MediaType},
};

use super::{Builder, Options, input::Input, store::Store};
use crate::{cache::Layer, error::Error};

/// What a build would do in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: the step is an ARG before the first FROM.
    Nothing,
    /// Use an image or stage.
    Base,
    /// Pull an image, and use it.
    Pull,
    /// Use the result in the cache.
    Cached,
    /// Run the step. The cache may have the result, but that is only known after the step below has run.
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

/// The steps so far, and the verdict on each.
#[derive(Debug, Default)]
pub(super) struct Rehearsal {
    steps: RefCell<Vec<(String, Verdict)>>,
}

impl Rehearsal {
    /// Adds the next step.
    pub(super) fn begin(&self, text: String) {
        self.steps.borrow_mut().push((text, Verdict::Nothing));
    }

    /// Records what a build would do in the current step.
    pub(super) fn note(&self, verdict: Verdict) {
        if let Some((_, last)) = self.steps.borrow_mut().last_mut() {
            *last = verdict;
        }
    }

    /// A layer that is not known yet. So no step above it is found in the cache.
    pub(super) fn layer(&self) -> Layer {
        let digest = Digest::of(format!("imagined {}", self.steps.borrow().len()).as_bytes());
        Layer { descriptor: Descriptor::new(MediaType::ImageLayerGzip, 0, digest.clone()), diff_id: digest }
    }

    fn lines(&self) -> Vec<String> {
        let line = |(text, verdict): &(String, Verdict)| {
            // A step with a here-document has several lines. Only the first is shown.
            format!("{:<6} {}", verdict.word(), text.lines().next().unwrap_or_default())
        };
        self.steps.borrow().iter().map(line).collect()
    }
}

/// The steps of a build, one line each, with what the build would do. Runs, makes and writes nothing.
///
/// # Errors
/// Whatever would end the build before something has to run.
pub fn rehearse(options: &Options) -> Result<Vec<String>, Error> {
    let input = Input::read(options)?;
    input.work(options, |file| {
        let open = || Store::look(options);
        let mut builder = Builder::new(options, &input, file, open, Some(Rehearsal::default()))?;
        builder.findings()?;
        builder.stages()?;
        Ok(builder.rehearsal.map(|rehearsal| rehearsal.lines()).unwrap_or_default())
    })
}
