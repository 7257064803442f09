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
    /// No answer, or only a part of one.
    #[error("{request}: {cause}")]
    Connection {
        /// What was asked for.
        request: Request,
        /// Why there was no answer.
        cause: Cause,
    },
    /// An answer that says no.
    #[error("{request}: {status}{}", detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Refused {
        /// What was asked for.
        request: Request,
        /// The status: `404 Not Found`.
        status: ureq::http::StatusCode,
        /// What the registry says about it.
        detail: Option<Box<str>>,
        /// When the registry wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// An answer that no registry should give.
    #[error("{request}: {problem}")]
    Answer {
        /// What was asked for.
        request: Request,
        /// What is wrong with the answer.
        problem: String,
    },
    /// Credentials that could not be had.
    #[error("read credentials for {registry} from {from}: {problem}")]
    Credentials {
        /// The registry's host.
        registry: String,
        /// The file, or the program.
        from: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A variable of the environment that should be a proxy's address, and is none.
    #[error("read {variable}: {problem}")]
    Proxy {
        /// Its name.
        variable: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file with certificates.
    #[error("read certificates {path:?}: {problem}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A host that cannot be one.
    #[error("{0:?} is not a registry's host and port")]
    Host(String),
    /// A file that says where images are.
    #[error("read {}: {problem}", path.display())]
    Places {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A registry that such a file forbids.
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
        /// Why not.
        problem: String,
    },
    /// The image store.
    #[error(transparent)]
    Store(#[from] layout::Error),
    /// A blob that could not be written to the store, or read from it.
    #[error("{verb} blob {digest}: {source}")]
    Blob {
        /// What was tried.
        verb: &'static str,
        /// The blob.
        digest: String,
        /// Why it went wrong.
        source: io::Error,
    },
    /// Another download failed before.
    #[error("given up")]
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
    /// Whether the registry wants other credentials, or some.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(status.as_u16(), 401 | 403))
    }

    /// Whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.as_u16() == 404)
    }

    /// Whether the server's certificate is not trusted.
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::Connection { cause: Cause::Certificate(_), .. })
    }

    /// Whether it was the proxy that gave no way to the server.
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

    /// The variable that named the proxy, and the host that was asked for.
    fn at_proxy(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Connection { request, .. } | Self::Refused { request, .. } => {
                Some((proxy::variable(request.url.is_tls()), request.url.authority()))
            }
            _ => None,
        }
    }

    /// Whether what came is not what its digest and its size say.
    pub(crate) fn is_wrong_content(&self) -> bool {
        matches!(self, Self::Store(layout::Error::Mismatch(_)))
    }

    /// What a person can do about it; `registry` is the host that was asked.
    pub fn hint(&self, registry: &str) -> Option<String> {
        match self {
            _ if self.is_denied() => {
                Some(format!("docker login, podman login or skopeo login {registry} keep a password for it"))
            }
            _ if self.is_untrusted() => Some(
                "name a file that vouches for it with --cacert FILE, or allow any with --insecure".to_owned(),
            ),
            _ if self.wants_proxy_password() => {
                let (variable, _) = self.at_proxy()?;
                Some(format!("{variable}=http://user:password@host:port has a password for the proxy"))
            }
            Self::Connection { cause: Cause::Proxy { .. }, .. } => {
                let (variable, host) = self.at_proxy()?;
                Some(format!("{variable} names the proxy; NO_PROXY={host} does without"))
            }
            Self::Connection { cause: Cause::NotTls, .. } => {
                Some("allow plain HTTP with --insecure".to_owned())
            }
            Self::Destination { .. } => {
                Some("push it under a tag, or under the digest that it has".to_owned())
            }
            _ => None,
        }
    }

    /// Whether trying again may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connection { cause, .. } => cause.is_passing(),
            Self::Refused { status, .. } => passes(*status),
            _ => false,
        }
    }
}

/// Whether an answer with this status may be another one the next time.
fn passes(status: ureq::http::StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=504)
}

/// Why a connection gave no answer.
#[derive(Debug)]
pub enum Cause {
    /// The registry's host has no address.
    Name,
    /// The system's words.
    System(io::Error),
    /// The server said nothing for so long.
    Silence(Duration),
    /// Less passed than must.
    Slow(Pace),
    /// The connection ended in the middle.
    Broken,
    /// The server's certificate is not trusted.
    Certificate(String),
    /// What came is not TLS.
    NotTls,
    /// What came is not HTTP, or another thing that does not pass.
    Protocol(String),
    /// A proxy's answer to who wanted a tunnel.
    Status(ureq::http::StatusCode),
    /// There was no way through the proxy.
    Proxy {
        /// Its address, without user and password.
        proxy: String,
        /// Why not.
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

    /// Whether there was nobody who could have answered.
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

/// A request, for messages: `get http://localhost:5000/v2/`. What follows a `?` is left out: it may hold a secret.
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

/// What a server wrote, fit for one line of a terminal.
pub(crate) fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
