//! Runs the process of a RUN: in its own namespaces, on the image's file system, with Docker's capabilities.
//! The process is the first in its pid namespace, so everything it starts ends with it. It ends with the
//! build.

use std::{
    fs::{self, File},
    io::Write,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use oci::spec::Config;
use oci_spec::runtime::{Mount, Spec};
use runtime::{
    Isolated,
    spec::{Overrides, SharedMemory, Volume},
};

use super::{Network as NetworkKind, Surroundings};
use crate::{
    config::{Config as Own, DEFAULT_PATH},
    error::Cause,
    network::Own as Network,
    progress::{Form, Progress},
};

/// A mount besides the standard ones.
#[derive(Debug)]
pub(super) struct Bind {
    /// The mount point, relative to the image's root.
    pub(super) target: PathBuf,
    /// A path on the host. `None` for a tmpfs.
    pub(super) source: Option<PathBuf>,
    /// The options, in the form of `mount -o`.
    pub(super) options: Vec<String>,
    /// The files of the mount that outlive the build, if there are any.
    pub(super) lasting: Option<Lasting>,
}

/// The files of a mount, at a path on the host that outlives the build.
#[derive(Debug)]
pub(super) struct Lasting {
    pub(super) path: PathBuf,
    /// Whether the files may only be read there.
    pub(super) readonly: bool,
}

/// The network of a command.
#[derive(Debug)]
pub(super) enum RunsIn<'a> {
    /// A network without links.
    Isolated(Isolated),
    /// The network of the build.
    Own(&'a Network),
    /// The host's network.
    Host,
}

impl RunsIn<'_> {
    pub(super) fn kind(&self) -> NetworkKind {
        match self {
            Self::Isolated(_) => NetworkKind::None,
            Self::Own(_) => NetworkKind::Own,
            Self::Host => NetworkKind::Host,
        }
    }

    /// Whether the command tried to use a network that it did not have.
    pub(super) fn was_too_small(&self) -> bool {
        matches!(self, Self::Isolated(isolated) if isolated.was_too_small())
    }
}

/// A command to run.
#[derive(Debug)]
pub(super) struct Command<'a> {
    pub(super) words: &'a [String],
    pub(super) config: &'a Own,
    /// Variables in addition to those of the image.
    pub(super) environment: Vec<(String, String)>,
    pub(super) rootfs: &'a Path,
    /// The host name that the command sees.
    pub(super) hostname: &'a str,
    pub(super) network: RunsIn<'a>,
    pub(super) surroundings: &'a Surroundings,
    pub(super) binds: Vec<Bind>,
    /// Where to show the output.
    pub(super) progress: &'a Progress,
    /// A directory for files of the command.
    pub(super) files: PathBuf,
}

/// The usual host name of commands. It is the same on every machine.
pub(super) const HOSTNAME: &str = "stave-build";

