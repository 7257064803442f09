//! The network's sysctl variables.

mod beside;
mod conf;
mod forwarding;
mod ipv6;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use operation::{Condition, Scope, words};
use serde::{Deserialize, Serialize};

pub(crate) use conf::Conf;
pub(crate) use ipv6::{OFF, is_ipv6_off, switch_ipv6_off, switch_ipv6_on};
pub use ipv6::{new_links_have_ipv6, switch_ipv6_off_by};

use self::beside::{ADVERTISED, FORWARDING, REDIRECTS, UNDONE, WRITTEN_OVER};
use crate::{Connection, Error, Refusal, errno_of, guard};

/// A sysctl variable of the network. The list is closed, because undo must not write to an
/// arbitrary path from a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "variable", rename_all = "kebab-case")]
pub enum Variable {
    /// `net.ipv4.ip_forward`: forward IPv4 packets between interfaces.
    IpForward {
        /// The bridge of ours that needs it. When the variable is restored, the bridge is about to
        /// be removed.
        bridge: String,
    },
    /// `net.ipv6.conf.all.forwarding`: the same for IPv6. A host that takes its default route from
    /// router advertisements keeps doing so (`accept_ra` is set to 2 there).
    Ipv6Forward {
        /// The bridge of ours that needs it, as above.
        bridge: String,
    },
    /// `net.ipv4.conf.<link>.route_localnet`: route 127.0.0.0/8 over this interface, so that a port
    /// published on 127.0.0.1 reaches a container. It is only on together with a guard, because
    /// neighbours must not reach this host's loopback (CVE-2020-8558). On a bridge of ours each
    /// port has a guard ([`crate::LinkOperation::GuardLoopback`]). On another program's bridge the
    /// guard is set and removed with the variable.
    RouteLocalnet {
        /// The interface.
        link: String,
    },
    /// `net.ipv4.conf.<link>.forwarding`: forward IPv4 packets that arrive at this interface. Needed where the host
    /// forwards already, and has chosen that new interfaces do not (`conf.default.forwarding`).
    Forwarding {
        /// The interface.
        link: String,
    },
    /// `net.ipv6.conf.<link>.proxy_ndp`: on this interface, the host answers for the addresses of
    /// [`crate::LinkOperation::NdpProxy`].
    ProxyNdp {
        /// The interface.
        link: String,
    },
    /// `net.ipv4.conf.<link>.proxy_arp_pvlan`: the host answers for the addresses that are behind
    /// the same interface (RFC 3069). So containers that a bridge isolates send their packets for
    /// each other to the host, which decides.
    ProxyArp {
        /// The interface.
        link: String,
    },
    /// `net.ipv4.neigh.<link>.proxy_delay`: how long the host waits at most before it answers for
    /// another one. By default, it waits up to 0.8 s.
    ProxyDelay {
        /// The interface.
        link: String,
    },
    /// `net.ipv6.neigh.<link>.proxy_delay`: the same for IPv6.
    NdpDelay {
        /// The interface.
        link: String,
    },
}

/// Sets a variable, to 1 in most cases. The old value is saved in a file below `--run-dir`, so that the last
/// container can restore it, even if the first one, which changed it, is gone.
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

/// The name of the containers' claims on IPv6 forwarding.
pub const IPV6_CLAIMS: &str = forwarding::IPV6;

const SET: &str = "1";

/// The links' variables. Every kernel with a network has them. Where they are missing, no variable is visible: `/proc` is
/// mounted with `subset=pid` (proc(5)), as by systemd's `ProcSubset=pid`, or not at all.
const LINKS: &str = "/proc/sys/net/ipv4/conf";

impl Variable {
    /// The value. None if the kernel, or the link that has it, does not exist.
    fn read(&self) -> Result<Option<String>, Error> {
        let name = self.name();
        let value = read_visible(&self.path(), &name)?;
        if value.is_some() {
            return Ok(value);
        }
        let is_hidden = match self {
            Self::IpForward { .. } => true,
            Self::Ipv6Forward { .. } => {
                Path::new("/proc/sys/net/ipv6").try_exists().map_err(failed("read", &name))?
            }
            _ => false,
        };
        if is_hidden { Err(hidden("read", &name)) } else { Ok(None) }
    }

