//! Seccomp: which system calls a container may make.
//!
//! A [`Profile`] is a policy as people write it, in Docker's JSON form, with conditions on architecture,
//! capabilities and kernel. [`Profile::resolve`] decides these conditions, and returns the policy of OCI
//! runtime-spec (config-linux.md, "Seccomp"). [`Program::compile`] makes the kernel's program from that
//! policy (seccomp(2), classic BPF), and [`Program::install`] installs it in the calling thread.
//!
//! ```
//! use seccomp::{Conditions, Profile, Program};
//!
//! let conditions = Conditions::of_this_machine(["CAP_CHOWN"]);
//! let policy = Profile::docker()?.resolve(&conditions)?;
//! let program = Program::compile(&policy)?;
//! assert!(program.length() < 4096, "the kernel takes no longer one");
//! # Ok::<(), seccomp::Error>(())
//! ```
//!
//! The record "seccomp" in docs/decisions says why the rules are compiled here and not by a library.

mod arch;
mod argument;
mod compile;
mod install;
mod instruction;
mod profile;

pub use arch::Arch;
pub use compile::{Program, unknown_names};
pub use instruction::Instruction;
pub use profile::{Conditions, Profile};

/// Why a policy cannot be read or compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not JSON, or not of this form.
    #[error("read seccomp profile: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Two members exclude each other.
    #[error("seccomp profile: use `{0}` or `{1}`, not both")]
    Both(&'static str, &'static str),
    /// A rule of a profile names no system call.
    #[error("seccomp profile: rule {0} names no system call")]
    NoNames(usize),
    /// A rule checks an argument that no system call has.
    #[error("seccomp rule for \"{name}\": argument {index} does not exist, the last one is 5")]
    NoArgument {
        /// The system call.
        name: String,
        /// The index of the argument.
        index: usize,
    },
    /// `SCMP_ACT_NOTIFY` is the default: the process that answers could make no system call itself.
    #[error("seccomp policy: SCMP_ACT_NOTIFY cannot be the default action")]
    NotifyByDefault,
    /// A name that is no error number.
    #[error("seccomp profile: {0:?} is neither the name of an error nor its number")]
    NoErrno(String),
    /// An error number that the kernel does not return.
    #[error("seccomp policy: error number {0} is above 4095")]
    Errno(u32),
    /// The program is longer than the 4096 instructions that the kernel accepts.
    #[error("seccomp policy: the program has {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}
