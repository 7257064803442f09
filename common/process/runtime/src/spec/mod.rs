//! Makes an OCI runtime specification from an image's configuration, with Docker's additions (OCI image-spec,
//! conversion.md, and Docker's defaults).

mod capabilities;
mod devices;
mod environment;
mod mounts;
mod namespaces;
pub mod order;
mod parameters;
pub(crate) mod recorded;
mod ulimit;

use std::{collections::HashMap, path::PathBuf};

use oci_spec::{
    OciSpecError, image,
    runtime::{
        Linux, LinuxBuilder, LinuxDeviceCgroup, LinuxNamespace, LinuxResources, LinuxSeccomp,
        LinuxSeccompAction, LinuxSyscall, Mount, PosixRlimit, Process, ProcessBuilder, RootBuilder, Spec,
        SpecBuilder, UserBuilder,
    },
};

use userns::Namespace;

use crate::{Error, Identity, StopSignal, error::Result, user, user::User};

pub use capabilities::{Unknown as UnknownCapability, every as every_capability};
pub use devices::Device;
pub use environment::set as set_variables;
pub use mount::Volume;
pub use mounts::IDMAP;
pub(crate) use mounts::RECURSIVE_IDMAP;
pub use namespaces::{Owner, Owners, SharedMemory, forget_owners, owner, userns};
pub(crate) use namespaces::{is_first_of_pids, runs};
pub use parameters::{namespace_of_parameter, parameter};
pub use ulimit::Ulimit;

/// The annotation with the signal that asks the process to stop (OCI image-spec, conversion.md).
pub const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// The annotation of a process that must be killed when its parent ends ([`Overrides::ends_with_parent`]). Its value is `true`.
pub(crate) const ENDS_WITH_PARENT: &str = "stave.endsWithParent";

/// The annotation of a container with an init process ([`Overrides::init`]). Its value is `true`.
pub(crate) const INIT: &str = "stave.init";
/// The annotation of [`Overrides::idmap_rootfs`]. Its value is `true`.
pub(crate) const IDMAP_ROOTFS: &str = "stave.idmapRootfs";

/// The annotation of a container whose file systems open only the devices that it is given (`launch::devices`).
/// Its value is `true`. Other runtimes ignore it. An option of the mount `/dev` would keep their containers from
/// all devices.
pub(crate) const CONFINES_DEVICES: &str = "stave.confinesDevices";

/// What the names of all annotations above begin with, except the stop signal's.
const RESERVED: &str = "stave.";

/// Whether an annotation means something here, and cannot be a user's own.
pub fn is_reserved_annotation(name: &str) -> bool {
    name == STOP_SIGNAL || name.starts_with(RESERVED)
}

/// Whether the specification has the annotation, with the value `true`.
pub(crate) fn is_annotated(spec: &Spec, name: &str) -> bool {
    spec.annotations().as_ref().is_some_and(|all| all.get(name).is_some_and(|value| value == "true"))
}

/// Whether the container sees its root file system through the id mapping of its user namespace
/// ([`Overrides::idmap_rootfs`]).
pub fn maps_root_owners(spec: &Spec) -> bool {
    is_annotated(spec, IDMAP_ROOTFS)
}

/// The network of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Network {
    /// A new namespace with only `lo`.
    #[default]
    None,
    /// The caller's network.
    Host,
    /// The container's own namespace, made earlier, by its path.
    Own(PathBuf),
    /// Another container's namespace, by its path.
    Shared(PathBuf),
    /// The namespace of the container with this first process.
    Container(Identity),
}

/// The policy for system calls.
#[derive(Debug, Clone, Default)]
pub enum Seccomp {
    /// Docker's policy, for the capabilities of the process; none if it is privileged.
    #[default]
    Default,
    /// No policy.
    Unconfined,
    /// This policy, for the capabilities of the process.
    Profile(Box<seccomp::Profile>),
}

