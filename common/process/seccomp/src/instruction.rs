//! Instructions of classic BPF, in the kernel's form for seccomp
//! (Documentation/userspace-api/seccomp_filter.rst).

use nix::libc;

/// `struct sock_filter`: one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip if a comparison holds.
    pub jt: u8,
    /// How many instructions to skip if it does not hold.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl Instruction {
    /// The length of an instruction.
    pub(crate) const BYTES: usize = size_of::<Self>();

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let ([a, b], [c, d, e, f]) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [a, b, self.jt, self.jf, c, d, e, f]
    }

    pub(crate) fn from_bytes([a, b, jt, jf, c, d, e, f]: &[u8; Self::BYTES]) -> Self {
        let (code, k) = (u16::from_ne_bytes([*a, *b]), u32::from_ne_bytes([*c, *d, *e, *f]));
        Self { code, jt: *jt, jf: *jf, k }
    }
}

/// The offset of the system call's number in `struct seccomp_data`.
pub(crate) const NUMBER: u32 = 0;
/// The offset of the architecture.
pub(crate) const ARCHITECTURE: u32 = 4;
/// The offset of the arguments, 8 bytes each.
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

/// Keeps the bits of the accumulator that are set in `mask`.
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

/// Skips `yes` instructions if the comparison holds, otherwise `no`.
pub(crate) fn jump(test: Test, constant: u32, yes: u8, no: u8) -> Instruction {
    let code = match test {
        Test::Equal => libc::BPF_JEQ,
        Test::Greater => libc::BPF_JGT,
        Test::AtLeast => libc::BPF_JGE,
    };
    Instruction { jt: yes, jf: no, ..plain(libc::BPF_JMP | libc::BPF_K | code, constant) }
}

/// Runs `then` if the comparison holds, otherwise `otherwise`. Both must end the program, because nothing
/// follows them.
pub(crate) fn branch(
    test: Test,
    constant: u32,
    then: Vec<Instruction>,
    otherwise: Vec<Instruction>,
) -> Vec<Instruction> {
    // A conditional jump skips at most 255 instructions.
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
