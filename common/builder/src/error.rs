//! Why a build failed.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    copy::{CopyError, OwnerError},
    dockerfile::{self, expand::ExpandError},
    executor::Left,
    ignore::IgnoreError,
    metadata::MetadataError,
    plan::PlanError,
};

/// Why a build failed, and where in the Dockerfile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile is not one.
    #[error("{file}:{source}")]
    Syntax {
        /// The Dockerfile.
        file: String,
        /// Line and reason.
        source: dockerfile::Error,
    },
    /// A step.
    #[error("{file}:{line}: step {step}/{steps}: {source}")]
    Step {
        /// The Dockerfile.
        file: String,
        /// The line of the instruction.
        line: usize,
        /// The step's number.
        step: usize,
        /// Of how many.
        steps: usize,
        /// The reason.
        source: Box<Cause>,
    },
    /// Stages that do not fit together.
    #[error("{file}:{line}: {source}")]
    Plan {
        /// The Dockerfile.
        file: String,
        /// The line.
        line: usize,
        /// The reason.
        source: PlanError,
    },
    /// `--target`.
    #[error(transparent)]
    Target(PlanError),
    /// A stage that another process built.
    #[error("{}", .0.message)]
    Worker(Failure),
    /// Anything that is about no line.
    #[error(transparent)]
    Other(#[from] Cause),
}

/// An error on its way from one process to another.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    line: Option<usize>,
    word: Option<String>,
    left: Option<Box<Left>>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (hint, line, word) = (error.hint(), error.line(), error.word());
        let left = error.left().cloned().map(Box::new);
        Self { message: error.to_string(), hint, line, word, left }
    }
}

