//! What to run, independent of where the request comes from.

use std::path::PathBuf;

use document::Id;
use mount::Volume;

use super::{names::Names, security::Security, settings::Settings, sharing::Sharing};

/// The process to run. The image supplies missing values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// Replaces the document's `rootfs`.
    pub(crate) rootfs: Option<PathBuf>,
    pub(crate) read_only: bool,
    /// Used if the document has no network.
    pub(crate) network: Option<Mode>,
    pub(crate) hostname: Option<String>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) command: Vec<String>,
    /// `NAME=value`.
    pub(crate) variables: Vec<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) terminal: bool,
    /// Whether standard input stays open.
    pub(crate) interactive: bool,
    /// Whether it ends with that of a client, because the container is made for one (Docker's `StdinOnce`).
    pub(crate) input_ends: bool,
    pub(crate) security: Security,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) privileged: bool,
    pub(crate) sharing: Sharing,
    pub(crate) names: Names,
    pub(crate) settings: Settings,
    pub(crate) log: Log,
}

/// Where the output goes.
#[derive(Debug, Clone, Default)]
pub(crate) enum Log {
    /// To the caller.
    #[default]
    None,
    /// To `$STAVE_ROOT/containers/ID/log`.
    Own,
    /// To a file of the user. It stays after undo.
    File(PathBuf),
}

/// A network that no earlier tool has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    Host,
    None,
    Container(Id),
}
