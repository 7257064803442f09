//! Plans the container's operations.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use document::{
    Document, Id, Instance,
    members::{Cgroup, Health, Hosts, Image, Process, Rootfs},
};
use life::Restart;
use mount::Volume;
use oci_spec::{
    image::Config,
    runtime::{LinuxResources, PosixRlimit, Spec},
};
use operation::note;
use runtime::StopSignal;
use runtime::spec::{self, Overrides, Owner, Ulimit, from_image, order, run_with};
use runtime::user::Users;
use serde_json::Value;
use toolkit::prelude::*;

use super::{
    device_flag::DeviceFlag,
    files::{Content, File},
    lifetime::LogOption,
    links,
    mount_flag::MountFlag,
    network::{self, Network},
    operation::ContainerOperation,
    owners::{self, Owners},
    request::{Log, Request},
    settings::{Settings, Sysctl},
    sharing,
};

/// Returns the member without the process's identity, and the operations: files first, the process last.
pub(crate) fn plan(
    mut request: Request,
    context: &Context,
    document: &Document,
) -> Result<(Process, Vec<ContainerOperation>)> {
    if document.get::<Process>()?.is_some() {
        let error = anyhow!("the container has a process already");
        return Err(hint(error, "`ns-exec --join ID` runs another command in it; `ns-exec --undo` ends it"));
    }
    let is_monitored = !matches!(request.log, Log::None);
    let interactive = request.interactive && is_monitored;
    let input_ends = interactive && request.input_ends;
    let image: Option<Image> = document.get()?;
    let config = image.as_ref().and_then(|image| image.configuration.config().as_ref());
    let Surroundings { overrides, log: Logged { log, limit: log_limit, files: log_files }, mut operations } =
        surroundings(&mut request, context, document)?;
    let stop_signal = stop_signal(request.settings.stop_signal, config)?;
    let (lifetime, declared) = (request.settings.lifetime.clone(), request.settings.declared.clone());
    let overrides = Overrides { stop_signal, ..with_request(overrides, request)? };
    let spec = from_image(config, &overrides).map_err(|error| match overrides.users {
        Users::None => hint(error, "no layer is unpacked yet, so only numbers can be planned: -u UID:GID"),
        _ => error.into(),
    })?;
    operations.extend(device_list(&spec, context)?);
    operations.extend(links::plan(context, document)?);
    let healthcheck = match is_monitored {
        true => lifetime.healthcheck(image.as_ref())?,
        false => lifetime.in_foreground().map(|()| None)?,
    };
    let run = (run_with(config, &Overrides::default()), run_with(config, &overrides));
    let check = is_monitored.then_some(healthcheck.as_ref());
    let config = declared.settings(document, run, check)?;
    let member =
        Process { config, log: log.clone(), ..member(&spec, stop_signal, lifetime.restart, healthcheck)? };
    if is_monitored {
        operations.push(monitor::MonitorOperation { monitored: context.id.clone() }.into());
    }
    let process = runtime::ProcessOperation::new(spec, log);
    operations
        .push(runtime::ProcessOperation { log_limit, log_files, interactive, input_ends, ..process }.into());
    Ok((member, operations))
}

/// What a container gets from its document and from the host.
struct Surroundings {
    /// Root file system, network, namespaces, owners, files and cgroup.
    overrides: Overrides,
    log: Logged,
    /// What makes them.
    operations: Vec<ContainerOperation>,
}

