//! Shows a specification as the commands that you would type for it, in order.

use std::path::Path;

use mount::Options;
use oci_spec::runtime::{Capabilities, Linux, LinuxNamespaceType, Mount, Process, Spec};
use operation::words;
use userns::Mapping;

use crate::spec::userns;

/// The commands for a specification, one on each line.
pub fn explain(spec: &Spec) -> Vec<String> {
    let root =
        spec.root().as_ref().map(|root| root.path().to_string_lossy().into_owned()).unwrap_or_default();
    let root = root.trim_end_matches('/');
    let place = if root.is_empty() { "/" } else { root };
    let linux = spec.linux().as_ref();
    let mut lines = Vec::new();
    if let Some(path) = linux.and_then(|linux| linux.cgroups_path().as_ref()) {
        let procs = format!("/sys/fs/cgroup{}/cgroup.procs", path.display());
        lines.push(format!("echo $$ > {}", words([&procs])));
    }
    lines.push(enter(linux));
    lines.extend(spec.hostname().iter().map(|name| words(["hostname", name])));
    lines.extend(spec.domainname().iter().map(|name| words(["domainname", name])));
    if linux.is_some_and(|linux| is_new(linux, LinuxNamespaceType::Network)) {
        lines.push("ip link set lo up".to_owned());
    }
    let mut parameters: Vec<_> =
        linux.and_then(|linux| linux.sysctl().as_ref()).into_iter().flatten().collect();
    parameters.sort();
    lines.extend(parameters.iter().map(|(name, value)| words(["sysctl", "-w", &format!("{name}={value}")])));
    lines.push("mount --make-rslave /".to_owned());
    lines.push(words(["mount", "-o", "rbind,rprivate,nodev", place, place]));
    lines.extend(spec.mounts().iter().flatten().map(|mount| one_mount(root, mount)));
    lines.extend(devices(root, spec));
    lines.push(words(["cd", place]));
    lines.extend(["pivot_root . .", "umount --lazy ."].map(str::to_owned));
    if let Some(linux) = linux {
        lines.extend(
            linux
                .readonly_paths()
                .iter()
                .flatten()
                .map(|path| words(["mount", "-o", "rbind,ro=recursive", path, path])),
        );
        lines.extend(linux.masked_paths().iter().flatten().map(|path| mask(path)));
    }
    if spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or_default()) {
        lines.push("mount -o remount,bind,ro /".to_owned());
    }
    if let Some(ids) = userns(spec) {
        let map = |name: &str, runs: &[Mapping]| -> Vec<String> {
            runs.iter()
                .map(|run| format!("--map-{name}={}:{}:{}", run.inside, run.outside, run.size))
                .collect()
        };
        let mut line = vec!["unshare".to_owned(), "--user".to_owned()];
        line.extend(map("users", &ids.uid_mappings));
        line.extend(map("groups", &ids.gid_mappings));
        lines.push(words(line));
    }
    lines.extend(spec.process().iter().flat_map(process));
    lines
}

fn is_new(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    let mut list = linux.namespaces().iter().flatten();
    list.any(|namespace| namespace.typ() == kind && namespace.path().is_none())
}

fn enter(linux: Option<&Linux>) -> String {
    let mut joined = Vec::new();
    let mut new = vec!["unshare".to_owned()];
    for namespace in linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten() {
        let option = match namespace.typ() {
            LinuxNamespaceType::Network => "--net".to_owned(),
            // The user namespace is entered last.
            LinuxNamespaceType::User => continue,
            kind => format!("--{kind}"),
        };
        match namespace.path() {
            Some(path) => joined.push(format!("{option}={}", path.display())),
            None => new.push(option),
        }
    }
    new.extend(["--fork", "--kill-child"].map(str::to_owned));
    if !joined.is_empty() {
        joined.insert(0, "nsenter".to_owned());
    }
    words(joined.iter().chain(&new))
}

/// A path in the container, as it is before pivot_root.
fn inside(root: &str, target: &Path) -> String {
    format!("{root}{}", target.display())
}

