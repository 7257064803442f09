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

/// The names of the container's own addresses, as with Docker: the full name, then its first part.
fn own_names(hostname: &str, domainname: Option<&str>) -> String {
    let domain = domainname.filter(|domain| !domain.is_empty());
    let full = domain.map_or_else(|| hostname.to_owned(), |domain| format!("{hostname}.{domain}"));
    match full.split_once('.') {
        Some((first, _)) if !first.is_empty() => format!("{full} {first}"),
        _ => full,
    }
}

/// The files of a container with its own network. `addresses` are the container's; empty if it has only `lo`.
pub(crate) fn of_own(
    (hostname, domainname): (&str, Option<&str>),
    addresses: &[IpAddr],
    entries: &[HostEntry],
    added: Vec<(IpAddr, String)>,
    dns: Option<&Value>,
    settings: &Settings,
) -> Vec<File> {
    let names_of_own = own_names(hostname, domainname);
    let addressed = addresses.iter().map(|address| (*address, names_of_own.clone()));
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
    fn the_full_name_comes_first() {
        for (hostname, domainname, names) in [
            ("web", None, "web"),
            ("web", Some(""), "web"),
            ("web", Some("example.org"), "web.example.org web"),
            ("web.example.org", None, "web.example.org web"),
            (".x", None, ".x"),
        ] {
            assert_eq!(own_names(hostname, domainname), names);
        }
    }

    #[test]
    fn hosts_as_docker_writes_them() {
        let link =
            HostEntry { ip: "172.17.0.3".parse().unwrap(), names: vec!["db".into(), "database".into()] };
        let added = vec![("10.0.0.1".parse().unwrap(), "cache".to_owned())];
        let address = ["172.17.0.2".parse().unwrap()];
        let files = of_own(("web", None), &address, &[link], added, None, &Settings::default());
        let Content::Own(hosts) = &files[0].content else { panic!("not its own") };
        assert!(hosts.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost "), "{hosts}");
        assert!(hosts.ends_with("\n172.17.0.2\tweb\n172.17.0.3\tdb database\n10.0.0.1\tcache\n"), "{hosts}");
    }
}