/// Settings that add to the image's configuration or override it.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Absolute path of the root file system, without symbolic links.
    pub rootfs: PathBuf,
    /// Where to look up its users and groups.
    pub users: user::Users,
    /// Makes the root file system read-only.
    pub readonly: bool,
    /// Replaces the image's `Entrypoint`, and removes its `Cmd`. Empty for none.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's `Cmd`.
    pub args: Vec<String>,
    /// `NAME=value`, from links. They override the defaults, and the image overrides them.
    pub links: Vec<String>,
    /// `NAME=value`. They override the image's.
    pub env: Vec<String>,
    /// Replaces the image's `WorkingDir`. Created if it is missing.
    pub cwd: Option<String>,
    /// Replaces the image's `User`, in the form of [`user::resolve`].
    pub user: Option<String>,
    /// Groups that are added to the user's: names or numbers.
    pub groups: Vec<String>,
    /// The NIS domain name. It is set if the UTS namespace is the container's own; empty by default.
    pub domainname: Option<String>,
    /// The host name. It is set if the UTS namespace is the container's own; none for the caller's name.
    pub hostname: Option<String>,
    /// Does not set the variable `HOSTNAME`.
    pub without_hostname_variable: bool,
    /// The network.
    pub network: Network,
    /// The other namespaces.
    pub namespaces: Owners,
    /// Replaces the image's `StopSignal`.
    pub stop_signal: Option<StopSignal>,
    /// The user namespace, if it is not the caller's.
    pub userns: Option<Namespace>,
    /// Whether `rootfs` needs an id mapping to show its owners in that namespace; otherwise its files have
    /// these owners already.
    pub idmap_rootfs: bool,
    /// Gives the process a terminal.
    pub terminal: bool,
    /// Executing a program gives no privileges.
    pub no_new_privileges: bool,
    /// Capabilities that are added to Docker's default set: `NET_ADMIN`, `ALL`, with or without `CAP_`.
    pub cap_add: Vec<String>,
    /// Capabilities that are removed from the default set, in the same form.
    pub cap_drop: Vec<String>,
    /// Gives the container all capabilities and all devices of the host, and masks nothing.
    pub privileged: bool,
    /// The policy for system calls.
    pub seccomp: Seccomp,
    /// Masks no path and makes none read-only.
    pub open_system_paths: bool,
    /// The path of its own cgroup, which is created earlier; none for the caller's.
    pub cgroup: Option<PathBuf>,
    /// The limits of that cgroup.
    pub limits: LinuxResources,
    /// Limits of the process (setrlimit(2)). Limits that are not named are the caller's.
    pub rlimits: Vec<PosixRlimit>,
    /// Variables below `/proc/sys` that belong to the container's own namespaces, each with its value.
    pub sysctl: Vec<(String, String)>,
    /// `/proc/PID/oom_score_adj`; the caller's by default.
    pub oom_score_adj: Option<i32>,
    /// What the container has as `/dev/shm`.
    pub shared_memory: SharedMemory,
    /// File systems in memory: their targets, each with its mount options.
    pub tmpfs: Vec<(PathBuf, Vec<String>)>,
    /// Other mounts. A bind mount opens no devices, unless the container is privileged.
    pub mounts: Vec<Mount>,
    /// Devices of the host that the container gets.
    pub devices: Vec<Device>,
    /// More rules for the device list of its cgroup. With any rule, file systems of the container open
    /// devices.
    pub device_rules: Vec<LinuxDeviceCgroup>,
    /// File systems of the container open devices, as far as the device list of its cgroup allows. Without a
    /// cgroup of its own it must not be set: nothing else keeps the container from the host's disks.
    pub opens_devices: bool,
    /// Starts an init process first. It looks after the command, and after all processes without a parent.
    pub init: bool,
    /// Kills the process when its parent ends, however that ends.
    pub ends_with_parent: bool,
    /// Annotations for other programs that read the specification. None is [reserved](is_reserved_annotation).
    pub annotations: Vec<(String, String)>,
    /// Mounts of the host's directories and files, including `/etc/hosts` and the like.
    pub volumes: Vec<Volume>,
}

