//! Variables of the network.

mod beside;
mod forwarding;
mod ipv6;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use operation::{Condition, Scope, words};
use serde::{Deserialize, Serialize};

pub use ipv6::switch_ipv6_off_by;
pub(crate) use ipv6::{is_ipv6_off, switch_ipv6_off, switch_ipv6_on};

use self::beside::{ADVERTISED, FORWARDING, REDIRECTS, UNDONE, WRITTEN_OVER};
use crate::{Connection, Error, errno_of, guard};

/// A variable of the network. Only these: undo must not write to an arbitrary path from a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "variable", rename_all = "kebab-case")]
pub enum Variable {
    /// `net.ipv4.ip_forward`: packets pass from one interface to another.
    IpForward {
        /// Our own bridge, for which it is set. When the variable is restored, the bridge is about to be removed.
        bridge: String,
    },
    /// `net.ipv6.conf.all.forwarding`: the same for IPv6. A host that takes its own default route from router advertisements goes on
    /// to do so (`accept_ra` is 2 there then).
    Ipv6Forward {
        /// Our own bridge, as above.
        bridge: String,
    },
    /// `net.ipv4.conf.<link>.route_localnet`: 127.0.0.0/8 may be routed by this interface, so that a port published on
    /// 127.0.0.1 reaches a container. It is on behind a guard only: neighbours must not reach this host's loopback
    /// (CVE-2020-8558). On a bridge of ours each port has one ([`crate::LinkOperation::GuardLoopback`]); on one of others it
    /// comes and goes with the variable.
    RouteLocalnet {
        /// The interface.
        link: String,
    },
}

/// Sets a variable to 1. Its earlier value is kept in a file below `--run-dir`, so that the last container can restore
/// it, even if the first one, which changed it, is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "sysctl")]
pub struct Sysctl {
    /// The variable.
    #[serde(flatten)]
    pub variable: Variable,
    /// Its value before we changed it.
    pub previous: String,
    /// The file with `previous`: `$STAVE_RUN/sysctl/<name>`.
    pub kept: PathBuf,
}

/// The name of the claims of containers on forwarding of IPv6.
pub const IPV6_CLAIMS: &str = forwarding::IPV6;

const SET: &str = "1";

impl Variable {
    fn path(&self) -> PathBuf {
        match self {
            Self::IpForward { .. } => "/proc/sys/net/ipv4/ip_forward".into(),
            Self::Ipv6Forward { .. } => "/proc/sys/net/ipv6/conf/all/forwarding".into(),
            Self::RouteLocalnet { link } => Conf::route_localnet(link).path(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::IpForward { .. } => "net.ipv4.ip_forward".into(),
            Self::Ipv6Forward { .. } => "net.ipv6.conf.all.forwarding".into(),
            Self::RouteLocalnet { link } => Conf::route_localnet(link).name(),
        }
    }

    /// The file for its earlier value.
    fn kept(&self, scope: &Scope) -> PathBuf {
        scope.run_dir.join("sysctl").join(self.name().replace('/', "%"))
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::IpForward { .. } | Self::Ipv6Forward { .. } => true,
            Self::RouteLocalnet { link } => Conf::route_localnet(link).is_plain(),
        }
    }
}

/// A variable of one link: `net.<family>.conf.<link>.<variable>`.
pub(crate) struct Conf<'a> {
    family: &'static str,
    link: &'a str,
    variable: &'static str,
}

impl<'a> Conf<'a> {
    fn route_localnet(link: &'a str) -> Self {
        Self { family: "ipv4", link, variable: "route_localnet" }
    }

    pub(crate) fn disable_ipv6(link: &'a str) -> Self {
        Self::of_ipv6(link, "disable_ipv6")
    }

    pub(crate) fn of_ipv6(link: &'a str, variable: &'static str) -> Self {
        Self { family: "ipv6", link, variable }
    }

    /// That of the version of IP that this variable is about.
    fn beside(of: &Variable, link: &'a str, variable: &'static str) -> Self {
        let family = if matches!(of, Variable::Ipv6Forward { .. }) { "ipv6" } else { "ipv4" };
        Self { family, link, variable }
    }

    fn path(&self) -> PathBuf {
        let Self { family, link, variable } = self;
        Path::new("/proc/sys/net").join(family).join("conf").join(link).join(variable)
    }

    /// Its name for `sysctl`: with slashes if the name of a link contains dots.
    pub(crate) fn name(&self) -> String {
        let Self { family, link, variable } = self;
        let separator = if link.contains('.') { "/" } else { "." };
        ["net", family, "conf", link, variable].join(separator)
    }

    /// Whether the link's name is valid: it comes from a document, and becomes part of a path.
    fn is_plain(&self) -> bool {
        let link = self.link;
        !link.is_empty() && link.len() < 16 && !link.contains('/') && link != "." && link != ".."
    }
}

