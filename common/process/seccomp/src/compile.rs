//! Compiles a policy into the kernel's program.
//!
//! The program checks the architecture, then finds the number of the system call by binary search, then
//! checks the arguments. Neighbouring numbers with the same answer are one range, so a long list of allowed
//! calls is short.

use std::collections::{BTreeMap, HashSet};

use nix::{errno::Errno, libc};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag, LinuxSyscall,
};

use crate::{
    Arch, Error,
    arch::X32_BIT,
    argument,
    instruction::{ARCHITECTURE, Instruction, NUMBER, Test, branch, end, load},
};

/// The highest number of instructions that the kernel accepts (`BPF_MAXINSNS`).
pub(crate) const MOST: usize = 4096;

/// A program that the kernel runs at each system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) flags: libc::c_ulong,
    pub(crate) notifies: bool,
}

/// The result of all rules for one system call, on one architecture.
#[derive(Debug, Clone, Default)]
struct Call {
    /// The action of a rule without conditions. It overrides all others, as with libseccomp.
    plain: Option<u32>,
    /// Rules with conditions on arguments, in the order of the policy. The first one that holds counts.
    conditional: Vec<(Vec<LinuxSeccompArg>, u32)>,
}

impl Program {
    /// Compiles an OCI policy.
    ///
    /// Reads rules as libseccomp and runc do. A rule with the default action has no effect. Two conditions on
    /// one argument are two rules. Names that an architecture does not have are ignored. A call that is newer
    /// than every call in the policy fails with ENOSYS instead of the default error, so that a C library
    /// falls back to an older call.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn compile(policy: &LinuxSeccomp) -> Result<Self, Error> {
        let default = action(policy.default_action(), policy.default_errno_ret())?;
        if policy.default_action() == Action::ScmpActNotify {
            return Err(Error::NotifyByDefault);
        }
        let rules = policy.syscalls().as_deref().unwrap_or_default();
        let mut blocks: Vec<(Arch, Vec<Instruction>)> = Vec::new();
        for arch in architectures(policy) {
            let block = block(arch, rules, (default, policy))?;
            blocks.push((arch, block));
        }
        let mut instructions = vec![load(ARCHITECTURE)];
        instructions.extend(dispatch(&blocks));
        if instructions.len() > MOST {
            return Err(Error::TooLong(instructions.len()));
        }
        let notifies = rules.iter().any(|rule| rule.action() == Action::ScmpActNotify);
        Ok(Self { instructions, flags: flags(policy, notifies), notifies })
    }

    /// The instructions, in the kernel's form.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The number of instructions.
    pub fn length(&self) -> usize {
        self.instructions.len()
    }

    /// The flags for seccomp(2): `SECCOMP_FILTER_FLAG_*`.
    pub fn flags(&self) -> libc::c_ulong {
        self.flags
    }

    /// Whether a rule has the action SCMP_ACT_NOTIFY.
    pub fn notifies(&self) -> bool {
        self.notifies
    }
}

/// The names in the policy that no architecture has: they are misspelt, or newer than this program.
pub fn unknown_names(policy: &LinuxSeccomp) -> Vec<String> {
    let known: HashSet<&str> = Arch::ALL.iter().flat_map(|arch| arch.numbers().into_keys()).collect();
    let names = policy.syscalls().iter().flatten().flat_map(LinuxSyscall::names);
    names.filter(|name| !known.contains(name.as_str())).cloned().collect()
}

/// The policy's architectures that this machine can have, with its own first. As with libseccomp, the list adds to
/// the machine's own: profiles name other ones alone, or those of another machine.
fn architectures(policy: &LinuxSeccomp) -> Vec<Arch> {
    let named = policy.architectures().iter().flatten().filter_map(|arch| Arch::of(*arch));
    let mut list: Vec<Arch> = [Arch::NATIVE].into_iter().chain(named).collect();
    list.sort_by_key(|arch| *arch != Arch::NATIVE);
    list.dedup();
    list
}

/// Chooses the block by the architecture, which is in the accumulator. A call of another architecture kills
/// the thread, as with libseccomp: nothing is known about its number.
fn dispatch(blocks: &[(Arch, Vec<Instruction>)]) -> Vec<Instruction> {
    let of = |arch| blocks.iter().find(|(known, _)| *known == arch).map(|(_, block)| block.clone());
    let other = vec![end(libc::SECCOMP_RET_KILL_THREAD)];
    let mut program = other.clone();
    for (arch, block) in blocks.iter().rev().filter(|(arch, _)| *arch != Arch::X32) {
        let mut own = vec![load(NUMBER)];
        match arch {
            Arch::X86_64 => {
                // A tracer sets -1 to skip a call. This is not a call of x32.
                let x32 = of(Arch::X32).unwrap_or_else(|| other.clone());
                let x32 = branch(Test::Equal, u32::MAX, block.clone(), x32);
                own.extend(branch(Test::AtLeast, X32_BIT, x32, block.clone()));
            }
            _ => own.extend(block.clone()),
        }
        program = branch(Test::Equal, arch.audit(), own, program);
    }
    // x32 without 64-bit x86.
    if let (Some(x32), None) = (of(Arch::X32), of(Arch::X86_64)) {
        let mut own = vec![load(NUMBER)];
        own.extend(branch(Test::AtLeast, X32_BIT, x32, other));
        program = branch(Test::Equal, Arch::X32.audit(), own, program);
    }
    program
}

