//! Which devices the processes of a cgroup may use: a BPF program that the kernel runs on each access
//! (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE). It works on the hierarchy of version 2 even if controllers are on
//! version 1.

use std::sync::OnceLock;

use bpf::{
    Attachment, instruction,
    opcode::{
        AND_32, EXIT, JUMP_EQUAL, JUMP_NOT_EQUAL, JUMP_NOT_EQUAL_REGISTER, LOAD_32, MOVE, MOVE_REGISTER,
        SHIFT_RIGHT_32,
    },
};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType as Type};
use rustix::io::Errno;

use crate::{
    Group,
    error::{Result, at},
};

/// A program for the kernel's virtual machine: eight bytes for each instruction (`struct bpf_insn`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(Vec<u64>);

/// Offsets in `struct bpf_cgroup_dev_ctx`. The upper 16 bits of `access_type` are the access, the lower ones
/// the type.
const ACCESS_TYPE: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;

/// `BPF_DEVCG_*` of linux/bpf.h.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// Registers: the answer, the kernel's context, and what is loaded from it.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR_NUMBER: u8 = 4;
const MINOR_NUMBER: u8 = 5;
const SCRATCH: u8 = 6;

/// Docker's list: the devices that every container has. Other nodes can be made, but not opened.
pub fn docker() -> Vec<LinuxDeviceCgroup> {
    let rule = |allow, kind, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
        if let Some(major) = major {
            rule = rule.major(major);
        }
        if let Some(minor) = minor {
            rule = rule.minor(minor);
        }
        rule.build().unwrap_or_default()
    };
    let mut list = vec![
        rule(false, Type::A, None, None, "rwm"),
        rule(true, Type::C, None, None, "m"),
        rule(true, Type::B, None, None, "m"),
    ];
    // null, zero, full, random, urandom, tty, console, ptmx (kernel, admin-guide/devices.txt).
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        list.push(rule(true, Type::C, Some(major), Some(minor), "rwm"));
    }
    // Terminals of a devpts.
    list.push(rule(true, Type::C, Some(136), None, "rwm"));
    list
}

impl Program {
    /// Compiles the rules of OCI runtime-spec (config-linux.md, "Allowed Device list"): the last rule that
    /// matches an access decides. An access that no rule matches is denied.
    pub fn compile(rules: &[LinuxDeviceCgroup]) -> Self {
        let mut program = vec![
            instruction(LOAD_32, KIND, CONTEXT, ACCESS_TYPE, 0),
            instruction(AND_32, KIND, 0, 0, 0xffff),
            instruction(LOAD_32, ACCESS, CONTEXT, ACCESS_TYPE, 0),
            instruction(SHIFT_RIGHT_32, ACCESS, 0, 0, 16),
            instruction(LOAD_32, MAJOR_NUMBER, CONTEXT, MAJOR, 0),
            instruction(LOAD_32, MINOR_NUMBER, CONTEXT, MINOR, 0),
        ];
        for rule in rules.iter().rev() {
            let steps = conditions(rule);
            program.extend(with_answer(&steps, rule.allow()));
            if steps.is_empty() {
                // The rule matches everything. The kernel rejects a program with unreachable instructions.
                return Self(program);
            }
        }
        program.extend(with_answer(&[], false));
        Self(program)
    }

    /// Attaches the program to the cgroup. It stays as long as the cgroup exists. Other programs stay too, so
    /// that nothing that was denied is allowed again.
    ///
    /// # Errors
    /// EPERM without CAP_BPF or CAP_SYS_ADMIN in the first user namespace; EINVAL on a kernel without these programs.
    pub fn attach(&self, group: &Group) -> Result<()> {
        self.put(group, false)
    }

    /// Attaches the program, and detaches the earlier ones of this kind: the last list counts.
    ///
    /// # Errors
    /// As [`Program::attach`].
    pub fn replace(&self, group: &Group) -> Result<()> {
        self.put(group, true)
    }

