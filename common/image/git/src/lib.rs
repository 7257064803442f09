//! Fetching a repository of git at one commit, without the program `git`.
//!
//! [`Address`] is what a Dockerfile says (`https://host/repository.git#branch:directory`). [`Remote`] is the server: it
//! names its branches and tags, and sends objects, over HTTP (smart or dumb) or git's own protocol. [`checkout`] writes the files.
//!
//! A server is hostile input: objects are checked against their names, names of files cannot lead out of the directory, and
//! what is written is limited as for an archive.

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

/// Gives the `Authorization` header for the address of a repository, if there is one. That may be the address of a submodule, which
/// the repository chooses.
pub type Authorize<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The header for a token, in the form that hosts of repositories take.
pub fn authorization_of_token(token: &str) -> String {
    use base64::Engine;
    let pair = format!("x-access-token:{}", token.trim());
    format!("basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}
