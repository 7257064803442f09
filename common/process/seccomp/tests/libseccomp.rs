//! Compares the program with the one that libseccomp makes from the same policy. Both are run on every system
//! call's number, with arguments at and beside every value that the policy compares with, and must give the
//! same answer.
//!
//! Needs gcc and libseccomp-dev, as `scripts/test` installs them.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod interpreter;

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use interpreter::{Call, run};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall, LinuxSyscallBuilder,
};
use seccomp::{Arch, Conditions, Instruction, Profile, Program};

/// `AUDIT_ARCH_*`: of 64-bit x86 (and x32), 32-bit x86, 64-bit and 32-bit ARM.
const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;

const ENOSYS: u32 = 0x0005_0000 | 38;

/// libseccomp, as a program that reads a policy.
struct Peer {
    _dir: tempfile::TempDir,
    program: PathBuf,
}

impl Peer {
    fn build() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("export");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export.c");
        let built =
            Command::new("gcc").arg("-o").arg(&program).arg(source).arg("-lseccomp").status().unwrap();
        assert!(built.success(), "libseccomp-dev is needed");
        Self { _dir: dir, program }
    }

    /// The program of libseccomp, and the names that it does not know.
    fn compile(&self, policy: &LinuxSeccomp) -> (Vec<Instruction>, BTreeSet<String>) {
        let mut child =
            Command::new(&self.program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines(policy).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        let empty = match output.stdout.starts_with(b"\n") {
            true => 0,
            false => output.stdout.windows(2).position(|pair| pair == b"\n\n").unwrap() + 1,
        };
        let names =
            std::str::from_utf8(&output.stdout[..empty]).unwrap().lines().map(str::to_owned).collect();
        let program = output.stdout[empty + 1..].chunks_exact(8).map(|bytes| Instruction {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes(bytes[4..8].try_into().unwrap()),
        });
        (program.collect(), names)
    }
}

/// The action as `SCMP_ACT_*` of libseccomp, which are the kernel's numbers.
fn number(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::ScmpActErrno => 0x0005_0000 | errno.unwrap_or(1),
        Action::ScmpActTrace => 0x7ff0_0000 | errno.unwrap_or(1),
        action => u32::from(action),
    }
}

fn lines(policy: &LinuxSeccomp) -> String {
    let default = number(policy.default_action(), policy.default_errno_ret());
    let mut text = format!("default {default}\n");
    for arch in policy.architectures().as_ref().unwrap() {
        text += &format!("arch {}\n", *arch as u32);
    }
    for rule in policy.syscalls().as_ref().unwrap() {
        let action = number(rule.action(), rule.errno_ret());
        let conditions = rule.args().clone().unwrap_or_default();
        for name in rule.names().iter().filter(|_| action != default) {
            text += &format!("rule {name} {action}");
            for condition in &conditions {
                let (value, two) = (condition.value(), condition.value_two().unwrap_or_default());
                text += &format!(" {} {} {value} {two}", condition.index(), condition.op() as u32);
            }
            text += "\n";
        }
    }
    text
}

/// The policy without these names.
fn without(policy: &LinuxSeccomp, names: &BTreeSet<String>) -> LinuxSeccomp {
    let mut policy = policy.clone();
    let rules = policy.syscalls().clone().unwrap().into_iter().map(|mut rule| {
        rule.set_names(rule.names().iter().filter(|name| !names.contains(*name)).cloned().collect());
        rule
    });
    let rules = rules.filter(|rule: &LinuxSyscall| !rule.names().is_empty()).collect();
    policy.set_syscalls(Some(rules));
    policy
}

/// Values at and beside those that the policy compares with.
fn values(policy: &LinuxSeccomp) -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, u64::MAX, 1 << 32]);
    let rules = policy.syscalls().as_ref().unwrap();
    for condition in rules.iter().flat_map(|rule| rule.args().clone().unwrap_or_default()) {
        for value in [condition.value(), condition.value_two().unwrap_or_default()] {
            values.extend([value, value.wrapping_sub(1), value.wrapping_add(1)]);
            values.extend([value ^ (1 << 32), value | 0xffff_ffff_0000_0000, value & 0xffff_ffff, !value]);
        }
    }
    values.into_iter().collect()
}

