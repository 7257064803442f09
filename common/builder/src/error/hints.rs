//! What a failed build tells besides its cause: the word to correct, and what the user can do.

use super::Cause;
use crate::{copy::CopyError, dockerfile, metadata::MetadataError};

/// What helps if a user namespace has too few owners, besides `--rootless`.
const MORE_OWNERS: &str = "use subordinate ids (`unshare --map-auto`) for more owners";

impl Cause {
    /// Whether the system or the store is at fault (a full disk, for example), so that no change of the
    /// Dockerfile would help.
    pub(super) fn is_of_system(&self) -> bool {
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

    /// The wrong word of the instruction, if the error is about one.
    pub(super) fn word(&self) -> Option<String> {
        match self {
            Self::Near(cause, _) => cause.word(),
            Self::NoImage(word) | Self::NotBuilt(word) => Some(word.clone()),
            Self::Pull { name: word, .. } | Self::NoPlatform { name: word, .. } => Some(word.clone()),
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
            Self::Copy { source, .. } => dockerfile::word_of(&source.to_string()).map(str::to_owned),
            Self::RunMount { message, .. } => dockerfile::word_of(message).map(str::to_owned),
            _ => None,
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        let rootless = |what| format!("{what}, or `img-build --rootless`");
        match self {
            Self::Near(cause, _) => cause.hint(),
            Self::NoImage(name) => Some(format!("get it first: img-pull {name}, or img-load -t {name} FILE")),
            Self::NoPlatform { name, wanted, .. } => {
                Some(format!("get it first: img-pull --platform {wanted} {name}"))
            }
            Self::Pull { name, source } => {
                let reference = name.parse::<oci::Reference>().ok();
                let hint = reference.and_then(|reference| source.hint(reference.registry()));
                Some(hint.unwrap_or_else(|| format!("img-load -t {name} FILE takes it from a file")))
            }
            Self::Unpack { source, .. } => source.hint().map(rootless),
            Self::Layers(source) => source.hint().map(rootless),
            Self::LosesPlatforms(..) => {
                Some("give it another name, or say which platform is to stay: --platform".to_owned())
            }
            Self::Unmapped { .. }
            | Self::Copy { source: CopyError::Unmapped { .. }, .. }
            | Self::Workdir { source: CopyError::Unmapped { .. }, .. } => Some(rootless(MORE_OWNERS)),
            Self::LargeConfiguration => Some(
                "put long texts into files that COPY brings, and not into ENV, LABEL, ARG or RUN".to_owned(),
            ),
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
