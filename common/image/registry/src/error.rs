//! Why an image could not be pulled or pushed.

use std::{fmt, io, path::PathBuf, time::Duration};

use oci::{digest::Mismatch, layout};

use crate::{
    pace::{Pace, TooSlow},
    proxy::{self, Proxy},
    url::Url,
};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer, or only part of one.
    #[error("{request}: {cause}")]
    Connection {
        /// The request.
        request: Request,
        /// The cause.
        cause: Cause,
    },
    /// An answer that refuses the request.
    #[error("{request}: {status}{}", detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Refused {
        /// The request.
        request: Request,
        /// The status: `404 Not Found`.
        status: ureq::http::StatusCode,
        /// The registry's explanation.
        detail: Option<Box<str>>,
        /// When the registry wants the next attempt.
        retry_after: Option<Duration>,
        /// Whether it comes from another host, to which the registry redirected: an object store.
        elsewhere: bool,
    },
    /// An answer that a registry must not give.
    #[error("{request}: {problem}")]
    Answer {
        /// The request.
        request: Request,
        /// The problem with the answer.
        problem: String,
    },
    /// Credentials that could not be read.
    #[error("read credentials for {registry} from {from}: {problem}")]
    Credentials {
        /// The registry's host.
        registry: String,
        /// The file, or the program.
        from: String,
        /// The problem.
        problem: String,
    },
    /// A login that could not be kept, or removed.
    #[error("edit the login for {registry} in {place}: {problem}")]
    Login {
        /// The registry's host.
        registry: String,
        /// The file, or the program.
        place: String,
        /// The problem.
        problem: String,
    },
    /// Content of a registry that is not what it should be.
    #[error("read {name}: {problem}")]
    Content {
        /// The image.
        name: String,
        /// The problem.
        problem: String,
    },
    /// A registry that removes whole manifests only.
    #[error("remove {name}: the registry does not remove a name alone")]
    NoUntag {
        /// The name.
        name: String,
        /// The name of its manifest, by digest.
        digest: Option<String>,
    },
    /// An environment variable that does not hold the address of a proxy.
    #[error("read {variable}: {problem}")]
    Proxy {
        /// Its name.
        variable: &'static str,
        /// The problem.
        problem: String,
    },
    /// A file of certificates could not be used.
    #[error("read certificates {path:?}: {problem}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// An address that is not valid.
    #[error("read address {address:?}: {problem}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A host name that is not valid.
    #[error("{0:?} is not a registry's host and port")]
    Host(String),
    /// A URL in a descriptor cannot be used.
    #[error("the descriptor's url cannot be used: {0}")]
    Elsewhere(String),
    /// A file of the containers-registries.conf(5) kind could not be used.
    #[error("read {}: {problem}", path.display())]
    Places {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A registry that such a file blocks.
    #[error("{name} is blocked by {}", path.display())]
    Blocked {
        /// The image.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// An image that cannot be pushed under that name.
    #[error("push {name}: {problem}")]
    Destination {
        /// The name.
        name: String,
        /// The reason.
        problem: String,
    },
    /// An image that the store does not have whole.
    #[error("push {name}: the store lacks {missing} of it")]
    Incomplete {
        /// The name.
        name: String,
        /// The platforms, or digests.
        missing: String,
    },
    /// The image store.
    #[error(transparent)]
    Store(#[from] layout::Error),
    /// A blob that could not be written to the store, or read from it.
    #[error("{verb} blob {digest}: {source}")]
    Blob {
        /// The verb of the attempt.
        verb: &'static str,
        /// The blob.
        digest: String,
        /// The cause.
        source: io::Error,
    },
    /// Another download failed before.
    #[error("aborted: another download failed")]
    GivenUp,
}

impl From<Mismatch> for Error {
    fn from(mismatch: Mismatch) -> Self {
        Self::Store(mismatch.into())
    }
}

impl From<oci::digest::InvalidDigest> for Error {
    fn from(invalid: oci::digest::InvalidDigest) -> Self {
        Self::Store(invalid.into())
    }
}

impl Error {
    /// Whether the registry wants credentials, or other ones.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(status.as_u16(), 401 | 403))
    }

    /// Whether it is about a request to `registry`, a host.
    pub fn is_from(&self, registry: &str) -> bool {
        match self {
            Self::Connection { request, .. }
            | Self::Refused { request, .. }
            | Self::Answer { request, .. } => request.url.authority() == registry,
            _ => false,
        }
    }

    /// Whether the registry says that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.as_u16() == 404)
    }

    /// Whether the registry says that it cannot do this at all.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(status.as_u16(), 400 | 405 | 501))
    }

    /// Whether the server's certificate is not trusted.
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::Connection { cause: Cause::Certificate(_), .. })
    }

    /// Whether the proxy wants a password.
    pub(crate) fn is_at_proxy(&self) -> bool {
        matches!(self, Self::Connection { cause: Cause::Proxy { .. }, .. })
    }

    fn wants_proxy_password(&self) -> bool {
        match self {
            Self::Connection { cause: Cause::Proxy { cause, .. }, .. } => {
                matches!(&**cause, Cause::Status(status) if status.as_u16() == 407)
            }
            Self::Refused { request, status, .. } => request.proxy.is_some() && status.as_u16() == 407,
            _ => false,
        }
    }

    /// The variable that names the proxy, and the requested host.
    fn at_proxy(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Connection { request, .. } | Self::Refused { request, .. } => {
                Some((proxy::variable(request.url.is_tls()), request.url.authority()))
            }
            _ => None,
        }
    }

    /// Whether the bytes do not match their digest or size.
    pub(crate) fn is_wrong_content(&self) -> bool {
        matches!(self, Self::Store(layout::Error::Mismatch(_)))
    }

    /// What the user can do about it; `registry` is the requested host.
    pub fn hint(&self, registry: &str) -> Option<String> {
        match self {
            Self::Refused { elsewhere: true, .. } if self.is_denied() => {
                Some(format!("{registry} sent us there: ask those who run it"))
            }
            _ if self.is_denied() => Some(format!(
                "log in with `img-login {registry}`"
            )),
            _ if self.is_untrusted() => {
                Some("trust its certificate with --cacert FILE, or accept any with --insecure".to_owned())
            }
            _ if self.wants_proxy_password() => {
                let (variable, _) = self.at_proxy()?;
                Some(format!("set {variable}=http://user:password@host:port to give the proxy a password"))
            }
            Self::Connection { cause: Cause::Proxy { .. }, .. } => {
                let (variable, host) = self.at_proxy()?;
                Some(format!("{variable} names the proxy; set NO_PROXY={host} to bypass it"))
            }
            Self::Connection { cause: Cause::NotTls, .. } => {
                Some("allow plain HTTP with --insecure".to_owned())
            }
            Self::Incomplete { .. } => Some(
                "`img-pull --all-platforms` fetches the rest; --platform pushes the image for one platform alone"
                    .to_owned(),
            ),
            Self::NoUntag { digest: Some(name), .. } => {
                Some(format!("{name} removes the image with all its names there"))
            }
            Self::Login { .. } => Some("--authfile names another file".to_owned()),
            Self::Destination { .. } => Some("push it under a tag, or under its own digest".to_owned()),
            _ => None,
        }
    }

    /// Whether a retry may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connection { cause, .. } => cause.is_passing(),
            Self::Refused { status, .. } => passes(*status),
            _ => false,
        }
    }
}

