//! Control groups: the container's own cgroup, its limits, and which devices it may use
//! (Documentation/admin-guide/cgroup-v2.rst).
//!
//! Every container has a cgroup of its own in the hierarchy of version 2, whatever else is mounted: its cgroup namespace is
//! rooted there, so nothing in it can name a cgroup of the host. The hierarchy is reached by a mount of its own that is
//! attached nowhere ([`Hierarchy`]): the host's mounts stay as they are, and a host without any works too. Where a controller
//! is on version 1, a limit of it takes a cgroup of the same path in that hierarchy ([`plan`]).

mod controllers;
pub mod device_list;
mod devices;
mod error;
mod group;
mod hierarchy;
mod kill;
mod limits;
mod operation;
mod temporary;
mod usage;

pub use devices::{Program as DeviceProgram, docker as docker_devices};
pub use error::Error;
pub use group::Group;
pub use hierarchy::{Hierarchy, is_refusal, may_make};
pub use kill::{freeze, is_frozen, processes};
pub use limits::{Setting, plan, separate_hierarchies};
pub use mount::cgroup::visible_place;
pub use operation::{CgroupOperation, end, path};
pub use temporary::Temporary;
pub use usage::{Current, Usage};
