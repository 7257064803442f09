//! The properties that a `config.json` may have (OCI runtime-spec 1.2, config.md and config-linux.md;
//! `memoryPolicy` is of 1.3).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::Error;

/// The supported properties, by their JSON paths. `*` is any element of an array, or any name.
const CARRIED_OUT: &str = "
/ociVersion /hostname /domainname /annotations/* /root/path /root/readonly
/mounts/*/destination /mounts/*/type /mounts/*/source /mounts/*/options/*
/mounts/*/uidMappings/*/MAPPING /mounts/*/gidMappings/*/MAPPING
/hooks/prestart/*/HOOK /hooks/createRuntime/*/HOOK /hooks/createContainer/*/HOOK /hooks/startContainer/*/HOOK
/hooks/poststart/*/HOOK /hooks/poststop/*/HOOK
/process/terminal /process/consoleSize/height /process/consoleSize/width /process/cwd /process/env/* /process/args/*
/process/user/uid /process/user/gid /process/user/umask /process/user/additionalGids/*
/process/rlimits/*/type /process/rlimits/*/soft /process/rlimits/*/hard
/process/capabilities/effective/* /process/capabilities/bounding/* /process/capabilities/inheritable/*
/process/capabilities/permitted/* /process/capabilities/ambient/*
/process/noNewPrivileges /process/apparmorProfile /process/oomScoreAdj /process/ioPriority/class /process/ioPriority/priority
/process/scheduler/policy /process/scheduler/nice /process/scheduler/priority /process/scheduler/flags/*
/process/scheduler/runtime /process/scheduler/deadline /process/scheduler/period
/process/execCPUAffinity/initial /process/execCPUAffinity/final
/linux/namespaces/*/type /linux/namespaces/*/path /linux/uidMappings/*/MAPPING /linux/gidMappings/*/MAPPING
/linux/timeOffsets/*/secs /linux/timeOffsets/*/nanosecs
/linux/devices/*/type /linux/devices/*/path /linux/devices/*/major /linux/devices/*/minor /linux/devices/*/fileMode
/linux/devices/*/uid /linux/devices/*/gid
/linux/cgroupsPath /linux/sysctl/* /linux/rootfsPropagation /linux/maskedPaths/* /linux/readonlyPaths/*
/linux/personality/domain /linux/memoryPolicy/mode /linux/memoryPolicy/nodes /linux/memoryPolicy/flags/*
/linux/seccomp/defaultAction /linux/seccomp/defaultErrnoRet /linux/seccomp/architectures/* /linux/seccomp/flags/*
/linux/seccomp/listenerPath /linux/seccomp/listenerMetadata
/linux/seccomp/syscalls/*/names/* /linux/seccomp/syscalls/*/action /linux/seccomp/syscalls/*/errnoRet
/linux/seccomp/syscalls/*/args/*/index /linux/seccomp/syscalls/*/args/*/value
/linux/seccomp/syscalls/*/args/*/valueTwo /linux/seccomp/syscalls/*/args/*/op
/linux/resources/devices/*/allow /linux/resources/devices/*/type /linux/resources/devices/*/major
/linux/resources/devices/*/minor /linux/resources/devices/*/access
/linux/resources/memory/limit /linux/resources/memory/reservation /linux/resources/memory/swap
/linux/resources/memory/kernel /linux/resources/memory/kernelTCP /linux/resources/memory/swappiness
/linux/resources/memory/disableOOMKiller /linux/resources/memory/useHierarchy /linux/resources/memory/checkBeforeUpdate
/linux/resources/cpu/shares /linux/resources/cpu/quota /linux/resources/cpu/burst /linux/resources/cpu/period
/linux/resources/cpu/realtimeRuntime /linux/resources/cpu/realtimePeriod /linux/resources/cpu/cpus
/linux/resources/cpu/mems /linux/resources/cpu/idle
/linux/resources/blockIO/weight /linux/resources/blockIO/leafWeight
/linux/resources/blockIO/weightDevice/*/major /linux/resources/blockIO/weightDevice/*/minor
/linux/resources/blockIO/weightDevice/*/weight /linux/resources/blockIO/weightDevice/*/leafWeight
/linux/resources/blockIO/throttleReadBpsDevice/*/RATE /linux/resources/blockIO/throttleWriteBpsDevice/*/RATE
/linux/resources/blockIO/throttleReadIOPSDevice/*/RATE /linux/resources/blockIO/throttleWriteIOPSDevice/*/RATE
/linux/resources/hugepageLimits/*/pageSize /linux/resources/hugepageLimits/*/limit
/linux/resources/network/classID /linux/resources/network/priorities/*/name
/linux/resources/network/priorities/*/priority
/linux/resources/pids/limit /linux/resources/rdma/*/hcaHandles /linux/resources/rdma/*/hcaObjects
/linux/resources/unified/*
";

/// Names for groups of properties that occur in several places.
const GROUPS: [(&str, &[&str]); 3] = [
    ("MAPPING", &["containerID", "hostID", "size"]),
    ("HOOK", &["path", "args/*", "env/*", "timeout"]),
    ("RATE", &["major", "minor", "rate"]),
];

/// The properties that are not supported, each with the reason.
const REJECTED: [(&str, &str); 11] = [
    ("/solaris", OTHER_PLATFORM),
    ("/windows", OTHER_PLATFORM),
    ("/vm", "containers are processes here, and no virtual machines"),
    ("/zos", OTHER_PLATFORM),
    ("/process/commandLine", OTHER_PLATFORM),
    ("/process/user/username", OTHER_PLATFORM),
    ("/process/selinuxLabel", "labels of SELinux are not carried out"),
    ("/linux/mountLabel", "labels of SELinux are not carried out"),
    ("/linux/intelRdt", "classes of service of Intel RDT are not carried out"),
    ("/linux/personality/flags", "the specification has none yet, so none is known"),
    ("/mounts/*/zos", OTHER_PLATFORM),
];

