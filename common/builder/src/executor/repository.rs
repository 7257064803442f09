//! Git repositories: as sources of ADD, as the context, and as named contexts.

use std::path::Path;

use git::{Address, Remote, Revision};
use registry::{Client, Origin};

use super::Options;
use crate::error::Cause;

/// The commit that an address means. The server is not asked if the address itself names the commit.
pub(super) fn revision(address: &Address, options: &Options) -> Result<Revision, Cause> {
    if let Some(commit) = address.full_commit() {
        return Ok(Revision { commit: commit.to_owned(), reference: None });
    }
    let client = Client::new(registry::Options::default());
    let authorize = |remote: &str| options.authorization(&address.remote, remote);
    Ok(Remote::open(&address.remote, &client, &authorize)?.resolve(address)?)
}

/// Writes the files of a commit to `directory`. Without `revision`, uses the commit that the address means
/// now. `scratch` is a directory for git objects. Returns the time of the commit.
pub(super) fn check_out(
    address: &Address,
    revision: Option<&Revision>,
    options: &Options,
    (directory, scratch): (&Path, &Path),
    keep: bool,
) -> Result<i64, Cause> {
    let client = Client::new(registry::Options::default());
    let authorize = |remote: &str| options.authorization(&address.remote, remote);
    let remote = Remote::open(&address.remote, &client, &authorize)?;
    let revision = revision.map_or_else(|| remote.resolve(address), |known| Ok(known.clone()))?;
    Ok(git::checkout((&remote, &revision, address), (&client, &authorize), directory, scratch, keep)?)
}

impl Options {
    /// The authorization for the private repository `remote`, when the build asked for the repository `own`.
    /// It comes from the secrets `GIT_AUTH_HEADER` and `GIT_AUTH_TOKEN`, or from those with `.host` at the
    /// end of their names, for one host (docs.docker.com/build/building/secrets, "Git authentication for
    /// remote contexts").
    ///
    /// `remote` may be a submodule, whose address the repository chooses. For another server than that of
    /// `own`, only secrets for its host are used, and only with https.
    fn authorization(&self, own: &str, remote: &str) -> Option<String> {
        let (own, remote) = (Origin::of(own), Origin::of(remote));
        let is_own = own == remote;
        if !is_own && remote.scheme != "https" {
            return None;
        }
        let read = |id: &str| {
            let general = || self.secrets.get(id).filter(|_| is_own);
            let secret = self.secrets.get(&format!("{id}.{}", remote.host)).or_else(general)?;
            String::from_utf8(secret.read().ok()?).ok()
        };
        let header = read("GIT_AUTH_HEADER").map(|header| header.trim().to_owned());
        header.or_else(|| read("GIT_AUTH_TOKEN").map(|token| git::authorization_of_token(&token)))
    }
}
