//! The small process beside each container in the background (docs/decisions/0018-a-monitor.md).
//!
//! A monitor takes the output of the container's process, writes it to the [`Log`], and sends it to attached
//! clients. It takes the exit status, and starts the process again if its [`Keeper`] says so. All its state
//! is in the record or in the log. When a monitor is killed, the container goes on, and [`take_over`] or
//! [`resume`] starts another monitor.
//!
//! In the foreground, the program that starts the container is its monitor until the process ends ([`Attended`]). It
//! also passes the output on to its own streams.
//!
//! The container's streams are FIFOs in `$STAVE_RUN`. Its process has them open for reading and writing, so a
//! stream has a reader as long as it has a writer, even if the monitor is killed, except where the stream of a caller in the
//! foreground is a pipe, and where the input ends ([`Input::Ends`]).

mod attached;
mod caller;
mod connection;
mod foreground;
mod keeper;
mod log;
mod operation;
mod place;
mod probe;
mod run;
mod socket;
mod streams;

pub use connection::{Connection, Event};
pub use foreground::{Attended, Ended};
pub use keeper::{Keeper, Next, Outcome, Probe};
pub use log::{Chunk, Entries, Log, Source};
pub use operation::MonitorOperation;
pub use place::Place;
pub use run::{launch, resume, take_over};
pub use streams::Input;

/// The result of this crate's functions.
pub(crate) type Result<T> = std::result::Result<T, ::operation::Error>;

/// For `map_err`: the error of `verb` on an object.
pub(crate) fn failed<E: Into<::operation::Cause>>(
    verb: &'static str,
    object: impl std::fmt::Display,
) -> impl FnOnce(E) -> ::operation::Error {
    move |cause| ::operation::Error::new(verb, object, cause).of(::operation::Place::RunDir)
}
