//! Variables of the network.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd::write,
};
use operation::{Condition, Scope, words};
use serde::{Deserialize, Serialize};

use crate::{Connection, Error, Mac, errno_of};

/// A variable of the network that is set. Only these: an undo never writes to whatever path a document names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "variable", rename_all = "kebab-case")]
pub enum Variable {
    /// `net.ipv4.ip_forward`: packets pass from one interface to another.
    IpForward {
        /// Our own bridge for which it is set, and which is about to go when it is put back.
        bridge: String,
    },
    /// `net.ipv4.conf.<link>.route_localnet`: 127.0.0.0/8 may be routed by this interface, so that a port published on
    /// 127.0.0.1 reaches a container.
    RouteLocalnet {
        /// The interface.
        link: String,
    },
}

/// Sets a variable to 1. The value that it had is in a file below `--run-dir`, so that the last container puts it back
/// even though the first, which changed it, is gone by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "sysctl")]
pub struct Sysctl {
    /// What is set.
    #[serde(flatten)]
    pub variable: Variable,
    /// The value that it had before anything of ours changed it.
    pub previous: String,
    /// The file that keeps `previous`: `$STAVE_RUN/sysctl/<name>`.
    pub kept: PathBuf,
}

const SET: &str = "1";

impl Variable {
    fn path(&self) -> PathBuf {
        match self {
            Self::IpForward { .. } => "/proc/sys/net/ipv4/ip_forward".into(),
            Self::RouteLocalnet { link } => Conf::route_localnet(link).path(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::IpForward { .. } => "net.ipv4.ip_forward".into(),
            Self::RouteLocalnet { link } => Conf::route_localnet(link).name(),
        }
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::IpForward { .. } => true,
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
        Self { family: "ipv6", link, variable: "disable_ipv6" }
    }

    fn path(&self) -> PathBuf {
        let Self { family, link, variable } = self;
        Path::new("/proc/sys/net").join(family).join("conf").join(link).join(variable)
    }

    /// Its name, as `sysctl` takes it: with slashes where the name of a link has dots in it.
    pub(crate) fn name(&self) -> String {
        let Self { family, link, variable } = self;
        let separator = if link.contains('.') { "/" } else { "." };
        ["net", family, "conf", link, variable].join(separator)
    }

    /// Whether the link's name is one: it comes from a document, and becomes part of a path.
    fn is_plain(&self) -> bool {
        let link = self.link;
        !link.is_empty() && link.len() < 16 && !link.contains('/') && link != "." && link != ".."
    }
}

/// Switches IPv6 off on a link of this namespace.
pub(crate) fn switch_ipv6_off(link: &str) -> Result<(), Error> {
    let conf = Conf::disable_ipv6(link);
    let failed = |source| Error::new("set", conf.name(), source);
    if !conf.is_plain() {
        return Err(failed(Errno::EINVAL));
    }
    let proc = File::open("/proc").map_err(|source| failed(errno_of(&source)))?;
    switch_ipv6_off_by(proc, link).map_err(failed)
}

/// Switches IPv6 off on the interface of this name, or on all that are to come (`default`), by the proc file system `proc`: in
/// the network namespace of this thread. A kernel without IPv6 has nothing to switch off.
///
/// # Errors
/// When the kernel refuses it.
pub fn switch_ipv6_off_by(proc: impl AsFd, interface: &str) -> Result<(), Errno> {
    let path = format!("sys/net/ipv6/conf/{interface}/disable_ipv6");
    match openat(proc, path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::ENOENT) => Ok(()),
        file => write(file?, b"1").map(drop),
    }
}