    /// The variable of one link, or of all. None for `ip_forward`, which has no link.
    fn conf(&self) -> Option<Conf<'_>> {
        Some(match self {
            Self::IpForward { .. } => return None,
            Self::Ipv6Forward { .. } => Conf::of_ipv6("all", "forwarding"),
            Self::RouteLocalnet { link } => Conf::route_localnet(link),
            Self::Forwarding { link } => Conf::forwarding(link),
            Self::ProxyNdp { link } => Conf::of_ipv6(link, "proxy_ndp"),
            Self::ProxyArp { link } => Conf::proxy_arp(link),
            Self::ProxyDelay { link } => Conf::proxy_delay(link),
            Self::NdpDelay { link } => Conf::ndp_delay(link),
        })
    }

    fn path(&self) -> PathBuf {
        self.conf().map_or_else(|| "/proc/sys/net/ipv4/ip_forward".into(), |conf| conf.path())
    }

    fn name(&self) -> String {
        self.conf().map_or_else(|| "net.ipv4.ip_forward".into(), |conf| conf.name())
    }

    /// The file with the old value.
    fn kept(&self, scope: &Scope) -> PathBuf {
        scope.run_dir.join("sysctl").join(self.name().replace('/', "%"))
    }

    /// The value that is set.
    fn value(&self) -> &'static str {
        match self {
            Self::ProxyDelay { .. } | Self::NdpDelay { .. } => "0",
            _ => SET,
        }
    }

    /// The value on a link that is about to be made.
    fn initial(&self) -> &'static str {
        match self {
            // linux/net/ipv4/arp.c, `arp_tbl`, and linux/net/ipv6/ndisc.c, `nd_tbl`, in hundredths of a second.
            Self::ProxyDelay { .. } | Self::NdpDelay { .. } => "80",
            _ => "0",
        }
    }

    fn is_plain(&self) -> bool {
        self.conf().is_none_or(|conf| conf.is_plain())
    }
}

/// Whether a link forwards IPv4 packets that arrive at it. For a link that is not there, whether a new one does.
pub fn forwards(link: &str) -> bool {
    let read = |link| std::fs::read_to_string(Conf::forwarding(link).path());
    read(link).or_else(|_| read("default")).is_ok_and(|value| value.trim() != "0")
}

fn tell_unguarded(name: &str) {
    operation::note(&format!(
        "{name} stays 0, so ports on 127.0.0.1 do not answer: the kernel has no classifiers by BPF \
         (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)"
    ));
}

/// Switches `route_localnet` of a bridge off because its port cannot be guarded.
pub(crate) fn close_localnet(bridge: &str) -> Result<(), Error> {
    let conf = Conf::route_localnet(bridge);
    let failed = |source| Error::new("set", conf.name(), source);
    if !conf.is_plain() {
        return Err(failed(Errno::EINVAL));
    }
    match fs::write(conf.path(), "0") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(errno_of(&error))),
        Err(_) if !are_visible().map_err(|error| failed(errno_of(&error)))? => {
            return Err(hidden("set", &conf.name()));
        }
        _ => tell_unguarded(&conf.name()),
    }
    Ok(())
}

fn are_visible() -> io::Result<bool> {
    Path::new(LINKS).try_exists()
}

/// The error that no variable is visible here.
fn hidden(verb: &'static str, name: &str) -> Error {
    let text = "/proc/sys is not visible here".to_owned();
    Error::new(verb, name, Refusal { errno: Errno::ENOENT, text: Some(text) })
}