fn tell_unguarded(name: &str) {
    operation::note(&format!(
        "{name} stays 0, so ports on 127.0.0.1 do not answer: the kernel has no classifiers by BPF \
         (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)"
    ));
}

/// Switches `route_localnet` of this bridge off, whose port cannot be guarded.
pub(crate) fn close_localnet(bridge: &str) -> Result<(), Error> {
    let conf = Conf::route_localnet(bridge);
    let failed = |source| Error::new("set", conf.name(), source);
    if !conf.is_plain() {
        return Err(failed(Errno::EINVAL));
    }
    match fs::write(conf.path(), "0") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(errno_of(&error))),
        _ => tell_unguarded(&conf.name()),
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn failed(verb: &'static str, object: &str) -> impl Fn(io::Error) -> Error {
    move |source| Error::new(verb, object, errno_of(&source))
}

/// Why a variable cannot be set.
fn unset(name: &str) -> impl FnOnce(io::Error) -> operation::Error {
    let name = name.to_owned();
    move |error| operation::Error::new("set", name, error).of(operation::Place::Sysctl)
}

/// Why a kept value cannot be written or removed.
fn unkept(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> operation::Error {
    let path = format!("{path:?}");
    move |error| operation::Error::new(verb, path, error).of(operation::Place::RunDir)
}

impl Sysctl {
    /// Plans to set `variable`: looks up the value that it had. A link that does not exist yet has 0. A value that was kept
    /// counts for as long as a network of ours stands for which it was.
    ///
    /// # Errors
    /// When the value cannot be read.
    pub fn plan(scope: &Scope, variable: Variable) -> Result<Self, Error> {
        let kept = variable.kept(scope);
        let name = variable.name();
        let is_claimed = match variable {
            Variable::Ipv6Forward { .. } => forwarding::is_claimed_for_ipv6(scope)?,
            _ => forwarding::is_claimed(scope, None)?,
        };
        let earlier = match is_claimed {
            true => read(&kept).map_err(failed("read", &kept.to_string_lossy()))?,
            false => None,
        };
        let earlier = earlier.and_then(|text| text.lines().next().map(str::to_owned));
        let previous = match earlier {
            Some(value) => value,
            None => read(&variable.path()).map_err(failed("read", &name))?.unwrap_or_else(|| "0".into()),
        };
        Ok(Self { variable, previous, kept })
    }

    fn read(&self) -> Result<Option<String>, Error> {
        read(&self.variable.path()).map_err(failed("read", &self.variable.name()))
    }

    fn is_kept(&self) -> Result<bool, Error> {
        self.kept.try_exists().map_err(failed("look for", &self.kept.to_string_lossy()))
    }

    /// Keeps the previous value; for forwarding also what there was then that packets may be forwarded for.
    fn keep(&self) -> Result<(), operation::Error> {
        let mut text = format!("{}\n", self.previous);
        if matches!(self.variable, Variable::IpForward { .. } | Variable::Ipv6Forward { .. }) {
            forwarding::Seen::now(self.is_of_ipv6())?.write(&mut text);
        }
        for (variable, value) in [(ADVERTISED, SET), (FORWARDING, SET), (REDIRECTS, "0")] {
            for name in self.links_with(variable, value)? {
                text.push_str(&format!("{variable} {name}\n"));
            }
        }
        self.write_kept(&text)
    }

    fn is_of_ipv6(&self) -> bool {
        matches!(self.variable, Variable::Ipv6Forward { .. })
    }

    fn write_kept(&self, text: &str) -> Result<(), operation::Error> {
        let write = || -> io::Result<()> {
            if let Some(parent) = self.kept.parent() {
                fs::create_dir_all(parent)?;
            }
            let beside = self.kept.with_added_extension("new");
            fs::write(&beside, text)?;
            fs::rename(&beside, &self.kept)
        };
        write().map_err(unkept("write", &self.kept))
    }

    fn forget(&self) -> Result<(), operation::Error> {
        for path in [&self.kept.with_added_extension("new"), &self.kept] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unkept("remove", path)(error));
                }
                _ => {}
            }
        }
        // The last one removes the directory as well.
        if let Some(parent) = self.kept.parent() {
            operation::remove_if_empty(parent).map_err(unkept("remove", parent))?;
        }
        Ok(())
    }

    fn set(&self) -> Result<(), operation::Error> {
        let name = self.variable.name();
        if !self.guard()? {
            tell_unguarded(&name);
            return Ok(());
        }
        if self.read()?.as_deref() == Some(SET) {
            // It was so before: nothing will be put back. What is kept all the same is of a network that is gone.
            return if self.previous == SET { self.forget() } else { Ok(()) };
        }
        let kept_here = !self.is_kept()?;
        let made = match kept_here {
            true => self.keep(),
            false => Ok(()),
        };
        let made = made.and_then(|()| self.keep_advertisements(false));
        let made = made.and_then(|()| fs::write(self.variable.path(), SET).map_err(unset(&name)));
        if made.is_err() && kept_here {
            // Nothing changed, so nothing is to be put back. The error that counts is the first.
            let _ = self.forget();
        }
        made
    }

    fn read_kept(&self) -> Result<String, Error> {
        let kept = read(&self.kept).map_err(failed("read", &self.kept.to_string_lossy()))?;
        Ok(kept.unwrap_or_default())
    }

    /// The interface that needs a guard, and a connection to ask for it: a bridge of others with `route_localnet`, unless that
    /// was on before us.
    fn guarded(&self) -> Result<Option<(Connection, u32)>, Error> {
        let Variable::RouteLocalnet { link } = &self.variable else { return Ok(None) };
        if self.previous == SET {
            return Ok(None);
        }
        let connection = Connection::open(None)?;
        let bridge = connection.link(link)?.filter(|found| !found.is_our_bridge());
        Ok(bridge.map(|bridge| (connection, bridge.index)))
    }

    /// Makes sure of the guard before the variable is set. False where the kernel has none.
    fn guard(&self) -> Result<bool, Error> {
        self.guarded()?.map_or(Ok(true), |(connection, link)| guard::set(&connection, link))
    }

    /// Removes the guard after the variable was put back.
    fn unguard(&self) -> Result<(), Error> {
        self.guarded()?.map_or(Ok(()), |(connection, link)| guard::remove(&connection, link))
    }

    /// Puts the value back that was kept, and forgets it: it goes with the last that needed it.
    fn put_back(&self, scope: &Scope) -> Result<(), operation::Error> {
        if !self.is_kept()? {
            // We did not change it; at most we were about to.
            self.unguard()?;
            return self.forget();
        }
        if let Variable::IpForward { bridge } | Variable::Ipv6Forward { bridge } = &self.variable {
            let v6 = self.is_of_ipv6();
            // Who needs it for IPv6 has a claim of its own.
            if !v6 && forwarding::is_claimed(scope, Some(bridge))? {
                return Ok(());
            }
            if self.read()?.as_deref() == Some(SET)
                && self.previous != SET
                && let Some(needed) = forwarding::needed_by(bridge, v6, &self.read_kept()?)?
            {
                self.forget()?;
                if let forwarding::Needed::Since(what) = needed {
                    operation::note(&format!("{} stays 1: {what} may need it", self.variable.name()));
                }
                return Ok(());
            }
        }
        let mut kept = self.read_kept()?;
        if self.read()?.is_some_and(|value| value == SET) {
            kept = self.to_put_back()?;
            // One that is interrupted goes on from here. Without room for that, it is done at one go.
            let _ = self.write_kept(&kept);
            match fs::write(self.variable.path(), &self.previous) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unset(&self.variable.name())(error));
                }
                _ => {}
            }
        }
        self.unguard()?;
        self.keep_advertisements(true)?;
        // Where somebody else switched it off meanwhile, it is off.
        if kept.lines().any(|line| line == UNDONE) {
            for (variable, before, after) in WRITTEN_OVER {
                self.set_links(&kept, variable, after, before)?;
            }
        }
        self.forget()
    }

    fn validate(&self, scope: &Scope) -> Result<(), operation::Error> {
        let digits = !self.previous.is_empty() && self.previous.bytes().all(|byte| byte.is_ascii_digit());
        if self.variable.is_plain() && digits && self.kept == self.variable.kept(scope) {
            return Ok(());
        }
        Err(Error::new("set", self.variable.name(), Errno::EINVAL).into())
    }
}

