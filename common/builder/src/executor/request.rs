//! Expands the variables of a COPY or ADD, and computes what its result depends on.

use git::{Address, Revision};
use oci::Digest;

use super::{
    Builder,
    fetch::{is_web, name_of},
    files::From,
    mixed::Part,
    reasons::Inputs,
    stage::State,
};
use crate::{
    cache::{Key, Step, chain_id},
    copy::{Chmod, CopyError, Inline, Job, clean},
    dockerfile::{
        expand::{ExpandError, Expander},
        instruction::{Copy, HereDocument},
    },
    error::Cause,
    excerpt::without_passwords,
    ignore::Ignore,
    moment::Moment,
};

/// A COPY or ADD with its variables expanded.
pub(super) struct Request {
    pub(super) job: Job,
    pub(super) chown: Option<String>,
    /// The addresses of files to download.
    pub(super) remote: Vec<String>,
    /// The digest that the only downloaded file must have.
    pub(super) checksum: Option<Digest>,
    /// The git repositories to fetch.
    pub(super) repositories: Vec<Address>,
    /// All sources in their order, if there are several kinds of them.
    pub(super) parts: Vec<Part>,
    /// Whether `.git` of the repositories is kept.
    pub(super) keep_git: bool,
    /// `--link`: whether the layer is independent of the layers below it.
    pub(super) link: bool,
    /// The time of the files that the copy makes.
    pub(super) moment: Moment,
    /// The ChainID of the layers to copy from.
    from: Option<String>,
    /// The text for the history.
    pub(super) text: String,
}

/// The sources, by kind.
#[derive(Default)]
struct Sources {
    local: Vec<String>,
    remote: Vec<String>,
    repositories: Vec<Address>,
    /// All of them in their order, if there are several kinds.
    parts: Vec<Part>,
}

impl Sources {
    fn new(all: Vec<String>, instruction: &'static str) -> Result<Self, Cause> {
        let mut sources = Self::default();
        for source in all {
            match Address::parse(&source) {
                Some(address) if !address.as_ref().is_ok_and(|address| address.bare) => {
                    sources.parts.push(Part::Repository(sources.repositories.len()));
                    sources
                        .repositories
                        .push(address.map_err(|error| Cause::GitAddress(without_passwords(&source), error))?);
                }
                _ if is_web(&source) => {
                    sources.parts.push(Part::Fetched(sources.remote.len()));
                    sources.remote.push(source);
                }
                _ => {
                    sources.parts.push(Part::Local(source.clone()));
                    sources.local.push(source);
                }
            }
        }
        let kinds = [sources.local.len(), sources.remote.len(), sources.repositories.len()];
        if kinds.iter().filter(|count| **count > 0).count() < 2 {
            sources.parts.clear();
        }
        match (instruction, sources.remote.is_empty(), sources.repositories.is_empty()) {
            ("COPY", false, _) => Err(Cause::NoCopy("a URL")),
            ("COPY", true, false) => Err(Cause::NoCopy("a git ref")),
            _ => Ok(sources),
        }
    }
}

impl Request {
    pub(super) fn new(
        builder: &Builder,
        state: &State,
        copy: &Copy,
        instruction: &'static str,
        from: &From,
    ) -> Result<Self, Cause> {
        let lookup = |name: &str| state.variable(name);
        let expander = Expander::new(builder.file.escape, &lookup);
        let option = |text: &Option<String>| text.as_deref().map(|text| expander.word(text)).transpose();
        let failed = |source| Cause::Copy { instruction, source };
        let sources =
            copy.sources.iter().map(|source| expander.word(source)).collect::<Result<Vec<_>, _>>()?;
        let given = option(&copy.checksum)?;
        let checksum = given.as_deref().map(|text| checksum(text, &sources)).transpose()?.flatten();
        let destination = expander.word(&copy.destination)?;
        let chmod = option(&copy.chmod)?;
        let chown = option(&copy.chown)?.filter(|chown| !chown.is_empty());
        let exclude = copy.exclude.iter().map(|text| expander.word(text)).collect::<Result<Vec<_>, _>>()?;
        let text = history(copy, instruction, [("chown", &chown), ("chmod", &chmod)], &sources, &destination);
        let Sources { local, remote, mut repositories, parts } = Sources::new(sources, instruction)?;
        let keep_git = keep_git(copy.keep_git_dir, &mut repositories, given.as_deref())?;
        let raw = Expander { skip_quotes: true, escape: '\\', ..expander };
        let inline = inline(&copy.documents, instruction, &raw)?;
        let last = destination.rsplit('/').next().unwrap_or_default();
        let job = Job {
            instruction,
            sources: local,
            fetched: Vec::new(),
            unpack_fetched: copy.unpack.unwrap_or(false),
            inline,
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
            keep_times: builder.options.keep_times,
        };
        // With `--chmod` it is an ordinary copy, as in BuildKit.
        let link = copy.link && job.chmod.is_none();
        let from = match from {
            From::Layers(layers) => Some(chain_id(layers)),
            From::Files(_) => None,
        };
        let moment = state.moment;
        Ok(Self { job, chown, remote, checksum, repositories, parts, keep_git, link, moment, from, text })
    }