fn one_mount(root: &str, mount: &Mount) -> String {
    let target = inside(root, mount.destination());
    let options = mount.options().clone().unwrap_or_default();
    let source =
        mount.source().as_ref().map(|source| source.to_string_lossy().into_owned()).unwrap_or_default();
    let mut line = vec!["mount", "--mkdir"];
    let is_bind = Options::parse(&options).bind.is_some();
    let kind = crate::launch::kind_of(mount);
    if !is_bind && mount.typ().is_some() {
        line.extend(["-t", kind]);
    }
    let options = options.join(",");
    if !options.is_empty() {
        line.extend(["-o", &options]);
    }
    line.extend([source.as_str(), &target]);
    words(line)
}

fn devices(root: &str, spec: &Spec) -> Vec<String> {
    crate::launch::dev_entries(spec)
        .into_iter()
        .map(|entry| match entry {
            crate::launch::DevEntry::Node { path, kind, major, minor, mode } => words([
                "mknod",
                "-m",
                &format!("{mode:o}"),
                &inside(root, &path),
                kind,
                &major.to_string(),
                &minor.to_string(),
            ]),
            crate::launch::DevEntry::OfHost { path } => {
                words(["mount", "--mkdir", "--bind", &path.to_string_lossy(), &inside(root, &path)])
            }
            crate::launch::DevEntry::Link { path, target } => {
                words(["ln", "-s", &target, &inside(root, &path)])
            }
            crate::launch::DevEntry::Bind { path } => {
                words(["mount", "--bind", &inside(root, &path), &inside(root, &path)])
            }
            crate::launch::DevEntry::Closed => {
                words(["mount", "-o", "remount,bind,nodev", &inside(root, Path::new("/dev"))])
            }
        })
        .collect()
}

fn mask(path: &str) -> String {
    // Masked paths are in `/proc` and `/sys`, where the host has files of the same kinds.
    if Path::new(path).is_dir() {
        words(["mount", "-t", "tmpfs", "-o", "ro,nosuid,nodev,noexec", "tmpfs", path])
    } else {
        words(["mount", "--bind", "/dev/null", path])
    }
}

fn process(process: &Process) -> Vec<String> {
    let cwd = process.cwd().to_string_lossy();
    let mut lines = Vec::new();
    if cwd != "/" {
        lines.push(words(["mkdir", "-p", &cwd]));
    }
    lines.push(words(["cd", &cwd]));
    for limit in process.rlimits().iter().flatten() {
        let name = limit.typ().to_string().to_ascii_lowercase().replace("rlimit_", "");
        lines.push(words(["prlimit", &format!("--{name}={}:{}", limit.soft(), limit.hard())]));
    }
    let user = process.user();
    let mut line =
        vec!["setpriv".to_owned(), format!("--reuid={}", user.uid()), format!("--regid={}", user.gid())];
    match user.additional_gids() {
        Some(groups) if !groups.is_empty() => {
            let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
            line.push(format!("--groups={}", groups.join(",")));
        }
        _ => line.push("--clear-groups".to_owned()),
    }
    if let Some(capabilities) = process.capabilities() {
        line.push(format!("--bounding-set={}", set(capabilities.bounding())));
        line.push(format!("--inh-caps={}", set(capabilities.inheritable())));
    }
    if process.no_new_privileges().unwrap_or_default() {
        line.push("--no-new-privs".to_owned());
    }
    if !process.env().iter().flatten().any(|variable| variable.starts_with("HOME=")) {
        lines.push("# HOME is the user's directory in /etc/passwd of the container".to_owned());
    }
    line.extend(["env", "-i"].map(str::to_owned));
    line.extend(process.env().iter().flatten().cloned());
    line.extend(process.args().iter().flatten().cloned());
    lines.push(words(line));
    lines
}

/// The argument of setpriv(1) for exactly these capabilities.
fn set(capabilities: &Option<Capabilities>) -> String {
    let mut names: Vec<String> = capabilities
        .iter()
        .flatten()
        .map(|one| format!("+{}", one.to_string().to_ascii_lowercase()))
        .collect();
    names.sort();
    names.insert(0, "-all".to_owned());
    names.join(",")
}