fn surroundings(request: &mut Request, context: &Context, document: &Document) -> Result<Surroundings> {
    let (rootfs, readonly) = root(request, context, document)?;
    let shared = sharing::choose(request, context)?;
    request.hostname = shared.hostname.or(request.hostname.take());
    let Network { network, hostname, files } = network::choose(request, context, document)?;
    // A directory that is managed elsewhere is used unchanged.
    let files = if request.rootfs.is_some() { Vec::new() } else { files };
    let Owners { userns, idmap_rootfs, mut operations } = owners::choose(request, context, document)?;
    let (made, files) = place(&own_directory(context, document)?, files, readonly, userns.is_some());
    operations.extend(made.into_iter().chain(shared.operations));
    let log = log(&request.log, &request.settings.lifetime.log_opt, context, &mut operations)?;
    let sysctl = sysctl(&request.settings, &network, shared.owners.ipc)?;
    let (cgroup, limits) = cgroup(&request.settings, shared.owners.pid, context, document, &mut operations)?;
    let overrides = Overrides {
        rootfs,
        users: users(context, document)?,
        readonly,
        links: document.get::<Hosts>()?.unwrap_or_default().environment,
        hostname: Some(hostname),
        network,
        namespaces: shared.owners,
        userns,
        idmap_rootfs,
        cgroup,
        limits,
        sysctl,
        shared_memory: shared.memory,
        volumes: volumes(std::mem::take(&mut request.volumes), &request.settings, files)?,
        ..Overrides::default()
    };
    Ok(Surroundings { overrides, log, operations })
}

/// Returns the container's settings with those that are the request's alone.
fn with_request(surroundings: Overrides, request: Request) -> Result<Overrides> {
    let Request { settings, security, .. } = request;
    Ok(Overrides {
        entrypoint: request.entrypoint,
        args: request.command,
        env: request.variables,
        cwd: request.workdir,
        user: request.user,
        groups: settings.group_add,
        domainname: settings.domainname,
        terminal: request.terminal,
        no_new_privileges: security.no_new_privileges,
        seccomp: security.seccomp,
        open_system_paths: security.open_system_paths,
        cap_add: request.cap_add,
        cap_drop: request.cap_drop,
        privileged: request.privileged,
        rlimits: limits_of(settings.ulimit),
        oom_score_adj: settings.oom_score_adj,
        tmpfs: settings.tmpfs.into_iter().map(|tmpfs| (tmpfs.target, tmpfs.options)).collect(),
        mounts: settings.mount.iter().map(MountFlag::mount).collect::<Result<_>>()?,
        devices: settings.device.iter().map(DeviceFlag::devices).collect::<Result<Vec<_>>>()?.concat(),
        device_rules: settings.device_cgroup_rule.into_iter().map(|rule| rule.0).collect(),
        init: settings.init,
        ends_with_parent: settings.die_with_parent,
        annotations: settings.declared.annotation,
        ..surroundings
    })
}

/// Returns the member of a process that has not started, without its log and its changed settings.
fn member(
    spec: &Spec,
    stop_signal: Option<StopSignal>,
    restart: Restart,
    healthcheck: Option<Value>,
) -> Result<Process> {
    Ok(Process {
        pid: 0,
        start_time: 0,
        exit_status: None,
        oom_killed: None,
        oom_kills_before: None,
        usage: None,
        started: None,
        finished: None,
        error: None,
        restart: Some(restart).filter(|policy| *policy != Restart::No).map(|policy| policy.to_string()),
        restarts: None,
        restarting: false,
        pause: None,
        stopped: false,
        health: healthcheck.is_some().then(Health::starting),
        healthcheck,
        log: None,
        stop_signal: stop_signal.map(|signal| signal.to_string()),
        spec: spec.process().as_ref().map(order::process).transpose()?.unwrap_or_default(),
        config: None,
    })
}

/// Returns the path of the container's cgroup and its limits, and adds operations if cgroup-limit has not
/// made it. A caller who may not make cgroups gets a container without one.
fn cgroup(
    settings: &Settings,
    pid: Owner,
    context: &Context,
    document: &Document,
    operations: &mut Vec<ContainerOperation>,
) -> Result<(Option<PathBuf>, LinuxResources)> {
    let instance: Option<Instance> = document.get()?;
    let path = cgroup::path(&context.id, instance.map(|found| found.to_string()).as_deref());
    if let Some(made) = document.get::<Cgroup>()? {
        if made.path != path {
            bail!("`cgroup` names {:?}, and the container's own is {path:?}", made.path);
        }
        return Ok((Some(path), made.resources));
    }
    match cgroup::may_make(&path) {
        Ok(()) => {}
        Err(_) if context.planned => {}
        Err(error) if cgroup::is_refusal(&error) && settings.sandbox => {
            return Err(hint(
                error,
                "--sandbox limits by cgroups, and only root of the machine may make them",
            ));
        }
        Err(error) if cgroup::is_refusal(&error) => {
            // Warn only root, and only if the container can do without: other cases end with an error of
            // their own.
            if pid == Owner::Own && nix::unistd::geteuid().is_root() {
                note(&format!("warning: the container has no cgroup of its own: {error}"));
            }
            return Ok((None, LinuxResources::default()));
        }
        Err(error) => return Err(error.into()),
    }
    let limits = settings.limits();
    operations.extend(cgroup::plan(&path, &limits)?.into_iter().map(ContainerOperation::from));
    Ok((Some(path), limits))
}

