//! Sends one request and reads one answer.

use std::{
    io::{self, Read},
    sync::Arc,
    time::{Duration, SystemTime},
};

use transport::{Tcp, Tls, Untrusted};
use ureq::{
    Agent, SendBody,
    config::Config,
    http::{HeaderMap, Request as HttpRequest, StatusCode, header},
    unversioned::{resolver::DefaultResolver, transport::Connector},
};

use crate::{
    Error, Options,
    certificates::Certificates,
    error::{Cause, Request, plain},
    pace::{self, Metered, TooSlow},
    proxy::{AtProxy, Dial, Proxies, Resolve},
    url::Url,
};

/// How many redirections are followed.
pub(crate) const MAX_REDIRECTIONS: u32 = 10;
/// How many bytes are read of an answer that only explains an error.
const MAX_DETAIL: u64 = 64 << 10;
/// How many bytes are read from a connection at a time.
const BUFFER: usize = 256 << 10;

/// Opens connections to a registry and reuses them.
#[derive(Debug)]
pub(crate) struct Http {
    agent: Agent,
    proxies: Arc<Proxies>,
    timeout: Duration,
}

/// The body to send: a reader and its size in bytes.
pub(crate) type Body<'a> = (&'a mut dyn Read, u64);

/// The head of an answer. The rest can be read from its body.
pub(crate) struct Answer {
    pub(crate) request: Request,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: ureq::Body,
    timeout: Duration,
}

impl Http {
    pub(crate) fn new(options: &Options, host: &str, insecure: bool) -> Result<Self, Error> {
        let Certificates { trusted, own } = Certificates::read(options, host, insecure)?;
        let tls = Tls::new(trusted, own, insecure)
            .map_err(|problem| Error::Tls { host: host.to_owned(), problem: plain(&problem.to_string()) })?;
        let config = Config::builder()
            // We choose the proxy ourselves, for each address.
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("stave/", env!("CARGO_PKG_VERSION")))
            // If a proxy compressed the body on the way, its digest would differ.
            .accept_encoding("identity")
            .allow_non_standard_methods(false)
            .max_response_header_size(64 << 10)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .timeout_connect(Some(options.timeout.min(Duration::from_secs(30))))
            .timeout_per_read(Some(options.timeout))
            .timeout_per_write(Some(options.timeout))
            .build();
        let proxies = Arc::new(Proxies::from_environment());
        // The meter is between TCP and TLS. Proxies get our own code.
        let connector =
            ().chain(Tcp)
                .chain(Metered(options.pace))
                .chain(Dial { proxies: proxies.clone(), tls: tls.clone() })
                .chain(tls);
        let resolver = Resolve { proxies: proxies.clone(), inner: DefaultResolver::default() };
        let agent = Agent::with_parts(config, connector, resolver);
        Ok(Self { agent, proxies, timeout: options.timeout })
    }

    /// Sends a request and reads the head of the answer, whatever its status.
    pub(crate) fn send(
        &self,
        method: &'static str,
        url: &Url,
        headers: &[(&'static str, String)],
        body: Option<Body>,
    ) -> Result<Answer, Error> {
        let proxy = self.proxies.choose(url.is_tls(), url.authority())?.cloned();
        let request = Request { method, url: url.clone(), proxy };
        let mut builder = HttpRequest::builder().method(method).uri(url.full());
        for (name, value) in headers {
            builder = builder.header(*name, value);
        }
        pace::allow_more();
        let takes_body = matches!(method, "POST" | "PUT" | "PATCH");
        let answer = match body {
            Some((reader, size)) => builder
                .header(header::CONTENT_LENGTH, size)
                .body(SendBody::from_reader(reader))
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            None if takes_body => builder
                .header(header::CONTENT_LENGTH, 0)
                .body(&[][..])
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            None => builder.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
        };
        match answer {
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                let (status, headers) = (parts.status, parts.headers);
                Ok(Answer { request, status, headers, body, timeout: self.timeout })
            }
            Err(error) => Err(no_answer(request, error, self.timeout)),
        }
    }
}

impl Answer {
    /// A header, if it exists and is text.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Content-Length`, if the answer has one.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.parse().ok()
    }

    /// A header that holds a date (RFC 9110, section 5.6.7).
    pub(crate) fn date(&self, name: impl header::AsHeaderName) -> Option<SystemTime> {
        httpdate::parse_http_date(self.header(name)?).ok()
    }

    /// How long the registry asks to wait (RFC 9110, section 10.2.3). The header holds seconds or a date. A
    /// date is compared with the server's own clock if the answer has one.
    fn retry_after(&self) -> Option<Duration> {
        if let Ok(seconds) = self.header(header::RETRY_AFTER)?.trim().parse() {
            return Some(Duration::from_secs(seconds));
        }
        let now = self.date(header::DATE).unwrap_or_else(SystemTime::now);
        Some(self.date(header::RETRY_AFTER)?.duration_since(now).unwrap_or_default())
    }

    /// The absolute address that the registry redirects to.
    pub(crate) fn location(&self) -> Result<Url, Error> {
        let location =
            self.header(header::LOCATION).ok_or_else(|| self.wrong("an answer without Location"))?;
        self.request.url.join(location).map_err(|problem| self.wrong(format!("redirected: {problem}")))
    }

    /// Like [`Answer::location`], for repeating the request there. A redirection from TLS to plain HTTP is an
    /// error.
    pub(crate) fn onward(&self) -> Result<Url, Error> {
        let next = self.location()?;
        match self.request.url.is_tls() && !next.is_tls() {
            true => Err(self.wrong(format!("redirected to an address without TLS: {next}"))),
            false => Ok(next),
        }
    }

    pub(crate) fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::Answer { request: self.request.clone(), problem: problem.into() }
    }

    /// The rest of the answer, as a reader.
    pub(crate) fn into_body(self) -> AnswerBody {
        let Self { request, body, timeout, .. } = self;
        AnswerBody { request, reader: body.into_with_config().limit(u64::MAX).reader(), timeout }
    }

    /// Reads the rest of the answer. It must not be longer than `limit` bytes.
    pub(crate) fn read(self, limit: u64) -> Result<Vec<u8>, Error> {
        let request = self.request.clone();
        let too_large = || Error::Answer {
            request: request.clone(),
            problem: format!("it has more than {} KiB", limit >> 10),
        };
        if self.length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut content = Vec::new();
        let mut body = self.into_body();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                return Ok(content);
            }
            content.extend_from_slice(&buffer[..count]);
            if content.len() as u64 > limit {
                return Err(too_large());
            }
        }
    }

    /// Turns the answer into an error, with the registry's explanation (OCI distribution-spec, "Error
    /// Codes"). `elsewhere` says that the answer came from another host.
    pub(crate) fn refused(self, elsewhere: bool) -> Error {
        let (request, status) = (self.request.clone(), self.status);
        let retry_after = self.retry_after();
        let mut text = Vec::new();
        let _ = self.into_body().reader.take(MAX_DETAIL).read_to_end(&mut text);
        let value: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
        let damaged = value.as_ref().is_some_and(|value| value["errors"][0]["code"] == "DIGEST_INVALID");
        let detail = detail(value.as_ref(), &text).map(String::into_boxed_str);
        Error::Refused { request, status, detail, retry_after, elsewhere, damaged }
    }
}

