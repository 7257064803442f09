//! Processes in namespaces, on a root file system of their own.
//!
//! What is to run is an OCI runtime-spec [`oci_spec::runtime::Spec`]: [`spec`] makes one of an image's configuration as
//! Docker does, [`start`] runs any. The caller stays the parent; the process waits before it executes anything until
//! [`Started::release`], so that its pid can be written down first; if the caller dies before, it ends.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let spec = oci_spec::runtime::Spec::default();
//! let status = runtime::run(&spec, runtime::Streams::inherit())?; // as a shell counts: 128 + N for a signal
//! # Ok(()) }
//! ```

mod cgroup;
mod error;
mod explain;
mod foreground;
mod identity;
mod launch;
mod operation;
pub mod spec;
mod supervise;
mod sys;
mod terminal;
pub mod user;

pub use error::Error;
pub use explain::explain;
pub use foreground::{Foreground, foreground};
pub use identity::Identity;
pub use launch::{Running, Started, Stdio, Streams, join, run, start};
pub use operation::ProcessOperation;
pub use supervise::{Supervised, supervise};
pub use terminal::{RawTerminal, Terminal};
