//! Kernel variables (sysctl(8)), and to which namespace each belongs.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxNamespaceType as Kind;

/// Variables of the IPC namespace (ipc_namespaces(7)). All variables below `fs/mqueue` belong to it too.
const OF_IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// The path of a sysctl variable below `/proc/sys`. Dots in the name stand for slashes. If a slash comes
/// first, dots are parts of names (sysctl(8)).
pub fn parameter(name: &str) -> PathBuf {
    let is_path = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    PathBuf::from(if is_path { name.to_owned() } else { name.replace('.', "/") })
}

/// The kind of namespace to which the variable at this path below `/proc/sys` belongs. `None` for a variable of the
/// whole machine.
pub fn namespace_of_parameter(path: &Path) -> Option<Kind> {
    match path.to_str().unwrap_or_default() {
        name if name.split('/').any(|part| part == "..") => None,
        name if name.starts_with("net/") => Some(Kind::Network),
        name if name.starts_with("fs/mqueue/") || OF_IPC.contains(&name) => Some(Kind::Ipc),
        "kernel/domainname" | "kernel/hostname" => Some(Kind::Uts),
        _ => None,
    }
}
