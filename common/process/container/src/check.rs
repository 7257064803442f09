//! Checks that a configuration is consistent and cannot change the host.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{
    Hook, Hooks, Linux, LinuxIOPriority, LinuxNamespaceType as Kind, LinuxSeccompAction, Process, Spec,
};
use serde_json::Value;

use crate::{Error, Result, properties};

fn wrong(path: &str, cause: impl Into<operation::Cause>) -> Error {
    Error::new("carry out", path, cause)
}

/// Checks a configuration. `spec` is the parsed form of `json`.
pub(crate) fn all(spec: &Spec, json: &Value) -> Result<()> {
    version(json)?;
    match spec.process() {
        Some(process) => self::process(process)?,
        None => return Err(wrong("/process", "a container needs one")),
    }
    if spec.root().is_none() {
        return Err(wrong("/root", "a container needs one"));
    }
    if let Some(hooks) = spec.hooks() {
        self::hooks(hooks)?;
    }
    mounts(json)?;
    let none = Linux::default();
    let linux = spec.linux().as_ref().unwrap_or(&none);
    namespaces(spec, linux)?;
    devices(json)?;
    sysctl(spec, linux)?;
    seccomp(linux)?;
    cgroups_path(linux)?;
    match linux.rootfs_propagation().as_deref() {
        None | Some("" | "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate") => Ok(()),
        Some("unbindable" | "runbindable") => Ok(()),
        Some(other) => Err(wrong("/linux/rootfsPropagation", format!("there is no propagation {other:?}"))),
    }
}

/// Checks a process of a container.
pub(crate) fn process(process: &Process) -> Result<()> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(wrong("/process/args", "there is no command"));
    }
    if !process.cwd().is_absolute() {
        return Err(wrong("/process/cwd", format!("{:?} is not absolute", process.cwd())));
    }
    let mut kinds = HashSet::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        if !kinds.insert(limit.typ().to_string()) {
            let path = format!("/process/rlimits/{index}/type");
            return Err(wrong(&path, format!("{} is limited twice", limit.typ())));
        }
    }
    for (index, variable) in process.env().iter().flatten().enumerate() {
        if variable.find('=').is_none_or(|at| at == 0) {
            return Err(wrong(&format!("/process/env/{index}"), format!("{variable:?} is not NAME=VALUE")));
        }
    }
    // ioprio_set(2) and sched(7): the kernel would take other numbers for something else, or change them.
    if let Some(priority) = process.io_priority().as_ref().map(LinuxIOPriority::priority)
        && !(0..=7).contains(&priority)
    {
        return Err(wrong("/process/ioPriority/priority", format!("{priority} is not from 0 to 7")));
    }
    if let Some(nice) = process.scheduler().as_ref().and_then(|scheduler| *scheduler.nice())
        && !(-20..=19).contains(&nice)
    {
        return Err(wrong("/process/scheduler/nice", format!("{nice} is not from -20 to 19")));
    }
    let profile = process.apparmor_profile().as_deref().unwrap_or_default();
    if !profile.is_empty() && !runtime::has_apparmor() {
        return Err(wrong("/process/apparmorProfile", "AppArmor does not run here"));
    }
    Ok(())
}

/// Checks the version: SemVer 2.0.0, with the major version 0 or 1.
fn version(json: &Value) -> Result<()> {
    let text = json["ociVersion"].as_str().unwrap_or_default();
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<Option<u32>> = numbers.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_slice() {
        [Some(0 | 1), Some(_), Some(_)] => Ok(()),
        [Some(_), Some(_), Some(_)] => Err(wrong("/ociVersion", format!("version {text} is not known"))),
        _ => Err(wrong("/ociVersion", format!("{text:?} is no version"))),
    }
}

/// Rejects mapped owners of anything but a bind mount (config.md, "Mounts").
fn mounts(json: &Value) -> Result<()> {
    for (index, mount) in json["mounts"].as_array().into_iter().flatten().enumerate() {
        let mut options = mount["options"].as_array().into_iter().flatten();
        let is_bind = mount["type"] == "bind" || options.any(|option| option == "bind" || option == "rbind");
        for name in ["uidMappings", "gidMappings"] {
            let is_mapped = mount[name].as_array().is_some_and(|list| !list.is_empty());
            if is_mapped && !is_bind {
                let path = format!("/mounts/{index}/{name}");
                return Err(wrong(&path, "only the owners of a bind mount can be mapped"));
            }
        }
    }
    Ok(())
}

/// Rejects devices of no kind that there is (config-linux.md, "Devices").
fn devices(json: &Value) -> Result<()> {
    for (index, device) in json["linux"]["devices"].as_array().into_iter().flatten().enumerate() {
        let kind = device["type"].as_str().unwrap_or_default();
        if !["c", "b", "u", "p"].contains(&kind) {
            let path = format!("/linux/devices/{index}/type");
            return Err(wrong(&path, format!("there is no device of type {kind:?}")));
        }
    }
    Ok(())
}

/// Checks the hooks. `prestart` is deprecated, but still in the specification.
#[allow(deprecated)]
fn hooks(all: &Hooks) -> Result<()> {
    let kinds: [(&str, &Option<Vec<Hook>>); 6] = [
        ("prestart", all.prestart()),
        ("createRuntime", all.create_runtime()),
        ("createContainer", all.create_container()),
        ("startContainer", all.start_container()),
        ("poststart", all.poststart()),
        ("poststop", all.poststop()),
    ];
    for (kind, hooks) in kinds {
        for (index, hook) in hooks.iter().flatten().enumerate() {
            let path = |name: &str| format!("/hooks/{kind}/{index}/{name}");
            if !hook.path().is_absolute() {
                return Err(wrong(&path("path"), format!("{:?} is not absolute", hook.path())));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(wrong(&path("timeout"), "it is not above 0"));
            }
        }
    }
    Ok(())
}