/// Runs both programs on every number and value. Returns the number of inputs.
fn compare(peer: &Peer, policy: &LinuxSeccomp, archs: &[u32], sockets: bool) -> usize {
    let (_, unknown) = peer.compile(policy);
    let policy = without(policy, &unknown);
    let (theirs, _) = peer.compile(&policy);
    let ours = Program::compile(&policy).unwrap();
    let values = values(&policy);
    let default = number(policy.default_action(), policy.default_errno_ret());
    let mut inputs = 0;
    for arch in archs {
        let bits = if *arch == X86_64 { vec![0, 0x4000_0000] } else { vec![0] };
        for bit in bits {
            let numbers = (0..480).map(|number| number | bit).chain([bit | 0x0fff_ffff]);
            let answers: Vec<_> = numbers
                .map(|number| {
                    let call = Call { number: number as u32, arch: *arch, args: [0; 6] };
                    let calls = (0..6).flat_map(|index| values.iter().map(move |value| (index, *value)));
                    let calls = calls.map(|(index, value)| {
                        let mut call = call;
                        call.args = [value ^ 1; 6];
                        call.args[index] = value;
                        call
                    });
                    (number, [call].into_iter().chain(calls).collect::<Vec<_>>())
                })
                .collect();
            let newest = answers
                .iter()
                .filter(|(_, calls)| calls.iter().any(|call| run(&theirs, call) != default))
                .map(|(number, _)| *number)
                .max();
            for (number, calls) in &answers {
                // The arguments of 32-bit x86's `socketcall` are in memory, so the policy has no conditions
                // there.
                if !sockets && *arch == X86 && *number == 102 {
                    continue;
                }
                for call in calls {
                    let (their, our) = (run(&theirs, call), run(ours.instructions(), call));
                    let newer = newest.is_some_and(|newest| *number > newest) && their == default;
                    assert!(
                        our == their || (newer && our == ENOSYS),
                        "{call:x?}: ours {our:#x}, libseccomp's {their:#x}\n{}",
                        lines(&policy)
                    );
                    inputs += 1;
                }
            }
        }
    }
    inputs
}

const CAPABILITIES: [&[&str]; 5] = [
    &[],
    &["CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_CHROOT"],
    &["CAP_SYS_ADMIN"],
    &["CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_SYS_NICE", "CAP_BPF", "CAP_SYSLOG"],
    &[
        "CAP_SYS_ADMIN",
        "CAP_SYS_BOOT",
        "CAP_SYS_MODULE",
        "CAP_SYS_RAWIO",
        "CAP_DAC_READ_SEARCH",
        "CAP_PERFMON",
    ],
];

#[test]
fn dockers_policy_gives_the_same_answers() {
    let peer = Peer::build();
    for capabilities in CAPABILITIES {
        for (arch, archs) in [(Arch::X86_64, [X86_64, X86]), (Arch::Aarch64, [AARCH64, ARM])] {
            let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
            let conditions = Conditions { arch, kernel: (6, 1), capabilities };
            let policy = Profile::docker().unwrap().resolve(&conditions).unwrap();
            assert!(compare(&peer, &policy, &archs, true) > 10_000);
        }
    }
}

#[test]
fn other_architectures_have_no_calls() {
    let policy = Profile::docker().unwrap().resolve(&Conditions::of_this_machine(["CAP_CHOWN"])).unwrap();
    let (ours, (theirs, _)) = (Program::compile(&policy).unwrap(), Peer::build().compile(&policy));
    for arch in [0, AARCH64, 0x4000_0008, u32::MAX] {
        let call = Call { number: 0, arch, args: [0; 6] };
        assert_eq!(run(ours.instructions(), &call), run(&theirs, &call), "{arch:#x}");
        assert_eq!(run(ours.instructions(), &call), 0, "the thread ends");
    }
}

/// A generator of pseudorandom numbers, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// Calls of every architecture. None of them shares its number with another call.
const NAMES: [&str; 16] = [
    "read",
    "write",
    "open",
    "close",
    "mmap",
    "ioctl",
    "clone",
    "execve",
    "personality",
    "prctl",
    "readv",
    "mount",
    "futex",
    "waitid",
    "openat",
    "renameat2",
];

fn condition(random: &mut Random, index: usize) -> LinuxSeccompArg {
    let operator = random.of(&[
        Operator::ScmpCmpNe,
        Operator::ScmpCmpLt,
        Operator::ScmpCmpLe,
        Operator::ScmpCmpEq,
        Operator::ScmpCmpGe,
        Operator::ScmpCmpGt,
        Operator::ScmpCmpMaskedEq,
    ]);
    let value =
        random.of(&[0, 1, 40, 0x7e02_0000, 0x8000_0000, 0xffff_ffff, 1 << 32, (7 << 32) | 9, u64::MAX]);
    let builder = LinuxSeccompArgBuilder::default().index(index).value(value).op(operator);
    // The value must lie within the mask, or nothing is ever equal.
    let two = random.of(&[0, 1, 0x0200_0000, u64::MAX]) & value;
    builder.value_two(two).build().unwrap()
}