/// Whether the next answer may have another status.
fn passes(status: ureq::http::StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=504)
}

/// Why a connection gave no answer.
#[derive(Debug)]
pub enum Cause {
    /// The host has no address.
    Name,
    /// An error of the system.
    System(io::Error),
    /// The server was silent for this long.
    Silence(Duration),
    /// The connection was too slow.
    Slow(Pace),
    /// The connection ended early.
    Broken,
    /// The server's certificate is not trusted.
    Certificate(String),
    /// The server does not speak TLS.
    NotTls,
    /// The server does not speak HTTP, or sent something else that a retry does not change.
    Protocol(String),
    /// The status with which a proxy refused a tunnel.
    Status(ureq::http::StatusCode),
    /// The proxy could not be used.
    Proxy {
        /// Its address, without user and password.
        proxy: String,
        /// The cause.
        cause: Box<Cause>,
    },
}

impl Cause {
    fn is_passing(&self) -> bool {
        match self {
            Self::System(_) | Self::Silence(_) | Self::Slow(_) | Self::Broken => true,
            Self::Name | Self::Certificate(_) | Self::NotTls | Self::Protocol(_) => false,
            Self::Status(status) => passes(*status),
            Self::Proxy { cause, .. } => cause.is_passing(),
        }
    }

    /// Whether no server was there to answer.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::Name => true,
            Self::System(error) => {
                matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::HostUnreachable
                        | io::ErrorKind::NetworkUnreachable
                )
            }
            Self::Proxy { cause, .. } => cause.is_absence(),
            _ => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("the host has no address"),
            Self::System(error) => {
                let text = error.to_string();
                f.write_str(text.split(" (os error").next().unwrap_or(&text))
            }
            Self::Silence(time) => write!(f, "no answer for {} s", time.as_secs_f64()),
            Self::Slow(pace) => TooSlow(*pace).fmt(f),
            Self::Broken => f.write_str("the connection broke"),
            Self::Certificate(problem) => write!(f, "the certificate is not trusted: {problem}"),
            Self::NotTls => f.write_str("the server does not speak TLS"),
            Self::Protocol(problem) => f.write_str(problem),
            Self::Status(status) => status.fmt(f),
            Self::Proxy { proxy, cause } => write!(f, "proxy {proxy}: {cause}"),
        }
    }
}

/// A request, for messages: `get http://localhost:5000/v2/`. The part after `?` is left out, because it may hold a
/// secret.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) method: &'static str,
    pub(crate) url: Url,
    /// The proxy that it goes through.
    pub(crate) proxy: Option<Proxy>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.to_ascii_lowercase(), self.url)?;
        match &self.proxy {
            Some(proxy) => write!(f, " through proxy {proxy}"),
            None => Ok(()),
        }
    }
}

/// A server's text, made fit for one line of a terminal.
pub(crate) fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
