//! Containers in the sense of OCI runtime-spec 1.2: from a bundle with its `config.json` through create and
//! start to delete.
//!
//! [`bundle::read`] reads a whole `config.json`, and turns it into the plain request that [`runtime`] carries
//! out. A property of the specification that is set but not supported is an error with its JSON path. A
//! property that the specification does not have is removed with a warning. A [`Store`] keeps a directory
//! with the record of each container. No process supervises a container: its own process waits on a socket in
//! that directory until it is started, and then runs on its own.

pub mod bundle;
mod check;
mod console;
mod create;
mod end;
mod exec;
pub mod features;
mod notify;
pub mod processes;
mod properties;
mod record;
mod start;
pub mod stats;
mod store;
pub mod template;
mod update;

pub use console::send as send_terminal;
pub use create::{Created, Request, create, write_pid};
pub use end::{delete, kill, pause, resume, signal};
pub use exec::{Exec, exec};
pub use operation::Error;
pub use record::{Record, Status};
pub use start::start;
pub use store::{Container, Store};
pub use update::update;

/// The version of the specification that containers and their states conform to.
pub const VERSION: &str = "1.2.1";

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Rewords the error of a command that does not exist (127) or cannot be executed (126). Docker, podman and
/// others search for these words to choose their exit status. Other errors stay unchanged.
pub(crate) fn not_executed(process: Option<&oci_spec::runtime::Process>, error: runtime::Error) -> Error {
    let name = process.and_then(|process| process.args().as_ref()?.first().cloned()).unwrap_or_default();
    let cause = match (error.status(), error.errno()) {
        (127, _) if name.contains('/') => "no such file or directory".to_owned(),
        (127, _) => "executable file not found in $PATH".to_owned(),
        (126, Some(nix::errno::Errno::EACCES)) => "permission denied".to_owned(),
        (126, errno) => {
            format!("permission denied ({})", errno.map_or("it is no program", |errno| errno.desc()))
        }
        _ => return error.into(),
    };
    Error::new("execute", format_args!("{name:?}"), cause)
}

/// The error of `verb` on the container `id`.
pub(crate) fn of_container<C: Into<operation::Cause>>(
    verb: &'static str,
    id: &str,
) -> impl FnOnce(C) -> Error {
    move |cause| Error::new(verb, format_args!("container {id:?}"), cause)
}
