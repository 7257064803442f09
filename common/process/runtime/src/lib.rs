//! Processes in namespaces, on their own root file system.
//!
//! An OCI runtime-spec [`oci_spec::runtime::Spec`] describes the process. [`spec`] makes one from an image's
//! configuration, as Docker does; [`start`] runs any. The caller stays the parent. The process waits before it executes
//! its command until [`Started::release`], so that its pid can be recorded first. If the caller dies before that, the
//! process ends.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let spec = oci_spec::runtime::Spec::default();
//! let status = runtime::run(&spec, runtime::Streams::inherit())?; // as a shell counts: 128 + N for a signal
//! # Ok(()) }
//! ```

mod error;
mod explain;
mod foreground;
pub mod hosts;
mod identity;
mod isolated;
mod launch;
mod operation;
pub mod resolv_conf;
mod signal;
pub mod spec;
mod stat;
mod supervise;
mod sys;
mod terminal;
pub mod user;

pub use error::Error;
pub use explain::explain;
pub use foreground::{Foreground, Relayed, foreground};
pub use identity::{Identity, ended};
pub use isolated::Isolated;
pub use launch::{Running, Started, Stdio, Streams, device_rules, join, run, start};
pub use operation::ProcessOperation;
pub use signal::StopSignal;
pub use stat::Stat;
pub use supervise::{Supervised, background, supervise};
pub use sys::{inherited, set_nonblocking, settle_memory, status_of};
pub use terminal::{RawTerminal, Terminal, resize};
