//! The operations of this tool.

use operation::any_of;
use runtime::Identity;

use super::links::LinkFollow;

any_of! {
    /// The operations on claims of ids, files in `$STAVE_ROOT`, links, the cgroup, the monitor's files and
    /// the process.
    pub(crate) enum ContainerOperation {
        Mount(mount::MountOperation),
        // Before `Cgroup`: its operation has only a path, and would match this one too.
        Links(LinkFollow),
        Cgroup(cgroup::CgroupOperation),
        Process(runtime::ProcessOperation),
        Monitor(monitor::MonitorOperation),
        Claim(operation::Claim),
    }
}

impl ContainerOperation {
    /// Returns the process, if the operation starts one.
    pub(crate) fn identity(&self) -> Option<Identity> {
        match self {
            Self::Process(process) => Some(process.identity),
            Self::Mount(_) | Self::Links(_) | Self::Cgroup(_) | Self::Monitor(_) | Self::Claim(_) => None,
        }
    }
}
