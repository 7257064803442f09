//! Why a build failed.

mod hints;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    copy::{CopyError, NotOwned, OwnerError},
    dockerfile::{self, expand::ExpandError},
    executor::Left,
    ignore::IgnoreError,
    metadata::MetadataError,
    plan::PlanError,
};

/// Why a build failed, and on which line of the Dockerfile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile has a syntax error.
    #[error("{file}:{source}")]
    Syntax {
        /// The Dockerfile.
        file: String,
        /// The line and the cause.
        source: dockerfile::Error,
    },
    /// A step failed.
    #[error("{file}:{line}: step {step}/{steps}: {source}")]
    Step {
        /// The Dockerfile.
        file: String,
        /// The line of the instruction.
        line: usize,
        /// The number of the step.
        step: usize,
        /// The number of all steps.
        steps: usize,
        /// The cause.
        source: Box<Cause>,
    },
    /// The stages do not fit together.
    #[error("{file}:{line}: {source}")]
    Plan {
        /// The Dockerfile.
        file: String,
        /// The line.
        line: usize,
        /// The cause.
        source: PlanError,
    },
    /// The value of `--target` names no stage.
    #[error(transparent)]
    Target(PlanError),
    /// A stage failed that another process built.
    #[error("{}", operation::Error::from(.0.error.clone()))]
    Worker(Box<Failure>),
    /// An error that no line of the Dockerfile is responsible for.
    #[error(transparent)]
    Other(#[from] Cause),
}

