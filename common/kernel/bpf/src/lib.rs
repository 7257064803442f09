//! BPF programs and maps for cgroups (bpf(2)).
//!
//! Programs are written as BPF instructions, so no compiler is needed. An attached program is found again by
//! its name, so no bpf file system needs to be mounted.

mod call;
mod cookie;
mod instruction;
mod map;
mod program;

pub use cookie::namespace_cookie;
pub use instruction::{Assembler, instruction, opcode};
pub use map::Map;
pub use program::{Attachment, Program};
pub use rustix::io::Errno;

/// The longest name of a program or map, in bytes, without the terminating zero.
const NAME: usize = 15;

/// A name in the kernel's form: cut to [`NAME`] bytes and filled up with zeros.
fn name(text: &str) -> [u8; NAME + 1] {
    let mut name = [0; NAME + 1];
    name.iter_mut().take(NAME).zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    name
}
