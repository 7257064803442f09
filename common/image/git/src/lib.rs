//! Fetches a commit of a git repository, without the program `git`.
//!
//! [`Address`] is the address in a Dockerfile (`https://host/repository.git#branch:directory`). [`Remote`] is
//! the server: it lists branches and tags, and sends objects over HTTP (smart or dumb) or git's own protocol.
//! [`checkout`] writes the files of a commit.
//!
//! All data from a server is untrusted. Objects are checked against their names, file names cannot lead out
//! of the directory, and the total size is limited as for an archive.

mod address;
mod checkout;
mod error;
mod objects;
mod packet;
mod remote;
mod submodule;

pub use address::{Address, AddressError};
pub use checkout::checkout;
pub use error::Error;
pub use remote::{Remote, Revision};

/// Returns the `Authorization` header for the address of a repository, if there is one. The address may be
/// that of a submodule, which the repository's author chooses.
pub type Authorize<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The `Authorization` header for a token, in the form that git hosts accept.
pub fn authorization_of_token(token: &str) -> String {
    use base64::Engine;
    let pair = format!("x-access-token:{}", token.trim());
    format!("basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}
