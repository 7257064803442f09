//! Instructions of classic BPF, as the kernel takes them for seccomp (Documentation/userspace-api/seccomp_filter.rst).

use nix::libc;

/// `struct sock_filter`: one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip where a comparison holds.
    pub jt: u8,
    /// How many to skip where it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Where `struct seccomp_data` has the number of the system call.
pub(crate) const NUMBER: u32 = 0;
/// Where it has the architecture.
pub(crate) const ARCHITECTURE: u32 = 4;
/// Where it has the arguments, 8 bytes each.
pub(crate) const ARGUMENTS: u32 = 16;

/// A comparison of the accumulator with a constant, both unsigned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Test {
    Equal,
    Greater,
    AtLeast,
}

/// Loads 32 bits of `struct seccomp_data` into the accumulator.
pub(crate) fn load(offset: u32) -> Instruction {
    plain(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

/// Keeps those bits of the accumulator that are set in `mask`.
pub(crate) fn and(mask: u32) -> Instruction {
    plain(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask)
}

/// Ends the program with an action.
pub(crate) fn end(action: u32) -> Instruction {
    plain(libc::BPF_RET | libc::BPF_K, action)
}

/// Skips `count` instructions.
pub(crate) fn skip(count: usize) -> Instruction {
    plain(libc::BPF_JMP | libc::BPF_JA, u32::try_from(count).unwrap_or(u32::MAX))
}

/// Skips `yes` instructions where the comparison holds, else `no`.
pub(crate) fn jump(test: Test, constant: u32, yes: u8, no: u8) -> Instruction {
    let code = match test {
        Test::Equal => libc::BPF_JEQ,
        Test::Greater => libc::BPF_JGT,
        Test::AtLeast => libc::BPF_JGE,
    };
    Instruction { jt: yes, jf: no, ..plain(libc::BPF_JMP | libc::BPF_K | code, constant) }
}

/// `then` where the comparison holds, else `otherwise`. Both must end the program: nothing comes behind them.
pub(crate) fn branch(
    test: Test,
    constant: u32,
    then: Vec<Instruction>,
    otherwise: Vec<Instruction>,
) -> Vec<Instruction> {
    // A jump by comparison reaches 255 instructions far.
    let mut program = match u8::try_from(otherwise.len()) {
        Ok(length) => vec![jump(test, constant, length, 0)],
        Err(_) => vec![jump(test, constant, 0, 1), skip(otherwise.len())],
    };
    program.extend(otherwise);
    program.extend(then);
    program
}

fn plain(code: u32, k: u32) -> Instruction {
    // Every code of classic BPF has 16 bits.
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}
