//! HTTP requests to the gateway.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use operation::{Error, Place};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use ureq::{
    Agent,
    config::Config,
    tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, parse_pem},
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
                .tls_config(tls.clone())
                .proxy(None)
                .http_status_as_error(false)
                .max_redirects(0)
                .user_agent(concat!("stave/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(PATIENCE))
                .timeout_per_read(Some(read))
                .timeout_per_write(Some(PATIENCE))
        };
        let agent = config(PATIENCE).timeout_global(Some(2 * PATIENCE)).build().new_agent();
        let patient = config(silence).build().new_agent();
        let trimmed = |endpoint: &String| endpoint.trim_end_matches('/').to_owned();
        let endpoints = endpoints.iter().map(trimmed).collect();
        Ok(Self { endpoints, current: AtomicUsize::new(0), agent, patient })
    }

    /// Sends a request, and reads the whole answer.
    pub(crate) fn call<T: DeserializeOwned>(&self, path: &str, asked: &Value) -> Result<T, Error> {
        let (url, mut body) = self.post(&self.agent, path, asked)?;
        let text = body.with_config().limit(MAX_ANSWER).read_to_string();
        let text = text.map_err(|error| unanswered(&url, error))?;
        serde_json::from_str(&text).map_err(|error| unanswered(&url, error))
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
    let answer = request.send(asked.to_string()).map_err(|error| unanswered(url, error))?;
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

pub(crate) fn unanswered(url: &str, cause: impl ToString) -> Error {
    Error::new("ask", url, io::Error::other(cause.to_string()))
}

fn tls(trust: &Trust) -> Result<TlsConfig, Error> {
    let trusted: Vec<_> = match &trust.ca {
        Some(path) => certificates(path)?,
        None => {
            let system = rustls_native_certs::load_native_certs().certs;
            system.iter().map(|it| Certificate::from_der(it).to_owned()).collect()
        }
    };
    let own = match &trust.own {
        Some((certificate, key)) => {
            let found = items(key)?.into_iter().find_map(|item| match item {
                PemItem::PrivateKey(key) => Some(key),
                _ => None,
            });
            let found = found.ok_or_else(|| unusable(key, "it has no private key"))?;
            Some(ClientCert::new_with_certs(&certificates(certificate)?, found))
        }
        None => None,
    };
    Ok(TlsConfig::builder().root_certs(RootCerts::from(trusted)).client_cert(own).build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let certificates = items(path)?.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let found: Vec<_> = certificates.collect();
    match found.is_empty() {
        true => Err(unusable(path, "it has no certificate")),
        false => Ok(found),
    }
}

fn items(path: &Path) -> Result<Vec<PemItem<'static>>, Error> {
    let text = fs::read(path)
        .map_err(|cause| Error::new("read", format_args!("{path:?}"), cause).of(Place::File))?;
    parse_pem(&text).collect::<Result<_, _>>().map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, cause: impl ToString) -> Error {
    Error::new("read", format_args!("{path:?}"), io::Error::other(cause.to_string()))
}
