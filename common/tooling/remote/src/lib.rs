//! The flags of tools that talk to a registry. Turns them into a client, and adds hints to its errors.
//!
//! The toolkit knows the command line and the crate `registry` knows registries. This crate connects them.

pub mod ask;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Error, anyhow};
use registry::{Client, Options, Pace, Policy};
use signing::{PrivateKey, PublicKey};

/// How to reach a registry, and the user's credentials. The flags are the same as skopeo's.
#[derive(Debug, Clone, clap::Args)]
pub struct Reach {
    /// Allow plain HTTP, and accept any certificate
    #[arg(long)]
    pub insecure: bool,
    /// false is the same as --insecure
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// Also trust the certificates in this PEM file
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Also trust the *.crt in this directory, and use its *.cert and *.key as client certificates
    #[arg(long, value_name = "DIRECTORY")]
    pub cert_dir: Option<PathBuf>,
    /// Read credentials from this file
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Use this name and password. Other users of the machine can see them; img-login is safer
    #[arg(long, value_name = "NAME:PASSWORD", value_parser = login, conflicts_with = "authfile")]
    pub creds: Option<registry::Login>,
    /// Retry this many times without progress
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub retries: u32,
}

/// How to reach a registry, and when to abort a transfer. `TIMEOUT` is the default of `--timeout`, in
/// seconds.
#[derive(Debug, Clone, clap::Args)]
pub struct Transfer<const TIMEOUT: u64> {
    /// How to reach the registry.
    #[command(flatten)]
    pub reach: Reach,
    /// Abort a connection if the server sends nothing for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=DAY))]
    pub timeout: u64,
    /// Abort and retry a connection slower than this many bytes per second; 0 for no limit
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub speed_limit: u64,
    /// Measure the speed over this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=DAY))]
    pub speed_time: u64,
    /// Transfer this many layers at once
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,
}

/// The number of seconds in a day.
const DAY: u64 = 86_400;

impl Reach {
    /// A client for single requests.
    pub fn client(&self) -> Client {
        Client::new(self.options())
    }

    fn options(&self) -> Options {
        let Self { insecure, tls_verify, cacert, cert_dir, authfile, creds, retries } = self.clone();
        Options {
            insecure: insecure || tls_verify == Some(false),
            cacert,
            cert_dir,
            authfile,
            login: creds,
            retries,
            ..Options::default()
        }
    }
}

/// Which images may come in.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Admission {
    /// Ignore /etc/containers/policy.json, which says which images may be pulled and whose signatures they need
    #[arg(long)]
    insecure_policy: bool,
    /// Use this file instead of /etc/containers/policy.json
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_policy")]
    policy: Option<PathBuf>,
}

impl Admission {
    fn policy(&self) -> Policy {
        match &self.policy {
            _ if self.insecure_policy => Policy::Ignored,
            Some(path) => Policy::File(path.clone()),
            None => Policy::Usual,
        }
    }
}

impl<const TIMEOUT: u64> Transfer<TIMEOUT> {
    /// A client that transfers images. A pull tries `mirrors` first.
    pub fn client(&self, mirrors: &[String], admission: &Admission) -> Client {
        Client::new(Options {
            timeout: Duration::from_secs(self.timeout),
            pace: Pace { limit: self.speed_limit, time: Duration::from_secs(self.speed_time) },
            jobs: self.jobs.into(),
            mirrors: mirrors.to_vec(),
            policy: admission.policy(),
            ..self.reach.options()
        })
    }
}

impl<const TIMEOUT: u64> Transfer<TIMEOUT> {
    /// The options for one side of a copy. `creds` and `tls_verify` are the flags for this side only; they
    /// take precedence.
    #[must_use]
    pub fn towards(&self, creds: Option<&registry::Login>, tls_verify: Option<bool>) -> Self {
        let mut own = self.clone();
        own.reach.creds = creds.cloned().or(own.reach.creds);
        own.reach.insecure &= tls_verify != Some(true);
        own.reach.tls_verify = tls_verify.or(own.reach.tls_verify);
        own
    }
}

/// Reads a private key. The password of an encrypted one comes from `$COSIGN_PASSWORD`, or from the terminal.
///
/// # Errors
/// When the file is no key, or the password is wrong or missing.
pub fn private_key(path: &Path) -> Result<PrivateKey, Error> {
    let failed = |error: Error| anyhow!("read key {path:?}: {error}");
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.into()))?;
    let password = || match std::env::var(PASSWORD) {
        Ok(password) => Ok(password),
        Err(_) => ask::secret(
            &format!("Password of {}: ", path.display()),
            "set COSIGN_PASSWORD to the key's password",
        ),
    };
    PrivateKey::read(&text, password).map_err(failed)
}

/// Reads a public key.
///
/// # Errors
/// When the file is no key.
pub fn public_key(path: &Path) -> Result<PublicKey, Error> {
    let failed = |error: Error| anyhow!("read key {path:?}: {error}");
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.into()))?;
    PublicKey::read(&text).map_err(|error| failed(error.into()))
}

/// The variable with the password of a key, as for cosign.
const PASSWORD: &str = "COSIGN_PASSWORD";

/// Adds to an error what the user can do about it. `registry` is the requested host.
pub fn hinted(error: registry::Error, registry: &str) -> Error {
    match error.hint(registry) {
        Some(what) => toolkit::hint(error, what),
        None => error.into(),
    }
}

/// Parses `NAME:PASSWORD`. The password may contain colons.
///
/// # Errors
/// When there is no colon, or the name is empty.
pub fn login(text: &str) -> Result<registry::Login, String> {
    match text.split_once(':') {
        Some((name, password)) if !name.is_empty() => {
            Ok(registry::Login { name: name.to_owned(), password: password.to_owned() })
        }
        _ => Err("not of the form NAME:PASSWORD".to_owned()),
    }
}

/// Parses the host of a registry, with an optional port. As with `docker login`, it may be written as a URL.
///
/// # Errors
/// When the text is not a host and port.
pub fn registry(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let bare = bare.trim_end_matches('/');
    // Addresses of the registry's API, as Docker writes them. Deeper in a path, these are names.
    let api = ["/v1", "/v2"].iter().find_map(|version| bare.strip_suffix(version));
    let place = api.filter(|host| !host.contains('/')).unwrap_or(bare);
    let place = if place == "index.docker.io" { "docker.io" } else { place };
    let host = place.split('/').next().unwrap_or_default();
    match format!("{place}/a").parse::<oci::Reference>() {
        Ok(name) if name.registry() == host => Ok(place.to_owned()),
        _ => Err("not a registry's host and port, or a path on it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_as_people_write_them() {
        for (text, found) in [
            ("localhost:5000", Some("localhost:5000")),
            ("https://ghcr.io/", Some("ghcr.io")),
            ("https://ghcr.io/v2/", Some("ghcr.io")),
            ("https://index.docker.io/v1/", Some("docker.io")),
            ("index.docker.io", Some("docker.io")),
            ("docker.io", Some("docker.io")),
            ("ghcr.io/owner/part", Some("ghcr.io/owner/part")),
            ("ghcr.io/owner/v2", Some("ghcr.io/owner/v2")),
            ("owner/part", None),
            ("..", None),
            ("", None),
        ] {
            assert_eq!(registry(text).ok().as_deref(), found, "{text}");
        }
    }
}
