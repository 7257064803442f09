//! The steps of COPY, ADD and WORKDIR.

use std::rc::Rc;

use git::{Address, Revision};
use rustix::fs::Timespec;

use super::{
    Builder,
    reasons::Inputs,
    rehearsal::Rehearsal,
    repository,
    request::Request,
    stage::{Made, State},
    store::{Mounted, open_readable},
};
use crate::{
    cache::{Key, Layer, Step},
    copy::{CopyError, Job, Kind, Listing, Owner, Place, Tree, clean},
    dockerfile::{expand::Expander, instruction::Copy},
    error::Cause,
    ignore::Ignore,
    plan::{self, Origin},
};

/// A source of files.
#[derive(Debug)]
pub(super) enum From {
    /// A context.
    Files(Rc<Tree>),
    /// A stage or an image.
    Layers(Vec<Layer>),
}

impl Builder<'_> {
    /// Runs a COPY or ADD.
    pub(super) fn copy_step(
        &self,
        state: &mut State,
        at: usize,
        copy: &Copy,
        instruction: &'static str,
    ) -> Result<(), Cause> {
        let from = match &copy.from {
            None => From::Files(self.context()?),
            Some(name) => self.source(at, name)?,
        };
        self.copy_from(state, copy, instruction, from)
    }

    /// As [`Builder::copy_step`], with the source of `--from`.
    pub(super) fn copy_from(
        &self,
        state: &mut State,
        copy: &Copy,
        instruction: &'static str,
        from: From,
    ) -> Result<(), Cause> {
        let mut request = Request::new(self, state, copy, instruction, &from)?;
        let failed = |source| Cause::Copy { instruction, source };
        let short = request.short_key(state);
        if let Some(key) = &short
            && let Some(entry) = self.cached(key)?
        {
            let entry = self.found(key, &request.inputs(state), entry)?;
            state.take(entry, request.text);
            return Ok(());
        }
        // To know more, the build would have to download files or unpack layers.
        if self.rehearsal.is_some() && (matches!(from, From::Layers(_)) || request.is_remote()) {
            return self.rehearse_copy(state, request, short);
        }
        let revisions = self.fetch_for(&mut request)?;
        let (_shown, tree) = self.open_source(&from)?;
        let tree = &*tree;
        let listing = request.job.list(tree).map_err(failed)?;
        self.note_reads(tree, &listing);
        let (digest, contents) = request.job.described(tree, &listing).map_err(failed)?;
        let inputs =
            request.inputs(state).with_all("repository", revisions.iter().map(|one| &one.commit).enumerate());
        // The layers identify the content of a stage or image.
        let inputs = match (tree.is_context(), contents.is_empty()) {
            (true, false) => {
                inputs.with_files(contents).naming(listing.named().map(std::path::Path::to_owned))
            }
            (true, true) => inputs.with("files", &digest),
            (false, _) => inputs,
        };
        let base = request.key(state).with("content").with_all(request.fetched_as(&revisions));
        let (base, digest) = match request.parts.is_empty() {
            true => (base, digest),
            false => {
                let order = request.parts.iter().map(|part| format!("{part:?}"));
                (base.with("mixed").with_all(order), request.digest_of_parts(tree).map_err(failed)?)
            }
        };
        let key = base.clone().with(digest);
        let layers = state.layers.clone();
        self.files(state, &key, &inputs, request.text.clone(), || {
            let (layer, copied) = self.copy(&layers, &request, tree, &listing, &revisions)?;
            Ok(Made { layer: Some(layer), key: copied.map(|digest| base.with(digest)) })
        })?;
        if let (Some(short), Some(entry)) = (short, self.cache.get(&key)) {
            self.keep(&short, &entry)?;
        }
        Ok(())
    }

    /// The step of a copy whose sources are not read.
    fn rehearse_copy(&self, state: &mut State, request: Request, short: Option<Key>) -> Result<(), Cause> {
        let key = short.unwrap_or_else(|| request.key(state).with("unknown"));
        let inputs = request.inputs(state);
        self.files(state, &key, &inputs, request.text, || Ok(Made { layer: None, key: None }))
    }

    /// The files of a source, with the mount that shows them, if there is one.
    pub(super) fn open_source(&self, from: &From) -> Result<(Option<Mounted>, Rc<Tree>), Cause> {
        match from {
            From::Files(tree) => Ok((None, Rc::clone(tree))),
            From::Layers(layers) => {
                let shown = self.store.readable(layers)?;
                let tree = Tree::image(shown.open()?);
                Ok((Some(shown), Rc::new(tree)))
            }
        }
    }

    /// Downloads files for a copy. Returns the commits of the repositories.
    fn fetch_for(&self, request: &mut Request) -> Result<Vec<Revision>, Cause> {
        let download = |address: &String| self.fetch(address, request.checksum.as_ref());
        request.job.fetched = request.remote.iter().map(download).collect::<Result<_, _>>()?;
        request.repositories.iter().map(|address| repository::revision(address, self.options)).collect()
    }

    /// The source that `--from` names: a stage, an image or a named context.
    pub(super) fn source(&self, at: usize, name: &str) -> Result<From, Cause> {
        let origin = plan::origin(&self.file.stages, at, name, self.global.target(), &self.plan.aliases)?;
        Ok(From::Layers(match origin {
            Origin::Scratch => Vec::new(),
            Origin::Files(name) => return Ok(From::Files(self.named(&name)?)),
            // A stage can only be missing for an ONBUILD of the base image, because plans do not include it.
            Origin::Stage(index) => {
                let state = self.done.get(&index).ok_or_else(|| Cause::NotBuilt(name.to_owned()))?;
                state.layers.clone()
            }
            // The build would pull it.
            Origin::Image(name, platform) if self.is_unknown(&name, platform.as_ref()) => {
                self.rehearsal.iter().map(Rehearsal::layer).collect()
            }
            Origin::Image(name, platform) => self.base(&name, platform.as_ref())?.layers,
        }))
    }

    /// Copies the files. Returns the layer, and the digest of what was copied if that may differ from the
    /// listing.
    fn copy(
        &self,
        layers: &[Layer],
        request: &Request,
        tree: &Tree,
        listing: &Listing,
        revisions: &[Revision],
    ) -> Result<(Layer, Option<String>), Cause> {
        let mounted = self.store.writable(if request.link { &[] } else { layers })?;
        let owner = self.owner(&mounted, request.chown.as_deref())?;
        let copied = match request.parts.is_empty() {
            true => self.copy_all(&mounted, request, (tree, listing), revisions, owner)?,
            false => self.copy_parts(&mounted, request, tree, revisions, owner)?,
        };
        let since = self.options.keep_times.then_some(self.started);
        let layer = match request.link {
            true => self.store.commit_alone(mounted, request.moment, since)?,
            false => self.store.commit(mounted, request.moment, since)?,
        };
        Ok((layer, copied))
    }

    /// Copies sources of one kind.
    fn copy_all(
        &self,
        mounted: &Mounted,
        request: &Request,
        (tree, listing): (&Tree, &Listing),
        revisions: &[Revision],
        owner: Option<Owner>,
    ) -> Result<Option<String>, Cause> {
        let now = Some(request.moment.time());
        let place = self.placing(mounted, owner.unwrap_or_default(), now)?;
        let copied = request
            .job
            .run(tree, listing, place, owner, now, self.store.workspace()?.path())
            .map_err(|source| Cause::Copy { instruction: request.job.instruction, source })?;
        for (address, revision) in request.repositories.iter().zip(revisions) {
            let place = self.placing(mounted, owner.unwrap_or_default(), now)?;
            self.copy_repository(request, address, revision, place, owner)?;
        }
        Ok(copied)
    }

    /// Copies the files of a git repository.
    pub(super) fn copy_repository(
        &self,
        request: &Request,
        address: &Address,
        revision: &Revision,
        place: Place,
        owner: Option<Owner>,
    ) -> Result<(), Cause> {
        let step = self.store.workspace()?.step()?;
        let to = (step.upper.as_path(), step.work.as_path());
        repository::check_out(address, Some(revision), self.options, to, request.keep_git)?;
        let tree = Tree::context(open_readable(&step.upper)?, Ignore::default());
        let job = Job {
            sources: vec!["/".to_owned()],
            fetched: Vec::new(),
            inline: Vec::new(),
            unpack: false,
            ..request.job.clone()
        };
        let scratch = self.store.workspace()?.path();
        let copied = job
            .list(&tree)
            .and_then(|listing| job.run(&tree, &listing, place, owner, Some(request.moment.time()), scratch));
        copied.map(|_| ()).map_err(|source| Cause::Copy { instruction: job.instruction, source })
    }

    /// Places files into a mounted image. See [`Place::new`].
    pub(super) fn placing(
        &self,
        mounted: &Mounted,
        owner: Owner,
        now: Option<Timespec>,
    ) -> Result<Place, Cause> {
        Ok(Place::new(mounted.open()?, owner, now).rootless(self.options.rootless))
    }

    /// Looks up a user and group of the image, by name or number.
    fn owner(&self, mounted: &Mounted, name: Option<&str>) -> Result<Option<Owner>, Cause> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        Ok(Some(Owner::resolve(name, &mounted.open()?)?))
    }

    /// Runs a WORKDIR. It makes a layer only if the directory does not exist yet.
    pub(super) fn workdir_step(&self, state: &mut State, path: &str) -> Result<(), Cause> {
        let lookup = |name: &str| state.variable(name);
        let path = Expander::new(self.file.escape, &lookup).word(path)?;
        let relative = clean(&state.image.config.working_dir, &path);
        let absolute = format!("/{}", relative.display());
        let user = state.image.config.user.clone();
        // As in BuildKit, an absolute path stays as it is written: `/app/`. With `..` it might lead through a
        // directory that does not exist.
        let is_plain = path.starts_with('/') && path.split('/').all(|part| !matches!(part, "." | ".."));
        let written = if is_plain { path } else { absolute.clone() };
        let text = format!("WORKDIR {written}");
        state.image.config.working_dir = written;
        if relative.as_os_str().is_empty() {
            return self.metadata_after(state, text);
        }
        let key =
            Key::new(Step::Workdir).with(state.chain()).with(&absolute).with(&user).with(state.moment.key());
        let (layers, moment) = (state.layers.clone(), state.moment);
        let inputs = Inputs::default()
            .with("parent", state.chain())
            .with("directory", &absolute)
            .with("user", &user)
            .with("time", state.moment.key());
        self.files(state, &key, &inputs, text, || {
            let path = std::path::Path::new(&absolute);
            let failed = |error| match error {
                CopyError::OverFile(_) => {
                    Cause::system("create working directory", path)(rustix::io::Errno::NOTDIR)
                }
                source => Cause::Workdir { path: path.to_owned(), source },
            };
            let mounted = self.store.writable(&layers)?;
            let owner = self.owner(&mounted, Some(&user))?.unwrap_or_default();
            let place = self.placing(&mounted, owner, Some(moment.time()))?;
            // The path may be a link to something that does not exist yet.
            let relative = place.resolve(&relative).map_err(failed)?;
            match place.look(&relative).map_err(failed)? {
                Some(Kind::Directory) => return Ok(Made { layer: None, key: None }),
                Some(_) => return Err(failed(CopyError::OverFile(path.to_owned()))),
                None => place.ensure(&relative).map_err(failed)?,
            };
            place.finish().map_err(failed)?;
            let layer = self.store.commit(mounted, moment, None)?;
            Ok(Made { layer: Some(layer), key: None })
        })
    }
}
