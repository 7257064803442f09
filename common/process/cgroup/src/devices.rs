//! Which devices the processes of a cgroup may use: a BPF program that the kernel asks each time (bpf(2),
//! BPF_PROG_TYPE_CGROUP_DEVICE). It works on the hierarchy of version 2 also where controllers are on version 1.

use std::{
    ffi::c_int,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    sync::OnceLock,
};

use nix::libc;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType as Type};
use rustix::io::Errno;

use crate::{
    Group,
    error::{Result, at},
};

/// A program for the kernel's virtual machine: eight bytes an instruction (`struct bpf_insn`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(Vec<u64>);

/// `struct bpf_cgroup_dev_ctx`: `access_type` is the access in the upper 16 bits and the type in the lower ones.
const ACCESS_TYPE: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;

/// `BPF_DEVCG_*` of linux/bpf.h.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// Registers: the answer, the context that the kernel gives, and what is loaded of it.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR_NUMBER: u8 = 4;
const MINOR_NUMBER: u8 = 5;
const SCRATCH: u8 = 6;

/// Opcodes: class, source and operation in one byte (Documentation/bpf/standardization/instruction-set.rst).
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let registers =
        if cfg!(target_endian = "little") { source << 4 | destination } else { destination << 4 | source };
    let [offset, immediate] = [u64::from(offset as u16), u64::from(immediate as u32)];
    match cfg!(target_endian = "little") {
        true => u64::from(code) | u64::from(registers) << 8 | offset << 16 | immediate << 32,
        false => u64::from(code) << 56 | u64::from(registers) << 48 | offset << 32 | immediate,
    }
}

/// Docker's list: nothing but the devices that every container has, and to make any node without being able to open it.
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
    /// Compiles the rules of OCI runtime-spec (config-linux.md, "Allowed Device list"): the last one that speaks of a use
    /// decides. What no rule speaks of is denied.
    pub fn compile(rules: &[LinuxDeviceCgroup]) -> Self {
        let mut program = vec![
            instruction(LOAD_WORD, KIND, CONTEXT, ACCESS_TYPE, 0),
            instruction(AND_32, KIND, 0, 0, 0xffff),
            instruction(LOAD_WORD, ACCESS, CONTEXT, ACCESS_TYPE, 0),
            instruction(SHIFT_RIGHT_32, ACCESS, 0, 0, 16),
            instruction(LOAD_WORD, MAJOR_NUMBER, CONTEXT, MAJOR, 0),
            instruction(LOAD_WORD, MINOR_NUMBER, CONTEXT, MINOR, 0),
        ];
        for rule in rules.iter().rev() {
            let steps = conditions(rule);
            program.extend(with_answer(&steps, rule.allow()));
            if steps.is_empty() {
                // It speaks of everything; the kernel refuses a program with instructions that are never reached.
                return Self(program);
            }
        }
        program.extend(with_answer(&[], false));
        Self(program)
    }

    /// Attaches the program to the cgroup. It stays as long as the cgroup does.
    ///
    /// # Errors
    /// EPERM without CAP_BPF or CAP_SYS_ADMIN in the first user namespace; EINVAL on a kernel without these programs.
    pub fn attach(&self, group: &Group) -> Result<()> {
        let attach = || {
            let program = self.load()?;
            let attributes = Attach {
                target: group.as_fd().as_raw_fd() as u32,
                program: program.as_raw_fd() as u32,
                kind: BPF_CGROUP_DEVICE,
                flags: BPF_F_ALLOW_MULTI,
            };
            bpf(BPF_PROG_ATTACH, &attributes).map(drop)
        };
        attach().map_err(at("limit", format_args!("devices of cgroup {:?}", group.path())))
    }

    fn load(&self) -> std::result::Result<OwnedFd, Errno> {
        const LICENSE: &std::ffi::CStr = c"MIT";
        let attributes = Load {
            kind: BPF_PROG_TYPE_CGROUP_DEVICE,
            count: u32::try_from(self.0.len()).map_err(|_| Errno::TOOBIG)?,
            instructions: self.0.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            log: [0; 4],
        };
        let descriptor = bpf(BPF_PROG_LOAD, &attributes)?;
        // SAFETY: BPF_PROG_LOAD returns a new descriptor, which nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

/// Whether this process can limit devices by a program.
///
/// # Errors
/// When that cannot be told.
pub(crate) fn takes_programs() -> Result<bool> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let loaded = Program::compile(&[]).load();
    let takes = match loaded {
        // Not allowed; no such programs; no bpf(2).
        Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::NOSYS) => false,
        loaded => loaded.map(|_| true).map_err(at("limit", "devices"))?,
    };
    Ok(*KNOWN.get_or_init(|| takes))
}

/// What has to be so for the rule to speak of a use: each of them jumps where it is not.
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
            // All that is asked for is in the rule.
            steps.extend([
                instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0),
                instruction(AND_32, SCRATCH, 0, 0, access),
                instruction(JUMP_NOT_EQUAL_REGISTER, SCRATCH, ACCESS, 0, 0),
            ]);
        } else {
            // Some of what is asked for is in the rule.
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

/// The conditions with the answer behind them. Where one does not hold, the program goes on behind that.
fn with_answer(conditions: &[u64], allow: bool) -> Vec<u64> {
    let answer = [instruction(MOVE, ANSWER, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)];
    let behind = |at| conditions.len() - at - 1 + answer.len();
    let steps = conditions.iter().enumerate().map(|(at, step)| with_offset(*step, behind(at)));
    steps.chain(answer).collect()
}

/// A jump with where it leads: `distance` instructions behind the next one. Other instructions are left as they are.
fn with_offset(step: u64, distance: usize) -> u64 {
    let code = (if cfg!(target_endian = "little") { step } else { step >> 56 }) as u8;
    if ![JUMP_EQUAL, JUMP_NOT_EQUAL, JUMP_NOT_EQUAL_REGISTER].contains(&code) {
        return step;
    }
    // A rule has fewer than ten instructions.
    let distance = distance as u64;
    step | distance << (if cfg!(target_endian = "little") { 16 } else { 32 })
}

/// Commands and kinds of bpf(2), linux/bpf.h.
const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    /// Level, size and buffer of the verifier's log, and the kernel's version: nothing.
    log: [u64; 4],
}

/// The same for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn bpf<T>(command: c_int, attributes: &T) -> std::result::Result<c_int, Errno> {
    // SAFETY: the kernel reads `attributes` and what it points to, all of which outlives the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    match c_int::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
