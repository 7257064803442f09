//! The operations of this tool.

use operation::any_of;
use runtime::Identity;

use crate::links::LinkFollow;

any_of! {
    /// The container's ids, its files in `$STAVE_ROOT`, the links to it, its cgroup, its monitor's files, and last its process.
    pub(crate) enum ContainerOperation {
        Mount(mount::MountOperation),
        // Before the cgroup, whose operation has a path alone.
        Links(LinkFollow),
        Cgroup(cgroup::CgroupOperation),
        Process(runtime::ProcessOperation),
        Monitor(monitor::MonitorOperation),
        Claim(operation::Claim),
    }
}

impl ContainerOperation {
    /// The process of the operation, if it is one.
    pub(crate) fn identity(&self) -> Option<Identity> {
        match self {
            Self::Process(process) => Some(process.identity),
            Self::Mount(_) | Self::Links(_) | Self::Cgroup(_) | Self::Monitor(_) | Self::Claim(_) => None,
        }
    }
}
