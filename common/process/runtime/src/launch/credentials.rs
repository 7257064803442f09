//! User, groups and capabilities (capabilities(7)).

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

use crate::{Error, error::Result};

/// Switches to the process's user and gives up everything else, except what [`finish`] still needs if there is a seccomp
/// program. The process has one thread. `denies_setgroups`: what the user namespace says of groups. The container's own
/// `/proc` is not asked.
pub(super) fn take(process: &Process, denies_setgroups: bool, is_filtered: bool) -> Result<()> {
    let capabilities = process.capabilities().as_ref();
    if let Some(capabilities) = capabilities {
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

/// The last step before the command is executed, because little else works under a strict policy: installs the program.
/// The kernel takes it from who has CAP_SYS_ADMIN, or can gain no privileges any more.
pub(super) fn finish(process: &Process, program: Option<&Program>) -> Result<()> {
    if gains_nothing(process) {
        set_no_new_privs(true).map_err(Error::at("set", "no_new_privs"))?;
    }
    let install = || match program {
        Some(program) => program.install().map(drop).map_err(Error::at("install", "the seccomp policy")),
        None => Ok(()),
    };
    let Some(capabilities) = process.capabilities() else { return install() };
    if !gains_nothing(process) {
        install()?;
        if program.is_some() {
            limit(capabilities, CapabilitySet::empty())?;
        }
    }
    for capability in set(capabilities.ambient()).iter() {
        configure_capability_in_ambient_set(capability, true)
            .map_err(Error::at("set", "ambient capabilities"))?;
    }
    if gains_nothing(process) { install() } else { Ok(()) }
}

/// Leaves the capabilities that a process has after it has executed a program: root's stay, another user has the ambient ones.
/// For a process that executes none.
pub(super) fn as_if_executed(process: &Process) -> Result<()> {
    if process.user().uid() == 0 {
        return Ok(());
    }
    let ambient = process.capabilities().as_ref().map_or(CapabilitySet::empty(), |sets| set(sets.ambient()));
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
        effective: set(capabilities.effective()) | (kept & had),
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
    // A user namespace may forbid this. Then the caller's groups stay, which have no mapping.
    if !(own_alone && denies_setgroups) {
        set_thread_groups(&groups).map_err(Error::at("set", "supplementary groups"))?;
    }
    let gid = Gid::from_raw(user.gid());
    set_thread_res_gid(gid, gid, gid).map_err(Error::at("become", format_args!("group {}", user.gid())))?;
    let uid = Uid::from_raw(user.uid());
    set_thread_res_uid(uid, uid, uid).map_err(Error::at("become", format_args!("user {}", user.uid())))
}

/// Drops everything except `kept` from the bounding set. The kernel tells where its list ends.
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

/// A set in the kernel's form. Capabilities that this kernel or the caller lacks are left out: `--privileged` means all
/// that exist.
fn set(capabilities: &Option<Capabilities>) -> CapabilitySet {
    let names = capabilities.iter().flatten().map(ToString::to_string);
    let wanted = names
        .filter_map(|name| CapabilitySet::from_name(&name))
        .fold(CapabilitySet::empty(), |all, one| all | one);
    let had = rustix::thread::capabilities(None).map_or(CapabilitySet::all(), |sets| sets.permitted);
    wanted & had
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
