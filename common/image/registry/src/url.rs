//! Addresses (URLs) of registries and other web servers.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

/// An address: `http` or `https`, a host, and the rest. Other schemes are rejected, and so are a user or a
/// password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    tls: bool,
    /// The host, with its port if one was given.
    authority: String,
    /// The path with the query. It begins with `/`.
    path: String,
}

impl Url {
    /// The root of a host: `https://host:port/`.
    pub(crate) fn host(tls: bool, authority: &str) -> Self {
        Self { tls, authority: authority.to_owned(), path: "/".to_owned() }
    }

    /// Parses an absolute address.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, authority, path) = split(text).ok_or_else(|| format!("{text:?} is not an address"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            other => return Err(format!("scheme {other:?} is not http or https")),
        };
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b);
        if authority.contains('@') {
            // The authority is not shown: it may hold a password.
            return Err("it has a user's name".to_owned());
        }
        if authority.is_empty() || !authority.bytes().all(valid) {
            return Err(format!("{authority:?} is not a host and port"));
        }
        let path = path.split('#').next().unwrap_or_default();
        if path.bytes().any(|b| b.is_ascii_control()) {
            return Err("an address with control characters".to_owned());
        }
        let path = graphic(path);
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        Ok(Self { tls, authority: authority.to_ascii_lowercase(), path })
    }

    /// Resolves `location` in an answer from this address (RFC 3986, section 5.2).
    pub(crate) fn join(&self, location: &str) -> Result<Self, String> {
        let scheme = if self.tls { "https" } else { "http" };
        let head = location.split(['/', '?', '#']).next().unwrap_or_default();
        if head.contains(':') {
            return Self::parse(location).map(Self::in_normal_form);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{scheme}:{location}")).map(Self::in_normal_form);
        }
        let (path, rest) = location.split_at(location.find(['?', '#']).unwrap_or(location.len()));
        let own = self.path.split('?').next().unwrap_or_default();
        let parent = own.rsplit_once('/').map_or("", |(parent, _)| parent);
        let path = match path {
            "" if rest.starts_with('?') => own.to_owned(),
            "" => self.path.clone(),
            path if path.starts_with('/') => without_dots(path),
            path => without_dots(&format!("{parent}/{path}")),
        };
        Self::parse(&format!("{scheme}://{}{path}{rest}", self.authority))
    }

    /// The same address without dot segments.
    fn in_normal_form(self) -> Self {
        let (path, query) = self.path.split_at(self.path.find('?').unwrap_or(self.path.len()));
        let path = without_dots(path) + query;
        Self { path, ..self }
    }

    /// Adds a parameter to the query.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        self.path = format!("{}{separator}{name}={}", self.path, encode(value));
        self
    }

    /// The host, with its port if one was given.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether secrets for one address may be sent to the other: the same host and port, and both with TLS or
    /// both without.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.tls == other.tls && self.host_and_port() == other.host_and_port()
    }

    fn host_and_port(&self) -> (&str, &str) {
        let default = if self.tls { "443" } else { "80" };
        split_port(&self.authority).unwrap_or((&self.authority, default))
    }

    /// The whole address, for the request.
    pub(crate) fn full(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.authority, self.path)
    }
}

/// Prints the address without the query, which may hold a signature or a token.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = self.full();
        f.write_str(full.split('?').next().unwrap_or_default())
    }
}

/// The origin of an address. Secrets for an address may be sent only to the same origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The scheme: `https`, `http` and so on.
    pub scheme: String,
    /// The host, without a port.
    pub host: String,
    port: String,
}

impl Origin {
    /// The origin of an address.
    pub fn of(address: &str) -> Self {
        let (scheme, authority, _) = split(address).unwrap_or(("ssh", address, ""));
        let scheme = scheme.to_ascii_lowercase();
        let authority = host_of(authority).to_ascii_lowercase();
        let default = if scheme == "http" { "80" } else { "443" };
        let (host, port) = split_port(&authority).unwrap_or((&authority, default));
        Self { host: host.to_owned(), port: port.to_owned(), scheme }
    }
}

/// The address without user and password, for messages.
pub fn without_user(address: &str) -> String {
    let Some((scheme, authority, path)) = split(address) else { return address.to_owned() };
    format!("{scheme}://{}{path}", host_of(authority))
}

/// The `Authorization` header that a user and a password in an address ask for, as Go and git send it. None if the
/// address has no user.
pub(crate) fn authorization_in(address: &str) -> Option<String> {
    let (_, authority, _) = split(address)?;
    let (user, _) = authority.rsplit_once('@')?;
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let pair = [decode(name), decode(password)].join(&b':');
    Some(format!("Basic {}", STANDARD.encode(pair)))
}