/// Whether IPv6 is off on a link of this namespace.
pub(crate) fn is_ipv6_off(link: &str) -> Result<bool, Error> {
    let conf = Conf::disable_ipv6(link);
    let value = read(&conf.path()).map_err(failed("read", &conf.name()))?;
    Ok(value.is_none_or(|value| value == SET))
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

impl Sysctl {
    /// Plans to set `variable`: looks up the value that it had. A link that does not exist yet has 0.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn plan(scope: &Scope, variable: Variable) -> Result<Self, Error> {
        let kept = scope.run_dir.join("sysctl").join(variable.name().replace('/', "%"));
        let name = variable.name();
        let earlier = read(&kept).map_err(failed("read", &kept.to_string_lossy()))?;
        let previous = match earlier {
            Some(value) => value,
            None => read(&variable.path()).map_err(failed("read", &name))?.unwrap_or_else(|| "0".into()),
        };
        Ok(Self { variable, previous, kept })
    }

    fn read(&self) -> Result<Option<String>, Error> {
        read(&self.variable.path()).map_err(failed("read", &self.variable.name()))
    }

    /// Why the previous value cannot be kept, or forgotten.
    fn unkept(&self, verb: &'static str) -> impl FnOnce(io::Error) -> operation::Error {
        let kept = format!("{:?}", self.kept);
        move |error| operation::Error::new(verb, kept, error).of(operation::Place::RunDir)
    }

    /// Keeps the previous value, unless an earlier container did.
    fn keep(&self) -> io::Result<()> {
        if let Some(parent) = self.kept.parent() {
            fs::create_dir_all(parent)?;
        }
        let beside = self.kept.with_added_extension("new");
        fs::write(&beside, format!("{}\n", self.previous))?;
        fs::rename(&beside, &self.kept)
    }

    fn forget(&self) -> io::Result<()> {
        for path in [&self.kept.with_added_extension("new"), &self.kept] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // The last one takes the directory along.
        if let Some(parent) = self.kept.parent() {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    fn validate(&self, scope: &Scope) -> Result<(), operation::Error> {
        scope.contain(&self.kept)?;
        let digits = !self.previous.is_empty() && self.previous.bytes().all(|byte| byte.is_ascii_digit());
        if self.variable.is_plain() && digits {
            return Ok(());
        }
        Err(Error::new("set", self.variable.name(), Errno::EINVAL).into())
    }
}

/// Whether somebody may rely on packets being forwarded when our own bridge of this name goes: whoever has another bridge,
/// or a port on this one. In doubt it stays.
fn is_needed_beside(bridge: &str) -> Result<bool, Error> {
    let connection = Connection::open(None)?;
    let own = Some(Mac::derive("", bridge));
    for other in connection.bridges()? {
        if other.name != bridge || other.mac != own || !connection.ports(other.index)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
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
        lines.push(words(["sysctl", "-w", &format!("{name}={SET}")]));
        lines
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), operation::Error> {
        self.validate(scope)?;
        let name = self.variable.name();
        if self.read()?.as_deref() == Some(SET) {
            return Ok(());
        }
        if !self.kept.exists() {
            self.keep().map_err(self.unkept("write"))?;
        }
        fs::write(self.variable.path(), SET).map_err(unset(&name))
    }

    fn undo(&self, scope: &Scope) -> Result<(), operation::Error> {
        self.validate(scope)?;
        let name = self.variable.name();
        if !self.kept.exists() {
            // Nothing of ours changed it; at most it was about to.
            return self.forget().map_err(self.unkept("remove"));
        }
        if let Variable::IpForward { bridge } = &self.variable
            && is_needed_beside(bridge)?
        {
            return Ok(());
        }
        if self.read()?.is_some_and(|value| value == SET) {
            match fs::write(self.variable.path(), &self.previous) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unset(&name)(error));
                }
                _ => {}
            }
        }
        self.forget().map_err(self.unkept("remove"))
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        let name = self.variable.name();
        Ok(match self.read()? {
            Some(value) if value == SET => Condition::Present,
            Some(value) => Condition::Missing(format!("{name}={SET} (it is {value})")),
            None => Condition::Missing(name),
        })
    }
}
