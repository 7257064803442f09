//! Connections through a proxy (RFC 9110, section 9.3.6; RFC 9112, section 3.2).
//!
//! With TLS, we ask the proxy for a tunnel. Without TLS, we send it the full address: many proxies refuse a
//! tunnel to port 80, and a caching proxy could not see the content. ureq supports only tunnels.

use std::{
    fmt,
    io::{Read, Write},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use transport::Tls;
use ureq::{
    Error,
    config::Config,
    http::{StatusCode, Uri},
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{
            Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport, TransportAdapter,
        },
    },
};

use super::{Proxies, Proxy};

/// The maximum size of a proxy's answer about a tunnel, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// An error at the proxy, before the server was connected.
#[derive(Debug)]
pub(crate) enum AtProxy {
    /// The proxy refused.
    Refused(StatusCode),
    /// The proxy gave no answer, or an unreadable one.
    Failed(Error),
}

impl fmt::Display for AtProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => status.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AtProxy {}

impl From<AtProxy> for Error {
    fn from(error: AtProxy) -> Self {
        Self::Other(Box::new(error))
    }
}

/// Resolves the address to connect to. If there is a proxy, this is its address; the server's name is
/// resolved by the proxy.
#[derive(Debug)]
pub(crate) struct Resolve {
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) inner: DefaultResolver,
}

impl Resolver for Resolve {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let uri = self.proxies.of(uri).map_or(uri, |proxy| proxy.0.uri());
        self.inner.resolve(uri, config, timeout).map_err(|error| match error {
            // An answer of getaddrinfo(3) has no number of the system: there is no address.
            Error::Io(error) if error.raw_os_error().is_none() => Error::HostNotFound,
            error => error,
        })
    }
}

/// Turns a connection to a proxy into a connection to the server.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) proxies: Arc<Proxies>,
    /// For proxies that are reached with TLS.
    pub(crate) tls: Tls,
}

impl<In: Transport> Connector<In> for Dial {
    type Out = Either<In, Proxied>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        match (chained, self.proxies.of(details.uri)) {
            (None, _) => Ok(None),
            (Some(direct), None) => Ok(Some(Either::A(direct))),
            (Some(connection), Some(proxy)) => {
                let proxied = self.through(proxy, details, connection);
                proxied.map(|proxied| Some(Either::B(proxied))).map_err(Error::from)
            }
        }
    }
}

impl Dial {
    fn through<In: Transport>(
        &self,
        proxy: &Proxy,
        details: &ConnectionDetails,
        connection: In,
    ) -> Result<Proxied, AtProxy> {
        let inner: Box<dyn Transport> = match proxy.is_tls() {
            true => Box::new(self.tls.encrypt(proxy.0.uri(), details, connection).map_err(AtProxy::Failed)?),
            false => Box::new(connection),
        };
        match details.needs_tls() {
            true => Ok(Proxied { inner: tunnel(proxy, details, inner)?, forward: None }),
            false => Ok(Proxied { inner, forward: Some(Forward::new(proxy, details.uri)) }),
        }
    }
}

/// Asks the proxy for a tunnel to the server.
fn tunnel(
    proxy: &Proxy,
    details: &ConnectionDetails,
    connection: Box<dyn Transport>,
) -> Result<Box<dyn Transport>, AtProxy> {
    let failed = |error: std::io::Error| AtProxy::Failed(error.into());
    let authority = details.uri.authority().map_or("", |authority| authority.as_str());
    let target = match details.uri.port() {
        Some(_) => authority.to_owned(),
        None => format!("{authority}:443"),
    };
    let mut stream = TransportAdapter::new(connection, details.current_time.clone());
    stream.set_timeout(details.timeout);
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n", authorization(proxy));
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let head = read_head(&mut stream).map_err(failed)?;
    match status(&head) {
        Some(status) if status.is_success() => Ok(stream.into_inner()),
        Some(status) => Err(AtProxy::Refused(status)),
        None => Err(AtProxy::Failed(Error::Other("it does not speak HTTP".into()))),
    }
}

/// Reads up to the empty line and nothing after it: further bytes belong to the server.
fn read_head(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}

/// The status in `HTTP/1.1 200 Connection established`.
fn status(head: &[u8]) -> Option<StatusCode> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    StatusCode::from_bytes(rest.get(2..5)?).ok()
}

/// The header line with the proxy's user and password; empty if there are none.
fn authorization(proxy: &Proxy) -> String {
    let (user, password) = (proxy.0.username(), proxy.0.password());
    if user.is_none() && password.is_none() {
        return String::new();
    }
    let both = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
    format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(both))
}