/// A random policy. With `once`, no call is in two rules.
fn policy(random: &mut Random, once: bool) -> LinuxSeccomp {
    let mut left = NAMES.to_vec();
    let (default, other) = match random.below(3) {
        0 => ((Action::ScmpActErrno, 1_u32), (Action::ScmpActAllow, 0_u32)),
        1 => ((Action::ScmpActAllow, 0), (Action::ScmpActErrno, 13)),
        _ => ((Action::ScmpActTrap, 0), (Action::ScmpActLog, 0)),
    };
    let rules = (0..1 + random.below(12)).map(|_| {
        let mut name = || match once {
            true if left.is_empty() => None,
            true => Some(left.swap_remove(random.below(left.len() as u64) as usize)),
            false => Some(random.of(&NAMES)),
        };
        let mut names: Vec<String> = (0..4).filter_map(|_| name().map(str::to_owned)).collect();
        names.truncate(1 + random.below(4) as usize);
        let mut indices: Vec<usize> = (0..6).filter(|_| random.below(4) == 0).collect();
        indices.truncate(3);
        let conditions: Vec<_> = indices.into_iter().map(|index| condition(random, index)).collect();
        let rule = LinuxSyscallBuilder::default().names(names).action(other.0).errno_ret(other.1);
        if conditions.is_empty() { rule } else { rule.args(conditions) }.build().unwrap()
    });
    let rules = rules.collect::<Vec<_>>();
    LinuxSeccompBuilder::default()
        .default_action(default.0)
        .default_errno_ret(default.1)
        .architectures(vec![
            oci_spec::runtime::Arch::ScmpArchX86_64,
            oci_spec::runtime::Arch::ScmpArchX86,
            oci_spec::runtime::Arch::ScmpArchX32,
        ])
        .syscalls(rules)
        .build()
        .unwrap()
}

#[test]
fn random_policies_give_the_same_answers() {
    let peer = Peer::build();
    let mut random = Random(0x5eed_1234_abcd_0001);
    for _ in 0..25 {
        compare(&peer, &policy(&mut random, true), &[X86_64, X86], false);
    }
}

/// Whether a condition holds, by OCI runtime-spec.
fn holds(condition: &LinuxSeccompArg, value: u64) -> bool {
    let wanted = condition.value();
    match condition.op() {
        Operator::ScmpCmpNe => value != wanted,
        Operator::ScmpCmpLt => value < wanted,
        Operator::ScmpCmpLe => value <= wanted,
        Operator::ScmpCmpEq => value == wanted,
        Operator::ScmpCmpGe => value >= wanted,
        Operator::ScmpCmpGt => value > wanted,
        Operator::ScmpCmpMaskedEq => value & wanted == condition.value_two().unwrap_or_default(),
    }
}

/// libseccomp 2.5 merges ranges of one argument from several rules into wrong answers. So these programs are
/// compared with the policy itself.
#[test]
fn several_rules_for_a_call_are_alternatives() {
    let mut random = Random(0x0dd_ba11_0000_0007);
    for _ in 0..200 {
        let policy = policy(&mut random, false);
        let program = Program::compile(&policy).unwrap();
        let default = number(policy.default_action(), policy.default_errno_ret());
        let values = values(&policy);
        for (name, number_of) in [("read", 0), ("ioctl", 16), ("execve", 59), ("renameat2", 316)] {
            let rules =
                policy.syscalls().iter().flatten().filter(|rule| rule.names().iter().any(|n| n == name));
            let rules: Vec<_> = rules.collect();
            for _ in 0..200 {
                let args = [(); 6].map(|()| random.of(&values));
                let call = Call { number: number_of, arch: X86_64, args };
                let matching = rules.iter().find(|rule| {
                    let conditions = rule.args().as_deref().unwrap_or_default();
                    conditions.iter().all(|condition| holds(condition, args[condition.index()]))
                });
                let expected = matching.map_or(default, |rule| number(rule.action(), rule.errno_ret()));
                let answer = run(program.instructions(), &call);
                let newer = rules.is_empty() && answer == ENOSYS;
                assert!(answer == expected || newer, "{name} {args:x?}\n{}", lines(&policy));
            }
        }
    }
}
