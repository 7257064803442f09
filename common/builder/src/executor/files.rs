//! COPY, ADD and WORKDIR.

use std::rc::Rc;

use git::{Address, Revision};
use oci::Digest;

use super::{
    Builder,
    fetch::{is_web, name_of},
    reasons::Inputs,
    repository,
    stage::{Made, State},
    store::{Mounted, open_readable},
};
use crate::{
    cache::{Key, Layer, Step, chain_id},
    copy::{Chmod, CopyError, Inline, Job, Kind, Listing, Owner, Place, Tree, clean},
    dockerfile::{
        expand::{ExpandError, Expander},
        instruction::Copy,
    },
    error::Cause,
    ignore::Ignore,
    moment::Moment,
    plan::{self, Origin},
};

/// COPY or ADD, its variables expanded.
struct Request {
    job: Job,
    chown: Option<String>,
    /// Addresses of files to download.
    remote: Vec<String>,
    /// The required digest of the only one of them.
    checksum: Option<Digest>,
    /// Repositories of git to fetch.
    repositories: Vec<Address>,
    /// Whether `.git` of these is kept.
    keep_git: bool,
    /// `--link`: a layer that does not depend on those below it.
    link: bool,
    /// The time of what it makes.
    moment: Moment,
    /// The layers that it copies from.
    from: Option<String>,
    /// The text for the history.
    text: String,
}

/// The source of files.
#[derive(Debug)]
pub(super) enum From {
    /// A context.
    Files(Rc<Tree>),
    /// A stage or an image.
    Layers(Vec<Layer>),
}

