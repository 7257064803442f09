//! Builds a stage, one instruction after the other.

use std::time::Instant;

use oci::{Digest, Platform, Reference};
use serde::{Deserialize, Serialize};

use super::{
    Builder, Pull,
    files::From,
    image,
    reasons::Inputs,
    rehearsal::{Rehearsal, Verdict},
};
use crate::{
    arguments::Local,
    cache::{Entry, Key, Layer, Step, chain_id},
    config::Image,
    dockerfile::{self, Instruction, Statement, expand::Expander, instruction::Copy},
    error::{Cause, Error},
    metadata,
    moment::Moment,
    plan::{self, Origin},
};

/// The state of a stage after some of its instructions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) image: Image,
    pub(super) layers: Vec<Layer>,
    pub(super) arguments: Local,
    /// The time of what the stage makes.
    pub(super) moment: Moment,
    /// How many layers and history entries of the stage come from the image that it is based on.
    pub(super) below: (usize, usize),
    /// Whether this stage has had a CMD. An ENTRYPOINT removes an inherited CMD only.
    command_is_set: bool,
    /// A digest of the base image and of every instruction so far, as the history has it. It grows with each
    /// instruction, and so is known without a look at the whole configuration, which may be large.
    past: String,
    /// The size of the base image's configuration and of the texts of the instructions so far, in bytes. The whole
    /// configuration is larger.
    size: usize,
}

/// The largest configuration, in bytes, for which the id of the image is shown after each step.
const SHOWN: usize = 64 << 10;

/// The result of a step that has run.
pub(super) struct Made {
    /// The layer. `None` if the step changed no file.
    pub(super) layer: Option<Layer>,
    /// The key of what was really read, if it may have changed since the lookup.
    pub(super) key: Option<Key>,
}

impl State {
    /// The state at the beginning of a stage.
    fn new(image: Image, layers: Vec<Layer>, moment: Moment) -> Result<Self, Cause> {
        let text = oci::json::to_vec(&image)?;
        let (past, size) = (Digest::of(&text).to_string(), text.len());
        Ok(Self { image, layers, moment, past, size, ..Self::default() })
    }

    /// The ChainID of the layers.
    pub(super) fn chain(&self) -> String {
        chain_id(&self.layers)
    }

    /// The value of a variable for the next instruction.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.arguments.variable(name, &self.image.config)
    }

    /// Applies the result of a step.
    pub(super) fn take(&mut self, entry: Entry, created_by: String) {
        let layer = entry.layer.as_ref().map(|layer| layer.diff_id.to_string()).unwrap_or_default();
        self.past = Digest::of(format!("{} {layer} {created_by}", self.past).as_bytes()).to_string();
        self.size += created_by.len();
        self.image.add_history(&entry.created, created_by, entry.layer.is_none());
        if let Some(layer) = entry.layer {
            self.image.rootfs.diff_ids.push(layer.diff_id.to_string());
            self.layers.push(layer);
        }
    }
}

