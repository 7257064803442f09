use std::path::{Path, PathBuf};

use oci_spec::{
    OciSpecError,
    runtime::{Mount, MountBuilder},
};

use userns::Namespace;

use super::{Device, Network, Overrides, Owner, SharedMemory, Volume};

/// Target, type and options, in the order in which Docker mounts them.
const STANDARD: [(&str, &str, &[&str]); 7] = [
    ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev", "relatime"]),
    ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    (SHM, "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
];

/// Where programs have their shared memory (shm_overview(7)).
const SHM: &str = "/dev/shm";

/// Options of a mount. All others belong to a file system.
const FLAGS: [&str; 4] = ["nosuid", "nodev", "noexec", "ro"];

/// The option of OCI runtime-spec that maps the owners of a mount by the container's user namespace.
pub const IDMAP: &str = "idmap";

/// As [`IDMAP`], for a mount and all mounts below it.
pub(crate) const RECURSIVE_IDMAP: &str = "ridmap";

const TMPFS: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// Options that a privileged container does not get.
fn is_restriction(target: &str, option: &str) -> bool {
    matches!((target, option), ("/sys" | "/sys/fs/cgroup", "ro"))
}

/// Options that are left out in a user namespace without group 5, Debian's group of terminals.
fn is_impossible(option: &str, namespace: Option<&Namespace>) -> bool {
    option == "gid=5" && namespace.is_some_and(|namespace| !namespace.has_group(5))
}

/// What is mounted at `target` from the host, if the container has no file system of its own there.
fn of_host(target: &str, overrides: &Overrides, namespace: Option<&Namespace>) -> Option<PathBuf> {
    match (target, &overrides.shared_memory) {
        // sysfs shows the devices of a network namespace. Only the owner of that namespace may mount it.
        ("/sys", _) if namespace.is_some() && overrides.network == Network::Host => Some(target.into()),
        // A new mount in the host's cgroup namespace would change the options for the whole machine.
        ("/sys/fs/cgroup", _) if overrides.namespaces.cgroup == Owner::Host => cgroup::visible_place(),
        (SHM, SharedMemory::At(source)) => Some(source.clone()),
        _ => None,
    }
}

/// All mounts of a container. `namespace` is the caller's user namespace, and `inside` the container's; none
/// for the machine's first one.
pub(super) fn all(
    overrides: &Overrides,
    namespace: Option<&Namespace>,
    inside: Option<&Namespace>,
) -> Result<Vec<Mount>, OciSpecError> {
    let standard = STANDARD
        .iter()
        .filter(|(target, ..)| !(*target == SHM && overrides.shared_memory == SharedMemory::None));
    let standard = standard.map(|(target, kind, options)| {
        let kept = options.iter().filter(|option| {
            !(is_impossible(option, inside) || overrides.privileged && is_restriction(target, option))
        });
        let mut options: Vec<String> = kept.map(|&option| option.to_owned()).collect();
        if let (SHM, SharedMemory::Sized(size)) = (*target, &overrides.shared_memory) {
            options.retain(|option| !option.starts_with("size="));
            options.push(format!("size={size}"));
        }
        let mount = MountBuilder::default().destination(*target);
        match of_host(target, overrides, namespace) {
            Some(source) => {
                options.retain(|option| FLAGS.contains(&option.as_str()));
                options.push("rbind".into());
                mount.typ("bind").source(source).options(options).build()
            }
            None => {
                let source = if *target == SHM { "shm" } else { kind };
                mount.typ(*kind).source(source).options(options).build()
            }
        }
    });
    let tmpfs = overrides.tmpfs.iter().map(|(target, options)| {
        // Docker's defaults. Requested options come later, and override them.
        let options = TMPFS.iter().map(|&option| option.to_owned()).chain(options.iter().cloned());
        MountBuilder::default()
            .destination(target)
            .typ("tmpfs")
            .source("tmpfs")
            .options(options.collect::<Vec<_>>())
            .build()
    });
    let volumes = overrides.volumes.iter().map(bind);
    let others = overrides.mounts.iter().cloned().map(Ok);
    let mut asked = tmpfs.chain(volumes).chain(others).collect::<Result<Vec<_>, _>>()?;
    // A mount below another mount's target must come after it, in whatever order they were named.
    asked.sort_by_key(|mount| mount.destination().components().count());
    let asked = asked.into_iter().map(|mount| Ok(without_devices(mount, overrides.privileged)));
    let devices = overrides.devices.iter().filter(|_| namespace.is_some()).map(Device::mount);
    standard.chain(devices).chain(asked).collect()
}

fn bind(volume: &Volume) -> Result<Mount, OciSpecError> {
    let mut options = vec!["rbind".to_owned(), "rprivate".into()];
    if volume.readonly {
        options.push("ro".into());
    }
    if volume.idmap {
        options.push(IDMAP.into());
    }
    MountBuilder::default()
        .destination(plain(&volume.target))
        .typ("bind")
        .source(volume.source.clone())
        .options(options)
        .build()
}

/// A bind mount of host files opens no devices, unless the container has all of them.
fn without_devices(mut mount: Mount, privileged: bool) -> Mount {
    if !privileged && mount.typ().as_deref() == Some("bind") {
        let mut options = mount.options().clone().unwrap_or_default();
        options.push("nodev".into());
        mount.set_options(Some(options));
    }
    mount
}

/// Removes `.` and doubled slashes.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

fn owned(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|&path| path.to_owned()).collect()
}

/// Docker's list of masked paths.
pub(super) fn masked() -> Vec<String> {
    let mut all = owned(&[
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]);
    all.extend(throttles(Path::new("/sys/devices/system/cpu")));
    all
}

/// The counters of each processor's heat, which tell a container what others do. `processors`: their directory.
fn throttles(processors: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(processors).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("cpu")?.parse::<u32>().ok();
    let mut numbers: Vec<_> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    let paths = numbers.iter().map(|number| processors.join(format!("cpu{number}/thermal_throttle")));
    paths.filter(|path| path.is_dir()).map(|path| path.to_string_lossy().into_owned()).collect()
}

/// Docker's list of read-only paths.
pub(super) fn readonly() -> Vec<String> {
    owned(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_tell_their_heat_are_masked() {
        let directory = tempfile::tempdir().unwrap();
        let with = |names: &[&str]| {
            names.iter().for_each(|name| std::fs::create_dir_all(directory.path().join(name)).unwrap());
        };
        with(&["cpufreq/thermal_throttle", "cpuidle", "cpu1"]);
        assert_eq!(throttles(directory.path()), Vec::<String>::new());
        with(&["cpu10/thermal_throttle", "cpu2/thermal_throttle", "cpu0/thermal_throttle", "cpu3/topology"]);
        let path = |cpu| directory.path().join(cpu).join("thermal_throttle").display().to_string();
        assert_eq!(throttles(directory.path()), ["cpu0", "cpu2", "cpu10"].map(path));
        assert_eq!(throttles(Path::new("/none")), Vec::<String>::new());
    }
}