    fn put(&self, group: &Group, replaces: bool) -> Result<()> {
        let put = || {
            let program = self.load()?;
            let tag = program.tag()?;
            let (mut is_attached, mut others) = (false, Vec::new());
            for (before, _) in bpf::Program::attached(group, Attachment::Device, NAME)? {
                match before.tag()? == tag {
                    true => is_attached = true,
                    false => others.push(before),
                }
            }
            // The same program, attached earlier, is enough: a cgroup has room for 64.
            if !is_attached {
                program.attach(group, Attachment::Device)?;
            }
            // Afterwards, so that the cgroup is never without a list.
            others.iter().filter(|_| replaces).try_for_each(|other| other.detach(group, Attachment::Device))
        };
        put().map_err(at::<Errno>("limit", format_args!("devices of cgroup {:?}", group.path())))
    }

    fn load(&self) -> std::result::Result<bpf::Program, Errno> {
        bpf::Program::load(NAME, Attachment::Device, &self.0)
    }
}

/// The name that the kernel shows for the program.
const NAME: &str = "stave_devices";

/// Whether this process can limit devices with a program.
///
/// # Errors
/// When the kernel answers with another error.
pub(crate) fn takes_programs() -> Result<bool> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let takes = bpf::Program::can_load(Attachment::Device).map_err(at::<Errno>("limit", "devices"))?;
    Ok(*KNOWN.get_or_init(|| takes))
}

/// The conditions under which the rule matches an access. Each condition jumps if it does not hold.
pub(crate) fn conditions(rule: &LinuxDeviceCgroup) -> Vec<u64> {
    let mut steps = match rule.typ().unwrap_or(Type::A) {
        Type::B => vec![instruction(JUMP_NOT_EQUAL, KIND, 0, 0, BLOCK)],
        Type::C | Type::U => vec![instruction(JUMP_NOT_EQUAL, KIND, 0, 0, CHARACTER)],
        _ => Vec::new(),
    };
    let mut access = 0;
    for letter in rule.access().as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => 0,
        };
    }
    if access != READ | WRITE | MKNOD {
        if rule.allow() {
            // The rule must contain every requested access.
            steps.extend([
                instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0),
                instruction(AND_32, SCRATCH, 0, 0, access),
                instruction(JUMP_NOT_EQUAL_REGISTER, SCRATCH, ACCESS, 0, 0),
            ]);
        } else {
            // The rule must contain one of the requested accesses.
            steps.extend([
                instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0),
                instruction(AND_32, SCRATCH, 0, 0, access),
                instruction(JUMP_EQUAL, SCRATCH, 0, 0, 0),
            ]);
        }
    }
    for (register, number) in [(MAJOR_NUMBER, rule.major()), (MINOR_NUMBER, rule.minor())] {
        if let Some(number) = number.filter(|number| *number >= 0) {
            steps.push(instruction(JUMP_NOT_EQUAL, register, 0, 0, number as i32));
        }
    }
    steps
}

/// The conditions, followed by the answer. If a condition does not hold, the program continues behind the
/// answer.
fn with_answer(conditions: &[u64], allow: bool) -> Vec<u64> {
    let answer = [instruction(MOVE, ANSWER, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)];
    let behind = |at| conditions.len() - at - 1 + answer.len();
    let steps = conditions.iter().enumerate().map(|(at, step)| with_offset(*step, behind(at)));
    steps.chain(answer).collect()
}

/// Sets the target of a jump: `distance` instructions behind the next one. Other instructions stay as they
/// are.
fn with_offset(step: u64, distance: usize) -> u64 {
    let code = (if cfg!(target_endian = "little") { step } else { step >> 56 }) as u8;
    if ![JUMP_EQUAL, JUMP_NOT_EQUAL, JUMP_NOT_EQUAL_REGISTER].contains(&code) {
        return step;
    }
    // A rule has fewer than ten instructions.
    let distance = distance as u64;
    step | distance << (if cfg!(target_endian = "little") { 16 } else { 32 })
}