impl Builder<'_> {
    /// COPY or ADD.
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

    /// As [`Builder::copy_step`], with what `--from` means.
    pub(super) fn copy_from(
        &self,
        state: &mut State,
        copy: &Copy,
        instruction: &'static str,
        from: From,
    ) -> Result<(), Cause> {
        let mut request = self.request(state, copy, instruction)?;
        let failed = |source| Cause::Copy { instruction, source };
        // The layers of a stage or an image identify its content, without reading it.
        request.from = match &from {
            From::Layers(layers) => Some(chain_id(layers)),
            From::Files(_) => None,
        };
        let short = match &from {
            From::Layers(layers) => Some(
                request
                    .key(state, self)
                    .with("layers")
                    .with(chain_id(layers))
                    .with_all(&request.job.sources)
                    .with(format!("{:?}", request.job.exclude)),
            ),
            // The same holds for a file that must have a given digest.
            From::Files(_) => request.checksum.as_ref().map(|checksum| {
                let name = request.remote.first().map(|address| name_of(address)).unwrap_or_default();
                request.key(state, self).with("checksum").with(name).with(checksum.to_string())
            }),
        };
        if let Some(key) = &short
            && self.cached(key)?.is_some()
        {
            let inputs = request.inputs(state);
            return self
                .files(state, key, &inputs, request.text.clone(), || Ok(Made { layer: None, key: None }));
        }
        // To tell more, files would have to be fetched or layers to be unpacked.
        let remote = !request.remote.is_empty() || !request.repositories.is_empty();
        if self.rehearsal.is_some() && (matches!(from, From::Layers(_)) || remote) {
            let key = short.unwrap_or_else(|| request.key(state, self).with("unknown"));
            let inputs = request.inputs(state);
            return self
                .files(state, &key, &inputs, request.text.clone(), || Ok(Made { layer: None, key: None }));
        }
        request.job.fetched = request
            .remote
            .iter()
            .map(|address| self.fetch(address, request.checksum.as_ref()))
            .collect::<Result<_, _>>()?;
        let revisions = request
            .repositories
            .iter()
            .map(|address| repository::revision(address, self.options))
            .collect::<Result<Vec<_>, _>>()?;
        let shown;
        let tree = match from {
            From::Files(tree) => tree,
            From::Layers(layers) => {
                shown = self.store.readable(&layers)?;
                Rc::new(Tree::image(shown.open()?))
            }
        };
        let tree = &*tree;
        let listing = request.job.list(tree).map_err(failed)?;
        self.note_reads(tree, &request.job, &listing);
        let (digest, contents) = request.job.described(tree, &listing).map_err(failed)?;
        let inputs =
            request.inputs(state).with_all("repository", revisions.iter().map(|one| &one.commit).enumerate());
        // What a stage or an image has is told by its layers.
        let inputs = if tree.is_context() { inputs.with_files(contents) } else { inputs };
        let base = request.key(state, self).with("content").with_all(request.fetched_as(&revisions));
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

    fn request(&self, state: &State, copy: &Copy, instruction: &'static str) -> Result<Request, Cause> {
        let lookup = |name: &str| state.variable(name);
        let expander = Expander::new(self.file.escape, &lookup);
        let option = |text: &Option<String>| text.as_deref().map(|text| expander.word(text)).transpose();
        let failed = |source| Cause::Copy { instruction, source };
        let sources =
            copy.sources.iter().map(|source| expander.word(source)).collect::<Result<Vec<_>, _>>()?;
        let checksum = option(&copy.checksum)?
            .map(|text| Ok::<_, Cause>((text.clone(), checksum(&text, &sources)?)))
            .transpose()?;
        let destination = expander.word(&copy.destination)?;
        let raw = Expander { skip_quotes: true, escape: '\\', ..expander };
        let inline =
            |document: &crate::dockerfile::instruction::HereDocument| -> Result<Inline, ExpandError> {
                let text = document.text();
                let content = if document.expand { raw.word(&text)? } else { text };
                Ok(Inline { name: document.name.clone(), content })
            };
        let chmod = option(&copy.chmod)?;
        let chown = option(&copy.chown)?.filter(|chown| !chown.is_empty());
        let exclude = copy.exclude.iter().map(|text| expander.word(text)).collect::<Result<Vec<_>, _>>()?;
        let mut text = instruction.to_owned();
        if copy.parents {
            text.push_str(" --parents");
        }
        for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                text.push_str(&format!(" --{flag}={value}"));
            }
        }
        sources.iter().for_each(|source| text.push_str(&format!(" {source}")));
        let (mut repositories, mut remote, mut local) = (Vec::new(), Vec::new(), Vec::new());
        for source in sources {
            match Address::parse(&source) {
                Some(address) if !address.as_ref().is_ok_and(|address| address.bare) => {
                    repositories.push(address.map_err(|error| Cause::GitAddress(source, error))?);
                }
                _ if is_web(&source) => remote.push(source),
                _ => local.push(source),
            }
        }
        if instruction == "COPY" && (!repositories.is_empty() || !remote.is_empty()) {
            let kind = if remote.is_empty() { "a git ref" } else { "a URL" };
            return Err(Cause::NoCopy(kind));
        }
        let given = checksum.as_ref().map(|(text, _)| text.clone());
        let checksum = checksum.and_then(|(_, digest)| digest);
        let keep_git = keep_git(copy.keep_git_dir, &mut repositories, given.as_deref())?;
        copy.documents.iter().for_each(|document| text.push_str(&format!(" <<{}", document.name)));
        text.push_str(&format!(" {destination}"));
        let last = destination.rsplit('/').next().unwrap_or_default();
        let job = Job {
            instruction,
            sources: local,
            fetched: Vec::new(),
            unpack_fetched: copy.unpack.unwrap_or(false),
            inline: copy.documents.iter().map(inline).collect::<Result<_, _>>()?,
            destination: clean(&state.image.config.working_dir, &destination),
            into: matches!(last, "" | "." | ".."),
            chmod: chmod
                .filter(|mode| !mode.is_empty())
                .map(|mode| Chmod::parse(&mode))
                .transpose()
                .map_err(|e| failed(e.into()))?,
            parents: copy.parents,
            exclude: Ignore::new(exclude.iter().map(String::as_str)).map_err(|e| failed(e.into()))?,
            unpack: copy.unpack.unwrap_or(instruction == "ADD"),
        };
        // With a mode it is an ordinary copy, as in BuildKit.
        let link = copy.link && job.chmod.is_none();
        Ok(Request {
            job,
            chown,
            remote,
            checksum,
            repositories,
            keep_git,
            link,
            moment: state.moment,
            from: None,
            text,
        })
    }

    /// What `--from` means: a stage, an image, or a context with a name.
    pub(super) fn source(&self, at: usize, name: &str) -> Result<From, Cause> {
        let origin = plan::origin(&self.file.stages, at, name, self.global.target(), &self.plan.aliases)?;
        Ok(From::Layers(match origin {
            Origin::Scratch => Vec::new(),
            Origin::Files(name) => return Ok(From::Files(self.named(&name)?)),
            // Only an image in an ONBUILD of the base image can be missing: plans do not include it.
            Origin::Stage(index) => {
                let state = self.done.get(&index).ok_or_else(|| Cause::NotBuilt(name.to_owned()))?;
                state.layers.clone()
            }
            Origin::Image(name, platform) => self.base(&name, platform.as_ref())?.layers,
        }))
    }

    /// Copies. Returns the layer, and the digest of what was copied if it may differ from the listing.
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
        let now = Some(request.moment.time());
        let place = Place::new(mounted.open()?, owner.unwrap_or_default(), now);
        let copied = request
            .job
            .run(tree, listing, place, owner, now, self.store.workspace()?.path())
            .map_err(|source| Cause::Copy { instruction: request.job.instruction, source })?;
        for (address, revision) in request.repositories.iter().zip(revisions) {
            let place = Place::new(mounted.open()?, owner.unwrap_or_default(), now);
            self.copy_repository(request, address, revision, place, owner)?;
        }
        let since = self.options.keep_times.then_some(self.started);
        let layer = match request.link {
            true => self.store.commit_alone(mounted, request.moment, since)?,
            false => self.store.commit(mounted, request.moment, since)?,
        };
        Ok((layer, copied))
    }

    /// Copies the files of a repository.
    fn copy_repository(
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

    /// A user of the image, by name or number.
    fn owner(&self, mounted: &Mounted, name: Option<&str>) -> Result<Option<Owner>, Cause> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        Ok(Some(Owner::resolve(name, &mounted.open()?)?))
    }

    /// WORKDIR: a layer only if the directory does not exist yet.
    pub(super) fn workdir_step(&self, state: &mut State, path: &str) -> Result<(), Cause> {
        let lookup = |name: &str| state.variable(name);
        let path = Expander::new(self.file.escape, &lookup).word(path)?;
        let relative = clean(&state.image.config.working_dir, &path);
        let absolute = format!("/{}", relative.display());
        let before = state.image.clone();
        state.image.config.working_dir = absolute.clone();
        let text = format!("WORKDIR {absolute}");
        if relative.as_os_str().is_empty() {
            return self.metadata_after(state, &before, text);
        }
        let key = Key::new(Step::Workdir)
            .with(state.chain())
            .with(&absolute)
            .with(&before.config.user)
            .with(state.moment.key());
        let (layers, moment) = (state.layers.clone(), state.moment);
        let inputs = Inputs::default()
            .with("parent", state.chain())
            .with("directory", &absolute)
            .with("user", &before.config.user)
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
            let user = Some(before.config.user.as_str());
            let owner = self.owner(&mounted, user)?.unwrap_or_default();
            let place = Place::new(mounted.open()?, owner, Some(moment.time()));
            // A link may lead to something that does not exist yet.
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

/// `--checksum`, for a single source: the digest of a file on a web server, or the commit of a repository.
fn checksum(text: &str, sources: &[String]) -> Result<Option<Digest>, Cause> {
    let wrong = |problem| Cause::NoChecksum(text.to_owned(), problem);
    match sources {
        [source] if Address::parse(source).is_some() => {
            let is_commit =
                (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_commit { Ok(None) } else { Err(wrong("not a commit: hexadecimal digits")) }
        }
        [source] if is_web(source) => {
            text.parse().map(Some).map_err(|_| wrong("not a digest: sha256:… or sha512:…"))
        }
        [_] => Err(wrong("its source is neither on a web server nor a repository of git")),
        _ => Err(wrong("it cannot be that of several sources")),
    }
}

/// Whether `.git` is kept, and the commit that `--checksum` names: flags and addresses must not say different things.
fn keep_git(flag: Option<bool>, repositories: &mut [Address], checksum: Option<&str>) -> Result<bool, Cause> {
    let mut keep = flag;
    for address in repositories {
        match (keep, address.keep) {
            (Some(one), Some(other)) if one != other => return Err(Cause::KeepGit),
            (None, Some(given)) => keep = Some(given),
            _ => {}
        }
        if let Some(checksum) = checksum {
            let own = address.commit.get_or_insert_with(|| checksum.to_owned());
            if own != checksum {
                return Err(Cause::NoChecksum(checksum.to_owned(), "the address names another commit"));
            }
        }
    }
    Ok(keep.unwrap_or(false))
}

impl Request {
    /// What is fetched of repositories, for the key.
    fn fetched_as(&self, revisions: &[Revision]) -> Vec<String> {
        let one = |(address, revision): (&Address, &Revision)| {
            let reference = revision.reference.as_deref().filter(|_| self.keep_git).unwrap_or_default();
            let remote = if self.keep_git { address.remote.as_str() } else { "" };
            format!(
                "{} {remote} {reference} {:?} {} {}",
                revision.commit, address.subdirectory, self.keep_git, address.without_submodules
            )
        };
        self.repositories.iter().zip(revisions).map(one).collect()
    }

    /// The same by name, for those who want to know why.
    fn inputs(&self, state: &State) -> Inputs {
        let job = &self.job;
        let inline = job.inline.iter().map(|inline| (&inline.name, &inline.content));
        let fetched = job.fetched.iter().map(|fetched| (&fetched.name, &fetched.digest));
        let mut inputs = Inputs::default()
            .with("text", &self.text)
            .with("time", state.moment.key())
            .with("link", self.link.to_string())
            .with("unpack", format!("{} {}", job.unpack, job.unpack_fetched))
            .with("exclude", format!("{:?}", job.exclude))
            .with_all("document", inline)
            .with_all("address", fetched);
        if !self.link {
            inputs = inputs.with("parent", state.chain());
        }
        match &self.from {
            Some(from) => inputs.with("from", from),
            None => inputs,
        }
    }

    /// The dependencies of the copy besides its sources.
    fn key(&self, state: &State, builder: &Builder) -> Key {
        let job = &self.job;
        Key::new(Step::Copy)
            .with(if self.link { "link".to_owned() } else { state.chain() })
            .with(job.instruction)
            .with(job.destination.as_os_str().as_encoded_bytes())
            .with(format!("{} {} {} {}", job.into, job.parents, job.unpack, job.unpack_fetched))
            .with(format!("{:?} {:?}", job.chmod, self.chown))
            .with_all(job.inline.iter().flat_map(|inline| [&inline.name, &inline.content]))
            .with(state.moment.key())
            .with(builder.options.keep_times.to_string())
    }
}