impl operation::Operation for Sysctl {
    fn explain(&self) -> Vec<String> {
        let name = self.variable.name();
        let directory = self.kept.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        let mut lines = Vec::new();
        if self.previous != SET {
            lines.push(words(["mkdir", "-p", &directory]));
            let kept = operation::quote(&self.kept.to_string_lossy());
            lines.push(format!("{} > {kept}", words(["echo", &self.previous])));
        }
        // A bridge of ours that is not there yet needs none.
        if let (Variable::RouteLocalnet { link }, Ok(Some(_))) = (&self.variable, self.guarded()) {
            lines.extend(guard::commands(link));
        }
        lines.push(words(["sysctl", "-w", &format!("{name}={SET}")]));
        lines
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), operation::Error> {
        self.validate(scope)?;
        self.set()
    }

    fn undo(&self, scope: &Scope) -> Result<(), operation::Error> {
        self.validate(scope)?;
        self.put_back(scope)
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        let name = self.variable.name();
        Ok(match self.read()? {
            Some(value) if value == SET => match self.guarded()? {
                Some((connection, link)) if !guard::stands(&connection, link)? => {
                    Condition::Missing(format!("the classifier that guards 127.0.0.0/8 where {name}={SET}"))
                }
                _ => Condition::Present,
            },
            Some(value) => Condition::Missing(format!("{name}={SET} (it is {value})")),
            None => Condition::Missing(name),
        })
    }
}