/// An error in a form that can be sent to another process.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    error: operation::Message,
    line: Option<usize>,
    word: Option<String>,
    left: Option<Box<Left>>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (line, word) = (error.line(), error.word());
        let left = error.left().cloned().map(Box::new);
        Self { error: operation::Error::from(error).to_message(), line, word, left }
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A system call failed.
    #[error("{verb} {path:?}: {source}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The `.dockerignore` of the context is invalid.
    #[error("{path:?}: {source}")]
    Ignore {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: IgnoreError,
    },
    /// `--cache-from` names a tag or digest that no image there has.
    #[error("no image there has this tag or digest")]
    NoCacheOf,
    /// FROM, COPY --from or RUN --mount names an image that is not in the store.
    #[error("no image \"{0}\" in the store")]
    NoImage(String),
    /// The store has the image, but not for the platform.
    #[error("the store has {name:?} for {offered}, and not for {wanted}")]
    NoPlatform {
        /// The image.
        name: String,
        /// The platform.
        wanted: String,
        /// The platforms that the store has.
        offered: String,
    },
    /// The image is not in the store, and it could not be pulled.
    #[error("no image \"{name}\" in the store, and it was not pulled: {source}")]
    Pull {
        /// The name of the image.
        name: String,
        /// The cause.
        source: Box<registry::Error>,
    },
    /// The image or the cache cannot be pushed: `--cache-to` of a registry, or `--output` with `push=true`.
    #[error("push {name}: {source}")]
    Push {
        /// The name in the registry.
        name: String,
        /// The cause.
        source: Box<registry::Error>,
    },
    /// The image cannot be read from an OCI layout: `--build-context NAME=oci-layout://…`.
    #[error("take image out of {path:?}: {source}")]
    Layout {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: oci::load::Error,
    },
    /// The OCI layout does not have the image.
    #[error("there is no image {which:?} in {path:?}")]
    NotInLayout {
        /// The directory.
        path: PathBuf,
        /// The tag or digest that was asked for.
        which: String,
    },
    /// `--from` in an ONBUILD names a stage that nothing in the Dockerfile itself needs.
    #[error("stage {0:?} is not built: nothing else needs it")]
    NotBuilt(String),
    /// The image store failed.
    #[error(transparent)]
    Store(#[from] oci::layout::Error),
    /// A layer cannot be unpacked.
    #[error("unpack layer {diff_id}: {source}")]
    Unpack {
        /// The layer.
        diff_id: oci::Digest,
        /// The cause.
        source: Box<layer::apply::Error>,
    },
    /// The unpacked layers cannot be opened or changed.
    #[error(transparent)]
    Layers(layer::apply::Error),
    /// The changes of a step cannot be written as a layer.
    #[error("make layer: {0}")]
    Diff(#[source] layer::diff::Error),
    /// A file system cannot be mounted or unmounted.
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
    /// A tool that makes a container of a failed step could not be started, or failed.
    #[error("{tool}: {source}")]
    Tool {
        /// The tool.
        tool: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A tool that makes the network of a build failed. It printed the reason itself.
    #[error("the tools that make it failed")]
    NoNetwork,
    /// A RUN asks for the host's network, and the caller has not permitted it.
    #[error("network.host is not allowed: `--allow network.host` permits it")]
    HostNetwork,
    /// The command of a RUN failed.
    #[error("The command '{command}' returned a non-zero code: {status}")]
    Failed {
        /// The command line.
        command: String,
        /// The exit status of the command; 128 + N if signal N ended it.
        status: i32,
        /// Whether the command had no network and tried to use one.
        offline: bool,
        /// What the command left, if it is kept.
        left: Option<Box<Left>>,
    },
    /// COPY or ADD failed.
    #[error("{instruction} failed: {source}")]
    Copy {
        /// `COPY` or `ADD`.
        instruction: &'static str,
        /// The cause.
        source: CopyError,
    },
    /// The directory of WORKDIR cannot be made.
    #[error("create working directory {path:?}: {source}")]
    Workdir {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: CopyError,
    },
    /// The context cannot be downloaded.
    #[error("get build context: {0}")]
    Context(Box<registry::Error>),
    /// A git repository cannot be fetched.
    #[error(transparent)]
    Git(#[from] git::Error),
    /// The address of a git repository is invalid.
    #[error("address {0:?}: {1}")]
    GitAddress(String, git::AddressError),
    /// `--keep-git-dir` contradicts the address.
    #[error("inconsistent keep-git-dir configuration")]
    KeepGit,
    /// COPY cannot copy a source that is not in a context.
    #[error("source can't be {0} for COPY")]
    NoCopy(&'static str),
    /// The value of `--ssh` names no agent.
    #[error("SSH agent {0:?}: {1}")]
    Agent(String, String),
    /// The configuration would be larger than any tool or registry takes.
    #[error("the image's configuration, with its history, has more than {} MiB", oci::layout::MAX_JSON >> 20)]
    LargeConfiguration,
    /// The processes that build stages failed.
    #[error("build stages side by side: {0}")]
    Workers(#[source] io::Error),
    /// A file or the number of instructions exceeds a limit.
    #[error("{0:?} has more than {1}")]
    TooLarge(String, &'static str),
    /// The value of `# check=` is invalid.
    #[error("failed to parse check options: {0}")]
    Checks(#[from] crate::lint::BadChecks),
    /// The checks found something, and findings are errors.
    #[error("lint violation found for rules: {0}")]
    Lint(String),
    /// An error with a suggestion: a name that is similar to a known one.
    #[error("{0}{1}")]
    Near(Box<Cause>, String),
    /// The context is a Dockerfile, and not an archive.
    #[error("{0} is a Dockerfile, not an archive: it cannot contain {1:?}")]
    NoArchive(String, PathBuf),
    /// The archive of the context cannot be unpacked.
    #[error("read build context from {object}: {source}")]
    Input {
        /// Where the context came from.
        object: String,
        /// The cause.
        source: CopyError,
    },
    /// The files of the image cannot be collected.
    #[error("collect the files of the image: {0}")]
    Tree(#[source] layer::diff::Error),
    /// The files of the image cannot be written to a directory.
    #[error("write the files of the image to {path:?}: {source}")]
    Output {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: CopyError,
    },
    /// ADD cannot download a file.
    #[error("ADD failed: {0}")]
    Fetch(Box<registry::Error>),
    /// A downloaded file does not have the digest of `--checksum`.
    #[error("ADD of {address:?}: it has the digest {found}, not {wanted}")]
    Checksum {
        /// The address of the file.
        address: String,
        /// The digest of `--checksum`.
        wanted: oci::Digest,
        /// The digest of the file.
        found: oci::Digest,
    },
    /// The value of `--checksum` is invalid.
    #[error("checksum {0:?}: {1}")]
    NoChecksum(String, &'static str),
    /// A variable cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// An instruction that changes the configuration failed.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The value of `--from` is invalid.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A user or group is unknown.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The value of `RUN --mount` is invalid.
    #[error("mount {text:?}: {message}")]
    RunMount {
        /// The mount.
        text: String,
        /// What is wrong.
        message: String,
    },
    /// The user namespace has no mapping for the owner of a mount.
    #[error("mount {text:?}: {source}")]
    Unmapped {
        /// The mount.
        text: String,
        /// The owner.
        source: NotOwned,
    },
    /// A RUN needs a secret that was not given.
    #[error("mount {text:?}: secret {id:?} is required, and was not given")]
    NoSecret {
        /// The mount.
        text: String,
        /// The secret's id.
        id: String,
    },
    /// `SOURCE_DATE_EPOCH`, of the environment or as an ARG of the Dockerfile, is not a time.
    #[error(transparent)]
    Epoch(#[from] oci::timestamp::InvalidEpoch),
    /// The variable of a secret is not set.
    #[error("read secret: the variable {0:?} is not set")]
    NoVariable(String),
    /// An ONBUILD instruction of the base image is invalid.
    #[error("ONBUILD {text:?} of the base image: {source}")]
    Trigger {
        /// The instruction.
        text: String,
        /// The cause.
        source: dockerfile::Error,
    },
    /// A rebase names an old base that the image is not based on.
    #[error("the image is not based on the old base: its lowest layers differ")]
    NoBase,
    /// The name of an image for several platforms would become that of an image for one.
    #[error("{0} names an image for {1} platforms, and the new image is for one")]
    LosesPlatforms(String, usize),
    /// Docker's manifests name no media type for a layer with zstd.
    #[error("write manifest: Docker's form has no media type for layer {0}, which is compressed with zstd")]
    NoDockerType(String),
    /// A layer has another DiffID than its image says.
    #[error("compress layer {0}: its content is {1}: the store is damaged")]
    OtherContent(oci::Digest, oci::Digest),
    /// A rebase names a new base for another platform.
    #[error("the new base is for another platform: {0}")]
    OtherPlatform(String),
    /// An instruction of `--change` is invalid.
    #[error("change {text:?}: {problem}")]
    Change {
        /// The instruction.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// The image configuration cannot be read or written.
    #[error("image configuration: {0}")]
    Configuration(#[from] serde_json::Error),
}

impl Cause {
    /// For `map_err`: makes the error of `verb` on the file at `path`.
    pub fn system<E: Into<io::Error>>(verb: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::System { verb, path, source: source.into() }
    }
}

impl From<Cause> for operation::Error {
    fn from(cause: Cause) -> Self {
        Error::Other(cause).into()
    }
}

impl From<Error> for operation::Error {
    /// Adds a hint, if there is one. Everything that a build writes is below `--root`.
    fn from(error: Error) -> Self {
        let hint = error.hint();
        if let Error::Worker(failure) = error {
            return failure.error.into();
        }
        let error = Self::caused_by(error).of(operation::Place::Store);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

impl Error {
    /// The line of the Dockerfile to correct, if there is one.
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

    /// The wrong word of the instruction, if the error is about one.
    pub(crate) fn word(&self) -> Option<String> {
        match self {
            Self::Syntax { source, .. } => dockerfile::word_of(&source.message).map(str::to_owned),
            Self::Plan { source, .. } => source.word(),
            Self::Step { source, .. } => source.word(),
            Self::Worker(failure) => failure.word.clone(),
            Self::Target(_) | Self::Other(_) => None,
        }
    }

    /// What a failed RUN left, if it is kept.
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

    /// What the user can do, if it is known.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Step { source, .. } => source.hint(),
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

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    /// A stage may be built by another process. The hint depends on the number.
    #[test]
    fn the_error_of_a_worker_keeps_its_number() {
        let full =
            || Cause::System { verb: "write", path: "x".into(), source: io::Error::from(Errno::ENOSPC) };
        let sent = serde_json::to_string(&Failure::from(Error::Other(full()))).unwrap();
        let received = operation::Error::from(Error::Worker(serde_json::from_str(&sent).unwrap()));
        let own = operation::Error::from(full());
        assert_eq!(received.errno(), Some(Errno::ENOSPC));
        assert_eq!((received.to_string(), received.hint()), (own.to_string(), own.hint()));
    }
}