/// Returns the operation for the version 1 cgroup that limits devices, where the kernel accepts no BPF program
/// for that.
fn device_list(spec: &Spec, context: &Context) -> Result<Option<ContainerOperation>> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    let Some((path, rules)) = path.zip(runtime::device_rules(spec)?) else { return Ok(None) };
    match cgroup::device_list::plan(path, rules) {
        // A dry run by a user who may not do it.
        Err(_) if context.planned => Ok(None),
        planned => Ok(planned?.map(ContainerOperation::from)),
    }
}

/// Returns the signal that asks the process to stop, if the flag or the image sets one.
fn stop_signal(asked: Option<StopSignal>, config: Option<&Config>) -> Result<Option<StopSignal>> {
    let of_image = || config?.stop_signal().as_deref().filter(|signal| !signal.is_empty());
    match (asked, of_image()) {
        (Some(asked), _) => Ok(Some(asked)),
        (None, None) => Ok(None),
        (None, Some(text)) => text.parse().map(Some).map_err(|problem: String| {
            hint(anyhow!("read StopSignal of the image: {problem}"), "--stop-signal sets another")
        }),
    }
}

/// Returns the kernel variables to set. Rejects variables of a namespace that the container shares with
/// others.
fn sysctl(settings: &Settings, network: &spec::Network, ipc: Owner) -> Result<Vec<(String, String)>> {
    let own = matches!(network, spec::Network::None | spec::Network::Own(_));
    let set = |sysctl: &Sysctl| {
        if sysctl.is_of_network() && !own {
            bail!("set {}: the network is not the container's own", sysctl.name);
        }
        if !sysctl.is_of_network() && ipc != Owner::Own {
            bail!("set {}: the ipc namespace is not the container's own", sysctl.name);
        }
        Ok((sysctl.name.clone(), sysctl.value.clone()))
    };
    settings.sysctl.iter().map(set).collect()
}

/// Returns where to look up users. In a dry run there is no root file system, so use the topmost layer with
/// `/etc/passwd`.
fn users(context: &Context, document: &Document) -> Result<Users> {
    if !context.planned {
        return Ok(Users::Rootfs);
    }
    let rootfs: Option<Rootfs> = document.get()?;
    let layers = rootfs.map(|rootfs| rootfs.lower).unwrap_or_default();
    let topmost = layers.into_iter().rev().find(|layer| layer.join("etc/passwd").symlink_metadata().is_ok());
    Ok(topmost.map_or(Users::None, Users::Directory))
}

/// The limits, in the order of the flags. Of several for one resource, the last one counts, as with Docker.
fn limits_of(asked: Vec<Ulimit>) -> Vec<PosixRlimit> {
    let mut limits: Vec<PosixRlimit> = Vec::new();
    for Ulimit(limit) in asked {
        limits.retain(|earlier| earlier.typ() != limit.typ());
        limits.push(limit);
    }
    limits
}

/// Returns the root file system, and whether it is read-only.
fn root(request: &Request, context: &Context, document: &Document) -> Result<(PathBuf, bool)> {
    let (path, readonly) = match &request.rootfs {
        Some(path) => (path.clone(), false),
        None => {
            let rootfs: Rootfs = document.require()?;
            (rootfs.path, rootfs.readonly)
        }
    };
    if context.planned && request.rootfs.is_none() {
        return Ok((path, readonly || request.read_only));
    }
    let path = path.canonicalize().with_context(|| format!("find root file system {path:?}"))?;
    Ok((path, readonly || request.read_only))
}

