//! A container's life, by its record: it runs, ends, is started again, is stopped.
//!
//! All that is known of it is in its record ([`Container`]). Who changes it holds the record's lock for that moment: the tools,
//! and the monitor beside the container, by way of [`Recorded`].

mod beside;
mod container;
mod exec;
mod health;
mod keeper;
mod point;
mod policy;
mod restore;
mod start;
mod stop;
mod wait;

pub use beside::{PORTS_RELEASE, PORTS_TAKE};
pub use container::{Container, State};
pub use exec::Exec;
pub use health::{CheckFlags, of_image as health_of_image};
pub use keeper::{End, Recorded, end};
pub use point::Point;
pub use policy::Restart;
pub use restore::restore;
pub use start::{adopt, start};
pub use stop::{kill, stop};
pub use wait::wait;

use operation::{Cause, Error};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// The error of a record that does not read as it should.
pub(crate) fn unread(error: document::Error) -> Error {
    Error::new("read", "the record", Cause::Source(Box::new(error)))
}
