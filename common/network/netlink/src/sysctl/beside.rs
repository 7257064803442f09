//! What the kernel sets along with forwarding, on every link.

use std::fs;

use super::{Conf, SET, Sysctl, Variable, failed, read, unset};
use crate::{Connection, Error};

/// What begins a line about a link that takes router advertisements.
pub(super) const ADVERTISED: &str = "accept_ra";

/// What begins a line about a link that forwards by itself.
pub(super) const FORWARDING: &str = "forwarding";

/// What begins a line about a host that takes no redirects.
pub(super) const REDIRECTS: &str = "accept_redirects";

/// What begins the line of an undo that is under way.
pub(super) const UNDONE: &str = "undone";

/// What the kernel writes over when forwarding is switched on or off for all (ip-sysctl.rst, ip_forward, conf/all/forwarding,
/// accept_redirects): the variable, its value while packets are forwarded, and when they no longer are. Where it had the first value
/// before as well, that is put back.
pub(super) const WRITTEN_OVER: [(&str, &str, &str); 2] = [(FORWARDING, SET, "0"), (REDIRECTS, "0", SET)];

impl Sysctl {
    /// The links here that have this value of a variable which is written over when packets are forwarded.
    pub(super) fn links_with(&self, variable: &'static str, value: &str) -> Result<Vec<String>, Error> {
        let links = || -> Result<_, Error> {
            let links = Connection::open(None)?.all()?.into_iter().filter(|link| !link.is_marked());
            Ok(links.map(|link| link.name))
        };
        let names: Vec<String> = match (&self.variable, variable) {
            (Variable::Ipv6Forward { .. }, ADVERTISED) => links()?.collect(),
            // `default` is for the links to come. What they take of routers is not changed.
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

    /// Whether this link's variable has the value.
    fn has(&self, link: &str, variable: &'static str, value: &str) -> Result<bool, Error> {
        let conf = Conf::beside(&self.variable, link, variable);
        let found = if conf.is_plain() { read(&conf.path()) } else { Ok(None) };
        Ok(found.map_err(failed("read", &conf.name()))?.as_deref() == Some(value))
    }

    /// Lets the links that take router advertisements go on to do so while packets are forwarded; or as before (`back`). A host
    /// that forwards takes none, and would lose its own default route, unless that is asked for with 2 (ip-sysctl.rst, accept_ra).
    pub(super) fn keep_advertisements(&self, back: bool) -> Result<(), operation::Error> {
        let (before, after) = if back { ("2", SET) } else { (SET, "2") };
        self.set_links(&self.read_kept()?, ADVERTISED, before, after)
    }

    /// Where a link that was noted (`kept`) with this variable has the value `before`, it gets `after`.
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

    /// What was noted, before the value is put back, without what somebody changed meanwhile: that is no longer ours to put back.
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