/// Why something did not go.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The system refused something.
    #[error("{verb} {path:?}: {source}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The context's `.dockerignore`.
    #[error("{path:?}: {source}")]
    Ignore {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: IgnoreError,
    },
    /// FROM, COPY --from or RUN --mount of an image that is not in the store.
    #[error("no image \"{0}\" in the store")]
    NoImage(String),
    /// The same, where a registry was asked.
    #[error("no image \"{name}\" in the store, and it was not pulled: {source}")]
    Pull {
        /// Its name.
        name: String,
        /// Why not.
        source: Box<registry::Error>,
    },
    /// `--cache-to` of a registry, or `--output` with `push=true`.
    #[error("push {name}: {source}")]
    Push {
        /// Its name.
        name: String,
        /// Why not.
        source: Box<registry::Error>,
    },
    /// `--build-context NAME=oci-layout://…`.
    #[error("take image out of {path:?}: {source}")]
    Layout {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: oci::load::Error,
    },
    /// A layout without the image that is meant.
    #[error("there is no image {which:?} in {path:?}")]
    NotInLayout {
        /// The directory.
        path: PathBuf,
        /// A tag or a digest.
        which: String,
    },
    /// `--from` in an ONBUILD, of a stage that nothing in the Dockerfile itself needs.
    #[error("stage {0:?} is not built: nothing else needs it")]
    NotBuilt(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] oci::layout::Error),
    /// Unpacking a layer.
    #[error("unpack layer {diff_id}: {source}")]
    Unpack {
        /// The layer.
        diff_id: oci::Digest,
        /// The cause.
        source: Box<layer::apply::Error>,
    },
    /// The unpacked layers.
    #[error(transparent)]
    Layers(layer::apply::Error),
    /// Making a layer of what a step wrote.
    #[error("make layer: {0}")]
    Diff(#[source] layer::diff::Error),
    /// Mounting.
    #[error("{0}")]
    Mount(#[from] mount::Error),
    /// The process of a RUN could not be started.
    #[error(transparent)]
    Process(#[from] runtime::Error),
    /// A tool that makes the network of a build could not be started.
    #[error("start {tool}: {source}")]
    Network {
        /// The tool.
        tool: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A tool that makes a container of a failed step failed.
    #[error("{tool}: {source}")]
    Tool {
        /// The tool.
        tool: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A tool that makes the network of a build failed, and said so.
    #[error("the tools that make it failed")]
    NoNetwork,
    /// The process of a RUN failed.
    #[error("The command '{command}' returned a non-zero code: {status}")]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status; 128 and more for a signal.
        status: i32,
        /// Whether it had no network and looked for one.
        offline: bool,
        /// What it left, if that is kept.
        left: Option<Box<Left>>,
    },
    /// COPY or ADD.
    #[error("{instruction} failed: {source}")]
    Copy {
        /// Which.
        instruction: &'static str,
        /// The cause.
        source: CopyError,
    },
    /// WORKDIR.
    #[error("create working directory {path:?}: {source}")]
    Workdir {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: CopyError,
    },
    /// A context at an address.
    #[error("get build context: {0}")]
    Context(Box<registry::Error>),
    /// A repository of git.
    #[error(transparent)]
    Git(#[from] git::Error),
    /// An address that means a repository of git, with something wrong in it.
    #[error("address {0:?}: {1}")]
    GitAddress(String, git::AddressError),
    /// `--keep-git-dir`, and an address that says otherwise.
    #[error("inconsistent keep-git-dir configuration")]
    KeepGit,
    /// COPY of something that is not in a context.
    #[error("source can't be {0} for COPY")]
    NoCopy(&'static str),
    /// `--ssh` of something that is no agent.
    #[error("SSH agent {0:?}: {1}")]
    Agent(String, String),
    /// The processes that build stages.
    #[error("build stages side by side: {0}")]
    Workers(#[source] io::Error),
    /// More than a Dockerfile may have.
    #[error("{0:?} has more than {1}")]
    TooLarge(String, &'static str),
    /// `# check=`.
    #[error("failed to parse check options: {0}")]
    Checks(#[from] crate::lint::BadChecks),
    /// Findings, where a build is to fail for them.
    #[error("lint violation found for rules: {0}")]
    Lint(String),
    /// A name that is near to others.
    #[error("{0}{1}")]
    Near(Box<Cause>, String),
    /// A context that is no archive.
    #[error("{0} is a Dockerfile, and no archive: there is no {1:?} in it")]
    NoArchive(String, PathBuf),
    /// A context in an archive.
    #[error("read build context from {object}: {source}")]
    Input {
        /// Where it came from.
        object: String,
        /// The cause.
        source: CopyError,
    },
    /// Collecting the files of the image.
    #[error("collect the files of the image: {0}")]
    Tree(#[source] layer::diff::Error),
    /// Writing them into a directory.
    #[error("write the files of the image to {path:?}: {source}")]
    Output {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: CopyError,
    },
    /// ADD of something on a web server.
    #[error("ADD failed: {0}")]
    Fetch(Box<registry::Error>),
    /// What came is not what was meant.
    #[error("ADD of {address:?}: its digest is {found}, and not {wanted}")]
    Checksum {
        /// Its address.
        address: String,
        /// `--checksum`.
        wanted: oci::Digest,
        /// What came.
        found: oci::Digest,
    },
    /// `--checksum` that says nothing.
    #[error("checksum {0:?}: {1}")]
    NoChecksum(String, &'static str),
    /// A variable.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// An instruction that changes the configuration.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// `--from`.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A user or group.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// `RUN --mount`.
    #[error("mount {text:?}: {message}")]
    RunMount {
        /// The mount.
        text: String,
        /// What is wrong with it.
        message: String,
    },
    /// A secret that a RUN cannot do without.
    #[error("mount {text:?}: secret {id:?} is required, and was not given")]
    NoSecret {
        /// The mount.
        text: String,
        /// The secret's id.
        id: String,
    },
    /// `ARG SOURCE_DATE_EPOCH` of the Dockerfile that is no time.
    #[error("SOURCE_DATE_EPOCH {0:?} is not a number of seconds since 1970")]
    Epoch(String),
    /// A secret in a variable that is not set.
    #[error("read secret: the variable {0:?} is not set")]
    NoVariable(String),
    /// ONBUILD in the base image.
    #[error("ONBUILD {text:?} of the base image: {source}")]
    Trigger {
        /// The instruction.
        text: String,
        /// What is wrong with it.
        source: dockerfile::Error,
    },
    /// A rebase from a base that the image does not stand on.
    #[error("the image does not stand on the old base: its lowest layers are others")]
    NoBase,
    /// A rebase to a base of another platform.
    #[error("the new base is for another platform: {0}")]
    OtherPlatform(String),
    /// `--change` of a commit.
    #[error("change {text:?}: {problem}")]
    Change {
        /// The instruction.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A configuration that is not one, or cannot be written.
    #[error("image configuration: {0}")]
    Configuration(#[from] serde_json::Error),
}

impl Cause {
    /// For `map_err`: names the object of a call that failed.
    pub fn system<E: Into<io::Error>>(verb: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::System { verb, path, source: source.into() }
    }

    /// Whether the system or the store is the cause (a full disk, say), and no other Dockerfile would help.
    fn is_of_system(&self) -> bool {
        match self {
            Self::System { .. }
            | Self::Store(_)
            | Self::Unpack { .. }
            | Self::Layers(_)
            | Self::Diff(_)
            | Self::Mount(_)
            | Self::Process(_)
            | Self::Ignore { .. } => true,
            Self::Near(cause, _) => cause.is_of_system(),
            Self::Copy { source, .. } | Self::Workdir { source, .. } => {
                matches!(source, CopyError::System { .. })
            }
            _ => false,
        }
    }

    /// The word that is wrong, where it is about one.
    fn word(&self) -> Option<String> {
        match self {
            Self::Near(cause, _) => cause.word(),
            Self::NoImage(word) | Self::Pull { name: word, .. } | Self::NotBuilt(word) => Some(word.clone()),
            Self::NoChecksum(word, _) | Self::GitAddress(word, _) => Some(word.clone()),
            Self::NoSecret { id, .. } => Some(id.clone()),
            Self::Checksum { address, .. } => Some(address.clone()),
            Self::Copy { source: CopyError::NotInContext(word) | CopyError::NotFound(word), .. } => {
                Some(word.clone())
            }
            Self::Plan(error) => error.word(),
            Self::Metadata(
                MetadataError::Port(word) | MetadataError::Protocol(word) | MetadataError::Signal(word),
            ) => Some(word.clone()),
            Self::RunMount { message, .. } => dockerfile::word_of(message).map(str::to_owned),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        let rootless = |what| format!("{what}, or `img-build --rootless`");
        match self {
            Self::Near(cause, _) => cause.hint(),
            Self::NoImage(name) => Some(format!("get it first: img-pull {name}, or img-load -t {name} FILE")),
            Self::Pull { name, source } => {
                let reference = name.parse::<oci::Reference>().ok();
                let hint = reference.and_then(|reference| source.hint(reference.registry()));
                Some(hint.unwrap_or_else(|| format!("img-load -t {name} FILE takes it from a file")))
            }
            Self::Unpack { source, .. } => source.hint().map(rootless),
            Self::Layers(source) => source.hint().map(rootless),
            Self::NoSecret { .. } => {
                Some("give it: img-build --secret id=ID,src=FILE, or id=ID,env=VARIABLE".to_owned())
            }
            Self::Failed { offline: true, .. } => Some(
                "the step had no network and tried to reach it; img-build --network default or host gives it one".to_owned(),
            ),
            _ => None,
        }
    }
}

impl From<Cause> for operation::Error {
    fn from(cause: Cause) -> Self {
        Error::Other(cause).into()
    }
}

impl From<Error> for operation::Error {
    /// With what a person can do about it. All that a build writes lies below `--root`.
    fn from(error: Error) -> Self {
        let hint = error.hint();
        let error = Self::caused_by(error).of(operation::Place::Store);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

impl Error {
    /// The line of the Dockerfile that has to be mended.
    pub(crate) fn line(&self) -> Option<usize> {
        let line = match self {
            Self::Syntax { source, .. } => source.line,
            Self::Plan { line, .. } => *line,
            Self::Step { line, source, .. } if !source.is_of_system() => *line,
            Self::Worker(failure) => return failure.line,
            Self::Step { .. } | Self::Target(_) | Self::Other(_) => return None,
        };
        Some(line).filter(|line| *line > 0)
    }

    /// The word of the instruction that is wrong, where it is about one.
    pub(crate) fn word(&self) -> Option<String> {
        match self {
            Self::Syntax { source, .. } => dockerfile::word_of(&source.message).map(str::to_owned),
            Self::Plan { source, .. } => source.word(),
            Self::Step { source, .. } => source.word(),
            Self::Worker(failure) => failure.word.clone(),
            Self::Target(_) | Self::Other(_) => None,
        }
    }

    /// What a RUN left that failed, if that was kept.
    pub fn left(&self) -> Option<&Left> {
        match self {
            Self::Step { source, .. } => match source.as_ref() {
                Cause::Failed { left, .. } => left.as_deref(),
                _ => None,
            },
            Self::Worker(failure) => failure.left.as_deref(),
            _ => None,
        }
    }

    /// What to do about it, where that can be said.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Step { source, .. } => source.hint(),
            Self::Worker(failure) => failure.hint.clone(),
            Self::Other(cause) => cause.hint(),
            _ => None,
        }
    }
}

impl From<(PathBuf, io::Error)> for Cause {
    fn from((path, source): (PathBuf, io::Error)) -> Self {
        Self::System { verb: "write", path, source }
    }
}