/// Makes the specification. It looks up the user in the root file system, and changes nothing.
///
/// # Errors
/// When there is no command, or the user or a capability is unknown.
pub fn from_image(config: Option<&image::Config>, overrides: &Overrides) -> Result<Spec> {
    if overrides.namespaces.pid != Owner::Own && overrides.cgroup.is_none() {
        return Err(Error::new(
            "share a pid namespace: the container has no cgroup of its own, so its processes cannot be told from others",
        ));
    }
    let namespace = Namespace::current()?;
    let (namespaces, owners) = namespaces::all(overrides).map_err(invalid)?;
    let run = run_with(config, overrides);
    let process = process(&run, overrides)?;
    match (&overrides.userns, &namespace) {
        (Some(userns), _) => has_mappings(process.user(), userns, true)?,
        (None, Some(own)) => has_mappings(process.user(), own, false)?,
        (None, None) => {}
    }
    let inside = overrides.userns.as_ref().or(namespace.as_ref());
    let policy = seccomp(&overrides.seccomp, &process, overrides.privileged)?;
    let mounts = mounts::all(overrides, namespace.as_ref(), inside).map_err(invalid)?;
    devices::check(overrides, &mounts, namespace.is_some())?;
    let root = RootBuilder::default().path(overrides.rootfs.clone()).readonly(overrides.readonly);
    let mut spec = SpecBuilder::default()
        .version(version(overrides))
        .root(root.build().map_err(invalid)?)
        .process(process)
        .mounts(mounts)
        .annotations(annotations(&run, overrides, owners))
        .linux(linux(overrides, namespaces, namespace.as_ref())?)
        .build()
        .map_err(invalid)?;
    if overrides.namespaces.uts == Owner::Own {
        spec.set_hostname(overrides.hostname.clone()).set_domainname(overrides.domainname.clone());
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(policy);
    }
    Ok(spec)
}

/// The lowest version of the specification that has everything that is used. Runtimes such as crun 1.8 reject
/// a version above theirs.
fn version(overrides: &Overrides) -> &'static str {
    let maps = overrides.idmap_rootfs || overrides.volumes.iter().any(|volume| volume.idmap);
    if maps || overrides.domainname.is_some() { "1.1.0" } else { "1.0.2" }
}

/// The signal that asks the process to stop, if the specification names one.
pub fn stop_signal(spec: &Spec) -> Option<StopSignal> {
    spec.annotations().as_ref()?.get(STOP_SIGNAL)?.parse().ok()
}

/// The policy for system calls, with its conditions on capabilities decided.
fn seccomp(asked: &Seccomp, process: &Process, privileged: bool) -> Result<Option<LinuxSeccomp>> {
    let bounding = process.capabilities().as_ref().and_then(|sets| sets.bounding().as_ref());
    let names = bounding.into_iter().flatten().map(|one| format!("CAP_{}", one.to_string().to_uppercase()));
    let conditions = || seccomp::Conditions::of_this_machine(names);
    let policy = match asked {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Default if privileged => return Ok(None),
        Seccomp::Default => seccomp::Profile::docker().and_then(|docker| docker.resolve(&conditions())),
        Seccomp::Profile(profile) => profile.resolve(&conditions()),
    };
    let policy = policy.map_err(Error::new)?;
    let asks = |rule: &LinuxSyscall| rule.action() == LinuxSeccompAction::ScmpActNotify;
    if policy.syscalls().iter().flatten().any(asks) {
        // Nobody would answer, so the calls would wait for ever.
        return Err(Error::new(
            "seccomp policy: SCMP_ACT_NOTIFY needs a program that answers, and there is none",
        ));
    }
    Ok(Some(policy))
}

/// Checks that a process in this container can become the user, whose groups have mappings in the container's user
/// namespace as well.
///
/// # Errors
/// When one has no mapping, or the caller's user namespace cannot be read.
pub fn may_become(user: &oci_spec::runtime::User, spec: &Spec) -> Result<()> {
    match (userns(spec), Namespace::current()?) {
        (Some(userns), _) => has_mappings(user, &userns, true),
        (None, Some(own)) => has_mappings(user, &own, false),
        (None, None) => Ok(()),
    }
}

