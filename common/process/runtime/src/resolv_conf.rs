//! The text of a container's `/etc/resolv.conf`, as Docker writes it.

use std::{fs, net::IpAddr, path::Path};

/// Docker's servers for a host without a name server that a container could reach.
const PUBLIC_SERVERS: &str = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";

/// For the host's network: the host's own file.
pub fn of_host() -> String {
    fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

/// For a network of its own, `connected` to others or not: the host's servers, except for those on its loopback interface.
pub fn of_own(connected: bool) -> String {
    reachable(&behind(of_host()), connected)
}

/// Containers cannot reach systemd-resolved; its own file has the servers that it uses.
fn behind(text: String) -> String {
    if servers(&text).next().is_some() && servers(&text).all(|server| server == "127.0.0.53") {
        return fs::read_to_string(Path::new("/run/systemd/resolve/resolv.conf")).unwrap_or(text);
    }
    text
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim)
}

/// Without name servers on the host's loopback interface, because the container has another one.
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
