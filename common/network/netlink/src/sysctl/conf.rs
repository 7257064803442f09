//! Variables of one link.

use std::path::{Path, PathBuf};

use super::Variable;

/// A variable of one link: `net.<family>.<kind>.<link>.<variable>`.
pub(crate) struct Conf<'a> {
    family: &'static str,
    /// `conf` or `neigh`.
    kind: &'static str,
    link: &'a str,
    variable: &'static str,
}

impl<'a> Conf<'a> {
    pub(super) fn route_localnet(link: &'a str) -> Self {
        Self { family: "ipv4", kind: "conf", link, variable: "route_localnet" }
    }

    pub(super) fn forwarding(link: &'a str) -> Self {
        Self { family: "ipv4", kind: "conf", link, variable: "forwarding" }
    }

    pub(super) fn proxy_arp(link: &'a str) -> Self {
        Self { family: "ipv4", kind: "conf", link, variable: "proxy_arp_pvlan" }
    }

    pub(super) fn proxy_delay(link: &'a str) -> Self {
        Self { family: "ipv4", kind: "neigh", link, variable: "proxy_delay" }
    }

    pub(super) fn ndp_delay(link: &'a str) -> Self {
        Self { family: "ipv6", kind: "neigh", link, variable: "proxy_delay" }
    }

    pub(crate) fn disable_ipv6(link: &'a str) -> Self {
        Self::of_ipv6(link, "disable_ipv6")
    }

    pub(crate) fn of_ipv6(link: &'a str, variable: &'static str) -> Self {
        Self { family: "ipv6", kind: "conf", link, variable }
    }

    /// The variable of the same IP version as `of`.
    pub(super) fn beside(of: &Variable, link: &'a str, variable: &'static str) -> Self {
        let family = if matches!(of, Variable::Ipv6Forward { .. }) { "ipv6" } else { "ipv4" };
        Self { family, kind: "conf", link, variable }
    }

    pub(super) fn path(&self) -> PathBuf {
        let Self { family, kind, link, variable } = self;
        Path::new("/proc/sys/net").join(family).join(kind).join(link).join(variable)
    }

    /// The variable's name for `sysctl`, with slashes if the link's name contains dots.
    pub(crate) fn name(&self) -> String {
        let Self { family, kind, link, variable } = self;
        let separator = if link.contains('.') { "/" } else { "." };
        ["net", family, kind, link, variable].join(separator)
    }

    /// Whether the link's name is valid. It comes from a document and becomes part of a path.
    pub(super) fn is_plain(&self) -> bool {
        let link = self.link;
        !link.is_empty() && link.len() < 16 && !link.contains('/') && link != "." && link != ".."
    }
}
