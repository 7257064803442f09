//! Connects to registries.

use std::{path::PathBuf, time::Duration};

use oci::Reference;

use crate::{
    Error,
    credentials::{Credentials, Login},
    http::Http,
    pace::Pace,
    places::{self, Place},
    policy::Policy,
    repository::{Access, Repository},
    url::{Url, is_loopback},
};

/// The user's options for reaching registries.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether a registry may speak plain HTTP, or have an untrusted certificate.
    pub insecure: bool,
    /// A file of certificates (PEM) to trust in addition to the system's.
    pub cacert: Option<PathBuf>,
    /// A directory of certificates as in containers-certs.d(5), in addition to the system's ones.
    pub cert_dir: Option<PathBuf>,
    /// Hosts, with or without a path, to try before the registry itself when an image is pulled.
    pub mirrors: Vec<String>,
    /// The file with credentials, instead of the usual files.
    pub authfile: Option<PathBuf>,
    /// A name and a password, instead of those in any file.
    pub login: Option<Login>,
    /// Which images may be pulled, and whose signatures they need (containers-policy.json(5)).
    pub policy: Policy,
    /// How often an attempt without progress is repeated.
    pub retries: u32,
    /// How long a server may be silent before the connection is aborted.
    pub timeout: Duration,
    /// The slowest acceptable connection.
    pub pace: Pace,
    /// How many blobs are transferred at once.
    pub jobs: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            insecure: false,
            cacert: None,
            cert_dir: None,
            mirrors: Vec::new(),
            authfile: None,
            login: None,
            policy: Policy::default(),
            retries: 6,
            timeout: Duration::from_secs(60),
            pace: Pace::default(),
            jobs: 3,
        }
    }
}

/// A client that connects to registries according to its [`Options`].
#[derive(Debug)]
pub struct Client {
    options: Options,
}

/// The host of Docker's registry differs from the one in its images' names.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

impl Client {
    /// A client with these options.
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// The places to pull an image from: the mirrors, then its registry.
    pub(crate) fn places(&self, reference: &Reference) -> Result<Vec<Place>, Error> {
        places::to_pull(&self.options.mirrors, reference)
    }

    /// Opens the repository at one of the places of an image.
    pub(crate) fn open(&self, place: &Place, access: Access) -> Result<Repository, Error> {
        let Place { registry, repository, .. } = place;
        let insecure = self.options.insecure || place.insecure;
        let (http, base) = self.reach(registry, insecure)?;
        let credentials = match self.options.login.as_ref().filter(|_| place.own) {
            Some(login) => Some(login.clone().into()),
            None => Credentials::find(self.options.authfile.as_deref(), registry, repository)?,
        };
        Ok(Repository::new(http, base, repository, access, self.options.retries, credentials))
    }

    /// Connections to a registry, and its base address.
    pub(crate) fn reach(&self, registry: &str, insecure: bool) -> Result<(Http, Url), Error> {
        let host = if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry };
        if format!("{host}/a").parse::<Reference>().is_err() {
            return Err(Error::Host(host.to_owned()));
        }
        let http = Http::new(&self.options, host, insecure)?;
        let base = match insecure || is_loopback(host) {
            true => self.detect(&http, host)?,
            false => Url::host(true, host),
        };
        Ok((http, base))
    }

    /// Connects to a host that is not a registry, without credentials.
    pub(crate) fn open_elsewhere(&self, url: &Url) -> Result<Repository, Error> {
        let http = Http::new(&self.options, url.authority(), self.options.insecure)?;
        let base = Url::host(url.is_tls(), url.authority());
        Ok(Repository::new(http, base, "", Access::Pull, self.options.retries, None))
    }

    /// The base address of a registry that may speak plain HTTP: with TLS if it answers that way, or else
    /// without.
    fn detect(&self, http: &Http, host: &str) -> Result<Url, Error> {
        let tls = Url::host(true, host);
        let probe =
            |url: &Url| http.send("GET", &url.join("/v2/").unwrap_or_else(|_| url.clone()), &[], None);
        match probe(&tls) {
            Ok(_) => Ok(tls),
            Err(error) if error.is_untrusted() => Err(error),
            Err(error) => {
                let plain = Url::host(false, host);
                match probe(&plain) {
                    Ok(_) => Ok(plain),
                    // The proxy may be the only way out, so its error is the one to report.
                    Err(_) if error.is_at_proxy() => Err(error),
                    Err(error) => Err(error),
                }
            }
        }
    }
}
