//! Chooses the proxy for an address, according to the environment.
//!
//! Docker, podman and skopeo are Go programs, so the rules are those of golang.org/x/net/http/httpproxy.
//! ureq's own rules differ: it reads one variable for all addresses, and supports neither ports nor networks
//! in `NO_PROXY`.

mod connect;
mod exception;

use std::{env, fmt};

use ureq::{ProxyProtocol, http::Uri};

pub(crate) use connect::{AtProxy, Dial, Resolve};
use exception::Exception;

use crate::{
    Error,
    url::{is_loopback, split_port},
};

/// The proxies in the environment, and the hosts that are reached without a proxy.
#[derive(Debug)]
pub(crate) struct Proxies {
    plain: Setting,
    tls: Setting,
    exceptions: Vec<Exception>,
}

/// The value of a variable. A wrong value is an error only when it is needed.
type Setting = Option<Result<Proxy, String>>;

/// A proxy that speaks HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Proxy(ureq::Proxy);

/// The environment variable that names the proxy for addresses with or without TLS.
pub(crate) fn variable(tls: bool) -> &'static str {
    if tls { "HTTPS_PROXY" } else { "HTTP_PROXY" }
}

impl Proxies {
    /// Reads the process's environment.
    pub(crate) fn from_environment() -> Self {
        Self::read(|name| env::var(name).ok())
    }

    fn read(value: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| {
            let filled = |name: &str| value(name).filter(|value| !value.is_empty());
            filled(name).or_else(|| filled(&name.to_ascii_lowercase()))
        };
        let setting = |tls| value(variable(tls)).map(|text| Proxy::parse(&text));
        let exceptions = value("NO_PROXY").unwrap_or_default();
        Self {
            plain: setting(false),
            tls: setting(true),
            exceptions: exceptions.split(',').filter_map(Exception::parse).collect(),
        }
    }

    /// The proxy for a host, with or without a port; None if the host is reached directly.
    ///
    /// # Errors
    /// When the variable does not hold the address of a proxy.
    pub(crate) fn choose(&self, tls: bool, authority: &str) -> Result<Option<&Proxy>, Error> {
        let Some(setting) = (if tls { &self.tls } else { &self.plain }) else { return Ok(None) };
        let (host, port) = split_port(authority).unwrap_or((authority, if tls { "443" } else { "80" }));
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if is_loopback(authority) || self.exceptions.iter().any(|exception| exception.covers(&host, port)) {
            return Ok(None);
        }
        let wrong = |problem: &String| Error::Proxy { variable: variable(tls), problem: problem.clone() };
        setting.as_ref().map(Some).map_err(wrong)
    }

    /// Like [`Proxies::choose`], for use inside ureq, which only gets addresses with a valid choice.
    fn of(&self, uri: &Uri) -> Option<&Proxy> {
        self.choose(uri.scheme_str() == Some("https"), uri.authority()?.as_str()).ok().flatten()
    }
}

impl Proxy {
    /// Parses `[http://][user[:password]@]host[:port]`, also with `https`. The error does not repeat the
    /// text, because it may hold a password.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let scheme = full.split("://").next().unwrap_or_default().to_ascii_lowercase();
        match ureq::Proxy::new(&full).map(Self) {
            _ if scheme != "http" && scheme != "https" => {
                Err(format!("scheme {scheme:?} is not http or https"))
            }
            Ok(proxy) if proxy.has_port() => Ok(proxy),
            Ok(_) => Err("its port is not a number".to_owned()),
            Err(_) => Err("it is not [http://][user:password@]host[:port]".to_owned()),
        }
    }

    /// Whether the port is valid, if there is one. ureq replaces an invalid port with the default.
    fn has_port(&self) -> bool {
        let authority = self.0.uri().authority().map_or("", |authority| authority.as_str());
        let host_and_port = authority.rsplit('@').next().unwrap_or_default();
        split_port(host_and_port).is_none_or(|(_, port)| port.is_empty() || port.parse::<u16>().is_ok())
    }

    fn is_tls(&self) -> bool {
        self.0.protocol() == ProxyProtocol::Https
    }
}

/// Prints the proxy without user and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls() { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.0.host(), self.0.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], address: &str) -> Result<Option<String>, String> {
        let value = |name: &str| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        };
        let (scheme, authority) = address.split_once("://").unwrap();
        let proxies = Proxies::read(value);
        let choice = proxies.choose(scheme == "https", authority);
        choice.map(|proxy| proxy.map(ToString::to_string)).map_err(|error| error.to_string())
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let (plain, tls) = (("HTTP_PROXY", "http://p:1"), ("HTTPS_PROXY", "http://s:2"));
        for (variables, address, expected) in [
            (&[plain, tls][..], "http://r.example", Some("http://p:1")),
            (&[plain, tls], "https://r.example:5000", Some("http://s:2")),
            (&[tls], "http://r.example", None),
            (&[plain], "https://r.example", None),
            (&[("ALL_PROXY", "http://a:1")], "https://r.example", None),
            (&[("http_proxy", "q")], "http://r.example", Some("http://q:80")),
            (&[plain, ("http_proxy", "q")], "http://r.example", Some("http://p:1")),
            (&[("HTTP_PROXY", ""), ("http_proxy", "q:3")], "http://r.example", Some("http://q:3")),
            (&[("HTTPS_PROXY", "https://u:p%40s@q")], "https://r.example", Some("https://q:443")),
            (&[("HTTPS_PROXY", "u:p@[::2]:8")], "https://r.example", Some("http://[::2]:8")),
        ] {
            let found = chosen(variables, address);
            assert_eq!(found, Ok(expected.map(str::to_owned)), "{variables:?} {address}");
        }
        let proxy = Proxy::parse("u:p%40s@q").unwrap();
        assert_eq!((proxy.0.username(), proxy.0.password()), (Some("u"), Some("p@s")));
    }

    #[test]
    fn this_machine_is_reached_without() {
        for host in ["localhost", "localhost:5000", "LOCALHOST", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"]
        {
            let found = chosen(&[("HTTP_PROXY", "http://p:1")], &format!("http://{host}"));
            assert_eq!(found, Ok(None), "{host}");
        }
    }

    #[test]
    fn exceptions_hold_for_both() {
        let variables =
            [("HTTP_PROXY", "p:1"), ("HTTPS_PROXY", "s:1"), ("no_proxy", "a.example:443, b.example")];
        for (address, direct) in [
            ("https://a.example", true),
            ("http://a.example", false),
            ("http://A.example:443", true),
            ("http://b.example:5000", true),
            ("https://x.b.example", true),
            ("https://xb.example", false),
        ] {
            assert_eq!(chosen(&variables, address).unwrap().is_none(), direct, "{address}");
        }
    }

    #[test]
    fn a_wrong_variable_is_named_and_not_shown() {
        for (value, problem) in [
            ("socks5://u:secret@p", "scheme \"socks5\" is not http or https"),
            ("http://u:secret@p:port", "its port is not a number"),
            ("u:secret@", "it is not [http://][user:password@]host[:port]"),
            ("gopher://p", "scheme \"gopher\" is not http or https"),
        ] {
            let variables = [("HTTPS_PROXY", value)];
            let expected = format!("read HTTPS_PROXY: {problem}");
            assert_eq!(chosen(&variables, "https://r.example"), Err(expected), "{value}");
            assert_eq!(chosen(&variables, "http://r.example"), Ok(None), "{value}");
            assert_eq!(chosen(&variables, "https://localhost"), Ok(None), "{value}");
        }
    }
}