    /// Whether something has to be downloaded.
    pub(super) fn is_remote(&self) -> bool {
        !self.remote.is_empty() || !self.repositories.is_empty()
    }

    /// What is fetched from repositories, for the key.
    pub(super) fn fetched_as(&self, revisions: &[Revision]) -> Vec<String> {
        let one = |(address, revision): (&Address, &Revision)| {
            let reference = revision.reference.as_deref().filter(|_| self.keep_git).unwrap_or_default();
            // As `.git/config` has it, without a password: tokens change.
            let remote = if self.keep_git { registry::without_user(&address.remote) } else { String::new() };
            // A version of what `.git` has. Raise it when that changes.
            let kept = if self.keep_git { "kept 2" } else { "false" };
            format!(
                "{} {remote} {reference} {:?} {kept} {} {:?}",
                revision.commit, address.subdirectory, address.without_submodules, self.job.exclude
            )
        };
        self.repositories.iter().zip(revisions).map(one).collect()
    }

    /// The dependencies of the copy by name, for `--explain-cache`.
    pub(super) fn inputs(&self, state: &State) -> Inputs {
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
        if self.job.keep_times {
            inputs = inputs.with("flag keep-mtime", "true");
        }
        match &self.from {
            Some(from) => inputs.with("from", from),
            None => inputs,
        }
    }

    /// A key of everything that the copy depends on besides its sources.
    pub(super) fn key(&self, state: &State) -> Key {
        let job = &self.job;
        Key::new(Step::Copy)
            .with(if self.link { "link".to_owned() } else { state.chain() })
            .with(job.instruction)
            .with(job.destination.as_os_str().as_encoded_bytes())
            .with(format!("{} {} {} {}", job.into, job.parents, job.unpack, job.unpack_fetched))
            .with(format!("{:?} {:?}", job.chmod, self.chown))
            .with_all(job.inline.iter().flat_map(|inline| [&inline.name, &inline.content]))
            .with(state.moment.key())
            .with(self.job.keep_times.to_string())
    }

    /// A key that is known before anything is read. The layers of a stage or image identify its content, and
    /// `--checksum` identifies a downloaded file.
    pub(super) fn short_key(&self, state: &State) -> Option<Key> {
        let key = || self.key(state);
        match (&self.from, &self.checksum) {
            (Some(from), _) => {
                let key = key().with("layers").with(from).with_all(&self.job.sources);
                Some(key.with(format!("{:?}", self.job.exclude)))
            }
            (None, Some(checksum)) => {
                let name = self.remote.first().map(|address| name_of(address)).unwrap_or_default();
                Some(key().with("checksum").with(name).with(checksum.to_string()))
            }
            (None, None) => None,
        }
    }
}

/// The files of here-documents.
fn inline(
    documents: &[HereDocument],
    instruction: &'static str,
    expander: &Expander,
) -> Result<Vec<Inline>, Cause> {
    // The name of a here-document becomes the name of a file in the destination.
    let wrong =
        |document: &&HereDocument| matches!(&*document.name, "." | "..") || document.name.contains('/');
    if let Some(document) = documents.iter().find(wrong) {
        let source = CopyError::DocumentName(document.name.clone());
        return Err(Cause::Copy { instruction, source });
    }
    let one = |document: &HereDocument| -> Result<Inline, ExpandError> {
        let text = document.text();
        let content = if document.expand { expander.word(&text)? } else { text };
        Ok(Inline { name: document.name.clone(), content })
    };
    Ok(documents.iter().map(one).collect::<Result<_, _>>()?)
}

/// The text for the history.
fn history(
    copy: &Copy,
    instruction: &str,
    flags: [(&str, &Option<String>); 2],
    sources: &[String],
    destination: &str,
) -> String {
    let mut text = instruction.to_owned();
    if copy.parents {
        text.push_str(" --parents");
    }
    for (flag, value) in flags {
        if let Some(value) = value {
            text.push_str(&format!(" --{flag}={value}"));
        }
    }
    sources.iter().for_each(|source| text.push_str(&format!(" {}", without_passwords(source))));
    copy.documents.iter().for_each(|document| text.push_str(&format!(" <<{}", document.name)));
    text + " " + destination
}

/// Parses `--checksum`, which needs a single source: the digest of a downloaded file, or the commit of a
/// repository.
pub(super) fn checksum(text: &str, sources: &[String]) -> Result<Option<Digest>, Cause> {
    let wrong = |problem| Cause::NoChecksum(text.to_owned(), problem);
    match sources {
        [source] if Address::parse(source).is_some() => {
            // The beginning of a commit's name is enough.
            let is_commit =
                (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_commit { Ok(None) } else { Err(wrong("not a commit: hexadecimal digits")) }
        }
        [source] if is_web(source) => {
            text.parse().map(Some).map_err(|_| wrong("not a digest: sha256:… or sha512:…"))
        }
        [_] => Err(wrong("its source is neither on a web server nor a repository of git")),
        _ => Err(wrong("it cannot be that of several sources")),
    }
}

/// Whether `.git` is kept. Also sets the commit that `--checksum` names. Flag and addresses must not
/// contradict each other.
pub(super) fn keep_git(
    flag: Option<bool>,
    repositories: &mut [Address],
    checksum: Option<&str>,
) -> Result<bool, Cause> {
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
