use std::{
    fs,
    path::{Path, PathBuf},
};

use cgroup::{Group, Homes};
use oci_spec::runtime::{LinuxDeviceCgroup, Spec};
use runtime::{Contained, Handed, Identity, Running, StartSocket, Streams};

use crate::{
    Container, Error, Record, Result, Store, bundle, console, end, notify, of_container,
    store::{self, START},
};

/// Options for a new container.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The id of the container.
    pub id: String,
    /// The bundle directory.
    pub bundle: PathBuf,
    /// The configuration, if it is not `config.json` in the bundle.
    pub config: Option<PathBuf>,
    /// The Unix socket that receives the outer side of the terminal.
    pub console_socket: Option<PathBuf>,
    /// The Unix socket that receives a pidfd of the first process.
    pub pidfd_socket: Option<PathBuf>,
    /// The file that the pid of the first process is written to.
    pub pid_file: Option<PathBuf>,
    /// Open descriptors to pass to the process, besides its standard streams.
    pub preserved: Vec<i32>,
    /// How many of them are sockets from socket activation (sd_listen_fds(3)). The process gets the matching
    /// variables.
    pub activated: u32,
    /// Whether the process keeps the caller's session keyring.
    pub keeps_keyring: bool,
    /// Whether to enter the root file system without pivot_root(2).
    pub without_pivot: bool,
    /// Whether to do without a cgroup that the caller may not make. It is still an error if a limit needs the
    /// cgroup.
    pub tolerates_no_cgroup: bool,
}

/// A new container.
#[derive(Debug)]
pub struct Created {
    /// The container's directory.
    pub container: Container,
    /// The container's record.
    pub record: Record,
    /// The process, a child of the caller, with the outer side of its terminal unless a socket received it.
    pub running: Running,
    /// Warnings about ignored properties, and about failures that did not stop the creation.
    pub warnings: Vec<String>,
}

/// Creates a container. Its process waits to execute the command until the container is started.
///
/// # Errors
/// When the configuration cannot be carried out. Everything is then undone.
pub fn create(store: &Store, request: &Request) -> Result<Created> {
    let bundle = fs::canonicalize(&request.bundle)
        .map_err(Error::on("find", format_args!("bundle {:?}", request.bundle)))?;
    let path = request.config.clone().unwrap_or_else(|| bundle.join("config.json"));
    let configuration = bundle::read(&path, &bundle)?;
    let terminal = configuration.spec.process().as_ref().and_then(|process| process.terminal());
    if request.console_socket.is_some() && terminal != Some(true) {
        return Err(Error::new("use", "the console socket", "the process has no terminal"));
    }
    // The lock is held until this function returns.
    let (container, _held) = store.add(&request.id)?;
    let mut record = Record {
        id: request.id.clone(),
        bundle,
        created: jiff::Timestamp::now().to_string(),
        process: Identity::NONE,
        creator: None,
        cgroups: Homes::default(),
        owner: rustix::process::getuid().as_raw(),
        config: configuration.json,
    };
    let mut new = Homes::default();
    let (spec, warnings) = (*configuration.spec, configuration.warnings);
    let made = make(&container, request, spec, &mut record, &mut new);
    if made.is_err() {
        // The first error is reported. Cgroups that existed before belong to others, with their processes.
        let _ = new.remove_unused();
        let _ = container.remove();
        if record.process.pid > 0 {
            // The hooks may have made something: run those that clean up (OCI runtime-spec, runtime.md,
            // "Lifecycle", 4 to 7).
            let _ = end::run_last_hooks(&record);
        }
    }
    made.map(|(running, more)| Created {
        container,
        record,
        running,
        warnings: warnings.into_iter().chain(more).collect(),
    })
}