/// The text with spaces and bytes that are not ASCII in percent-encoding, as Go writes them.
fn graphic(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_graphic() {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The path without the segments `.` and `..` (RFC 3986, section 5.2.4). It begins with `/`.
fn without_dots(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let mut kept = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        match *segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if at + 1 == segments.len() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// Decodes percent-encoding. A `%` without two digits stays as it is.
pub fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// Splits an address into scheme, authority and the rest (RFC 3986, section 3). The authority ends at the
/// first `/`, `?` or `#`.
fn split(address: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    Some((scheme, authority, path))
}

/// The host and port, without the user.
fn host_of(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// The host and the port, if a port was given.
pub(crate) fn split_port(authority: &str) -> Option<(&str, &str)> {
    authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'))
}

/// Whether a host, with or without a port, is this machine.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = split_port(authority).map_or(authority, |(host, _)| host).to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Encodes a value for a query or a form (RFC 3986, section 2.1).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_from_registries() {
        let here = Url::parse("https://host:5000/v2/a/blobs/uploads/?x=1").unwrap();
        for (location, expected) in [
            ("/v2/b?state=a%2Fb", Ok("https://host:5000/v2/b?state=a%2Fb")),
            ("https://cdn.example/b", Ok("https://cdn.example/b")),
            ("HTTP://Cdn.Example", Ok("http://cdn.example/")),
            ("//cdn.example/b", Ok("https://cdn.example/b")),
            ("abc?y=2", Ok("https://host:5000/v2/a/blobs/uploads/abc?y=2")),
            ("/b#part", Ok("https://host:5000/b")),
            ("/t?at=12:30", Ok("https://host:5000/t?at=12:30")),
            ("file:///etc/passwd", Err("scheme \"file\" is not http or https")),
            ("gopher://h/1", Err("scheme \"gopher\" is not http or https")),
            ("http://user:secret@h/", Err("it has a user's name")),
            ("http:///etc", Err("\"\" is not a host and port")),
            ("?y=2", Ok("https://host:5000/v2/a/blobs/uploads/?y=2")),
            ("?y=12:30#part", Ok("https://host:5000/v2/a/blobs/uploads/?y=12:30")),
            ("", Ok("https://host:5000/v2/a/blobs/uploads/?x=1")),
            ("#a:b", Ok("https://host:5000/v2/a/blobs/uploads/?x=1")),
            ("../b?y=../z", Ok("https://host:5000/v2/a/blobs/b?y=../z")),
            ("./x/./../y/..", Ok("https://host:5000/v2/a/blobs/uploads/")),
            ("../../../../../../cdn/b", Ok("https://host:5000/cdn/b")),
            ("/v2/../.", Ok("https://host:5000/")),
            ("http://o/a/../b?c=../d", Ok("http://o/b?c=../d")),
            ("//o:1/a/./b", Ok("https://o:1/a/b")),
            ("/a b?c=\u{e9} d", Ok("https://host:5000/a%20b?c=%C3%A9%20d")),
            ("/a\r\nX: 1", Err("an address with control characters")),
        ] {
            let joined = here.join(location).map(|url| url.full());
            assert_eq!(joined, expected.map(str::to_owned).map_err(str::to_owned), "{location}");
        }
    }

    #[test]
    fn secrets_stay_at_their_origin() {
        let origin = Url::parse("https://host/v2/").unwrap();
        for (other, same) in [
            ("https://host:443/x", true),
            ("https://HOST/x", true),
            ("http://host/x", false),
            ("https://host:444/x", false),
            ("https://host.example/x", false),
        ] {
            assert_eq!(origin.same_origin(&Url::parse(other).unwrap()), same, "{other}");
        }
        assert_eq!(Url::parse("https://h/a?token=secret").unwrap().to_string(), "https://h/a");
        let url = Url::host(true, "h").join("/p").unwrap().with("scope", "a b&c").with("n", "1");
        assert_eq!(url.full(), "https://h/p?scope=a%20b%26c&n=1");
    }

    #[test]
    fn origins() {
        let own = Origin::of("https://Host/a.git");
        for (other, same) in [
            ("https://host:443/b", true),
            ("https://me:secret@host/b", true),
            ("http://host/b", false),
            ("https://host:444/b", false),
            ("https://host.evil/b", false),
            ("https://evil/host/b", false),
            // The host ends before a query, even if the query looks like a user's name.
            ("https://evil?@host/b", false),
            ("https://evil#@host/b", false),
        ] {
            assert_eq!(Origin::of(other) == own, same, "{other}");
        }
        assert_eq!(own.host, "host");
        assert_eq!(without_user("https://evil?@host/b"), "https://evil?@host/b");
    }

    #[test]
    fn this_machine() {
        for (host, loopback) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:80", true),
            ("127.8.9.1", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("128.0.0.1", false),
            ("localhost.example", false),
            ("127.0.0.1.example:5000", false),
        ] {
            assert_eq!(is_loopback(host), loopback, "{host}");
        }
    }
}