/// The value of a variable. None if the kernel, or the link that has it, does not exist.
fn read_visible(path: &Path, name: &str) -> Result<Option<String>, Error> {
    let value = read(path).map_err(failed("read", name))?;
    if value.is_none() && !are_visible().map_err(failed("read", name))? {
        return Err(hidden("read", name));
    }
    Ok(value)
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

/// The error that a variable cannot be set.
fn unset(name: &str) -> impl FnOnce(io::Error) -> operation::Error {
    let name = name.to_owned();
    move |error| operation::Error::new("set", name, error).of(operation::Place::Sysctl)
}

/// The error that a saved value cannot be written or removed.
fn unkept(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> operation::Error {
    let path = format!("{path:?}");
    move |error| operation::Error::new(verb, path, error).of(operation::Place::RunDir)
}

impl Sysctl {
    /// Plans to set `variable`, and reads its current value. For a link that does not exist yet it is
    /// the kernel's initial value. A saved value is used instead while the network of ours that it was saved for
    /// exists.
    ///
    /// # Errors
    /// When the value cannot be read.
    pub fn plan(scope: &Scope, variable: Variable) -> Result<Self, Error> {
        let kept = variable.kept(scope);
        let is_claimed = match variable {
            Variable::Ipv6Forward { .. } | Variable::ProxyNdp { .. } | Variable::NdpDelay { .. } => {
                forwarding::is_claimed_for_ipv6(scope)?
            }
            _ => forwarding::is_claimed(scope, None)?,
        };
        let earlier = match is_claimed {
            true => read(&kept).map_err(failed("read", &kept.to_string_lossy()))?,
            false => None,
        };
        let earlier = earlier.and_then(|text| text.lines().next().map(str::to_owned));
        let previous = match earlier {
            Some(value) => value,
            None => variable.read()?.unwrap_or_else(|| variable.initial().into()),
        };
        Ok(Self { variable, previous, kept })
    }

    fn is_kept(&self) -> Result<bool, Error> {
        self.kept.try_exists().map_err(failed("look for", &self.kept.to_string_lossy()))
    }

    /// Saves the old value. For forwarding, also saves what was there that may need forwarding.
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
                operation::make_directories(parent, 0o777)?;
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
        // Remove the directory together with the last saved value.
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
        if self.variable.read()?.as_deref() == Some(self.variable.value()) {
            // The variable was set before, so nothing will be restored. A saved value belongs to a
            // network that is gone.
            return if self.previous == self.variable.value() { self.forget() } else { Ok(()) };
        }
        let kept_here = !self.is_kept()?;
        let made = match kept_here {
            true => self.keep(),
            false => Ok(()),
        };
        let made = made.and_then(|()| self.keep_advertisements(false));
        let made =
            made.and_then(|()| fs::write(self.variable.path(), self.variable.value()).map_err(unset(&name)));
        if made.is_err() && kept_here {
            // Nothing changed, so there is nothing to restore. The first error is the one to
            // report.
            let _ = self.forget();
        }
        made
    }

    fn read_kept(&self) -> Result<String, Error> {
        let kept = read(&self.kept).map_err(failed("read", &self.kept.to_string_lossy()))?;
        Ok(kept.unwrap_or_default())
    }

    /// The interface that needs a guard, and a connection for it: another program's bridge whose
    /// `route_localnet` was off before.
    fn guarded(&self) -> Result<Option<(Connection, u32)>, Error> {
        let Variable::RouteLocalnet { link } = &self.variable else { return Ok(None) };
        if self.previous == SET {
            return Ok(None);
        }
        let connection = Connection::open(None)?;
        let bridge = connection.link(link)?.filter(|found| !found.is_our_bridge());
        Ok(bridge.map(|bridge| (connection, bridge.index)))
    }

    /// Makes sure that the guard is there before the variable is set. False if the kernel has no
    /// BPF classifiers.
    fn guard(&self) -> Result<bool, Error> {
        self.guarded()?.map_or(Ok(true), |(connection, link)| guard::set(&connection, link))
    }

    /// Removes the guard after the variable was restored.
    fn unguard(&self) -> Result<(), Error> {
        self.guarded()?.map_or(Ok(()), |(connection, link)| guard::remove(&connection, link))
    }

    /// Restores the saved value and removes the file, when nobody needs the variable any more.
    fn put_back(&self, scope: &Scope) -> Result<(), operation::Error> {
        if !self.is_kept()? {
            // We did not change the variable; at most we were about to.
            self.unguard()?;
            return self.forget();
        }
        if let Variable::IpForward { bridge } | Variable::Ipv6Forward { bridge } = &self.variable {
            let v6 = self.is_of_ipv6();
            // Containers with IPv6 have a claim of their own.
            if !v6 && forwarding::is_claimed(scope, Some(bridge))? {
                return Ok(());
            }
            if self.variable.read()?.as_deref() == Some(SET)
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
        if self.variable.read()?.is_some_and(|value| value == self.variable.value()) {
            kept = self.to_put_back()?;
            // An interrupted undo continues from here. If the record cannot be written, the undo
            // runs without it.
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
        // Restore the overwritten variables only if this undo switched forwarding off. If somebody
        // else did, they stay as they are.
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
        if self.previous != self.variable.value() {
            lines.push(words(["mkdir", "-p", &directory]));
            let kept = operation::quote(&self.kept.to_string_lossy());
            lines.push(format!("{} > {kept}", words(["echo", &self.previous])));
        }
        // A bridge of ours that does not exist yet needs no guard.
        if let (Variable::RouteLocalnet { link }, Ok(Some(_))) = (&self.variable, self.guarded()) {
            lines.extend(guard::commands(link));
        }
        lines.push(words(["sysctl", "-w", &format!("{name}={}", self.variable.value())]));
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
        let wanted = self.variable.value();
        Ok(match self.variable.read()? {
            Some(value) if value == wanted => match self.guarded()? {
                Some((connection, link)) if !guard::stands(&connection, link)? => {
                    Condition::Missing(format!("the classifier that guards 127.0.0.0/8 where {name}={SET}"))
                }
                _ => Condition::Present,
            },
            Some(value) => Condition::Missing(format!("{name}={wanted} (it is {value})")),
            None => Condition::Missing(name),
        })
    }
}