/// Makes the container. The creator may be killed at any time, so `record` is written before anything is
/// made, and again when there is a process. `new` receives the cgroups that did not exist.
fn make(
    container: &Container,
    request: &Request,
    mut spec: Spec,
    record: &mut Record,
    new: &mut Homes,
) -> Result<(Running, Vec<String>)> {
    let state = record.hook_state();
    let mut homes = Homes::at(&cgroups_path(&spec, &request.id))?;
    record.creator = Some(Identity::of(rustix::process::getpid().as_raw_nonzero().get())?);
    record.cgroups = homes.missing();
    container.write(record)?;
    let groups = homes.make(request.tolerates_no_cgroup, new)?;
    refuse_unusable(&groups, &request.id)?;
    limit(&spec, &homes)?;
    record.cgroups = homes;
    let start = StartSocket::new(container.directory(), START)?;
    let contained = Contained {
        cgroups: &groups,
        start: Some(&start),
        preserved: &request.preserved,
        keeps_keyring: request.keeps_keyring,
        without_pivot: request.without_pivot,
        state: &state,
    };
    if request.activated > 0 {
        tell_sockets(&mut spec, request.activated);
    }
    let mut terminal = None;
    let created = runtime::create(&spec, Streams::inherit(), &contained, |first, handed| {
        match (handed, &request.console_socket) {
            (Handed::Process, _) => {
                record.process = first;
                container.write(record)?;
                if let Some(path) = &request.pidfd_socket {
                    console::send_process(path, first, "standard")?;
                }
            }
            (Handed::Terminal(outer), Some(path)) => console::send(path, outer)?,
            (Handed::Terminal(outer), None) => terminal = Some(outer),
            (Handed::Notifications(listener), _) => {
                notify::hand_over(&spec, &state, (first.pid, first.pid, "creating"), listener)?;
            }
        }
        Ok(())
    })
    .map_err(|error| crate::not_executed(spec.process().as_ref(), error))?;
    let warnings = created.warnings.clone();
    if let Some(path) = &request.pid_file {
        write_pid(path, record.process.pid)?;
    }
    record.creator = None;
    container.write(record)?;
    let mut running = created.keep()?;
    running.terminal = terminal;
    Ok((running, warnings))
}

/// Refuses cgroups in which the container could not begin.
fn refuse_unusable(groups: &[Group], id: &str) -> Result<()> {
    for group in groups {
        if group.is_populated()? {
            let cause = format!("processes live in its cgroup {:?} already", group.path());
            return Err(of_container("create", id)(cause));
        }
        // Its process would stop at its birth, and never say that it is ready. These are runc's words.
        if group.is_frozen()? {
            let cause = format!("container's cgroup unexpectedly frozen: {:?}", group.path());
            return Err(of_container("create", id)(cause));
        }
    }
    Ok(())
}

/// Sets the variables of sd_listen_fds(3). The process has pid 1 in its pid namespace.
fn tell_sockets(spec: &mut Spec, number: u32) {
    let Some(mut process) = spec.process().clone() else { return };
    let mut variables = process.env().clone().unwrap_or_default();
    let told = [format!("LISTEN_FDS={number}"), "LISTEN_PID=1".to_owned()];
    runtime::spec::set_variables(&mut variables, &told);
    process.set_env(Some(variables));
    spec.set_process(Some(process));
}

/// Writes the pid to the file at `path` atomically.
///
/// # Errors
/// When the file cannot be written.
pub fn write_pid(path: &Path, pid: i32) -> Result<()> {
    store::replace(path, pid.to_string().as_bytes())
}

/// The path of the container's cgroups: from the configuration, or else the container's id.
fn cgroups_path(spec: &Spec, id: &str) -> PathBuf {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    path.filter(|path| !path.as_os_str().is_empty()).cloned().unwrap_or_else(|| PathBuf::from(id))
}

fn limit(spec: &Spec, homes: &Homes) -> Result<()> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    if let Some(resources) = resources {
        homes.set(resources)?;
    }
    // In a user namespace nobody can make device nodes.
    if !userns::is_first()? || homes.all().is_empty() {
        return Ok(());
    }
    let asked = resources.and_then(|resources| resources.devices().as_ref());
    homes.set_devices(&with_defaults(asked.map(Vec::as_slice).unwrap_or_default()))
}

/// Adds rules that allow the default devices and terminals of every container, as runc does.
pub(crate) fn with_defaults(asked: &[LinuxDeviceCgroup]) -> Vec<LinuxDeviceCgroup> {
    asked
        .iter()
        .cloned()
        .chain(cgroup::docker_devices().into_iter().filter(LinuxDeviceCgroup::allow))
        .collect()
}
