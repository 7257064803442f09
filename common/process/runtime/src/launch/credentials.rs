//! User, groups and capabilities (capabilities(7)).

use std::os::fd::OwnedFd;

use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process};
use rustix::{
    io::Errno,
    process::{Gid, Uid},
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
        remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use seccomp::Program;

use super::Channel;
use crate::{Error, error::Result};

/// Switches to the process's user and gives up everything else, except for what [`finish`] still needs if
/// there is a seccomp program. The process must have one thread. `denies_setgroups` says whether the user
/// namespace forbids setgroups(2); the container's own `/proc` is not asked. Capabilities that the caller lacks
/// are left out. `told` gets a warning about them, as runtime-spec demands (config.md, "capabilities").
pub(super) fn take(
    process: &Process,
    denies_setgroups: bool,
    is_filtered: bool,
    told: Option<&Channel>,
) -> Result<()> {
    let capabilities = process.capabilities().as_ref();
    if let Some(capabilities) = capabilities {
        told.into_iter().for_each(|told| warn(capabilities, told));
        bound(set(capabilities.bounding()))?;
    }
    set_keep_capabilities(true).map_err(Error::at("keep", "capabilities"))?;
    become_user(process, denies_setgroups)?;
    set_keep_capabilities(false).map_err(Error::at("keep", "capabilities no longer"))?;
    let kept = match is_filtered && !gains_nothing(process) {
        true => CapabilitySet::SYS_ADMIN,
        false => CapabilitySet::empty(),
    };
    capabilities.map_or(Ok(()), |capabilities| limit(capabilities, kept))
}

/// Installs the seccomp program. This is the last step before the command is executed, because little else
/// works under a strict policy. The kernel accepts the program from a process with CAP_SYS_ADMIN or
/// `no_new_privs`. Returns the descriptor on which calls arrive that the program passes to another program.
pub(super) fn finish(process: &Process, program: Option<&Program>) -> Result<Option<OwnedFd>> {
    if gains_nothing(process) {
        set_no_new_privs(true).map_err(Error::at("set", "no_new_privs"))?;
    }
    let install = || match program {
        Some(program) => program.install().map_err(Error::at("install", "the seccomp policy")),
        None => Ok(None),
    };
    let Some(capabilities) = process.capabilities() else { return install() };
    let mut listener = None;
    if !gains_nothing(process) {
        listener = install()?;
        if program.is_some() {
            limit(capabilities, CapabilitySet::empty())?;
        }
    }
    for capability in ambient(capabilities).iter() {
        configure_capability_in_ambient_set(capability, true)
            .map_err(Error::at("set", "ambient capabilities"))?;
    }
    if gains_nothing(process) { install() } else { Ok(listener) }
}

/// Leaves the capabilities that a process has after it executes a program: root keeps its own, and another
/// user keeps the ambient ones. For a process that executes no program.
pub(super) fn as_if_executed(process: &Process) -> Result<()> {
    if process.user().uid() == 0 {
        return Ok(());
    }
    let ambient = process.capabilities().as_ref().map_or(CapabilitySet::empty(), ambient);
    let reduce = || {
        let inheritable = rustix::thread::capabilities(None)?.inheritable;
        set_capabilities(None, CapabilitySets { effective: ambient, permitted: ambient, inheritable })
    };
    reduce().map_err(Error::at("set", "capabilities"))
}

fn gains_nothing(process: &Process) -> bool {
    process.no_new_privileges().unwrap_or_default()
}

/// Leaves these capabilities, and `kept`, which is not inherited.
fn limit(capabilities: &LinuxCapabilities, kept: CapabilitySet) -> Result<()> {
    let had = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
    let sets = CapabilitySets {
        // The kernel takes no effective capability that is not permitted.
        effective: set(capabilities.effective()) & set(capabilities.permitted()) | (kept & had),
        permitted: set(capabilities.permitted()) | (kept & had),
        inheritable: set(capabilities.inheritable()),
    };
    set_capabilities(None, sets).map_err(Error::at("set", "capabilities"))?;
    clear_ambient_capability_set().map_err(Error::at("clear", "ambient capabilities"))
}

fn become_user(process: &Process, denies_setgroups: bool) -> Result<()> {
    let user = process.user();
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    let own_alone = groups.iter().all(|group| *group == user.gid());
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    // A user namespace may forbid this. The process then keeps the caller's groups, which have no mapping.
    if !(own_alone && denies_setgroups) {
        set_thread_groups(&groups).map_err(Error::at("set", "supplementary groups"))?;
    }
    let gid = Gid::from_raw(user.gid());
    set_thread_res_gid(gid, gid, gid).map_err(Error::at("become", format_args!("group {}", user.gid())))?;
    let uid = Uid::from_raw(user.uid());
    set_thread_res_uid(uid, uid, uid).map_err(Error::at("become", format_args!("user {}", user.uid())))
}

/// Drops everything except `kept` from the bounding set. The kernel says where its list ends.
fn bound(kept: CapabilitySet) -> Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(Error::system("drop", "capabilities from the bounding set", errno)),
        }
    }
    Ok(())
}

