//! HTTP requests to the gateway.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use operation::{Cause, Error, Place};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use transport::{Tcp, Tls, Untrusted};
use ureq::{
    Agent,
    config::Config,
    unversioned::{resolver::DefaultResolver, transport::Connector},
};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer, in bytes.
const MAX_ANSWER: u64 = 256 << 20;

/// The certificates of the servers and of this client.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// A file with the CA certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Files with the client certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// A client for the servers of one cluster.
#[derive(Debug)]
pub struct Client {
    endpoints: Vec<String>,
    /// The index of the server that answered last.
    current: AtomicUsize,
    agent: Agent,
    /// For streams. Its timeout is the longest silence of a watch.
    patient: Agent,
}

impl Client {
    /// Makes a client for servers at these addresses (`http://HOST:PORT`). A watch ends if the
    /// server is silent for `silence`.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub fn new(endpoints: &[String], trust: &Trust, silence: Duration) -> Result<Self, Error> {
        let tls = tls(trust)?;
        let config = |read: Duration| {
            Config::builder()
                .proxy(None)
                .http_status_as_error(false)
                .max_redirects(0)
                .user_agent(concat!("stave/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(PATIENCE))
                .timeout_per_read(Some(read))
                .timeout_per_write(Some(PATIENCE))
        };
        let agent =
            |config| Agent::with_parts(config, ().chain(Tcp).chain(tls.clone()), DefaultResolver::default());
        let quick = agent(config(PATIENCE).timeout_global(Some(2 * PATIENCE)).build());
        let patient = agent(config(silence).build());
        let trimmed = |endpoint: &String| endpoint.trim_end_matches('/').to_owned();
        let endpoints = endpoints.iter().map(trimmed).collect();
        Ok(Self { endpoints, current: AtomicUsize::new(0), agent: quick, patient })
    }

    /// Sends a request, and reads the whole answer.
    pub(crate) fn call<T: DeserializeOwned>(&self, path: &str, asked: &Value) -> Result<T, Error> {
        let (url, mut body) = self.post(&self.agent, path, asked)?;
        let text = body.with_config().limit(MAX_ANSWER).read_to_string();
        let text = text.map_err(|error| unanswered(&url, of_client(error)))?;
        serde_json::from_str(&text).map_err(|error| unanswered(&url, error.to_string()))
    }

    /// Sends a request, and returns the body of the answer as a stream.
    pub(crate) fn stream(&self, path: &str, asked: &Value) -> Result<(String, ureq::Body), Error> {
        self.post(&self.patient, path, asked)
    }

    /// Sends a request to one server after another, until one answers.
    fn post(&self, agent: &Agent, path: &str, asked: &Value) -> Result<(String, ureq::Body), Error> {
        let count = self.endpoints.len();
        let first = self.current.load(Ordering::Relaxed);
        let mut failure = None;
        for at in (0..count).map(|at| (first + at) % count) {
            let url = format!("{}/v3/{path}", self.endpoints[at]);
            match attempt(agent, &url, asked) {
                Ok(body) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok((url, body));
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| unanswered(path, "there is no server to ask")))
    }
}

fn attempt(agent: &Agent, url: &str, asked: &Value) -> Result<ureq::Body, Error> {
    let request = agent.post(url).header("Content-Type", "application/json");
    let answer = request.send(asked.to_string()).map_err(|error| match untrusted(&error) {
        Some(problem) => unanswered(url, format!("the certificate is not trusted: {problem}")),
        None if is_hung_up(&error) && url.starts_with("https:") => unanswered(url, of_client(error))
            .with_hint("the server may want a client certificate: --etcd-cert and --etcd-key"),
        None => unanswered(url, of_client(error)),
    })?;
    let status = answer.status();
    let mut body = answer.into_body();
    if status.is_success() {
        return Ok(body);
    }
    // An error of grpc-gateway: `{"error": "…", "code": N}`.
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Refused {
        error: String,
        message: String,
    }
    let text = body.with_config().limit(64 << 10).read_to_string().unwrap_or_default();
    let refused: Refused = serde_json::from_str(&text).unwrap_or_default();
    let told = [refused.error, refused.message].into_iter().find(|told| !told.is_empty());
    Err(unanswered(url, told.unwrap_or_else(|| status.to_string())))
}

/// Whether the server closed the connection. With TLS 1.3, it asks for a certificate late: the client may be
/// writing already (RFC 8446, 4.4.2.4).
fn is_hung_up(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof};
    let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof];
    matches!(error, ureq::Error::Io(error) if kinds.contains(&error.kind()))
}

/// Why the server's certificate is not trusted; None if the error is about something else.
fn untrusted(error: &ureq::Error) -> Option<String> {
    let ureq::Error::Io(error) = error else { return None };
    let Untrusted { problem, .. } = transport::untrusted(error.get_ref()?.downcast_ref()?)?;
    Some(problem)
}

pub(crate) fn unanswered(url: &str, cause: impl Into<Cause>) -> Error {
    Error::new("ask", url, cause)
}

/// The cause of an error of ureq. What the system says keeps its number.
fn of_client(error: ureq::Error) -> Cause {
    match error {
        ureq::Error::Io(error) => error.into(),
        error => Cause::Source(Box::new(error)),
    }
}

fn tls(trust: &Trust) -> Result<Tls, Error> {
    let trusted = match &trust.ca {
        Some(path) => transport::certificates(path).map_err(|error| unusable(path, error))?,
        None => transport::system(),
    };
    let own = match &trust.own {
        Some((certificate, key)) => Some((
            transport::certificates(certificate).map_err(|error| unusable(certificate, error))?,
            transport::private_key(key).map_err(|error| unusable(key, error))?,
        )),
        None => None,
    };
    Tls::new(trusted, own, false).map_err(|error| {
        let path = trust.own.as_ref().map_or(Path::new(""), |(_, key)| key.as_path());
        unusable(path, Cause::Source(Box::new(error)))
    })
}

fn unusable(path: &Path, cause: impl Into<Cause>) -> Error {
    Error::new("read", format_args!("{path:?}"), cause).of(Place::File)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_keeps_its_number() {
        // Nobody listens there any more.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(&[format!("http://{free}")], &Trust::default(), PATIENCE).unwrap();
        let error = client.call::<Value>("kv/range", &Value::Null).unwrap_err();
        assert_eq!(error.to_string(), format!("ask http://{free}/v3/kv/range: Connection refused"));
        let refused = io::Error::from_raw_os_error(error.errno().unwrap() as i32).kind();
        assert_eq!(refused, io::ErrorKind::ConnectionRefused);
    }
}
