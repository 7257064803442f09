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
pub mod hooks;
pub mod hosts;
mod identity;
mod isolated;
mod keys;
mod launch;
mod operation;
mod relays;
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
pub use foreground::{Foreground, Waited, foreground, foreground_or_detached};
pub use hooks::HookState;
pub use identity::{Identity, ended};
pub use isolated::Isolated;
pub use keys::{KeyWatch, Keys};
pub use launch::{
    Contained, Created, Handed, Running, StartSocket, Started, Stdio, Streams, begin, create, device_rules,
    has_apparmor, is_null_device, is_own_namespace, join, join_contained, run, start,
};
pub use operation::ProcessOperation;
pub use relays::{Relays, run_into};
pub use signal::StopSignal;
pub use stat::Stat;
pub use supervise::{Supervised, background, supervise};
pub use sys::{inherited, set_nonblocking, settle_memory, status_of, was_inherited};
pub use terminal::{RawTerminal, Terminal, resize};
