//! Why a registry operation failed.

use std::{fmt, io, path::PathBuf, time::Duration};

use oci::{digest::Mismatch, layout};
use operation::is_full;
use transport::Untrusted;

use crate::{
    pace::{Pace, TooSlow},
    proof::Unproven,
    proxy::{self, Proxy},
    url::Url,
};

/// Why a registry operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no answer, or only a part of one.
    #[error("{request}: {cause}")]
    Connection {
        /// The request.
        request: Request,
        /// The cause.
        cause: Cause,
    },
    /// The server rejected the request.
    #[error("{request}: {status}{}", detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Refused {
        /// The request.
        request: Request,
        /// The status: `404 Not Found`.
        status: ureq::http::StatusCode,
        /// The registry's explanation.
        detail: Option<Box<str>>,
        /// How long the registry asks to wait before the next attempt.
        retry_after: Option<Duration>,
        /// Whether the answer came from another host that the registry redirected to, such as an object
        /// store.
        elsewhere: bool,
        /// Whether the registry says that what it received does not match its digest (OCI distribution-spec, "Error
        /// Codes", `DIGEST_INVALID`). What is sent does, so it was damaged on the way, or the registry read a file that
        /// another push was writing.
        damaged: bool,
    },
    /// The answer breaks the protocol.
    #[error("{request}: {problem}")]
    Answer {
        /// The request.
        request: Request,
        /// The problem with the answer.
        problem: String,
    },
    /// Credentials could not be read.
    #[error("read credentials for {registry} from {from}: {source}")]
    Credentials {
        /// The registry's host.
        registry: String,
        /// The file or the program.
        from: String,
        /// The problem.
        source: operation::Error,
    },
    /// A login could not be stored or removed.
    #[error("edit the login for {registry} in {place}: {source}")]
    Login {
        /// The registry's host.
        registry: String,
        /// The file or the program.
        place: String,
        /// The problem.
        source: operation::Error,
    },
    /// Content from a registry is malformed.
    #[error("read {name}: {problem}")]
    Content {
        /// The image.
        name: String,
        /// The problem.
        problem: String,
    },
    /// The registry can only remove whole manifests.
    #[error("remove {name}: the registry cannot remove only a name")]
    NoUntag {
        /// The name.
        name: String,
        /// The image's name with the digest of its manifest.
        digest: Option<String>,
    },
    /// An environment variable does not hold the address of a proxy.
    #[error("read {variable}: {problem}")]
    Proxy {
        /// The variable's name.
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
    /// TLS cannot be used with the certificates for this host.
    #[error("prepare TLS for {host}: {problem}")]
    Tls {
        /// The registry's host.
        host: String,
        /// What is wrong, such as a key that is not the certificate's.
        problem: String,
    },
    /// An address is not valid.
    #[error("read address {address:?}: {problem}")]
    Address {
        /// The address as it was given.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A host name is not valid.
    #[error("{0:?} is not a registry's host and port")]
    Host(String),
    /// A URL in a descriptor cannot be used.
    #[error("the descriptor's url cannot be used: {0}")]
    Elsewhere(String),
    /// A file such as containers-registries.conf(5) could not be used.
    #[error("read {}: {problem}", path.display())]
    Places {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// The configuration blocks the registry.
    #[error("{name} is blocked by {}", path.display())]
    Blocked {
        /// The image.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// The policy of this machine rejects the image.
    #[error("{name} is rejected by {}", path.display())]
    Rejected {
        /// The image.
        name: String,
        /// The file with the policy.
        path: PathBuf,
    },
    /// The policy asks for a kind of signature that is not checked.
    #[error("{name} needs a signature by {} that is not checked here ({kind})", path.display())]
    Unsigned {
        /// The image.
        name: String,
        /// The file with the policy.
        path: PathBuf,
        /// The requirement.
        kind: String,
    },
    /// The image is not signed as it has to be.
    #[error("{name} is not proven{}: {why}", by.as_ref().map_or_else(String::new, |path| format!(" as {} asks", path.display())))]
    Unproven {
        /// The image.
        name: String,
        /// Why not.
        why: Unproven,
        /// The file with the policy that asks for it. None for the user.
        by: Option<PathBuf>,
    },
    /// The image cannot be pushed under that name.
    #[error("push {name}: {problem}")]
    Destination {
        /// The name.
        name: String,
        /// The reason.
        problem: String,
    },
    /// The store does not have the complete image.
    #[error("push {name}: the store lacks {missing} of it")]
    Incomplete {
        /// The name.
        name: String,
        /// The platforms, or digests.
        missing: String,
    },
    /// The image store failed.
    #[error(transparent)]
    Store(#[from] layout::Error),
    /// A blob could not be written to the store, or read from it.
    #[error("{verb} blob {digest}: {source}")]
    Blob {
        /// What was attempted.
        verb: &'static str,
        /// The blob.
        digest: String,
        /// The cause.
        source: io::Error,
    },
    /// Another download failed first.
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
    /// Whether the registry wants credentials, or other credentials.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(status.as_u16(), 401 | 403))
    }

    /// Whether the error is about a request to `registry` (a host).
    pub fn is_from(&self, registry: &str) -> bool {
        match self {
            Self::Connection { request, .. }
            | Self::Refused { request, .. }
            | Self::Answer { request, .. } => request.url.authority() == registry,
            _ => false,
        }
    }

    /// Whether the registry says that the requested thing does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.as_u16() == 404)
    }

    /// Whether the registry says that it does not support the request.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(status.as_u16(), 400 | 405 | 501))
    }

    /// Whether the server's certificate is not trusted.
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::Connection { cause: Cause::Certificate(_), .. })
    }

    /// Whether the proxy caused the error.
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

    /// The environment variable that names the proxy, and the requested host.
    fn at_proxy(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Connection { request, .. } | Self::Refused { request, .. } => {
                Some((proxy::variable(request.url.is_tls()), request.url.authority()))
            }
            _ => None,
        }
    }

    /// Whether the content does not match its digest or size.
    pub(crate) fn is_wrong_content(&self) -> bool {
        matches!(self, Self::Store(layout::Error::Mismatch(_)))
    }

    /// What the user can do about the error. `registry` is the requested host.
    pub fn hint(&self, registry: &str) -> Option<String> {
        match self {
            Self::Refused { elsewhere: true, .. } if self.is_denied() => {
                Some(format!("{registry} redirects there: ask its operators"))
            }
            _ if self.is_denied() => Some(format!(
                "log in with `img-login {registry}`"
            )),
            Self::Connection { cause: Cause::Certificate(why), .. } if why.unknown => {
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
            Self::Unproven { why: Unproven::Repository(_), by: Some(_), .. } => Some(
                "`signedIdentity` there decides which names count; cosign's and img-sign's have no tag: use matchRepository"
                    .to_owned(),
            ),
            Self::Rejected { .. } | Self::Unsigned { .. } | Self::Unproven { by: Some(_), .. } => {
                Some("--insecure-policy of img-pull and img-copy ignores the policy of this machine".to_owned())
            }
            Self::Unproven { why: Unproven::Repository(name), .. } => {
                Some(format!("if you trust that, use --verify-as {name}"))
            }
            Self::Incomplete { .. } => Some(
                "`img-pull --all-platforms` fetches the rest; --platform pushes the image for only one platform"
                    .to_owned(),
            ),
            Self::NoUntag { digest: Some(name), .. } => {
                Some(format!("{name} removes the image with all its names there"))
            }
            // On a full disk, the place of the error says more.
            Self::Login { source, .. } if is_full(source) => None,
            Self::Login { .. } => Some("--authfile names another file".to_owned()),
            Self::Destination { .. } => Some("push it under a tag, or under its own digest".to_owned()),
            _ => None,
        }
    }

    /// Whether a retry may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connection { cause, .. } => cause.is_passing(),
            Self::Refused { status, damaged, .. } => passes(*status) || *damaged,
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
    /// A system call failed.
    System(io::Error),
    /// The server was silent for this long.
    Silence(Duration),
    /// The connection was too slow.
    Slow(Pace),
    /// The connection was closed early.
    Broken,
    /// The server's certificate is not trusted.
    Certificate(Box<Untrusted>),
    /// The server does not speak TLS.
    NotTls,
    /// The server does not speak HTTP, or broke the protocol in another way that a retry does not change.
    Protocol(String),
    /// The proxy rejected a tunnel with this status.
    Status(ureq::http::StatusCode),
    /// The proxy could not be used.
    Proxy {
        /// The proxy's address, without user and password.
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

    /// Whether no server answered at all.
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
            Self::Certificate(why) => write!(f, "the certificate is not trusted: {}", why.problem),
            Self::NotTls => f.write_str("the server does not speak TLS"),
            Self::Protocol(problem) => f.write_str(problem),
            Self::Status(status) => status.fmt(f),
            Self::Proxy { proxy, cause } => write!(f, "proxy {proxy}: {cause}"),
        }
    }
}

/// A request, for error messages: `get http://localhost:5000/v2/`. The query is left out, because it may hold
/// a secret.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) method: &'static str,
    pub(crate) url: Url,
    /// The proxy that the request goes through.
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

/// A server's text as one line that is safe to print on a terminal. Long text is shortened.
pub(crate) fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
