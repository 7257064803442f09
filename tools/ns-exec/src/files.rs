//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container, with the same content as with Docker.

use std::{fmt::Write, net::IpAddr, path::PathBuf};

use document::members::HostEntry;
use runtime::resolv_conf::Settings;
use serde_json::Value;

/// A file in the container's `/etc`.
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) content: Content,
}

/// The content of the file.
pub(crate) enum Content {
    /// This text.
    Own(String),
    /// The file of another container.
    Shared(PathBuf),
}

/// The names of the files.
pub(crate) const NAMES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

fn own(name: &'static str, content: String) -> File {
    File { name, content: Content::Own(content) }
}

/// The files of a container in the host's network: copies of the host's files, with the names of links, the
/// entries `added`, and these `settings`.
pub(crate) fn of_host(
    hostname: &str,
    entries: &[HostEntry],
    added: Vec<(IpAddr, String)>,
    settings: &Settings,
) -> Vec<File> {
    let hosts = runtime::hosts::of_host(names(entries).chain(added));
    let resolv = settings.replace(runtime::resolv_conf::of_host());
    vec![own("hosts", hosts), own("hostname", format!("{hostname}\n")), own("resolv.conf", resolv)]
}

/// The files of a container with its own network. `addresses` are the container's; empty if it has only `lo`.
pub(crate) fn of_own(
    hostname: &str,
    addresses: &[IpAddr],
    entries: &[HostEntry],
    added: Vec<(IpAddr, String)>,
    dns: Option<&Value>,
    settings: &Settings,
) -> Vec<File> {
    let addressed = addresses.iter().map(|address| (*address, hostname.to_owned()));
    let hosts = runtime::hosts::of_own(addressed.chain(names(entries)).chain(added));
    let resolv =
        dns.and_then(of_result).unwrap_or_else(|| runtime::resolv_conf::of_own(!addresses.is_empty()));
    let resolv = settings.replace(resolv);
    vec![own("hosts", hosts), own("hostname", format!("{hostname}\n")), own("resolv.conf", resolv)]
}

fn names(entries: &[HostEntry]) -> impl Iterator<Item = (IpAddr, String)> {
    entries.iter().map(|entry| (entry.ip, entry.names.join(" ")))
}

/// CNI SPEC.md, "ADD Success": `dns`, if an earlier tool has set it.
fn of_result(dns: &Value) -> Option<String> {
    let words = |name: &str| -> Vec<&str> {
        dns[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let servers = words("nameservers");
    if servers.is_empty() {
        return None;
    }
    let mut text = String::new();
    for (key, list) in [("search", words("search")), ("options", words("options"))] {
        if !list.is_empty() {
            let _ = writeln!(text, "{key} {}", list.join(" "));
        }
    }
    servers.iter().for_each(|server| text += &format!("nameserver {server}\n"));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_a_result() {
        let dns = serde_json::json!({"nameservers": ["10.0.0.2"], "search": ["a", "b"]});
        assert_eq!(of_result(&dns).as_deref(), Some("search a b\nnameserver 10.0.0.2\n"));
        assert_eq!(of_result(&serde_json::json!({})), None);
    }

    #[test]
    fn hosts_as_docker_writes_them() {
        let link =
            HostEntry { ip: "172.17.0.3".parse().unwrap(), names: vec!["db".into(), "database".into()] };
        let added = vec![("10.0.0.1".parse().unwrap(), "cache".to_owned())];
        let address = ["172.17.0.2".parse().unwrap()];
        let files = of_own("web", &address, &[link], added, None, &Settings::default());
        let Content::Own(hosts) = &files[0].content else { panic!("not its own") };
        assert!(hosts.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost "), "{hosts}");
        assert!(hosts.ends_with("\n172.17.0.2\tweb\n172.17.0.3\tdb database\n10.0.0.1\tcache\n"), "{hosts}");
    }
}
