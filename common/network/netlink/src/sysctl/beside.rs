//! The variables that the kernel changes on every link when forwarding is switched on.

use std::fs;

use super::{Conf, SET, Sysctl, Variable, read_visible, unset};
use crate::{Connection, Error};

/// The first word of a line about a link that accepts router advertisements.
pub(super) const ADVERTISED: &str = "accept_ra";

/// The first word of a line about a link that had forwarding on already.
pub(super) const FORWARDING: &str = "forwarding";

/// The first word of a line about a link that accepts redirects.
pub(super) const REDIRECTS: &str = "accept_redirects";

/// The line that says an undo has begun.
pub(super) const UNDONE: &str = "undone";

/// The variables that the kernel overwrites when forwarding is switched on or off for all links
/// (ip-sysctl.rst, ip_forward, conf/all/forwarding, accept_redirects): the name, the value while
/// forwarding is on, and the value when it is off. A link that had the first value before gets it
/// back.
pub(super) const WRITTEN_OVER: [(&str, &str, &str); 2] = [(FORWARDING, SET, "0"), (REDIRECTS, "0", SET)];

impl Sysctl {
    /// The links here on which this overwritten variable has this value.
    pub(super) fn links_with(&self, variable: &'static str, value: &str) -> Result<Vec<String>, Error> {
        let links = || -> Result<_, Error> {
            let links = Connection::open(None)?.all()?.into_iter().filter(|link| !link.is_marked());
            Ok(links.map(|link| link.name))
        };
        let names: Vec<String> = match (&self.variable, variable) {
            (Variable::Ipv6Forward { .. }, ADVERTISED) => links()?.collect(),
            // `default` is for future links. Whether they accept router advertisements is not
            // changed.
            (Variable::Ipv6Forward { .. } | Variable::IpForward { .. }, FORWARDING) => {
                links()?.chain(["default".to_owned()]).collect()
            }
            (Variable::IpForward { .. }, REDIRECTS) => vec!["all".to_owned()],
            _ => Vec::new(),
        };
        let mut found = Vec::new();
        for name in names {
            if self.has(&name, variable, value)? {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// Whether this variable of the link has the value.
    fn has(&self, link: &str, variable: &'static str, value: &str) -> Result<bool, Error> {
        let conf = Conf::beside(&self.variable, link, variable);
        let found = if conf.is_plain() { read_visible(&conf.path(), &conf.name())? } else { None };
        Ok(found.as_deref() == Some(value))
    }

    /// Lets the links that accept router advertisements keep doing so while forwarding is on. With
    /// `back`, restores their old value. A host that forwards ignores advertisements, and would
    /// lose its own default route, unless accept_ra is 2 (ip-sysctl.rst, accept_ra).
    pub(super) fn keep_advertisements(&self, back: bool) -> Result<(), operation::Error> {
        let (before, after) = if back { ("2", SET) } else { (SET, "2") };
        self.set_links(&self.read_kept()?, ADVERTISED, before, after)
    }

    /// Changes the variable from `before` to `after` on each link that `kept` lists with it.
    pub(super) fn set_links(
        &self,
        kept: &str,
        variable: &'static str,
        before: &str,
        after: &str,
    ) -> Result<(), operation::Error> {
        for name in kept.lines().filter_map(|line| line.strip_prefix(variable)?.strip_prefix(' ')) {
            if self.has(name, variable, before)? {
                let conf = Conf::beside(&self.variable, name, variable);
                fs::write(conf.path(), after).map_err(unset(&conf.name()))?;
            }
        }
        Ok(())
    }

    /// The recorded lines, read before the value is put back, without what somebody changed in the
    /// meantime. Such a change is not ours to revert.
    pub(super) fn to_put_back(&self) -> Result<String, Error> {
        let mut text = String::new();
        for line in self.read_kept()?.lines().filter(|line| *line != UNDONE) {
            let mut is_changed = false;
            for (variable, meanwhile, _) in WRITTEN_OVER {
                if let Some(link) = line.strip_prefix(variable).and_then(|rest| rest.strip_prefix(' ')) {
                    is_changed = !self.has(link, variable, meanwhile)?;
                }
            }
            if !is_changed {
                text.push_str(&format!("{line}\n"));
            }
        }
        text.push_str(&format!("{UNDONE}\n"));
        Ok(text)
    }
}
