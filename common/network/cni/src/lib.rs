//! The protocol between runtimes and CNI plugins (containernetworking/cni, SPEC.md 1.1.0 and its
//! earlier versions).
//!
//! * [`Environment`]: the command, and the attachment that it is about.
//! * [`Configuration`]: the network, from standard input.
//! * [`result`]: the result of ADD, in the format of each version.
//! * [`Error`]: an error, with the code of the specification.

mod configuration;
mod environment;
mod error;
pub mod result;
mod version;

pub use configuration::{Configuration, strings};
pub use environment::{Attachment, Command, Environment};
pub use error::{Code, Error};
pub use version::Version;
