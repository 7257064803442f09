//! The text of a container's `/etc/resolv.conf`, as Docker writes it.

use std::{fs, net::IpAddr, path::Path};

/// Docker's name servers, for a host without a name server that a container can reach.
const PUBLIC_SERVERS: &str = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";

/// The file for the host's network: the host's own file.
pub fn of_host() -> String {
    fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

/// The file for a network of its own: the host's, without name servers on its loopback interface. If none is
/// left and the network is `connected` to others, public name servers are added.
pub fn of_own(connected: bool) -> String {
    reachable(&behind(of_host()), connected)
}

/// Settings that replace the host's. An empty list replaces nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Addresses of name servers.
    pub servers: Vec<IpAddr>,
    /// Domains in which names are searched; `.` alone for none.
    pub search: Vec<String>,
    /// Options such as `ndots:2`.
    pub options: Vec<String>,
}

impl Settings {
    /// Replaces the settings in `text`.
    pub fn replace(&self, text: String) -> String {
        let mut kept: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut drop = |keys: &[&str]| {
            kept.retain(|line| !line.split_whitespace().next().is_some_and(|key| keys.contains(&key)));
        };
        let mut own = Vec::new();
        if !self.servers.is_empty() {
            drop(&["nameserver"]);
            own.extend(self.servers.iter().map(|server| format!("nameserver {server}")));
        }
        if !self.search.is_empty() {
            drop(&["search", "domain"]);
            let domains: Vec<&str> =
                self.search.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
            own.extend((!domains.is_empty()).then(|| format!("search {}", domains.join(" "))));
        }
        if !self.options.is_empty() {
            drop(&["options"]);
            own.push(format!("options {}", self.options.join(" ")));
        }
        kept.extend(own);
        kept.into_iter().map(|line| line + "\n").collect()
    }
}

/// Containers cannot reach systemd-resolved. Its own file has the name servers that it uses.
fn behind(text: String) -> String {
    if servers(&text).next().is_some() && servers(&text).all(|server| server == "127.0.0.53") {
        return fs::read_to_string(Path::new("/run/systemd/resolve/resolv.conf")).unwrap_or(text);
    }
    text
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim)
}

/// Removes name servers on loopback addresses, because the container has another loopback interface.
fn reachable(host: &str, connected: bool) -> String {
    let local = |line: &&str| {
        let server = line.trim().strip_prefix("nameserver").map(str::trim).unwrap_or_default();
        let server = server.split('%').next().unwrap_or_default();
        server.parse::<IpAddr>().is_ok_and(|server| server.is_loopback())
    };
    let mut text: String = host.lines().filter(|line| !local(line)).flat_map(|line| [line, "\n"]).collect();
    if connected && servers(&text).next().is_none() {
        text += PUBLIC_SERVERS;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_replace_those_of_the_host() {
        let host = || "domain old\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:1\n".to_owned();
        let (servers, words) = (vec![[1, 1, 1, 1].into()], |words: &[&str]| {
            words.iter().map(|word| (*word).to_owned()).collect()
        });
        for (settings, expected) in [
            (Settings::default(), host()),
            (
                Settings { servers, ..Settings::default() },
                "domain old\noptions ndots:1\nnameserver 1.1.1.1\n".to_owned(),
            ),
            (
                Settings {
                    search: words(&["a", "b"]),
                    options: words(&["ndots:2", "rotate"]),
                    ..Settings::default()
                },
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a b\noptions ndots:2 rotate\n".to_owned(),
            ),
            (
                Settings { search: words(&["."]), ..Settings::default() },
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:1\n".to_owned(),
            ),
        ] {
            assert_eq!(settings.replace(host()), expected);
        }
    }

    #[test]
    fn name_servers_that_a_container_can_reach() {
        for (host, connected, expected) in [
            (
                "search a\nnameserver 10.0.0.1\nnameserver 127.0.0.1\n",
                true,
                "search a\nnameserver 10.0.0.1\n",
            ),
            (
                "nameserver ::1\noptions ndots:1",
                true,
                "options ndots:1\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n",
            ),
            ("nameserver 127.0.0.53\n", false, ""),
            ("nameserver fe80::1%eth0\n", true, "nameserver fe80::1%eth0\n"),
        ] {
            assert_eq!(reachable(host, connected), expected, "{host}");
        }
    }
}
