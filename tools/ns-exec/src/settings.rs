//! Limits and variables of one process, named as in Docker.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxNamespaceType, LinuxPids, LinuxResources};
use operation::quantity::size;
use runtime::{
    StopSignal,
    spec::{Ulimit, namespace_of_parameter, parameter},
};

use super::{
    declared::Declared,
    device_flag::{DeviceFlag, DeviceRule},
    lifetime::Lifetime,
    mount_flag::MountFlag,
};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Settings {
    /// Confine more: no capabilities, no_new_privs, a read-only root file system, no network unless the
    /// document has one, 512 MiB of memory, 256 processes, one CPU. cgroup-limit sets other limits; --cap-add
    /// adds capabilities
    #[arg(long, conflicts_with_all = ["join", "privileged"])]
    pub(crate) sandbox: bool,
    /// Add a supplementary group of the container, by name or number; repeatable
    #[arg(long, value_name = "GROUP", conflicts_with = "join")]
    pub(crate) group_add: Vec<String>,
    /// Set the NIS domain name
    #[arg(long, value_name = "NAME", conflicts_with = "join")]
    pub(crate) domainname: Option<String>,
    /// Set a resource limit of the process, such as nofile=1024:4096 or core=0; -1 for unlimited; repeatable
    #[arg(long, value_name = "NAME=SOFT[:HARD]", conflicts_with = "join")]
    pub(crate) ulimit: Vec<Ulimit>,
    /// Set a kernel variable in the container's namespaces, such as net.core.somaxconn=1024; repeatable
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "join")]
    pub(crate) sysctl: Vec<Sysctl>,
    /// Adjust how soon the kernel kills the process when memory runs out: -1000 (never) to 1000 (first)
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000), conflicts_with = "join")]
    pub(crate) oom_score_adj: Option<i32>,
    /// Set the size of /dev/shm; 64m by default
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "join")]
    pub(crate) shm_size: Option<u64>,
    /// Mount a tmpfs, with options such as size=64m,mode=1777; repeatable
    #[arg(long, value_name = "DST[:OPTIONS]", conflicts_with = "join")]
    pub(crate) tmpfs: Vec<Tmpfs>,
    /// Add a mount, with Docker's fields: type=bind,source=/srv,target=/srv,readonly or
    /// type=tmpfs,target=/tmp; repeatable
    #[arg(long, value_name = "FIELD=VALUE,…", conflicts_with = "join")]
    pub(crate) mount: Vec<MountFlag>,
    /// Give the container a device of the host, or all devices in a directory; repeatable
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]", conflicts_with = "join")]
    pub(crate) device: Vec<DeviceFlag>,
    /// Allow devices that the container makes itself, such as "c 188:* rwm"; repeatable
    #[arg(long, value_name = "RULE", conflicts_with = "join")]
    pub(crate) device_cgroup_rule: Vec<DeviceRule>,
    /// Kill the container when the program that started ns-exec ends
    #[arg(long, conflicts_with_all = ["join", "detach"])]
    pub(crate) die_with_parent: bool,
    /// Run an init process as pid 1: it passes signals on to the command, and reaps orphaned processes
    #[arg(long, conflicts_with = "join")]
    pub(crate) init: bool,
    /// Stop the command with this signal, such as SIGINT, 2 or RTMIN+3; by default the image's, or else
    /// SIGTERM
    #[arg(long, value_name = "SIGNAL", conflicts_with = "join")]
    pub(crate) stop_signal: Option<StopSignal>,
    /// Send the stop signal after this time, and SIGKILL ten seconds later; the exit status is then 124
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with_all = ["join", "detach"])]
    pub(crate) timeout: Option<std::time::Duration>,
    #[command(flatten)]
    pub(crate) declared: Declared,
    #[command(flatten)]
    pub(crate) lifetime: Lifetime,
}

/// Parses a time such as `5`, `0.5` or `1m30s`.
pub(crate) fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let is_number = |letter: char| letter.is_ascii_digit() || letter == '.';
    match text.contains('.') && text.chars().all(is_number) {
        true => operation::quantity::duration(&format!("{text}s")),
        false => operation::quantity::age(text),
    }
}

impl Settings {
    /// Returns the container's limits. Those of `--sandbox` suffice for a compiler or an interpreter, and are
    /// small for any machine.
    pub(crate) fn limits(&self) -> LinuxResources {
        let mut resources = LinuxResources::default();
        if self.sandbox {
            let (mut memory, mut pids, mut cpu) =
                (LinuxMemory::default(), LinuxPids::default(), LinuxCpu::default());
            memory.set_limit(Some(512 << 20));
            pids.set_limit(256);
            cpu.set_quota(Some(100_000)).set_period(Some(100_000));
            resources.set_memory(Some(memory)).set_pids(Some(pids)).set_cpu(Some(cpu));
        }
        resources
    }
}

/// A kernel variable below /proc/sys that belongs to a namespace of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sysctl {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl Sysctl {
    /// Whether the variable belongs to the network namespace.
    pub(crate) fn is_of_network(&self) -> bool {
        self.name.starts_with("net.")
    }
}

impl FromStr for Sysctl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').ok_or("it is NAME=VALUE, such as net.core.somaxconn=1024")?;
        let plain = name.split('.').all(|part| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        });
        // The host name has flags of its own.
        let own = namespace_of_parameter(&parameter(name));
        match plain && matches!(own, Some(LinuxNamespaceType::Network | LinuxNamespaceType::Ipc)) {
            true => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            false => {
                Err(format!("{name:?} is not of a namespace of the container: it would change the host"))
            }
        }
    }
}

/// A tmpfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tmpfs {
    pub(crate) target: PathBuf,
    pub(crate) options: Vec<String>,
}

impl FromStr for Tmpfs {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let target = mount::plain(std::path::Path::new(target))
            .ok_or_else(|| format!("{target:?} is not an absolute path below /"))?;
        let words = options.split(',').filter(|option| !option.is_empty());
        Ok(Self { target, options: words.map(str::to_owned).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_variables_as_docker_takes_them() {
        let limit = |text: &str| text.parse::<Ulimit>().map(|limit| (limit.0.soft(), limit.0.hard()));
        assert_eq!(limit("nofile=1024:4096"), Ok((1024, 4096)));
        assert_eq!(limit("core=-1"), Ok((u64::MAX, u64::MAX)));
        for text in ["nofile", "files=1", "nofile=x", "nofile=2:1"] {
            assert!(limit(text).is_err(), "{text}");
        }
        assert!("net.ipv4.ip_forward=1".parse::<Sysctl>().is_ok_and(|sysctl| sysctl.is_of_network()));
        assert!("kernel.sem=1 2 3 4".parse::<Sysctl>().is_ok_and(|sysctl| !sysctl.is_of_network()));
        for text in [
            "kernel.core_pattern=|x",
            "net..x=1",
            "net./x=1",
            "net.ipv4.ip_forward",
            "vm.overcommit_memory=1",
        ] {
            assert!(text.parse::<Sysctl>().is_err(), "{text}");
        }
        let tmpfs: Tmpfs = "/tmp:size=1m,mode=700".parse().unwrap();
        assert_eq!((tmpfs.target, tmpfs.options.len()), (PathBuf::from("/tmp"), 2));
        assert!("tmp".parse::<Tmpfs>().is_err());
        assert_eq!(seconds("0.5"), Ok(std::time::Duration::from_millis(500)));
        assert_eq!(seconds("1m"), Ok(std::time::Duration::from_secs(60)));
        assert!(seconds("-1").is_err());
    }
}
