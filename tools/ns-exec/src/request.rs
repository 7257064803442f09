//! What is asked for, whoever asks.

use std::path::PathBuf;

use document::Id;
use mount::Volume;

/// A process as it is to be run. What is left out comes from the image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// Instead of the document's `rootfs`.
    pub(crate) rootfs: Option<PathBuf>,
    pub(crate) read_only: bool,
    /// Where the document brings none.
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
    pub(crate) no_new_privileges: bool,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) privileged: bool,
    pub(crate) log: Log,
}

/// Where its output goes.
#[derive(Debug, Clone, Default)]
pub(crate) enum Log {
    /// To the caller.
    #[default]
    None,
    /// `$STAVE_RUN/ID.log`.
    Own,
    /// A file of the user's, which is not made, and stays.
    File(PathBuf),
}

/// A network that no tool before has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    Host,
    None,
    Container(Id),
}