impl Command<'_> {
    /// The specification of the process. `group` is the step's own cgroup, if it has one.
    pub(super) fn spec(&self, group: Option<&cgroup::Temporary>) -> Result<Spec, Cause> {
        let mut env: Vec<String> =
            self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if self.config.variable("PATH").is_none() && !env.iter().any(|pair| pair.starts_with("PATH=")) {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        let config: Config = serde_json::from_value(serde_json::to_value(self.config)?)?;
        let overrides = Overrides {
            rootfs: self.rootfs.to_owned(),
            entrypoint: Some(Vec::new()),
            args: self.words.to_vec(),
            env,
            network: match &self.network {
                RunsIn::Isolated(isolated) => runtime::spec::Network::Own(isolated.path()),
                RunsIn::Own(own) => runtime::spec::Network::Own(own.path.clone()),
                RunsIn::Host => runtime::spec::Network::Host,
            },
            hostname: Some(self.hostname.to_owned()),
            // So commands that write their environment to a file (configure, env) write the same on every
            // machine.
            without_hostname_variable: true,
            volumes: self.volumes()?,
            ends_with_parent: true,
            rlimits: self.surroundings.limits.clone(),
            shared_memory: self
                .surroundings
                .shared_memory
                .map_or_else(SharedMemory::default, SharedMemory::Sized),
            cgroup: group.map(|group| group.path().to_owned()),
            // Commands that make file systems (debootstrap) test whether device nodes work, and need `/dev/null`.
            // The cgroup allows Docker's devices only. Without one, no node opens a device.
            opens_devices: group.is_some() && userns::is_first().map_err(runtime::Error::from)?,
            ..Overrides::default()
        };
        let mut spec = runtime::spec::from_image(Some(&config), &overrides)?;
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        for bind in &self.binds {
            let mut mount = Mount::default();
            mount.set_destination(Path::new("/").join(&bind.target));
            mount.set_typ(Some(if bind.source.is_some() { "bind" } else { "tmpfs" }.to_owned()));
            mount.set_source(bind.source.clone().or_else(|| Some("tmpfs".into())));
            mount.set_options(Some(bind.options.clone()));
            mounts.push(mount);
        }
        spec.set_mounts(Some(mounts));
        Ok(spec)
    }

    /// Makes `/etc/resolv.conf` and `/etc/hosts` as copies, so that what a command writes there has no
    /// effect.
    fn volumes(&self) -> Result<Vec<Volume>, Cause> {
        let gateway = match &self.network {
            RunsIn::Own(own) => own.gateway,
            RunsIn::Host | RunsIn::Isolated(_) => None,
        };
        let given = self.surroundings.hosts.iter().map(|entry| entry.with(gateway));
        let own = [([127, 0, 1, 1].into(), self.hostname.to_owned())].into_iter().chain(given);
        let (hosts, resolv_conf) = match &self.network {
            RunsIn::Host => (runtime::hosts::of_host(own), runtime::resolv_conf::of_host()),
            RunsIn::Own(_) => (runtime::hosts::of_own(own), runtime::resolv_conf::of_own(true)),
            // The host's name servers, so that an attempt to use the network is detected.
            RunsIn::Isolated(_) => (runtime::hosts::of_own(own), runtime::resolv_conf::of_host()),
        };
        let make = |name: &str, text: &[u8]| -> Result<Volume, Cause> {
            let source = self.files.join(name);
            fs::write(&source, text).map_err(Cause::system("write", &source))?;
            Ok(Volume { source, target: Path::new("/etc").join(name), readonly: false, idmap: false })
        };
        Ok(vec![make("resolv.conf", resolv_conf.as_bytes())?, make("hosts", hosts.as_bytes())?])
    }

    /// The mount points in the image, relative to its root.
    pub(super) fn targets(&self, spec: &Spec) -> Vec<PathBuf> {
        let below = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
        spec.mounts().iter().flatten().map(|mount| below(mount.destination())).collect()
    }

    /// Runs the command to its end. Its output goes to standard error, because standard output belongs to the document.
    /// Returns its exit status; 128 + N if signal N ended it.
    pub(super) fn run(&self, spec: &Spec) -> Result<i32, Cause> {
        if self.progress.form() == Form::Plain {
            return Ok(finish(runtime::run_into(spec, std::io::stderr().as_fd()))?);
        }
        let path = self.files.join("output");
        let output = File::create(&path).map_err(Cause::system("create", &path))?;
        self.progress.log(&path);
        let status = finish(runtime::run_into(spec, output.as_fd()))?;
        let mut output = File::open(&path).map_err(Cause::system("read", &path))?;
        self.progress.output(&mut output, status != 0).map_err(Cause::system("read", &path))?;
        Ok(status)
    }
}

/// Makes a cgroup for a step. `None` if the caller may not make one, as in a rootless build. A warning is
/// printed once.
pub(super) fn own_cgroup() -> Result<Option<cgroup::Temporary>, Cause> {
    static TOLD: std::sync::Once = std::sync::Once::new();
    let limits_devices = userns::is_first().map_err(runtime::Error::from)?;
    match cgroup::Temporary::new(limits_devices) {
        Err(error) if cgroup::is_refusal(&error) => {
            TOLD.call_once(|| {
                operation::note(&format!("warning: steps have no cgroup of their own: {error}"));
            });
            Ok(None)
        }
        made => Ok(Some(made.map_err(runtime::Error::from)?)),
    }
}

/// Treats a command that cannot be executed as a shell does: prints the message and returns status 126 or
/// 127.
fn finish(result: Result<i32, runtime::Error>) -> Result<i32, runtime::Error> {
    match result {
        Err(error) if matches!(error.status(), 126 | 127) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            Ok(error.status().into())
        }
        result => result,
    }
}
