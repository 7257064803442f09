//! The entries of `NO_PROXY`.

use std::net::IpAddr;

/// A host or hosts that are reached without a proxy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exception {
    /// `*`
    All,
    /// `10.0.0.0/8`: an address, and the number of its bits that count.
    Network(IpAddr, u32),
    /// `10.1.2.3` or `10.1.2.3:80`
    Address(IpAddr, Option<String>),
    /// `example.org`; or `.example.org` and `*.example.org`, which cover only the hosts below. With or
    /// without a port.
    Domain {
        /// The domain with a leading dot.
        suffix: String,
        itself: bool,
        port: Option<String>,
    },
}

impl Exception {
    /// Parses one entry of the list. Invalid entries are ignored, as in Go.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = text.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u32>())
        {
            return (bits <= width(address)).then_some(Self::Network(address, bits));
        }
        let (host, port) = match text.parse::<IpAddr>() {
            Ok(_) => (text.as_str(), None),
            Err(_) => match text.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
                Some((host, port)) => (host, Some(port.to_owned()).filter(|port| !port.is_empty())),
                None => (text.as_str(), None),
            },
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), port));
        }
        let domain = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        match domain.strip_prefix('.') {
            _ if domain.is_empty() => None,
            Some(_) => Some(Self::Domain { suffix: domain.to_owned(), itself: false, port }),
            None => Some(Self::Domain { suffix: format!(".{domain}"), itself: true, port }),
        }
    }

    /// Whether the entry covers a host and port. The host is in lower case, and an IPv6 address has no
    /// brackets.
    pub(super) fn covers(&self, host: &str, port: &str) -> bool {
        let address = || host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let same_port = |own: &Option<String>| own.as_deref().is_none_or(|own| own == port);
        match self {
            Self::All => true,
            Self::Network(network, bits) => address().is_some_and(|address| within(address, *network, *bits)),
            Self::Address(own, own_port) => address() == Some(*own) && same_port(own_port),
            Self::Domain { suffix, itself, port } => {
                let below = host.ends_with(suffix.as_str());
                (below || (*itself && host == &suffix[1..])) && same_port(port)
            }
        }
    }
}

/// The number of bits in an address.
fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let number = |address| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let differs = number(address) ^ number(network);
    width(address) == width(network) && differs.checked_shr(width(network) - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::Exception;

    #[test]
    fn covered_as_by_go() {
        for (entry, host, port, covered) in [
            ("*", "r.example", "80", true),
            ("r.example", "r.example", "5000", true),
            ("R.Example", "r.example", "80", true),
            ("r.example", "x.r.example", "80", true),
            ("r.example", "xr.example", "80", false),
            ("r.example:5000", "r.example", "5000", true),
            ("r.example:5000", "x.r.example", "5000", true),
            ("r.example:5000", "r.example", "80", false),
            (".r.example", "r.example", "80", false),
            (".r.example", "x.r.example", "80", true),
            ("*.r.example", "x.y.r.example", "80", true),
            ("*.r.example", "r.example", "80", false),
            (" *.r.example:81", "x.r.example", "81", true),
            ("*.r.example:81", "x.r.example", "80", false),
            ("10.1.2.3", "10.1.2.3", "5000", true),
            ("10.1.2.3", "10.1.2.4", "5000", false),
            ("10.1.2.3:5000", "10.1.2.3", "5000", true),
            ("10.1.2.3:5000", "10.1.2.3", "80", false),
            ("::ffff:10.1.2.3", "10.1.2.3", "80", true),
            ("2001:db8::1", "2001:db8:0::1", "80", true),
            ("[2001:db8::1]", "2001:db8::1", "80", true),
            ("[2001:db8::1]:81", "2001:db8::1", "81", true),
            ("[2001:db8::1]:81", "2001:db8::1", "80", false),
            ("10.0.0.0/8", "10.1.2.3", "80", true),
            ("10.7.7.7/8", "10.1.2.3", "80", true),
            ("10.0.0.0/8", "11.1.2.3", "80", false),
            ("10.0.0.0/8", "x10.example", "80", false),
            ("0.0.0.0/0", "11.1.2.3", "80", true),
            ("0.0.0.0/0", "2001:db8::1", "80", false),
            ("2001:db8::/32", "2001:db8::1", "80", true),
            ("2001:db8::/32", "2001:db9::1", "80", false),
            ("::/0", "2001:db8::1", "80", true),
            ("10.1.2.3/32", "10.1.2.3", "80", true),
            ("10.1.2.3/32", "10.1.2.2", "80", false),
            ("10.0.0.0/33", "10.1.2.3", "80", false),
        ] {
            let found = Exception::parse(entry).is_some_and(|exception| exception.covers(host, port));
            assert_eq!(found, covered, "{entry} {host}:{port}");
        }
        for nothing in ["", " ", ":80", "10.0.0.0/99"] {
            assert_eq!(Exception::parse(nothing), None, "{nothing}");
        }
    }
}