/// Checks that the user and the groups have mappings: nobody can become a user without one. `made`: whether the
/// namespace is made for the container, and not the caller's.
fn has_mappings(user: &oci_spec::runtime::User, userns: &Namespace, made: bool) -> Result<()> {
    let groups = user.additional_gids().iter().flatten().chain([&user.gid()]).copied().collect::<Vec<_>>();
    let missing = match groups.into_iter().find(|group| !userns.has_group(*group)) {
        _ if !userns.has_user(user.uid()) => format!("user {}", user.uid()),
        Some(group) => format!("group {group}"),
        None => return Ok(()),
    };
    if made {
        return Err(Error::system("become", missing, "it has no mapping in the container's user namespace"));
    }
    let error = Error::system("become", missing, "it has no mapping in this user namespace");
    Err(error.with_hint("`unshare --map-auto` maps the caller's subordinate ids too".to_owned()))
}

fn invalid(error: OciSpecError) -> Error {
    Error::new(format_args!("describe the process: {error}"))
}

fn process(run: &image::Config, overrides: &Overrides) -> Result<Process> {
    let name = run.user().as_deref().unwrap_or_default();
    let user = user::resolve_by(&overrides.users, &overrides.rootfs, name, &overrides.groups)?;
    let cwd = run.working_dir().as_deref().filter(|cwd| !cwd.is_empty()).unwrap_or("/");
    if !cwd.starts_with('/') {
        return Err(Error::new(format_args!("working directory {cwd:?} is not absolute")));
    }
    let capabilities = capabilities::sets(overrides).map_err(Error::new)?;
    let User { uid, gid, groups, home } = user;
    // Without accounts, the process gets the directory that its own /etc/passwd names.
    let home = (overrides.users != user::Users::None).then_some(home);
    let mut builder = UserBuilder::default().uid(uid).gid(gid);
    if !groups.is_empty() {
        builder = builder.additional_gids(groups);
    }
    let mut process = ProcessBuilder::default()
        .args(command(run)?)
        .env(environment::of(run, overrides, home.as_deref()))
        .cwd(cwd)
        .user(builder.build().map_err(invalid)?)
        .capabilities(capabilities)
        .no_new_privileges(overrides.no_new_privileges)
        .terminal(overrides.terminal)
        .build()
        .map_err(invalid)?;
    // The crate oci-spec sets limits by default. Here the caller's limits stay, as with Docker.
    process.set_rlimits(Some(overrides.rlimits.clone()).filter(|limits| !limits.is_empty()));
    process.set_oom_score_adj(overrides.oom_score_adj);
    Ok(process)
}

/// The image's `Entrypoint`, `Cmd`, `Env`, `WorkingDir`, `User` and `StopSignal` with the overrides. This is
/// the configuration of the container, and of an image that is made from it, as in `docker commit`.
pub fn run_with(config: Option<&image::Config>, overrides: &Overrides) -> image::Config {
    let Overrides { entrypoint, args, env, cwd, user, .. } = overrides;
    let of_image = |list: fn(&image::Config) -> &Option<Vec<String>>| {
        config.and_then(|config| list(config).clone()).unwrap_or_default()
    };
    let filled = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    let mut run = image::Config::default();
    // `ENTRYPOINT [""]` is how an image drops the entry point of its base.
    let entry = entrypoint.clone().unwrap_or_else(|| of_image(image::Config::entrypoint));
    run.set_entrypoint(filled(entry).filter(|entry| *entry != [""]));
    // Docker's rule: arguments replace `Cmd`, and another entry point removes the image's `Cmd`.
    let is_of_image = args.is_empty() && entrypoint.is_none();
    run.set_cmd(filled(if is_of_image { of_image(image::Config::cmd) } else { args.clone() }));
    let mut variables = Vec::new();
    environment::set(&mut variables, of_image(image::Config::env).iter().chain(env));
    run.set_env(filled(variables));
    run.set_working_dir(cwd.clone().or_else(|| config?.working_dir().clone()));
    run.set_user(user.clone().or_else(|| config?.user().clone()));
    let stop_signal = overrides.stop_signal.map(|signal| signal.to_string());
    run.set_stop_signal(stop_signal.or_else(|| config?.stop_signal().clone()));
    run
}