/// The body of an answer.
pub(crate) struct AnswerBody {
    request: Request,
    reader: ureq::BodyReader<'static>,
    timeout: Duration,
}

impl AnswerBody {
    /// Like [`Read::read`]. The error names the request.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        pace::allow_more();
        loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let cause = cause(ureq::Error::from(error), self.timeout);
                    return Err(Error::Connection { request: self.request.clone(), cause });
                }
                Ok(count) => return Ok(count),
            }
        }
    }
}

/// Takes the quoted string (RFC 9110, section 5.6.4) whose first quote is just before `text`. `\` escapes a
/// character in it. Returns the string and what follows it; None if it has no end.
pub(crate) fn quoted(text: &str) -> (String, Option<&str>) {
    let (mut value, mut characters) = (String::new(), text.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => return (value, Some(characters.as_str())),
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    (value, None)
}

/// The explanation in `{"errors": [{"code": …, "message": …}]}`, or the first line of plain text. `value` is the text as JSON.
fn detail(value: Option<&serde_json::Value>, text: &[u8]) -> Option<String> {
    let said = match value {
        Some(value) => {
            let first = &value["errors"][0];
            let message = first["message"].as_str().filter(|message| !message.is_empty());
            message.or(first["code"].as_str()).or(value["message"].as_str()).or(value["error"].as_str())?
        }
        None => {
            let text = std::str::from_utf8(text).ok()?.trim();
            (!text.starts_with('<')).then(|| text.lines().next()).flatten()?
        }
    };
    let said = plain(said);
    (!said.is_empty()).then_some(said)
}

/// Why a request got no answer, and whether the proxy was the cause.
fn no_answer(mut request: Request, error: ureq::Error, timeout: Duration) -> Error {
    let (at_proxy, why) = match error {
        ureq::Error::Other(other) => match other.downcast::<AtProxy>().map(|at_proxy| *at_proxy) {
            Ok(AtProxy::Refused(status)) => (true, Cause::Status(status)),
            Ok(AtProxy::Failed(error)) => (true, cause(error, timeout)),
            Err(other) => (false, cause(ureq::Error::Other(other), timeout)),
        },
        error => {
            let cause = cause(error, timeout);
            // Only the proxy's address was looked up and called.
            (cause.is_absence(), cause)
        }
    };
    let cause = match request.proxy.take_if(|_| at_proxy) {
        Some(proxy) => Cause::Proxy { proxy: proxy.to_string(), cause: Box::new(why) },
        None => why,
    };
    Error::Connection { request, cause }
}

/// The cause of a connection error, in our own terms.
fn cause(error: ureq::Error, timeout: Duration) -> Cause {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect) => Cause::Silence(timeout.min(Duration::from_secs(30))),
        ureq::Error::Timeout(_) => Cause::Silence(timeout),
        ureq::Error::HostNotFound => Cause::Name,
        ureq::Error::Io(error) => io_cause(error),
        ureq::Error::Protocol(error) => Cause::Protocol(format!("the server does not speak HTTP: {error}")),
        ureq::Error::LargeResponseHeader(_, limit) => {
            Cause::Protocol(format!("its headers have more than {} KiB", limit >> 10))
        }
        ureq::Error::Other(error) => Cause::Protocol(plain(&error.to_string())),
        error => Cause::Protocol(plain(&error.to_string())),
    }
}

fn io_cause(error: io::Error) -> Cause {
    if let Some(slow) = TooSlow::behind(&error) {
        return Cause::Slow(slow.0);
    }
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return tls_cause(inner);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            Cause::Broken
        }
        _ => Cause::System(error),
    }
}

fn tls_cause(error: &rustls::Error) -> Cause {
    if let Some(why) = transport::untrusted(error) {
        return Cause::Certificate(Box::new(Untrusted { problem: plain(&why.problem), ..why }));
    }
    if let Some(refused) = transport::refused(error) {
        return Cause::Protocol(refused);
    }
    match error {
        rustls::Error::InvalidMessage(_) => Cause::NotTls,
        other => Cause::Protocol(plain(&other.to_string())),
    }
}