/// The program for one architecture. The number of the system call is in the accumulator.
fn block(
    arch: Arch,
    rules: &[LinuxSyscall],
    (default, policy): (u32, &LinuxSeccomp),
) -> Result<Vec<Instruction>, Error> {
    let numbers = arch.numbers();
    let mut calls: BTreeMap<u32, Call> = BTreeMap::new();
    let mut newest = 0;
    for rule in rules {
        let action = action(rule.action(), rule.errno_ret())?;
        for name in rule.names() {
            let Some(number) = numbers.get(name.as_str()) else { continue };
            newest = newest.max(*number);
            if action != default {
                add(calls.entry(*number).or_default(), name, rule, action)?;
            }
        }
    }
    let denies = matches!(policy.default_action(), Action::ScmpActErrno);
    let newer = if denies && newest > 0 { libc::SECCOMP_RET_ERRNO | Errno::ENOSYS as u32 } else { default };
    // Each range is stored by its first number, with its answer.
    let mut ranges: Vec<(u32, Vec<Instruction>)> = vec![(0, vec![end(default)])];
    let mut push = |first, answer: Vec<Instruction>| match ranges.last() {
        Some((_, last)) if *last == answer => {}
        Some((start, _)) if *start == first => {
            ranges.pop();
            // The rest may have the same answer as the range before.
            if ranges.last().is_none_or(|(_, last)| *last != answer) {
                ranges.push((first, answer));
            }
        }
        _ => ranges.push((first, answer)),
    };
    for (number, call) in calls {
        push(number, call.answer(arch, default));
        push(number + 1, vec![end(default)]);
    }
    if newer != default {
        push(newest + 1, vec![end(newer)]);
        // Not for -1, which a tracer sets to skip a call.
        push(u32::MAX, vec![end(default)]);
    }
    Ok(search(&ranges))
}

/// Adds a rule to the result for a call.
fn add(call: &mut Call, name: &str, rule: &LinuxSyscall, action: u32) -> Result<(), Error> {
    let conditions = rule.args().as_deref().unwrap_or_default();
    if let Some(wrong) = conditions.iter().find(|condition| condition.index() > 5) {
        return Err(Error::NoArgument { name: name.to_owned(), index: wrong.index() });
    }
    let twice = |index| conditions.iter().filter(|other| other.index() == index).count() > 1;
    if conditions.is_empty() {
        call.plain.get_or_insert(action);
    } else if conditions.iter().any(|condition| twice(condition.index())) {
        call.conditional.extend(conditions.iter().map(|condition| (vec![*condition], action)));
    } else {
        call.conditional.push((conditions.to_vec(), action));
    }
    Ok(())
}

impl Call {
    fn answer(&self, arch: Arch, default: u32) -> Vec<Instruction> {
        if let Some(action) = self.plain {
            return vec![end(action)];
        }
        let rules = self.conditional.iter();
        let mut program: Vec<_> = rules
            .flat_map(|(conditions, action)| argument::rule(conditions, arch.width(), *action))
            .collect();
        program.push(end(default));
        program
    }
}

/// Finds the range of the number by binary search.
fn search(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    match ranges {
        [] => Vec::new(),
        [(_, answer)] => answer.clone(),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let middle = upper.first().map_or(0, |(first, _)| *first);
            branch(Test::AtLeast, middle, search(upper), search(lower))
        }
    }
}

/// The value that the program returns to the kernel for an action.
fn action(action: Action, errno: Option<u32>) -> Result<u32, Error> {
    // runc's default for a rule without a number.
    let data = errno.unwrap_or(Errno::EPERM as u32);
    if data > 4095 && matches!(action, Action::ScmpActErrno) {
        return Err(Error::Errno(data));
    }
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        Action::ScmpActErrno => libc::SECCOMP_RET_ERRNO | data,
        Action::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        Action::ScmpActTrace => libc::SECCOMP_RET_TRACE | (data & libc::SECCOMP_RET_DATA),
        Action::ScmpActLog => libc::SECCOMP_RET_LOG,
        Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    })
}

fn flags(policy: &LinuxSeccomp, notifies: bool) -> libc::c_ulong {
    let named = policy.flags().iter().flatten().map(|flag| match flag {
        Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        Flag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
        Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        Flag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
    });
    let flags = named.fold(0, |all, flag| all | flag);
    match notifies {
        // The two flags exclude each other. The process that installs the program has one thread.
        true => (flags & !libc::SECCOMP_FILTER_FLAG_TSYNC) | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        false => flags,
    }
}

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` of linux/seccomp.h.
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