/// Whether the configuration lists a namespace of this kind.
fn lists(linux: &Linux, kind: Kind) -> bool {
    linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind)
}

/// Whether the container has a namespace of this kind other than the caller's. A path may also lead to the
/// caller's own.
fn has(linux: &Linux, kind: Kind) -> bool {
    let is_callers = |path: &PathBuf| runtime::is_own_namespace(kind, path);
    linux
        .namespaces()
        .iter()
        .flatten()
        .any(|one| one.typ() == kind && !one.path().as_ref().is_some_and(is_callers))
}

/// The name in the specification.
fn named(kind: Kind) -> String {
    serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn namespaces(spec: &Spec, linux: &Linux) -> Result<()> {
    let mut kinds = HashSet::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let at = |name: &str| format!("/linux/namespaces/{index}/{name}");
        if !kinds.insert(namespace.typ()) {
            return Err(wrong(
                &at("type"),
                format!("the {} namespace is listed twice", named(namespace.typ())),
            ));
        }
        if let Some(path) = namespace.path().as_ref().filter(|path| !path.is_absolute()) {
            return Err(wrong(&at("path"), format!("{path:?} is not absolute")));
        }
    }
    if !linux.namespaces().iter().flatten().any(|one| one.typ() == Kind::Mount && one.path().is_none()) {
        return Err(wrong("/linux/namespaces", "a container needs a mount namespace of its own"));
    }
    let is_new_user =
        linux.namespaces().iter().flatten().any(|one| one.typ() == Kind::User && one.path().is_none());
    for (path, mappings) in
        [("/linux/uidMappings", linux.uid_mappings()), ("/linux/gidMappings", linux.gid_mappings())]
    {
        let is_empty = mappings.as_ref().is_none_or(Vec::is_empty);
        match (is_new_user, is_empty) {
            (true, true) => return Err(wrong(path, "a new user namespace needs mappings")),
            (false, false) if !lists(linux, Kind::User) => {
                return Err(wrong(path, "there is no user namespace for it"));
            }
            _ => {}
        }
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) {
        if !linux.namespaces().iter().flatten().any(|one| one.typ() == Kind::Time && one.path().is_none()) {
            return Err(wrong("/linux/timeOffsets", "there is no new time namespace for it"));
        }
        for clock in linux.time_offsets().iter().flatten().map(|(clock, _)| clock) {
            if !["monotonic", "boottime"].contains(&clock.as_str()) {
                return Err(wrong(&format!("/linux/timeOffsets/{clock}"), "there is no such clock"));
            }
        }
    }
    for (name, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if value.as_ref().is_some_and(|value| !value.is_empty()) && !has(linux, Kind::Uts) {
            return Err(wrong(&format!("/{name}"), "the container has no uts namespace of its own"));
        }
    }
    Ok(())
}

/// Rejects variables that belong to no namespace of the container: they are the machine's.
fn sysctl(spec: &Spec, linux: &Linux) -> Result<()> {
    for (name, value) in linux.sysctl().iter().flatten() {
        let path = format!("/linux/sysctl/{}", properties::escaped(name));
        let plain = runtime::spec::parameter(name);
        if plain == Path::new("kernel/hostname") {
            return Err(wrong(&path, "`hostname` sets it"));
        }
        match runtime::spec::namespace_of_parameter(&plain) {
            None => return Err(wrong(&path, "it is no variable of a namespace, but the whole machine's")),
            Some(kind) if !has(linux, kind) => {
                return Err(wrong(
                    &path,
                    format!("the container has no {} namespace of its own", named(kind)),
                ));
            }
            Some(_) => {}
        }
        let conflicts = spec.domainname().as_ref().is_some_and(|domain| domain != value);
        if plain == Path::new("kernel/domainname") && conflicts {
            return Err(wrong(&path, "`domainname` sets it to something else"));
        }
    }
    Ok(())
}

fn seccomp(linux: &Linux) -> Result<()> {
    let Some(policy) = linux.seccomp() else { return Ok(()) };
    let asks =
        policy.syscalls().iter().flatten().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    let listener = policy.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    match (asks, listener) {
        (true, None) => {
            Err(wrong("/linux/seccomp/listenerPath", "SCMP_ACT_NOTIFY needs a program that answers"))
        }
        (_, Some(path)) if !path.is_absolute() => {
            Err(wrong("/linux/seccomp/listenerPath", format!("{path:?} is not absolute")))
        }
        (_, None) if policy.listener_metadata().as_ref().is_some_and(|text| !text.is_empty()) => {
            Err(wrong("/linux/seccomp/listenerMetadata", "there is no listener for it"))
        }
        _ => Ok(()),
    }
}

fn cgroups_path(linux: &Linux) -> Result<()> {
    let path = linux.cgroups_path().as_deref().unwrap_or(Path::new(""));
    match path.components().any(|part| part == std::path::Component::ParentDir) {
        true => Err(wrong("/linux/cgroupsPath", format!("{path:?} leads out of itself"))),
        false => Ok(()),
    }
}