fn command(run: &image::Config) -> Result<Vec<String>> {
    let command: Vec<String> =
        [run.entrypoint(), run.cmd()].into_iter().flatten().flatten().cloned().collect();
    if command.is_empty() {
        return Err(Error::new("no command: the image names none; give one after `--`"));
    }
    Ok(command)
}

const PING_GROUPS: &str = "net.ipv4.ping_group_range";
const FIRST_PORT: &str = "net.ipv4.ip_unprivileged_port_start";

/// Whether a container gets this sysctl variable by default.
pub(crate) fn is_default_parameter(name: &str) -> bool {
    [PING_GROUPS, FIRST_PORT].contains(&name)
}

/// The highest group that `net.ipv4.ping_group_range` takes.
const MOST_GROUPS: u32 = i32::MAX as u32;

fn annotations(
    run: &image::Config,
    overrides: &Overrides,
    owners: HashMap<String, String>,
) -> HashMap<String, String> {
    let signal = run.stop_signal().clone().map(|signal| (STOP_SIGNAL, signal));
    let flags = [
        (ENDS_WITH_PARENT, overrides.ends_with_parent),
        (INIT, overrides.init),
        (IDMAP_ROOTFS, overrides.idmap_rootfs),
        (
            CONFINES_DEVICES,
            !overrides.privileged && overrides.device_rules.is_empty() && !overrides.opens_devices,
        ),
    ];
    let flags = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (name, "true".to_owned()));
    let own = signal.into_iter().chain(flags).map(|(name, value)| (name.to_owned(), value));
    overrides.annotations.iter().cloned().chain(owners).chain(own).collect()
}

fn linux(
    overrides: &Overrides,
    namespaces: Vec<LinuxNamespace>,
    namespace: Option<&Namespace>,
) -> Result<Linux> {
    let open = overrides.privileged || overrides.open_system_paths;
    let own_network = matches!(overrides.network, Network::None | Network::Own(_));
    let mut sysctl: HashMap<String, String> = overrides.sysctl.iter().cloned().collect();
    let mut builder = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(if open { vec![] } else { mounts::masked() })
        .readonly_paths(if open { vec![] } else { mounts::readonly() })
        .rootfs_propagation("rslave");
    if own_network {
        // As with Docker, in a new network any port can be listened on, and all users may ping. All users means all
        // with a group in the user namespace.
        let last =
            namespace.map_or(Some(MOST_GROUPS), Namespace::last_group).map(|last| last.min(MOST_GROUPS));
        let range = last.map(|last| (PING_GROUPS.to_owned(), format!("0 {last}")));
        let ports = (FIRST_PORT.to_owned(), "0".to_owned());
        for (name, value) in range.into_iter().chain([ports]) {
            sysctl.entry(name).or_insert(value);
        }
    }
    if !sysctl.is_empty() {
        builder = builder.sysctl(sysctl);
    }
    let devices = devices::of(overrides, namespace.is_some())?;
    if !devices.is_empty() {
        builder = builder.devices(devices);
    }
    let mut linux = builder.build().map_err(invalid)?;
    if let Some(userns) = &overrides.userns {
        linux.set_uid_mappings(Some(namespaces::mappings(&userns.uid_mappings).map_err(invalid)?));
        linux.set_gid_mappings(Some(namespaces::mappings(&userns.gid_mappings).map_err(invalid)?));
    }
    linux.set_resources(resources(overrides));
    linux.set_cgroups_path(overrides.cgroup.clone());
    Ok(linux)
}

/// The limits of the container, and the device list of its cgroup: Docker's devices and the container's own.
/// A privileged container has no list.
fn resources(overrides: &Overrides) -> Option<LinuxResources> {
    let mut resources = overrides.limits.clone();
    if !overrides.privileged && overrides.cgroup.is_some() {
        let mut rules = cgroup::docker_devices();
        rules.extend(overrides.devices.iter().map(Device::rule));
        rules.extend(overrides.device_rules.iter().cloned());
        resources.set_devices(Some(rules));
    }
    Some(resources).filter(|resources| *resources != LinuxResources::default())
}

#[cfg(test)]
mod tests;