/// Converts a set to the kernel's form. Capabilities that this kernel or the caller lacks are left out:
/// `--privileged` means all that exist.
fn set(capabilities: &Option<Capabilities>) -> CapabilitySet {
    wanted(capabilities) & had()
}

fn wanted(capabilities: &Option<Capabilities>) -> CapabilitySet {
    let names = capabilities.iter().flatten().map(ToString::to_string);
    let known = names.filter_map(|name| CapabilitySet::from_name(&name));
    known.fold(CapabilitySet::empty(), |all, one| all | one)
}

/// What this thread may have.
fn had() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::all(), |sets| sets.permitted)
}

/// The ambient capabilities that the kernel takes: they are permitted and inheritable (capabilities(7)). `runc spec`
/// of runc 1.1 asks for others.
fn ambient(capabilities: &LinuxCapabilities) -> CapabilitySet {
    set(capabilities.ambient()) & wanted(capabilities.permitted()) & wanted(capabilities.inheritable())
}

/// Sends a warning about the capabilities that the process does not get.
fn warn(capabilities: &LinuxCapabilities, told: &Channel) {
    let sets = [
        capabilities.bounding(),
        capabilities.effective(),
        capabilities.permitted(),
        capabilities.inheritable(),
        capabilities.ambient(),
    ];
    let all = sets.into_iter().map(wanted).fold(CapabilitySet::empty(), |all, one| all | one);
    let names = |set: CapabilitySet| {
        set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect::<Vec<_>>().join(", ")
    };
    let lacking = all.difference(had());
    if !lacking.is_empty() {
        told.warn(&Error::new(format!("set capabilities: {} cannot be granted", names(lacking))));
    }
    let effective = wanted(capabilities.effective()).difference(wanted(capabilities.permitted()));
    if !effective.is_empty() {
        told.warn(&Error::new(format!("set effective capabilities: {} must be permitted", names(effective))));
    }
    let refused = wanted(capabilities.ambient()).difference(ambient(capabilities) | lacking);
    if !refused.is_empty() {
        let names = names(refused);
        told.warn(&Error::new(format!(
            "set ambient capabilities: {names} must be permitted and inheritable"
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    #[test]
    fn every_capability_of_the_specification_is_known_by_its_name() {
        for capability in [
            Capability::AuditControl,
            Capability::Bpf,
            Capability::CheckpointRestore,
            Capability::DacReadSearch,
            Capability::LinuxImmutable,
            Capability::NetBindService,
            Capability::Perfmon,
            Capability::SysPacct,
            Capability::WakeAlarm,
        ] {
            assert!(CapabilitySet::from_name(&capability.to_string()).is_some(), "{capability}");
        }
    }
}