/// The directory of the container's own files. With `union-mount --size` they share the limited room.
fn own_directory(context: &Context, document: &Document) -> Result<PathBuf> {
    let container = context.scope.container(&context.id);
    let upper = document.get::<Rootfs>()?.and_then(|rootfs| rootfs.upper);
    let disk = container.join(mount::Disk::TARGET);
    Ok(if upper.is_some_and(|upper| upper.starts_with(&disk)) { disk } else { container })
}

/// Returns the host's paths of the container's files in `/etc`, and the operations that make them. The files are in
/// `etc` of this directory.
fn place(
    directory: &Path,
    files: Vec<File>,
    readonly: bool,
    idmap: bool,
) -> (Vec<ContainerOperation>, Vec<Volume>) {
    // On the disk, because processes in the container can fill the files.
    let directory = directory.join("etc");
    let (mut operations, mut volumes) = (Vec::new(), Vec::new());
    for File { name, content } in files {
        let source = match content {
            Content::Shared(path) => path,
            Content::Own(content) => {
                if operations.is_empty() {
                    let (path, mode) = (directory.clone(), 0o700);
                    operations.push(mount::MountOperation::DirectoryAdd { path, mode, owner: None }.into());
                }
                operations.push(add_file(&directory.join(name), content, 0o644));
                directory.join(name)
            }
        };
        volumes.push(Volume { source, target: Path::new("/etc").join(name), readonly, idmap });
    }
    (operations, volumes)
}

/// Returns the requested volumes, and those of `files` that no requested mount replaces.
fn volumes(asked: Vec<Volume>, settings: &Settings, mut files: Vec<Volume>) -> Result<Vec<Volume>> {
    let of_flags = asked.iter().map(|volume| &volume.target);
    let of_flags = of_flags.chain(settings.mount.iter().map(|mount| &mount.target));
    let mut targets = BTreeSet::new();
    for target in of_flags.chain(settings.tmpfs.iter().map(|tmpfs| &tmpfs.target)) {
        if !targets.insert(target) {
            bail!("mount two things on {target:?}: only one would be seen");
        }
    }
    files.retain(|file| !targets.contains(&file.target));
    for volume in asked {
        let source =
            volume.source.canonicalize().with_context(|| format!("find volume {:?}", volume.source))?;
        files.push(Volume { source, ..volume });
    }
    Ok(files)
}

/// A log as it is recorded.
#[derive(Debug, Default)]
struct Logged {
    log: Option<PathBuf>,
    limit: Option<u64>,
    files: Option<u32>,
}

/// Returns the log and its limits. A log that the user names is not created by an operation, has no limit, and stays.
fn log(
    log: &Log,
    wanted: &[LogOption],
    context: &Context,
    operations: &mut Vec<ContainerOperation>,
) -> Result<Logged> {
    let found = |path: &Path| std::path::absolute(path).with_context(|| format!("find log {path:?}"));
    let mut logged = match log {
        Log::None => return Ok(Logged::default()),
        Log::File(path) => return Ok(Logged { log: Some(found(path)?), ..Logged::default() }),
        Log::Own => Logged { limit: Some(life::LOG_LIMIT), ..Logged::default() },
    };
    for option in wanted {
        match option {
            LogOption::Size(size) => logged.limit = Some(*size),
            LogOption::Files(files) => logged.files = Some(*files),
        }
    }
    let id: Id = context.id.parse()?;
    let made = life::make_log(&context.scope, &id, logged.files.unwrap_or(monitor::Log::FILES));
    operations.extend(made.into_iter().map(ContainerOperation::from));
    Ok(Logged { log: Some(life::own_log(&context.scope, &id)), ..logged })
}

fn add_file(path: &Path, content: String, mode: u32) -> ContainerOperation {
    mount::MountOperation::FileAdd { path: path.to_owned(), content, mode }.into()
}
