//! Control groups: the container's own cgroup, its limits, and which devices it may use
//! (Documentation/admin-guide/cgroup-v2.rst).
//!
//! Every container has its own cgroup in the hierarchy of version 2, whatever else is mounted. Its cgroup
//! namespace is rooted there, so the container cannot name a cgroup of the host. If the host has no writable
//! mount of the hierarchy, a private mount is used ([`Hierarchy::open`]), and the host's mounts stay as they
//! are. If a controller is on version 1, its limits need a cgroup with the same path in that hierarchy
//! ([`plan`]).

mod change;
mod controllers;
pub mod device_list;
mod devices;
mod error;
mod exact;
mod group;
mod hierarchy;
mod homes;
mod kill;
mod limits;
mod operation;
mod temporary;
mod usage;

pub use change::change;
pub use devices::{Program as DeviceProgram, docker as docker_devices};
pub use error::Error;
pub use group::Group;
pub use hierarchy::{Hierarchy, is_refusal, may_make};
pub use homes::{Home, Homes};
pub use kill::{freeze, is_frozen, processes};
pub use limits::{Setting, plan, separate_hierarchies};
pub use mount::cgroup::visible_place;
pub use operation::{CgroupOperation, end, path};
pub use temporary::Temporary;
pub use usage::{Current, Usage};
