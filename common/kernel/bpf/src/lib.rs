//! Programs and maps of the kernel's virtual machine (bpf(2)), for cgroups. They are written in its instructions, so nothing
//! compiles them; and nobody needs to mount a file system for them: what is attached is found again by its name.

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

/// The longest name of a program or a map that the kernel keeps, in bytes.
const NAME: usize = 15;

/// A name as the kernel takes it.
fn name(text: &str) -> [u8; NAME + 1] {
    let mut name = [0; NAME + 1];
    name.iter_mut().take(NAME).zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    name
}
