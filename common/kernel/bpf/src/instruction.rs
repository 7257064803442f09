/// Opcodes: class, source and operation in one byte (Documentation/bpf/standardization/instruction-set.rst).
/// In the names, `NUMBER` means that the source is the immediate operand, and `REGISTER` that it is a
/// register.
pub mod opcode {
    #![allow(missing_docs, reason = "the kernel's documentation has them")]
    pub const LOAD_32: u8 = 0x61;
    pub const LOAD_64: u8 = 0x79;
    pub const LOAD_NUMBER_64: u8 = 0x18;
    pub const STORE_16: u8 = 0x6b;
    pub const STORE_32: u8 = 0x63;
    pub const STORE_64: u8 = 0x7b;
    pub const STORE_NUMBER_32: u8 = 0x62;
    pub const ADD: u8 = 0x07;
    pub const MOVE: u8 = 0xb7;
    pub const MOVE_REGISTER: u8 = 0xbf;
    pub const AND_32: u8 = 0x54;
    pub const SHIFT_RIGHT_32: u8 = 0x74;
    pub const JUMP: u8 = 0x05;
    pub const JUMP_EQUAL: u8 = 0x15;
    pub const JUMP_NOT_EQUAL: u8 = 0x55;
    pub const JUMP_EQUAL_32: u8 = 0x16;
    pub const JUMP_NOT_EQUAL_32: u8 = 0x56;
    pub const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
    pub const CALL: u8 = 0x85;
    pub const EXIT: u8 = 0x95;
}

/// Encodes one instruction: eight bytes (`struct bpf_insn`).
pub fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let registers =
        if cfg!(target_endian = "little") { source << 4 | destination } else { destination << 4 | source };
    let [offset, immediate] = [u64::from(offset as u16), u64::from(immediate as u32)];
    match cfg!(target_endian = "little") {
        true => u64::from(code) | u64::from(registers) << 8 | offset << 16 | immediate << 32,
        false => u64::from(code) << 56 | u64::from(registers) << 48 | offset << 32 | immediate,
    }
}

/// The name of a jump's target.
type Label = &'static str;

/// Writes programs whose jumps lead to labels.
#[derive(Debug, Default)]
pub struct Assembler {
    program: Vec<u64>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

impl Assembler {
    /// Adds an instruction that does not jump.
    pub fn push(&mut self, code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> &mut Self {
        self.program.push(instruction(code, destination, source, offset, immediate));
        self
    }

    /// Adds a jump to `label`. The opcode compares the register with the number and decides whether to jump.
    pub fn jump(&mut self, code: u8, register: u8, immediate: i32, label: Label) -> &mut Self {
        self.jumps.push((self.program.len(), label));
        self.push(code, register, 0, 0, immediate)
    }

    /// Makes the next instruction the target of jumps to `label`. All jumps to it must come before, because
    /// loops are not supported.
    pub fn label(&mut self, label: Label) -> &mut Self {
        self.labels.push((label, self.program.len()));
        self
    }

    /// The finished program.
    ///
    /// # Panics
    /// When a jump's label does not exist behind it. That is a mistake in the program.
    pub fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let end = self.labels.iter().find(|(name, _)| *name == label).map(|(_, end)| *end);
            let distance =
                end.and_then(|end| end.checked_sub(at + 1)).unwrap_or_else(|| panic!("no label {label}"));
            self.program[at] |= (distance as u64) << if cfg!(target_endian = "little") { 16 } else { 32 };
        }
        self.program
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_skip_what_is_between() {
        let mut assembler = Assembler::default();
        assembler.jump(opcode::JUMP_EQUAL, 1, 7, "end").push(opcode::MOVE, 0, 0, 0, 1).label("end").push(
            opcode::EXIT,
            0,
            0,
            0,
            0,
        );
        let expected = [
            instruction(opcode::JUMP_EQUAL, 1, 0, 1, 7),
            instruction(opcode::MOVE, 0, 0, 0, 1),
            instruction(opcode::EXIT, 0, 0, 0, 0),
        ];
        assert_eq!(assembler.finish(), expected);
    }
}
