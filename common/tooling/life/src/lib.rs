//! The life of a container: it is started, runs, ends, is restarted, is stopped.
//!
//! All that is known about a container is in its record ([`Container`]). The tools, and the monitor of the
//! container through [`Recorded`], hold the record's lock while they change it.

mod attend;
mod beside;
mod container;
pub mod environment;
mod exec;
mod health;
mod keeper;
mod output;
mod point;
mod policy;
mod rename;
mod restore;
mod session;
mod start;
mod stop;
mod tracers;
mod update;
mod wait;

pub use attend::{adopt, attended, running};
pub use beside::{PORTS_RELEASE, PORTS_TAKE};
pub use container::{Container, State};
pub use exec::Exec;
pub use health::{CheckFlags, of_image as health_of_image};
pub use keeper::{End, Recorded, end, freeze, noted};
pub use output::{LOG_LIMIT, make_log, own_log};
pub use point::Point;
pub use policy::Restart;
pub use rename::{may_rename, rename};
pub use restore::{every, known, restore};
pub use session::{Attachment, Outcome, attend};
pub use start::{may_start, rest, start, start_attached};
pub use stop::{explain_kill, kill, stop};
pub use tracers::{Turn, refuse_tracers};
pub use update::{explain_update, is_lost_with_machine, update};
pub use wait::wait;

use operation::{Cause, Error};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// The error of a record that is malformed.
pub(crate) fn unread(error: document::Error) -> Error {
    Error::new("read", "the record", Cause::Source(Box::new(error)))
}