/// A connection through a proxy.
#[derive(Debug)]
pub(crate) struct Proxied {
    inner: Box<dyn Transport>,
    /// Set if each request must give its full address to the proxy.
    forward: Option<Forward>,
}

/// Puts the server's address into the head of each request.
struct Forward {
    /// `http://host:port`
    server: String,
    authorization: String,
    /// Whether the next bytes are the head of a request. Nothing is read between a head and the end of its
    /// body.
    at_head: bool,
}

/// Prints no password.
impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Forward {
    fn new(proxy: &Proxy, uri: &Uri) -> Self {
        let server = format!("http://{}", uri.authority().map_or("", |authority| authority.as_str()));
        Self { server, authorization: authorization(proxy), at_head: true }
    }

    /// Rewrites `GET /v2/ HTTP/1.1…` to `GET http://host/v2/ HTTP/1.1…`, in place. Returns the new length.
    fn rewrite(&self, output: &mut [u8], size: usize) -> Result<usize, Error> {
        let wrong = || Error::Other("the head of the request is too long".into());
        let old = output.get(..size).ok_or_else(wrong)?;
        let target = old.iter().position(|byte| *byte == b' ').ok_or_else(wrong)? + 1;
        let line = old.windows(2).position(|two| two == b"\r\n").ok_or_else(wrong)? + 2;
        let new = [
            &old[..target],
            self.server.as_bytes(),
            &old[target..line],
            self.authorization.as_bytes(),
            &old[line..],
        ]
        .concat();
        output.get_mut(..new.len()).ok_or_else(wrong)?.copy_from_slice(&new);
        Ok(new.len())
    }
}

impl Transport for Proxied {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let amount = match &mut self.forward {
            Some(forward) if forward.at_head => {
                forward.at_head = false;
                forward.rewrite(self.inner.buffers().output(), amount)?
            }
            _ => amount,
        };
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if let Some(forward) = &mut self.forward {
            forward.at_head = true;
        }
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    /// Never true: TLS to the proxy does not protect the way to the server.
    fn is_tls(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_an_address_is_told_by_its_type() {
        let (plain, tls, exceptions) = (None, None, Vec::new());
        let proxies = Arc::new(Proxies { plain, tls, exceptions });
        let resolve = Resolve { proxies, inner: DefaultResolver::default() };
        let timeout =
            NextTimeout { after: std::time::Duration::from_secs(60).into(), ..NextTimeout::default() };
        // RFC 6761, 6.4: no name server knows it.
        let name = Uri::from_static("http://stave.invalid:1/");
        let answer = resolve.resolve(&name, &Config::default(), timeout);
        assert!(matches!(answer, Err(Error::HostNotFound)), "{answer:?}");
    }

    #[test]
    fn the_request_line_in_full() {
        let proxy = Proxy::parse("u:p@q").unwrap();
        let forward = Forward::new(&proxy, &Uri::from_static("http://r.example:5000/v2/"));
        let head = b"GET /v2/?a=%20b HTTP/1.1\r\nHost: r.example:5000\r\n\r\n";
        let mut output = vec![0; 200];
        output[..head.len()].copy_from_slice(head);
        let size = forward.rewrite(&mut output, head.len()).unwrap();
        let expected = "GET http://r.example:5000/v2/?a=%20b HTTP/1.1\r\n\
            Proxy-Authorization: Basic dTpw\r\nHost: r.example:5000\r\n\r\n";
        assert_eq!(std::str::from_utf8(&output[..size]), Ok(expected));
        assert!(forward.rewrite(&mut output[..head.len()], head.len()).is_err(), "no room");
        assert!(!format!("{forward:?}").contains("dTpw"));
    }

    #[test]
    fn answers_about_tunnels() {
        for (head, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            ("HTTP/1.0 407\r\n\r\n", Some(407)),
            ("HTTP/2 200\r\n\r\n", None),
            ("HTTP/1.1 2", None),
            ("SSH-2.0-x\r\n\r\n", None),
        ] {
            assert_eq!(status(head.as_bytes()).map(|status| status.as_u16()), expected, "{head}");
        }
        let mut both = &b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n\x16tls"[..];
        assert_eq!(read_head(&mut both).unwrap(), b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
        assert_eq!(both, b"\x16tls");
        assert!(read_head(&mut &b"HTTP/1.1 200 OK\r\n"[..]).is_err());
    }
}
