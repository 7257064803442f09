use std::{collections::HashSet, str::FromStr};

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

use super::Overrides;

/// Docker's default set, 00000000a80425fb in `/proc/<pid>/status`.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// The names of all capabilities that the kernel knows.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A name that is not a capability.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a capability: see capabilities(7)")]
pub struct Unknown(String);

fn all() -> Capabilities {
    ALL.iter().filter_map(|name| Capability::from_str(name).ok()).collect()
}

/// All capabilities, in the bounding, effective and permitted set. The other sets are empty.
///
/// # Errors
/// When the sets cannot be described.
pub fn every() -> Result<LinuxCapabilities, oci_spec::OciSpecError> {
    let builder = LinuxCapabilitiesBuilder::default();
    builder
        .bounding(all())
        .effective(all())
        .permitted(all())
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
}

fn parse(name: &str) -> Result<Capabilities, Unknown> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if plain == "ALL" {
        return Ok(all());
    }
    Capability::from_str(plain).map(|one| HashSet::from([one])).map_err(|_| Unknown(name.to_owned()))
}

fn parse_all(names: &[String]) -> Result<Capabilities, Unknown> {
    names.iter().try_fold(Capabilities::new(), |all, name| Ok(all.union(&parse(name)?).copied().collect()))
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL")
}

/// The capability sets of a process, by Docker's rule (`TweakCapabilities`). `drop ALL` leaves only the added
/// ones, and `add ALL` leaves out the dropped ones. Otherwise a capability that is dropped and added is
/// added.
pub(super) fn sets(overrides: &Overrides) -> Result<LinuxCapabilities, Unknown> {
    let (added, dropped) = (parse_all(&overrides.cap_add)?, parse_all(&overrides.cap_drop)?);
    let set: Capabilities = if overrides.privileged {
        all()
    } else if overrides.cap_add.iter().any(|name| is_all(name)) {
        let named: Vec<String> = overrides.cap_drop.iter().filter(|name| !is_all(name)).cloned().collect();
        all().difference(&parse_all(&named)?).copied().collect()
    } else if overrides.cap_drop.iter().any(|name| is_all(name)) {
        added
    } else {
        let base: Capabilities = DEFAULT.into_iter().collect();
        base.difference(&dropped).chain(&added).copied().collect()
    };
    let built = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build();
    Ok(built.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_and_dropped_as_with_docker() {
        assert_eq!(all().len(), ALL.len());
        let count = |add: &[&str], drop: &[&str], privileged| {
            let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let overrides =
                Overrides { cap_add: list(add), cap_drop: list(drop), privileged, ..Overrides::default() };
            sets(&overrides).map(|sets| sets.bounding().as_ref().unwrap().len())
        };
        assert_eq!(count(&[], &[], false).unwrap(), 14);
        assert_eq!(count(&["cap_net_admin", "CHOWN"], &[], false).unwrap(), 15);
        assert_eq!(count(&[], &["NET_RAW"], false).unwrap(), 13);
        assert_eq!(count(&["NET_ADMIN"], &["all"], false).unwrap(), 1);
        assert_eq!(count(&["ALL"], &["SYS_ADMIN"], false).unwrap(), 40);
        assert_eq!(count(&[], &["ALL"], true).unwrap(), 41);
        assert_eq!(count(&["CHOWN"], &["CHOWN"], false).unwrap(), 14);
        assert_eq!(count(&["NET_ADMIN", "SYS_TIME"], &["sys_time", "CHOWN"], false).unwrap(), 15);
        assert_eq!(count(&["ALL"], &["ALL", "CHOWN"], false).unwrap(), 40);
        assert_eq!(
            count(&["FLY"], &[], false).unwrap_err().to_string(),
            "\"FLY\" is not a capability: see capabilities(7)"
        );
    }
}