const OTHER_PLATFORM: &str = "it is for another platform than Linux";

/// A property that is not supported: its JSON path and the reason.
#[derive(Debug, PartialEq, Eq)]
struct Rejected {
    path: String,
    reason: &'static str,
}

/// The properties allowed below a property.
#[derive(Debug, Default)]
struct Node(BTreeMap<&'static str, Node>);

impl Node {
    fn add(&mut self, path: &[&'static str]) {
        let Some((name, rest)) = path.split_first() else { return };
        let group = GROUPS.iter().find(|(group, _)| group == name).map(|(_, members)| *members);
        for member in group.unwrap_or(&[*name]) {
            let parts: Vec<&str> = member.split('/').chain(rest.iter().copied()).collect();
            if let Some((first, rest)) = parts.split_first() {
                self.0.entry(first).or_default().add(rest);
            }
        }
    }

    fn below(&self, name: &str) -> Option<&Self> {
        self.0.get(name).or_else(|| self.0.get("*"))
    }
}

/// Removes properties that the specification does not have, and returns a warning about each. `within` is the
/// path of `value`: empty for a whole `config.json`, `/process` for a process.
///
/// # Errors
/// For a property of the specification that is set but not supported.
pub(crate) fn filtered(value: &mut Value, within: &str) -> crate::Result<Vec<String>> {
    let unknown =
        filter(value, within).map_err(|Rejected { path, reason }| Error::new("carry out", path, reason))?;
    let told = |path| format!("ignore {path}: OCI runtime-spec 1.2 has no such property");
    Ok(unknown.into_iter().map(told).collect())
}

/// As [`filtered`], but returns the JSON paths.
fn filter(value: &mut Value, within: &str) -> Result<Vec<String>, Rejected> {
    let mut known = Node::default();
    for path in CARRIED_OUT.split_ascii_whitespace() {
        known.add(&path.split('/').skip(1).collect::<Vec<_>>());
    }
    let mut node = &known;
    for name in within.split('/').skip(1) {
        match node.below(name) {
            Some(below) => node = below,
            None => return Ok(Vec::new()),
        }
    }
    let mut unknown = Vec::new();
    walk(value, node, (within, within), &mut unknown)?;
    Ok(unknown)
}

/// Filters a value. `path` is its JSON path; `form` is the same with `*` for the indices of arrays.
fn walk(
    value: &mut Value,
    known: &Node,
    (path, form): (&str, &str),
    unknown: &mut Vec<String>,
) -> Result<(), Rejected> {
    match value {
        Value::Object(members) => members_of(members, known, (path, form), unknown),
        Value::Array(elements) => match known.0.get("*") {
            None => Ok(()),
            Some(below) => elements.iter_mut().enumerate().try_for_each(|(index, element)| {
                walk(element, below, (&format!("{path}/{index}"), &format!("{form}/*")), unknown)
            }),
        },
        _ => Ok(()),
    }
}

fn members_of(
    members: &mut Map<String, Value>,
    known: &Node,
    (path, form): (&str, &str),
    unknown: &mut Vec<String>,
) -> Result<(), Rejected> {
    let mut strange = Vec::new();
    for (name, value) in members.iter_mut() {
        let (path, form) = (format!("{path}/{}", escaped(name)), format!("{form}/{name}"));
        if let Some((_, reason)) = REJECTED.iter().find(|(rejected, _)| *rejected == form) {
            if is_set(value) {
                return Err(Rejected { path, reason });
            }
            strange.push(name.clone());
            continue;
        }
        match known.below(name) {
            Some(below) => walk(value, below, (&path, &form), unknown)?,
            None => {
                strange.push(name.clone());
                unknown.push(path);
            }
        }
    }
    for name in strange {
        members.shift_remove(&name);
    }
    // Go writes null for an empty list.
    members.retain(|_, value| !value.is_null());
    Ok(())
}

/// Escapes a name for a JSON path (RFC 6901).
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Whether the property asks for anything.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(members) => members.values().any(is_set),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_unknown_is_taken_out_and_told() {
        let mut config = json!({
            "ociVersion": "1.2.0", "x": 1, "process": {"args": ["a"], "user": {"uid": 0, "colour": "red"}, "env": null},
            "mounts": [{"destination": "/a", "strange": {"windows": 1}}],
            "annotations": {"anything": "goes"},
            "linux": {"netDevices": {"eth0": {}}, "sysctl": {"net.ipv4.ip_forward": "1"}}
        });
        let unknown = filter(&mut config, "").unwrap();
        assert_eq!(unknown, ["/x", "/process/user/colour", "/mounts/0/strange", "/linux/netDevices"]);
        let expected = json!({
            "ociVersion": "1.2.0", "process": {"args": ["a"], "user": {"uid": 0}},
            "mounts": [{"destination": "/a"}], "annotations": {"anything": "goes"},
            "linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn what_is_not_carried_out_is_rejected_by_its_path() {
        for (config, path) in [
            (json!({"windows": {"layerFolders": ["a"]}}), "/windows"),
            (json!({"process": {"selinuxLabel": "a"}}), "/process/selinuxLabel"),
            (json!({"process": {"user": {"username": "me"}}}), "/process/user/username"),
            (json!({"linux": {"intelRdt": {"closID": "a"}}}), "/linux/intelRdt"),
            (
                json!({"linux": {"personality": {"domain": "LINUX", "flags": ["A"]}}}),
                "/linux/personality/flags",
            ),
        ] {
            assert_eq!(filter(&mut config.clone(), "").unwrap_err().path, path, "{config}");
        }
        let mut unset =
            json!({"windows": null, "process": {"selinuxLabel": "", "user": {}}, "linux": {"intelRdt": {}}});
        assert_eq!(filter(&mut unset, "").unwrap(), Vec::<String>::new());
        let process = json!({"selinuxLabel": "a"});
        assert_eq!(filter(&mut process.clone(), "/process").unwrap_err().path, "/process/selinuxLabel");
    }
}