impl Builder<'_> {
    /// Builds a stage.
    pub(super) fn stage(&mut self, at: usize) -> Result<State, Error> {
        let stage = self.file.stages[at].clone();
        self.step = self.plan.first_step(&self.file, at);
        self.at.set((at, 0));
        self.begin(&stage.text);
        let mut state = self.from(at).map_err(self.at(stage.line))?;
        self.note(match &self.plan.bases[at] {
            Origin::Image(name, platform) if self.is_unknown(name, platform.as_ref()) => Verdict::Pull,
            _ => Verdict::Base,
        });
        if let Origin::Files(name) = &self.plan.bases[at] {
            let all = Copy { sources: vec!["/".to_owned()], destination: "/".to_owned(), ..Copy::default() };
            let copied =
                self.named(name).and_then(|tree| self.copy_from(&mut state, &all, "COPY", From::Files(tree)));
            copied.map_err(self.at(stage.line))?;
        }
        if !state.layers.is_empty() || !state.image.history.is_empty() {
            self.show(&state).map_err(self.at(stage.line))?;
        }
        if self.plan.replaced[at] {
            return Ok(state);
        }
        self.triggers(&mut state, at, stage.line)?;
        for statement in &stage.statements {
            self.begin(&statement.text);
            self.statement(&mut state, at, statement).map_err(self.at(statement.line))?;
        }
        Ok(state)
    }

    /// Whether the build only looks, and a real build would pull this image.
    pub(super) fn is_unknown(&self, name: &str, platform: Option<&Platform>) -> bool {
        self.rehearsal.is_some()
            && self.options.pull != Pull::Never
            && !self.store.images.is_in_layout(name)
            && name.parse::<Reference>().is_ok()
            && self.store.images.peek(name, platform).is_none()
    }

    fn from(&self, at: usize) -> Result<State, Cause> {
        match &self.plan.bases[at] {
            Origin::Scratch | Origin::Files(_) => {
                let moment = Moment::of(self.epoch, None);
                let platform = plan::platform(&self.file, &self.file.stages[at], &self.global)?;
                State::new(Image::scratch(platform.as_ref()), Vec::new(), moment)
            }
            Origin::Stage(index) => {
                // A stage inherits the ARGs of the stage it is based on
                // (docs.docker.com/build/building/variables, "Scoping").
                let base = self.done.get(index).cloned().unwrap_or_default();
                Ok(State { command_is_set: false, ..base })
            }
            Origin::Image(name, platform) if self.is_unknown(name, platform.as_ref()) => {
                let layers = self.rehearsal.iter().map(Rehearsal::layer).collect();
                let moment = Moment::of(self.epoch, None);
                State::new(Image::scratch(platform.as_ref()), layers, moment)
            }
            Origin::Image(name, platform) => {
                let mut base = self.base(name, platform.as_ref())?;
                base.image.config.ensure_path();
                base.image.forget_making();
                base.image.fit_history();
                let moment = Moment::of(self.epoch, base.image.created.as_deref());
                let below = (base.layers.len(), base.image.history.len());
                Ok(State { below, ..State::new(base.image, base.layers, moment)? })
            }
        }
    }

    /// Runs the base image's ONBUILD instructions.
    fn triggers(&mut self, state: &mut State, at: usize, line: usize) -> Result<(), Error> {
        let triggers = std::mem::take(&mut state.image.config.on_build);
        if triggers.is_empty() {
            return Ok(());
        }
        let count = triggers.len();
        let noun = if count == 1 { "trigger" } else { "triggers" };
        self.progress.line(&format!("# Executing {count} build {noun}"));
        for text in triggers {
            self.text = format!("ONBUILD {text}");
            if let Some(rehearsal) = &self.rehearsal {
                rehearsal.begin(self.text.clone());
            }
            let mut follow = || {
                let trigger = |source| Cause::Trigger { text: text.clone(), source };
                let statement = dockerfile::parse_trigger(&text).map_err(trigger)?;
                self.statement(state, at, &statement)
            };
            follow().map_err(self.at(line))?;
        }
        Ok(())
    }

    fn statement(&self, state: &mut State, at: usize, statement: &Statement) -> Result<(), Cause> {
        match &statement.instruction {
            Instruction::Arg(arguments) => {
                let text = state.arguments.declare(
                    arguments,
                    &self.global,
                    &state.image.config,
                    self.file.escape,
                )?;
                self.metadata_after(state, text)?;
            }
            Instruction::Run(run) => self.run_step(state, at, run)?,
            Instruction::Copy(copy) => self.copy_step(state, at, copy, "COPY")?,
            Instruction::Add(copy) => self.copy_step(state, at, copy, "ADD")?,
            Instruction::Workdir(path) => self.workdir_step(state, path)?,
            other => {
                let lookup = |name: &str| state.variable(name);
                let expander = Expander::new(self.file.escape, &lookup);
                let change = metadata::change(other, &state.image, &expander, state.command_is_set)?;
                let Some(change) = change else { return Ok(()) };
                let set = match other {
                    Instruction::Env(pairs) => {
                        pairs.iter().map(|pair| expander.word(&pair.name)).collect::<Result<Vec<_>, _>>()?
                    }
                    _ => Vec::new(),
                };
                set.iter().for_each(|name| state.arguments.hide(name));
                state.command_is_set |= matches!(other, Instruction::Cmd(_));
                let text = change.text.clone();
                change.apply(&mut state.image);
                // As in BuildKit, an ONBUILD has no place in the history.
                if !matches!(other, Instruction::Onbuild(_)) {
                    self.metadata_after(state, text)?;
                }
            }
        }
        self.show(state)
    }

    /// Prints the id of the image after a step, unless its configuration is large: then this would take most of the
    /// time. No tool reads a configuration that is larger than any JSON may be.
    fn show(&self, state: &State) -> Result<(), Cause> {
        if state.size as u64 > oci::layout::MAX_JSON {
            return Err(Cause::LargeConfiguration);
        }
        if self.progress.has_ids() && state.size <= SHOWN {
            self.progress.id(&image::id(&state.image)?);
        }
        Ok(())
    }

    /// Ends a step that changed no file. The cache keeps the time when the step was first run, so that the
    /// same build makes the same image.
    pub(super) fn metadata_after(&self, state: &mut State, text: String) -> Result<(), Cause> {
        let key = Key::new(Step::Configuration).with(&state.past).with(&text).with(state.moment.key());
        let created = state.moment.text();
        let inputs = Inputs::default()
            .with("parent", &state.past)
            .with("text", &text)
            .with("time", state.moment.key());
        let make = || Ok((Entry { created, layer: None }, None));
        let entry = self.found_or(&key, self.cached(&key)?, &inputs, make)?;
        state.take(entry, text);
        Ok(())
    }

    /// Ends a step that may change files. Takes the result from the cache if the key is there, and calls
    /// `make` otherwise.
    pub(super) fn files(
        &self,
        state: &mut State,
        key: &Key,
        inputs: &Inputs,
        text: String,
        make: impl FnOnce() -> Result<Made, Cause>,
    ) -> Result<(), Cause> {
        let found = self.cached(key)?;
        self.files_after(state, (key, found), inputs, text, make)
    }

    /// Like [`Builder::files`], after the key has been looked up: with the entry that was found, if any.
    pub(super) fn files_after(
        &self,
        state: &mut State,
        (key, found): (&Key, Option<Entry>),
        inputs: &Inputs,
        text: String,
        make: impl FnOnce() -> Result<Made, Cause>,
    ) -> Result<(), Cause> {
        let created = state.moment.text();
        let make = || {
            let Made { layer, key } = match &self.rehearsal {
                Some(rehearsal) => Made { layer: Some(rehearsal.layer()), key: None },
                None => make()?,
            };
            Ok((Entry { layer, created }, key))
        };
        let entry = self.found_or(key, found, inputs, make)?;
        state.take(entry, text);
        Ok(())
    }

    /// The entry that was found for a key, or else the one that is made.
    fn found_or(
        &self,
        key: &Key,
        found: Option<Entry>,
        inputs: &Inputs,
        make: impl FnOnce() -> Result<(Entry, Option<Key>), Cause>,
    ) -> Result<Entry, Cause> {
        if let Some(entry) = found {
            return self.found(key, inputs, entry);
        }
        self.looked_up(key, inputs, false)?;
        let begin = Instant::now();
        self.note(Verdict::Run);
        let (entry, made_of) = make()?;
        self.keep(made_of.as_ref().unwrap_or(key), &entry)?;
        self.ran(key, inputs, begin.elapsed())?;
        self.passed();
        Ok(entry)
    }

    /// Ends a step whose result was found in the cache.
    pub(super) fn found(&self, key: &Key, inputs: &Inputs, entry: Entry) -> Result<Entry, Cause> {
        self.looked_up(key, inputs, true)?;
        self.progress.cached();
        self.note(Verdict::Cached);
        self.passed();
        Ok(entry)
    }

    /// Counts a step. The next step may have the same number, if it is an ONBUILD instruction.
    fn passed(&self) {
        let (stage, step) = self.at.get();
        self.at.set((stage, step + 1));
    }

    /// Keeps the result of a step in the cache.
    pub(super) fn keep(&self, key: &Key, entry: &Entry) -> Result<(), Cause> {
        if self.rehearsal.is_some() {
            return Ok(());
        }
        Ok(self.cache.put(key, entry, &self.text, self.store.workspace()?.path())?)
    }

    /// The entry for a key in the cache, if the store still has its layer.
    pub(super) fn cached(&self, key: &Key) -> Result<Option<Entry>, Cause> {
        let stage = &self.file.stages[self.at.get().0];
        if self.options.no_cache_filter.iter().any(|name| plan::is_named(stage, name)) {
            return Ok(None);
        }
        let Some(entry) = self.cache.get(key) else { return Ok(None) };
        if self.rehearsal.is_none() {
            // So a garbage collection that is running keeps both.
            self.cache.touch(key);
            let digest = entry.layer.as_ref().map(|layer| Digest::try_from(layer.descriptor.digest()));
            if let Some(Ok(digest)) = digest {
                self.store.images.layout.touch_blob(&digest);
            }
        }
        match &entry.layer {
            Some(layer) if !self.store.images.layout.has_sound_blob(&layer.descriptor)? => Ok(None),
            _ => Ok(Some(entry)),
        }
    }
}
