//! What runtimes and CNI plugins say to each other (containernetworking/cni, SPEC.md 1.1.0 and its earlier versions).
//!
//! * [`Environment`]: the command, and the attachment that it is about.
//! * [`Configuration`]: the network, from standard input.
//! * [`result`]: what ADD prints, in the form of each version.
//! * [`Error`]: a failure, with the specification's numbers.

mod configuration;
mod environment;
mod error;
pub mod result;
mod version;

pub use configuration::{Configuration, strings};
pub use environment::{Attachment, Command, Environment};
pub use error::{Code, Error};
pub use version::Version;
