//! What this tool does.

use operation::any_of;
use runtime::Identity;

any_of! {
    /// Files of the container in `$STAVE_RUN`, and at last its process.
    pub(crate) enum ContainerOperation { Mount(mount::MountOperation), Process(runtime::ProcessOperation) }
}

impl ContainerOperation {
    /// Which process it became, where it is one.
    pub(crate) fn identity(&self) -> Option<Identity> {
        match self {
            Self::Process(process) => Some(process.identity),
            Self::Mount(_) => None,
        }
    }
}
